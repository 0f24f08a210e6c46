import session from 'express-session';
import { NUMBER_PLACEHOLDER, numberText, sidOf, template } from '../sessions.js';

/** @type {import('./index.js').Contender} */
export default {
  server: 'memory',
  packages: ['express-session'],
  async open() {
    const store = new session.MemoryStore();
    return {
      store,
      async fill({ first, last, bytes }) {
        const text = template(bytes);
        for (let i = first; i <= last; i += 1) {
          store.sessions[sidOf(i)] = text.replace(NUMBER_PLACEHOLDER, numberText(i));
        }
      },
      async empty() {
        store.sessions = Object.create(null);
      },
      async close() {},
    };
  },
};
