import { createRequire } from 'node:module';
import { NUMBER_PLACEHOLDER, numberText, sidOf, template } from '../sessions.js';

/** Documents written at once while filling. */
const FILL_BATCH = 1_000;

/** @type {import('./index.js').Contender} */
export default {
  server: 'memory',
  packages: ['session-pouchdb-store', 'pouchdb'],
  // It calls back at once after a set, and writes to PouchDB once a second.
  background: true,
  unsupported: {
    'set new': 'ends the process at the first sid that begins with an underscore (1 in 64 do)',
  },
  async open() {
    const require = createRequire(import.meta.url);
    const PouchStore = require('session-pouchdb-store');
    const store = new PouchStore();
    return {
      store,
      async fill({ first, last, bytes }) {
        const text = template(bytes);
        for (let from = first; from <= last; from += FILL_BATCH) {
          const documents = [];
          for (let i = from; i < from + FILL_BATCH && i <= last; i += 1) {
            const data = JSON.parse(text.replace(NUMBER_PLACEHOLDER, numberText(i)));
            documents.push({ ...data, _id: sidOf(i) });
          }
          await store.pouch.bulkDocs(documents);
        }
      },
      async empty() {
        store.sessions = {};
        const { rows } = await store.pouch.allDocs();
        await store.pouch.bulkDocs(
          rows.map(({ id, value }) => ({ _id: id, _rev: value.rev, _deleted: true })),
        );
      },
      async close() {},
    };
  },
};
