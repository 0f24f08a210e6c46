import { RedisStore } from 'connect-redis';
import { createClient } from 'redis';
import { NUMBER_PLACEHOLDER, numberText, sidOf, template } from '../sessions.js';

/** Commands in flight at once while filling. */
const FILL_BATCH = 5_000;

/** @type {import('./index.js').Contender} */
export default {
  server: 'redis',
  packages: ['connect-redis', 'redis'],
  async open({ redisUrl }) {
    if (redisUrl === undefined) throw new Error('there is no Redis here');
    const client = createClient({ url: redisUrl });
    client.on('error', () => {});
    await client.connect();
    const store = new RedisStore({ client });
    return {
      store,
      async fill({ first, last, bytes, ttlSeconds }) {
        const text = template(bytes);
        for (let from = first; from <= last; from += FILL_BATCH) {
          const writes = [];
          for (let i = from; i < from + FILL_BATCH && i <= last; i += 1) {
            const data = text.replace(NUMBER_PLACEHOLDER, numberText(i));
            const key = `${store.prefix}${sidOf(i)}`;
            writes.push(client.set(key, data, { expiration: { type: 'EX', value: ttlSeconds } }));
          }
          await Promise.all(writes);
        }
      },
      async empty() {
        await client.flushDb();
      },
      async close() {
        client.destroy();
      },
    };
  },
};
