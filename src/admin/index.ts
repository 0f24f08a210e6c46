/**
 * A page to see and end sessions, for any Express app.
 *
 * @module
 */
export type {
  AdminStore,
  AuditEvent,
  Described,
  SessionAdminOptions,
} from './options.js';
export { type SessionAdminHandler, sessionAdmin } from './router.js';
