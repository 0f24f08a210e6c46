/**
 * The store's own statements, batched by hand, without the order of calls for one id, origins and merges, timeouts,
 * splitting and tracing. It finds each session by the hash of its sid, and remembers the values of a loaded session that
 * the statements need.
 *
 * @module
 */
import session from 'express-session';
import { Lanes } from './batched-by-hand.js';
import connectDrizzle from './connect-drizzle.js';
import { openPool } from './postgres.js';

const TABLE = 'same_statements';

/** @type {import('./index.js').Contender} */
export default {
  ...connectDrizzle,
  async open(context) {
    // A table like the store's, filled in the same way.
    const options = { ...context.options, tableName: TABLE };
    const opened = await connectDrizzle.open({ ...context, options });
    const dist = new URL('../../dist/', import.meta.url);
    const { statementsFor } = await import(new URL('queries/statements.js', dist).href);
    const { POSTGRES } = await import(new URL('queries/engines.js', dist).href);
    const { viewOf } = await import(new URL('queries/view.js', dist).href);
    const { nodePostgres } = await import(new URL('drivers/node-postgres.js', dist).href);
    const { sessionTable } = await import(new URL('schema.js', dist).href);
    const { pool, statements: times } = openPool(context);
    const withUser = false;
    const built = statementsFor({
      ...viewOf(sessionTable({ tableName: TABLE }), (column) => column.name, withUser),
      withUser,
      maxLifetime: undefined,
      prepared: true,
      engine: POSTGRES,
      announce: undefined,
    });
    const driver = nodePostgres(pool, async () => {});
    const onConnection = (statement) => async (rows) => {
      const connection = await driver.acquire(Number.POSITIVE_INFINITY);
      try {
        return await statement(connection, rows, rows.map(timesOfNow));
      } finally {
        connection.release();
      }
    };
    const { read, touch, save, put, end } = built;
    const statements = Object.fromEntries(
      Object.entries({ read, touch, save, put, end }).map(([name, statement]) => [
        name,
        onConnection(statement),
      ]),
    );
    return {
      ...opened,
      statements: times,
      store: new SameStatementsStore(statements, opened.idOf),
      async close() {
        await pool.end();
        await opened.close();
      },
    };
  },
};

class SameStatementsStore extends session.Store {
  #reads = new Lanes([1, 2]);
  #writes = new Lanes([1, 2]);
  /** What a save has to name of a loaded session. @type {WeakMap<object, object>} */
  #loaded = new WeakMap();

  constructor(statements, idOf) {
    super();
    this.idOf = idOf;
    this.sendReads = async (_, calls) => {
      const rows = await statements.read(calls.map(({ id }) => id));
      for (const [at, { callback }] of calls.entries()) callback(null, this.#sessionOf(rows[at]));
    };
    this.sendTouches = answering(statements.touch);
    this.sendSaves = answering(statements.save);
    this.sendInserts = answering(statements.put);
    this.sendEnds = answering((rows) => statements.end(rows.map(({ id }) => id)));
  }

  #sessionOf(row) {
    if (row === undefined) return null;
    const data = JSON.parse(row.data);
    this.#loaded.set(data, row);
    return data;
  }

  createSession(request, data) {
    const created = super.createSession(request, data);
    this.#loaded.set(created, this.#loaded.get(data));
    return created;
  }

  get(sid, callback) {
    this.#reads.push(this.sendReads, { id: this.idOf(sid), callback });
  }

  set(sid, session, callback) {
    const row = {
      id: this.idOf(sid),
      data: JSON.stringify(session),
      expiresAt: session.cookie.expires.getTime(),
      userId: null,
    };
    if (this.#loaded.has(session)) this.#save(session, row, callback);
    else this.#writes.push(this.sendInserts, { row, callback });
  }

  /** Two callers of one session can conflict here, because nothing orders them. The later one overwrites. */
  #save(session, row, callback) {
    const { version, createdAt, expiresAt: seenExpiresAt } = this.#loaded.get(session);
    this.#writes.push(this.sendSaves, {
      row: { ...row, version, createdAt, seenExpiresAt },
      callback: (error, written) => {
        if (error) return callback(error);
        if (written.outcome === 'busy') return this.#save(session, row, callback);
        const { stored = { ...row, ...written } } = written;
        this.#loaded.set(session, stored);
        return written.outcome === 'conflict' ? this.#save(session, row, callback) : callback(null);
      },
    });
  }

  touch(sid, session, callback) {
    const expiresAt = session.cookie.expires.getTime();
    const row = { id: this.idOf(sid), createdAt: 0, expiresAt, aliveAt: 0 };
    this.#writes.push(this.sendTouches, { row, callback });
  }

  destroy(sid, callback) {
    this.#writes.push(this.sendEnds, { row: { id: this.idOf(sid) }, callback });
  }
}

/** When a call began and when it gives up, which the statements need. */
function timesOfNow() {
  const beganMs = performance.now();
  return { beganMs, atMs: beganMs + 30_000 };
}

/** A statement for rows, as the lanes send it. */
function answering(statement) {
  return async (_, calls) => {
    const results = await statement(calls.map(({ row }) => row));
    for (const [at, { callback }] of calls.entries()) callback(null, results[at]);
  };
}
