/**
 * Runs the scripted app in a process of its own: `scripted-process.ts express` or `… fastify <setup>`, on the database
 * of DATABASE_URL.
 *
 * @module
 */
import pg from 'pg';
import { serve } from './http.js';
import { scriptedExpress } from './scripted-express.js';
import { scriptedFastify } from './scripted-fastify.js';

const [framework, setup = '{}'] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
pool.on('error', () => {});

if (framework === 'fastify') {
  const { app } = await scriptedFastify(pool, JSON.parse(setup));
  console.log(await app.listen({ host: '127.0.0.1', port: 0 }));
} else {
  console.log((await serve(scriptedExpress(pool).app)).url);
}
