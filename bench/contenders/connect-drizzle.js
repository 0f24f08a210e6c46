import { on } from 'node:events';
import { existsSync } from 'node:fs';
import { NUMBER_PLACEHOLDER, numberText, sidOf, template } from '../sessions.js';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

const SYNCED_WITHIN_MILLISECONDS = 30_000;

/** Saves in flight at once while filling. */
const FILL_BATCH = 1_000;

/** The id of a sid, as in the store. */
const ID = `translate(encode(sha256(convert_to(sid, 'UTF8')), 'base64'), '+/=', '-_')`;

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['connect-drizzle', 'drizzle-orm', 'pg'],
  async open(context) {
    if (!existsSync(new URL('../../dist/index.js', import.meta.url))) {
      throw new Error('it is not built: npm run build');
    }
    const { DrizzleStore, idOf } = await import('../../dist/index.js');
    const { pool, statements } = openPool(context);
    const table = context.options.tableName ?? 'sessions';
    const store = new DrizzleStore(pool, {
      createTableIfMissing: true,
      pruneSessionInterval: false,
      ...context.options,
    });
    await store.ready();
    return {
      store,
      statements,
      ...tableOf(pool, table),
      fill: context.options.encryptionKeys
        ? fillThrough(store)
        : filler(
            pool,
            `with ${FRESH} insert into ${table} (id, data, expires_at)
             select ${ID}, data, expires_at from fresh order by 1`,
          ),
      prune: () => store.pruneSessions(),
      stats: () => store.stats(),
      async synced() {
        if (store.stats().sync !== 'down') return;
        const signal = AbortSignal.timeout(SYNCED_WITHIN_MILLISECONDS);
        try {
          for await (const [state] of on(store, 'sync', { signal })) if (state === 'up') return;
        } catch (cause) {
          throw new Error('sync did not come up', { cause });
        }
      },
      idOf,
      async close() {
        await store.close();
        await pool.end();
      },
    };
  },
};

/**
 * Fills the table through the store, because only the store can encrypt.
 *
 * @param {import('express-session').Store} store
 * @returns {import('./index.js').Opened['fill']}
 */
function fillThrough(store) {
  return async ({ first, last, bytes }) => {
    const text = template(bytes);
    for (let from = first; from <= last; from += FILL_BATCH) {
      const writes = [];
      for (let i = from; i < from + FILL_BATCH && i <= last; i += 1) {
        const data = JSON.parse(text.replace(NUMBER_PLACEHOLDER, numberText(i)));
        writes.push(store.set(sidOf(i), data));
      }
      await Promise.all(writes);
    }
  };
}
