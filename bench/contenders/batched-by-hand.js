/**
 * The limit of what is possible: the same lean statements, batched by hand, without hashed ids, versions, order of calls,
 * splitting or timeouts. The difference to the store shows the cost of these.
 *
 * While both connections of a kind are busy, calls wait. The next free connection takes them all, up to 256, as one
 * statement.
 *
 * @module
 */
import session from 'express-session';
import { makeTable } from './by-hand-table.js';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

const BATCH_ROWS = 256;
const CONNECTIONS = { reads: 2, writes: 2 };

/**
 * Two free connections share the waiting calls, so that the server works on one half while the client works on the other.
 * Fewer rows than this do not need a second statement.
 */
const WORTH_SHARING = 8;

/** Cannot occur in a JSON text or in a sid. Sending one string is much cheaper than sending an array. */
const SEPARATOR = '\u001f';

/**
 * An array parameter that is hidden from the planner. If the planner knew its length, it would estimate the custom plan of
 * each call a little cheaper than the generic plan, and plan every call again: twice the time of a statement for one row.
 */
const array = (/** @type {string} */ expression) => `(select ${expression})`;
const ids = array(`string_to_array($1, E'\\x1f')`);
const texts = array(`string_to_array($2, E'\\x1f')`);

/** The result is one row with two texts, because each row costs node-postgres time, while joining costs Postgres little. */
const GET = {
  name: 'batched get',
  rowMode: 'array',
  text: `
    select string_agg(id, E'\\x1f'), string_agg(data::text, E'\\x1f')
      from by_hand_batched
     where id = any(${ids}::text[]) and expires_at > now() and revoked_at is null`,
};

const UPDATE = {
  name: 'batched update',
  text: `
    update by_hand_batched as stored
       set data = fresh.data::json,
           version = stored.version + 1,
           last_seen_at = now(),
           expires_at = to_timestamp(fresh.expires / 1000)
      from unnest(${ids}, ${texts}, ${array('$3::text::float8[]')}) as fresh (id, data, expires)
     where stored.id = any(${ids}::text[]) and stored.id = fresh.id and stored.revoked_at is null`,
};

const INSERT = {
  name: 'batched insert',
  text: `
    insert into by_hand_batched as stored (id, data, expires_at)
    select id, data::json, to_timestamp(expires / 1000)
      from unnest(${ids}, ${texts}, ${array('$3::text::float8[]')}) as fresh (id, data, expires)
    on conflict (id) do update
       set data = excluded.data,
           version = stored.version + 1,
           last_seen_at = now(),
           expires_at = excluded.expires_at`,
};

const TOUCH = {
  name: 'batched touch',
  text: `
    update by_hand_batched as stored
       set last_seen_at = now(), expires_at = to_timestamp(fresh.expires / 1000)
      from unnest(${ids}, ${array('$2::text::float8[]')}) as fresh (id, expires)
     where stored.id = any(${ids}::text[]) and stored.id = fresh.id and stored.revoked_at is null
       and (select set_config('synchronous_commit', 'off', true)) is not null`,
};

const DESTROY = {
  name: 'batched destroy',
  text: `
    update by_hand_batched
       set data = null, revoked_at = now(), expires_at = now() + interval '1 hour'
     where id = any(${ids}::text[])`,
};

/**
 * @typedef {object} Call
 * @property {string} sid
 * @property {(error: unknown, data?: object | null) => void} callback
 * @property {string} [data]
 * @property {number} [expires] epoch milliseconds
 */

/** @typedef {(client: import('pg').PoolClient, calls: Call[]) => Promise<unknown>} Send */

/** A few connections, and the calls that wait for one of them. */
export class Lanes {
  /** @type {Map<Send, Call[]>} the kind that has waited longest first */
  #waiting = new Map();
  #scheduled = false;

  /** @param {import('pg').PoolClient[]} clients */
  constructor(clients) {
    this.free = [...clients];
  }

  /**
   * @param {Send} send
   * @param {Call} call
   */
  push(send, call) {
    const waiting = this.#waiting.get(send);
    if (waiting) waiting.push(call);
    else this.#waiting.set(send, [call]);
    this.#schedule();
  }

  /** Callers that continue in the same tick share one statement, for example all callers of a batch. */
  #schedule() {
    if (this.#scheduled || this.free.length === 0 || this.#waiting.size === 0) return;
    this.#scheduled = true;
    process.nextTick(() => {
      this.#scheduled = false;
      this.#dispatch();
    });
  }

  #dispatch() {
    for (const [send, waiting] of this.#waiting) {
      if (this.free.length === 0) return;
      // What is left of a kind after this share is dispatched next.
      const share = Math.ceil(waiting.length / this.free.length);
      const calls = waiting.splice(0, Math.min(BATCH_ROWS, Math.max(share, WORTH_SHARING)));
      if (waiting.length === 0) this.#waiting.delete(send);
      this.#run(send, calls);
    }
    if (this.#waiting.size > 0) this.#schedule();
  }

  /**
   * @param {Send} send
   * @param {Call[]} calls
   */
  async #run(send, calls) {
    const client = this.free.pop();
    try {
      await send(client, calls);
    } catch (error) {
      for (const { callback } of calls) callback(error);
    }
    this.free.push(client);
    this.#schedule();
  }
}

/** @type {Send} */
async function getAll(client, calls) {
  const { rows } = await client.query({ ...GET, values: [sidsOf(calls)] });
  const [ids, texts] = rows[0].map((joined) => joined?.split(SEPARATOR) ?? []);
  const found = new Map();
  for (let i = 0; i < ids.length; i += 1) found.set(ids[i], texts[i]);
  for (const { sid, callback } of calls) {
    const text = found.get(sid);
    callback(null, text === undefined ? null : JSON.parse(text));
  }
}

/** @type {Send} */
async function updateAll(client, calls) {
  await client.query({ ...UPDATE, values: [sidsOf(calls), dataOf(calls), expiriesOf(calls)] });
  for (const { callback } of calls) callback(null);
}

/** @type {Send} */
async function insertAll(client, calls) {
  await client.query({ ...INSERT, values: [sidsOf(calls), dataOf(calls), expiriesOf(calls)] });
  for (const { callback } of calls) callback(null);
}

/** @type {Send} */
async function touchAll(client, calls) {
  await client.query({ ...TOUCH, values: [sidsOf(calls), expiriesOf(calls)] });
  for (const { callback } of calls) callback(null);
}

/** @type {Send} */
async function destroyAll(client, calls) {
  await client.query({ ...DESTROY, values: [sidsOf(calls)] });
  for (const { callback } of calls) callback(null);
}

/** @param {Call[]} calls */
const sidsOf = (calls) => calls.map(({ sid }) => sid).join(SEPARATOR);

/** @param {Call[]} calls */
const dataOf = (calls) => calls.map(({ data }) => data).join(SEPARATOR);

/** @param {Call[]} calls */
const expiriesOf = (calls) => `{${calls.map(({ expires }) => expires).join()}}`;

class BatchedHandStore extends session.Store {
  /** Sessions that came out of the table: an update is enough for them. */
  #loaded = new WeakSet();

  /**
   * @param {Lanes} reads
   * @param {Lanes} writes
   */
  constructor(reads, writes) {
    super();
    this.reads = reads;
    this.writes = writes;
  }

  createSession(request, data) {
    const loaded = super.createSession(request, data);
    this.#loaded.add(loaded);
    return loaded;
  }

  get(sid, callback) {
    this.reads.push(getAll, { sid, callback });
  }

  set(sid, session, callback) {
    const send = this.#loaded.has(session) ? updateAll : insertAll;
    const data = JSON.stringify(session);
    this.writes.push(send, { sid, data, expires: session.cookie.expires.getTime(), callback });
  }

  touch(sid, session, callback) {
    this.writes.push(touchAll, { sid, expires: session.cookie.expires.getTime(), callback });
  }

  destroy(sid, callback) {
    this.writes.push(destroyAll, { sid, callback });
  }
}

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['pg'],
  async open(context) {
    const { pool, statements } = openPool(context);
    await makeTable(pool, 'by_hand_batched');
    const connect = (count) => Promise.all(Array.from({ length: count }, () => pool.connect()));
    const reads = await connect(CONNECTIONS.reads);
    const writes = await connect(CONNECTIONS.writes);
    return {
      store: new BatchedHandStore(new Lanes(reads), new Lanes(writes)),
      statements,
      ...tableOf(pool, 'by_hand_batched'),
      fill: filler(
        pool,
        `with ${FRESH} insert into by_hand_batched (id, data, expires_at)
         select sid, data, expires_at from fresh order by sid`,
      ),
      async close() {
        for (const client of [...reads, ...writes]) client.release();
        await pool.end();
      },
    };
  },
};
