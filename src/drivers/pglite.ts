/**
 * PGlite: Postgres inside this process, with a single connection.
 *
 * @module
 */
import { InAppTransaction } from '../errors.js';
import { unlessAborted } from '../util/abort.js';
import { hasMethod } from '../util/guards.js';
import type { Connection, Driver, Listen, Query, Value } from './driver.js';
import { ServerClock } from './support/server-clock.js';

interface QueryOptions {
  readonly rowMode: 'array';
  readonly parsers: Record<number, (value: string) => string>;
}

interface PgliteQueries {
  query<Row>(
    text: string,
    values: Value[],
    options: QueryOptions,
  ): Promise<{ rows: Row[]; affectedRows?: number }>;
}

/** The parts of a PGlite that the store uses. */
export interface Pglite extends PgliteQueries {
  transaction<T>(work: (tx: PgliteQueries) => Promise<T>): Promise<T>;
  isInTransaction?(): boolean;
  listen(channel: string, onMessage: (payload: string) => void): Promise<() => Promise<void>>;
}

/** The statements select all columns as text, but an app may have set a parser for that type. */
const TEXT_OID = 25;
const AS_TEXT: QueryOptions = { rowMode: 'array', parsers: { [TEXT_OID]: (value) => value } };

export function pglite(client: Pglite, close: () => Promise<void>): Driver {
  const { run, ...connection } = connectionOf(client);
  const runOutside: Connection['run'] = async (query, values) => {
    const result = await run(query, values);
    // PGlite runs no other statement inside its own `transaction()`, but it does not protect a plain BEGIN.
    if (client.isInTransaction?.()) throw new InAppTransaction();
    return result;
  };
  return {
    connections: 1,
    idle: 0,
    // PGlite has its own queue of statements.
    acquire: async () => ({ ...connection, run: runOutside }),
    listen: listenOn(client),
    transaction: (work, { signal } = {}) =>
      client.transaction((tx) => {
        signal?.throwIfAborted();
        return work(connectionOf(tx));
      }),
    close,
  };
}

/** PGlite cannot cancel anything: a statement that was sent stays in its queue and will run. */
function connectionOf(client: PgliteQueries): Connection {
  return {
    clock: new ServerClock(),
    run: async ({ text }: Query, values) => {
      const result = await client.query<Value[]>(text, [...values], AS_TEXT);
      return { rows: result.rows, rowCount: result.affectedRows ?? 0 };
    },
    release: () => {},
    destroy: () => {},
  };
}

function listenOn(client: Pglite): Listen {
  return async (channel, _connectionString, { onMessage, signal }) => {
    let isOver = false;
    const listening = client.listen(channel, (payload) => {
      if (!isOver) onMessage(payload);
    });
    // LISTEN waits for a transaction of the app. LISTEN cannot be cancelled, but the store can stop waiting.
    const unlisten = await unlessAborted(listening, signal).catch((error) => {
      listening.then((stop) => stop()).catch(() => {});
      throw error;
    });
    return {
      close: async () => {
        isOver = true;
        unlisten().catch(() => {});
      },
    };
  };
}

export function isPglite(client: object): client is Pglite {
  return 'dumpDataDir' in client && 'waitReady' in client && hasMethod(client, 'query');
}
