/**
 * A limit: node-postgres with the leanest statements, written by hand, one per call. Each has a name, so
 * that it is prepared once.
 *
 * @module
 */
import session from 'express-session';
import { makeTable } from './by-hand-table.js';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

const GET = {
  name: 'get',
  text: `
    select data, (extract(epoch from expires_at) * 1000)::float8 as expiry
      from by_hand
     where id = $1 and expires_at > now() and revoked_at is null`,
};

const SET = {
  name: 'set',
  text: `
    insert into by_hand as stored (id, data, expires_at)
    values ($1, $2, to_timestamp($3::float8 / 1000))
    on conflict (id) do update
       set data = excluded.data,
           version = stored.version + 1,
           last_seen_at = now(),
           expires_at = excluded.expires_at`,
};

/** A touch does not wait for the disk: a crash may lose it. */
const TOUCH = {
  name: 'touch',
  text: `
    update by_hand
       set last_seen_at = now(), expires_at = to_timestamp($2::float8 / 1000)
     where id = $1 and revoked_at is null
       and (select set_config('synchronous_commit', 'off', true)) is not null`,
};

const DESTROY = {
  name: 'destroy',
  text: `
    update by_hand
       set data = null, revoked_at = now(), expires_at = now() + interval '1 hour'
     where id = $1`,
};

/** The stored expiry of a loaded session, in epoch milliseconds. */
const STORED_EXPIRY = Symbol('stored expiry');

class HandStore extends session.Store {
  /**
   * @param {import('pg').Pool} pool
   * @param {number} touchAfter seconds by which an expiry must move before a touch is written
   */
  constructor(pool, touchAfter) {
    super();
    this.pool = pool;
    this.touchAfterMs = touchAfter * 1000;
  }

  get(sid, callback) {
    this.pool.query({ ...GET, values: [sid] }, (error, result) => {
      if (error) callback(error);
      else callback(null, sessionOf(result.rows[0]));
    });
  }

  createSession(request, data) {
    const created = super.createSession(request, data);
    created[STORED_EXPIRY] = data[STORED_EXPIRY];
    return created;
  }

  set(sid, data, callback) {
    const values = [sid, JSON.stringify(data), data.cookie.expires.getTime()];
    this.pool.query({ ...SET, values }, (error) => callback(error));
  }

  touch(sid, data, callback) {
    const expiry = data.cookie.expires.getTime();
    if (expiry - data[STORED_EXPIRY] < this.touchAfterMs) {
      callback(null);
      return;
    }
    const values = [sid, expiry];
    this.pool.query({ ...TOUCH, values }, (error) => callback(error));
  }

  destroy(sid, callback) {
    this.pool.query({ ...DESTROY, values: [sid] }, (error) => callback(error));
  }
}

/** @param {{ data: object, expiry: number } | undefined} row */
function sessionOf(row) {
  if (row === undefined) return null;
  return Object.assign(row.data, { [STORED_EXPIRY]: row.expiry });
}

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['pg'],
  async open(context) {
    const { pool, statements } = openPool(context);
    await makeTable(pool, 'by_hand');
    return {
      store: new HandStore(pool, Number(context.options.touchAfter ?? 0)),
      statements,
      ...tableOf(pool, 'by_hand'),
      fill: filler(
        pool,
        `with ${FRESH} insert into by_hand (id, data, expires_at)
         select sid, data, expires_at from fresh order by sid`,
      ),
      close: () => pool.end(),
    };
  },
};
