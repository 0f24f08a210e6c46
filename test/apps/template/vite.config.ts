import { defineConfig } from 'vite';

export default defineConfig({
  root: 'client',
  resolve: { alias: { '@shared': new URL('./shared', import.meta.url).pathname } },
  build: { outDir: '../dist/public', emptyOutDir: true },
});
