/**
 * The options of the admin page.
 *
 * @module
 */
import type { Request, Response } from 'express';
import type { SessionData } from 'express-session';
import { InvalidArgumentError, invalidValue } from '../errors.js';
import { accessTo, type StoreAccess } from '../lifecycle/access.js';
import type { StoreStats } from '../lifecycle/stats.js';
import { OptionReader } from '../option-reader.js';
import type { SessionEvent } from '../session/events.js';
import { isRecord } from '../util/guards.js';

/** The parts of a `DrizzleStore` that the page uses. */
export interface AdminStore {
  revoke(id: string): Promise<number>;
  stats(): StoreStats;
  on(event: 'change' | 'destroy', listener: (event: SessionEvent) => void): unknown;
  off(event: 'change' | 'destroy', listener: (event: SessionEvent) => void): unknown;
}

/** A value that the page shows for a session. The page omits empty ones. */
export type Described = string | number | boolean | Date | null | undefined;

/** An action that an admin has started. */
export interface AuditEvent {
  readonly action: 'reveal' | 'revoke' | 'revokeUser' | 'exportUser' | 'eraseUser';
  /** For `reveal` and `revoke`: the session. For `revokeUser`: the session to keep. */
  readonly id: string | undefined;
  /** The user, or the owner of the session. */
  readonly userId: string | null;
  /** The request of the admin. */
  readonly request: Request;
}

export interface SessionAdminOptions {
  /** The `DrizzleStore` with the sessions to show. */
  readonly store: AdminStore;
  /**
   * Decides for every request whether it may see and use the page. Only `true`, or a promise of `true`, allows it. For
   * anything else, the page responds with 403. If it throws or rejects, the error goes to `next`.
   */
  readonly authorize: (request: Request, response: Response) => boolean | Promise<boolean>;
  /**
   * Returns the values that the page shows from a session's content, such as
   * `{ Browser: session.agent, Address: session.ip }`. Without it, the page reads no content until an admin reveals it.
   */
  readonly describe?: ((session: SessionData) => Readonly<Record<string, Described>>) | undefined;
  /** Called before a reveal, a revoke, an export or an erasure. If it throws or rejects, the page does nothing. */
  readonly audit?: ((event: AuditEvent) => void | Promise<void>) | undefined;
  /** The address of the link "Back to the app", such as `/`. Without it, there is no such link. */
  readonly home?: string | undefined;
}

/** @internal The validated options. */
export interface AdminSettings extends SessionAdminOptions {
  readonly access: StoreAccess;
}

/** @internal @throws {InvalidArgumentError} */
export function adminSettings(options: SessionAdminOptions): AdminSettings {
  const given: unknown = options;
  if (!isRecord(given)) throw invalidValue('options', 'an object', given);
  const read = new OptionReader(options, '');
  read.only(['store', 'authorize', 'describe', 'audit', 'home']);
  const { store, authorize, describe, audit, home } = options;
  const access = accessTo(store);
  if (access === undefined) throw invalidValue('store', 'a DrizzleStore', store);
  if (authorize === undefined) {
    throw new InvalidArgumentError(
      'authorize is required: a function that returns true for a request that may see and end sessions',
    );
  }
  if (home !== undefined && (typeof home !== 'string' || home === '')) {
    throw invalidValue('home', 'a URL or a path', home);
  }
  return {
    store,
    access,
    authorize: read.function('authorize', authorize) ?? authorize,
    describe: read.function('describe', describe),
    audit: read.function('audit', audit),
    home,
  };
}
