/**
 * A process with a store, which runs the requests that its parent sends over IPC.
 *
 * @module
 */
import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import { DrizzleStore } from 'connect-drizzle';
import session, { type SessionData, Store } from 'express-session';
import pg from 'pg';
import { loaded, type RequestSession } from './requests.js';
import { BUSY_TIMEOUT_S } from './sessions.js';

/** The stores whose histories are checked. */
export type StoreKind =
  | 'connect-drizzle'
  /** The same without origins: its sessions are foreign objects, as with @fastify/session. */
  | 'connect-drizzle without origins'
  | 'a plain upsert'
  | 'connect-pg-simple';

export type Order =
  | { readonly do: 'create'; readonly sid: string; readonly content: Record<string, number> }
  /** Loads a session, as a request does at its start. */
  | { readonly do: 'begin'; readonly request: number; readonly sid: string }
  /** Changes keys (null: deletes them) and saves. */
  | {
      readonly do: 'save';
      readonly request: number;
      readonly changes: readonly (readonly [key: string, value: number | null])[];
    }
  | { readonly do: 'touch'; readonly request: number }
  | { readonly do: 'destroy'; readonly request: number }
  | { readonly do: 'end'; readonly request: number }
  | { readonly do: 'stats' };

export interface Told {
  readonly call: number;
  readonly order: Order;
}

/** The answer to an order: of `begin`, the loaded content; of `save`, the keys it has changed. */
export interface Report {
  readonly call: number;
  readonly content?: Record<string, number> | null;
  readonly changed?: readonly string[];
  readonly merges?: number;
  readonly dropped?: number;
  readonly error?: string;
}

/** A store that works like the other packages: the last write wins. */
class PlainUpsertStore extends Store {
  constructor(readonly pool: pg.Pool) {
    super();
  }

  override get(sid: string, callback: (error: unknown, session?: SessionData | null) => void) {
    this.pool
      .query<{ data: SessionData }>('select data from plain where sid = $1', [sid])
      .then(({ rows }) => callback(null, rows[0]?.data), callback);
  }

  override set(sid: string, data: SessionData, callback: (error?: unknown) => void = () => {}) {
    this.pool
      .query(
        'insert into plain values ($1, $2) on conflict (sid) do update set data = excluded.data',
        [sid, JSON.stringify(data)],
      )
      .then(() => callback(), callback);
  }

  override touch(sid: string, data: SessionData, callback: () => void = () => {}) {
    this.pool
      .query(`update plain set data = jsonb_set(data, '{cookie}', $2) where sid = $1`, [
        sid,
        JSON.stringify(data.cookie),
      ])
      .then(() => callback(), callback);
  }

  override destroy(sid: string, callback: (error?: unknown) => void = () => {}) {
    this.pool.query('delete from plain where sid = $1', [sid]).then(() => callback(), callback);
  }
}

/** Returns copies of sessions, so that the store does not know their origins. */
class CopyingStore extends DrizzleStore {
  override createSession(request: Parameters<Store['createSession']>[0], data: SessionData) {
    return super.createSession(request, { ...data });
  }
}

function open(kind: string): Store {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
  pool.on('error', () => {});
  switch (kind) {
    case 'connect-drizzle':
      return new DrizzleStore(pool, { pruneSessionInterval: false, timeout: BUSY_TIMEOUT_S });
    case 'connect-drizzle without origins':
      return new CopyingStore(pool, { pruneSessionInterval: false, timeout: BUSY_TIMEOUT_S });
    case 'a plain upsert':
      return new PlainUpsertStore(pool);
    case 'connect-pg-simple': {
      // connect-pg-simple has no types of its own.
      const connect: (module: typeof session) => new (options: object) => Store = createRequire(
        import.meta.url,
      )('connect-pg-simple');
      return new (connect(session))({ pool, tableName: 'simple', pruneSessionInterval: false });
    }
    default:
      throw new Error(`no store ${kind}`);
  }
}

const store = open(process.argv[2] ?? '');
const requests = new Map<number, RequestSession>();

function inRequest(request: number): RequestSession {
  const found = requests.get(request);
  if (found === undefined) throw new Error('the request has no session');
  return found;
}

async function obey(order: Order): Promise<Omit<Report, 'call'>> {
  switch (order.do) {
    case 'create': {
      const cookie = new session.Cookie();
      cookie.maxAge = 3_600_000;
      const made = Object.assign({ cookie }, order.content) as object as SessionData;
      await promised((done) => store.set(order.sid, made, done));
      return {};
    }
    case 'begin': {
      const found = await loaded(store, order.sid).catch((error: Error) => {
        if (error.message.startsWith('no session')) return undefined;
        throw error;
      });
      if (found === undefined) return { content: null };
      requests.set(order.request, found);
      const { cookie, ...content } = found;
      return { content: content as Record<string, unknown> as Record<string, number> };
    }
    case 'save': {
      const found = inRequest(order.request);
      const changed: string[] = [];
      for (const [key, value] of order.changes) {
        if (value !== null) found[key] = value;
        else if (Object.hasOwn(found, key)) delete found[key];
        else continue;
        changed.push(key);
      }
      found.touch();
      await promised((done) => store.set(found.id, found, done));
      return { changed };
    }
    case 'touch': {
      const found = inRequest(order.request);
      found.touch();
      await promised((done) => store.touch?.(found.id, found, done));
      return {};
    }
    case 'destroy':
      await promised((done) => store.destroy(inRequest(order.request).id, done));
      return {};
    case 'end':
      requests.delete(order.request);
      return {};
    case 'stats': {
      if (!(store instanceof DrizzleStore)) return {};
      const { merges, dropped } = store.stats();
      return { merges, dropped };
    }
  }
}

function promised(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}

process.on('message', ({ call, order }: Told) => {
  obey(order).then(
    (report) => process.send?.({ call, ...report } satisfies Report),
    (error) => process.send?.({ call, error: inspect(error) } satisfies Report),
  );
});
process.send?.({ call: -1 } satisfies Report);
