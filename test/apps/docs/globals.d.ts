/** The globals that runner.js defines for the snippets of the documentation. */
declare const DrizzleStore: typeof import('connect-drizzle').DrizzleStore;
declare const store: import('connect-drizzle').DrizzleStore;
declare const pool: import('pg').Pool;
declare const app: import('express').Express;
declare const req: import('express').Request;
