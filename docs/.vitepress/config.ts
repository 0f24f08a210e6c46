import { dirname, join, normalize } from 'node:path';
import { defineConfig, type MarkdownRenderer } from 'vitepress';

const repository = 'https://github.com/connect-drizzle/connect-drizzle';

const icon =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#3451b2"/><path d="M7 20.5 10.5 9m4 11.5L18 9m4 11.5L25.5 9M6.5 24.5h19" fill="none" stroke="#fff" stroke-width="2.5" stroke-linecap="round"/></svg>';

const page = (text: string, link: string) => ({ text, link: `/${link}` });

export default defineConfig({
  title: 'connect-drizzle',
  description: 'A session store for express-session on PostgreSQL through Drizzle',
  head: [['link', { rel: 'icon', href: `data:image/svg+xml,${encodeURIComponent(icon)}` }]],
  cleanUrls: true,
  lastUpdated: false,
  ignoreDeadLinks: 'localhostLinks',
  markdown: {
    // The same anchors as on GitHub, so that links work in both places.
    anchor: { slugify },
    config(markdown) {
      linkToRepository(markdown);
      drawDiagrams(markdown);
    },
  },
  themeConfig: {
    search: { provider: 'local', options: { miniSearch: { options: { tokenize } } } },
    outline: 'deep',
    socialLinks: [{ icon: 'github', link: repository }],
    editLink: { pattern: `${repository}/edit/main/docs/:path` },
    nav: [
      page('Getting started', 'getting-started'),
      page('Guides', 'guides/passport'),
      page('Options', 'options'),
      page('Troubleshooting', 'troubleshooting'),
    ],
    sidebar: [
      {
        text: 'Start',
        items: [
          page('Getting started', 'getting-started'),
          page('Create the table', 'table'),
          page('Production check list', 'production'),
        ],
      },
      {
        text: 'Guides',
        items: [
          page('Passport', 'guides/passport'),
          page('“Remember me”', 'guides/remember-me'),
          page('Your devices, log-out everywhere', 'guides/devices'),
          page('Websockets and socket.io', 'guides/websockets'),
          page('CSRF and flash messages', 'guides/csrf-flash'),
          page('NestJS', 'guides/nestjs'),
          page('Fastify', 'guides/fastify'),
          page('Koa', 'guides/koa'),
          page('Bun', 'guides/bun'),
          page('Docker Compose', 'guides/docker-compose'),
          page('Neon, Supabase, serverless', 'guides/serverless'),
          page('Several apps on one database', 'guides/several-apps'),
          page('Multi-tenant', 'guides/multi-tenant'),
          page('Testing your app', 'guides/testing'),
          page('Bundling a server', 'bundling'),
          page('Metrics: Prometheus and Grafana', 'guides/metrics'),
          page('OpenTelemetry and Sentry', 'observability'),
        ],
      },
      {
        text: 'Reference',
        items: [
          page('Options', 'options'),
          page('Methods and events', 'methods'),
          page('Sources', 'sources'),
          page('Engines, poolers, drivers, runtimes', 'engines'),
          page('Limitations', 'limitations'),
          page('API', 'reference/'),
        ],
      },
      {
        text: 'Operate',
        items: [
          page('Troubleshooting', 'troubleshooting'),
          page('Command line', 'operations'),
          page('Admin page', 'admin'),
          page('High availability', 'high-availability'),
          page('Sizing', 'sizing'),
          page('Migrating', 'migrating'),
          page('Upgrading', 'upgrading'),
        ],
      },
      {
        text: 'How it works',
        items: [
          page('Concurrency', 'concurrency'),
          page('Realtime', 'realtime'),
          page('Reliability', 'reliability'),
          page('Performance', 'performance'),
          page('Architecture', 'architecture'),
        ],
      },
    ],
  },
});

/**
 * Splits a text into words for the search. A word with a hyphen is also added without it: the search for "logout" finds
 * "log-out".
 * VitePress copies this function into the page, so it cannot use imports.
 */
function tokenize(text: string): string[] {
  const words = text.split(/[\n\r\p{Z}\p{P}]+/u);
  const joined = text.match(/\p{L}+(?:-\p{L}+)+/gu) ?? [];
  return [...words, ...joined.map((word) => word.replaceAll('-', ''))];
}

/** Creates the same anchor for a heading as GitHub. */
function slugify(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}

/** Changes links out of `docs/`, such as `../README.md`, to links to the repository. */
function linkToRepository(markdown: MarkdownRenderer): void {
  markdown.core.ruler.push('link_to_repository', ({ tokens, env }) => {
    const folder = join('docs', dirname(String(env.relativePath ?? '')));
    for (const token of tokens.flatMap(({ children }) => children ?? [])) {
      const link = token.type === 'link_open' ? token.attrGet('href') : null;
      if (link === null || /^(\w+:|#|\/)/.test(link)) continue;
      const path = normalize(join(folder, link));
      if (!path.startsWith('docs/')) token.attrSet('href', `${repository}/blob/main/${path}`);
    }
  });
}

/** Shows code blocks in the language `mermaid` as diagrams. */
function drawDiagrams(markdown: MarkdownRenderer): void {
  const { fence } = markdown.renderer.rules;
  markdown.renderer.rules.fence = (tokens, index, options, env, self) => {
    const token = tokens[index];
    if (token?.info.trim() !== 'mermaid') {
      return fence?.(tokens, index, options, env, self) ?? '';
    }
    return `<ClientOnly><MermaidDiagram code="${encodeURIComponent(token.content)}" /></ClientOnly>\n`;
  };
}
