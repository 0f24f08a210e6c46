/**
 * A page to see and end sessions, for any Express app.
 *
 * @module connect-drizzle/admin
 */
export type {
  AdminStore,
  AuditEvent,
  Described,
  SessionAdminOptions,
} from './options.js';
export { type SessionAdminHandler, sessionAdmin } from './router.js';
