/** What the snippets of the documentation may use without an import: see runner.js. */
declare const DrizzleStore: typeof import('connect-drizzle').DrizzleStore;
declare const store: import('connect-drizzle').DrizzleStore;
declare const pool: import('pg').Pool;
declare const app: import('express').Express;
declare const req: import('express').Request;
