/**
 * Reads and ends sessions for the page.
 *
 * @module
 */
import type { SessionData } from 'express-session';
import { InvalidArgumentError, InvalidUserIdError } from '../errors.js';
import type { SessionFacts } from '../queries/operations.js';
import { isId } from '../session/id.js';
import { userIdToFind } from '../session/user.js';
import { hasMethod, isRecord, property } from '../util/guards.js';
import { ignoreRejection } from '../util/promises.js';
import { HttpError } from './guard.js';
import { clipped } from './html.js';
import type { AdminSettings } from './options.js';
import { type Place, Statements, type UserRow } from './statements.js';

export type State = 'live' | 'expired' | 'revoked';

/** A session as the page shows it. */
export interface ShownSession extends SessionFacts {
  readonly state: State;
  /** The result of the app's `describe`: labels and texts. */
  readonly described: readonly (readonly [label: string, text: string])[];
  /** Whether the content could be read. True if it was not read. */
  readonly isReadable: boolean;
}

export interface SessionPage {
  readonly sessions: readonly ShownSession[];
  /** The start of the next page; `undefined` on the last one. */
  readonly next: Place | undefined;
}

const EXPORT_ROWS = 100;
const MAX_DESCRIBED = 12;
const MAX_LABEL = 60;
const MAX_TEXT = 300;

export class AdminSessions {
  readonly #settings: AdminSettings;
  readonly #statements: Statements;

  constructor(settings: AdminSettings, statements = new Statements(settings.access)) {
    this.#settings = settings;
    this.#statements = statements;
  }

  /** Whether sessions have owners. */
  get hasUsers(): boolean {
    return this.#settings.access.settings.userId !== undefined;
  }

  /**
   * Returns a user's id as the table stores it.
   *
   * @throws {HttpError} 400 if it is not a valid user id, or if the store has no option `userId`
   */
  owner(user: string): string {
    try {
      return userIdToFind(this.#settings.access.settings, user);
    } catch (error) {
      if (!(error instanceof InvalidArgumentError || error instanceof InvalidUserIdError)) {
        throw error;
      }
      throw new HttpError(400, `${error.message}.`);
    }
  }

  /** Returns a page of live sessions, newest log-in first. */
  async page(
    user: string | undefined,
    before: Place | undefined,
    limit: number,
  ): Promise<SessionPage> {
    const owner = user === undefined ? undefined : this.owner(user);
    // One more than the page shows, to know whether there are more.
    const found = await noneIfMistyped([], () =>
      this.#statements.run((calls, deadline) => calls.newest(deadline, owner, before, limit + 1)),
    );
    const facts = found.slice(0, limit);
    return {
      sessions: await Promise.all(facts.map((each) => this.#shown(each))),
      next: found.length > limit ? facts.at(-1) : undefined,
    };
  }

  /** Returns a session in any state; `undefined` if there is no session with this id. */
  async one(id: string): Promise<ShownSession | undefined> {
    const facts = await this.#statements.run((calls, deadline) => calls.one(deadline, id));
    return facts && this.#shown(facts);
  }

  /** Returns the content of a session: JSON, or the text of the app's serializer. `undefined` if it cannot be read. */
  async content(id: string): Promise<string | undefined> {
    return (await this.#row(id))?.data;
  }

  /** Yields all stored sessions of a user, including expired ones, page by page. */
  async *ofUser(user: string): AsyncGenerator<readonly ExportedSession[], void, undefined> {
    const owner = this.owner(user);
    for (let after = ''; ; ) {
      const rows: readonly UserRow[] = await noneIfMistyped([], () =>
        this.#statements.run((calls, deadline) =>
          calls.ofUser(deadline, owner, after, EXPORT_ROWS),
        ),
      );
      if (rows.length > 0) yield await Promise.all(rows.map((row) => this.#exported(row)));
      const last = rows.at(-1);
      if (last === undefined || rows.length < EXPORT_ROWS) return;
      after = last.id;
    }
  }

  /** Ends a session. Returns the number of live sessions ended. */
  revoke(id: string): Promise<number> {
    return this.#settings.store.revoke(id);
  }

  /** Ends a user's sessions, except the one with the id `keep`. Returns the number of live sessions ended. */
  async revokeUser(user: string, keep?: string): Promise<number> {
    const { access } = this.#settings;
    const owner = this.owner(user);
    return noneIfMistyped(0, () =>
      access.perform((opened, deadline) =>
        access.sessions.revoker.endUser(owner, keep, opened, deadline),
      ),
    );
  }

  async #shown(facts: SessionFacts): Promise<ShownSession> {
    const state = stateOf(facts);
    const { describe } = this.#settings;
    const shown = { ...facts, state, described: [], isReadable: true };
    if (describe === undefined || state !== 'live' || !isId(facts.id)) return shown;
    const { loader } = this.#settings.access.sessions;
    const row = await this.#row(facts.id);
    const session = row && loader.sessionOf(row);
    if (session === undefined) return { ...shown, isReadable: false };
    return { ...shown, described: this.#described(describe, session) };
  }

  #described(
    describe: (session: SessionData) => unknown,
    session: SessionData,
  ): [label: string, text: string][] {
    try {
      const described = describe(session);
      if (hasMethod(described, 'then')) {
        ignoreRejection(described);
        throw new InvalidArgumentError('describe must not be async');
      }
      if (!isRecord(described)) return [];
      return Object.entries(described)
        .flatMap(([label, value]): [string, string][] => {
          const text = describedText(value);
          return text === '' ? [] : [[clipped(label, MAX_LABEL), clipped(text, MAX_TEXT)]];
        })
        .slice(0, MAX_DESCRIBED);
    } catch (error) {
      // One session must not make the whole page fail.
      this.#settings.access.log('The admin page cannot describe a session', error);
      return [];
    }
  }

  /** Returns the row of a live or expired session; reports one that cannot be read. */
  #row(id: string) {
    const { perform, sessions } = this.#settings.access;
    return sessions.loader.readable(
      id,
      perform(({ rows }, deadline) => rows.read(id, deadline)),
    );
  }

  async #exported(row: UserRow): Promise<ExportedSession> {
    const { loader, rekeying } = this.#settings.access.sessions;
    const { data: stored, ...facts } = row;
    const unsealing = async () => rekeying.codec.unseal(row.id, stored);
    return { facts, state: stateOf(facts), data: await loader.readable(row.id, unsealing()) };
  }
}

export interface ExportedSession {
  readonly facts: SessionFacts;
  readonly state: State;
  /** JSON, or the text of the app's serializer; `undefined` if it cannot be read. */
  readonly data: string | undefined;
}

export function stateOf({ revokedAt, expiresAt }: SessionFacts): State {
  if (revokedAt !== null) return 'revoked';
  return expiresAt > Date.now() ? 'live' : 'expired';
}

function describedText(value: unknown): string {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? '' : value.toISOString();
  const isShown = ['string', 'number', 'boolean', 'bigint'].includes(typeof value);
  return isShown ? String(value) : '';
}

/** Runs a statement about a user. If the column's type does not accept the id, the user has no sessions. */
async function noneIfMistyped<T>(none: T, statement: () => Promise<T>): Promise<T> {
  try {
    return await statement();
  } catch (error) {
    // Class 22, data exception, for example `ada` for an integer.
    const code = property(property(error, 'cause'), 'code');
    if (typeof code === 'string' && /^22/.test(code)) return none;
    throw error;
  }
}
