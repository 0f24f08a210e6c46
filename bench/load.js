/**
 * The load on one store, as from express-session: the same calls and kinds of objects, with callbacks. It runs in the
 * process of the store, and is the same for all stores.
 *
 * @module
 */
import session from 'express-session';
import { contents, MAX_AGE_SECONDS, numberText, SECRET, sidOf } from './sessions.js';
import { Latencies } from './stats.js';

/** Maximum size of the session objects in memory that are saved again and again, in bytes of JSON. */
const LOADED_BYTES = 40_000_000;

/** A window of new sessions ends early if it has written this much. */
const CREATED_BYTES = 200_000_000;

/** Number of sids for `get`, spread over the whole table. */
const READ_SIDS = 200_000;

/** Number of results checked after each window, so that a store cannot be fast by doing nothing. */
const CHECKED = 20;

/** Numbers of sessions for `destroy`, separate from all others. */
const DOOMED_FROM = 1_000_000_000;

/**
 * @typedef {'get' | 'set' | 'set foreign' | 'set new' | 'touch' | 'destroy'} Operation
 *   set: of a changed session that `get` returned; the same objects again and again
 *   set foreign: of a plain object from another place, with an existing sid
 *   set new: of a session that express-session generated
 */

/**
 * @typedef {object} Measured
 * @property {number} rate operations per second
 * @property {number} p50 milliseconds
 * @property {number} p99 milliseconds
 * @property {number} clientCpu microseconds per operation, this process with all its threads
 */

export class Load {
  #latencies = new Latencies();
  #store;
  #rows;
  /** @type {string[] | undefined} */
  #sids;
  /** @type {{ sid: string, session: session.Session }[] | undefined} */
  #loaded;
  /** @type {{ sid: string, session: object }[] | undefined} */
  #foreign;
  /** @type {string[]} */
  #doomed = [];
  #doomedNumber = DOOMED_FROM;
  /** @type {string[]} */
  #ended = [];

  /**
   * @param {import('./contenders/index.js').Opened} opened
   * @param {{ sessions: number, bytes: number }} rows the number of sessions, and their size
   */
  constructor(opened, rows) {
    this.opened = opened;
    this.#store = opened.store;
    this.#rows = rows;
    // Gives the store its `generate`, as in an app.
    session({
      store: this.#store,
      secret: SECRET,
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: MAX_AGE_SECONDS * 1000 },
    });
  }

  /**
   * @param {object} window
   * @param {Operation} window.operation
   * @param {number} window.callers
   * @param {number} window.milliseconds
   * @param {number} [window.operations] an end by count
   * @param {boolean} [window.inTurn] each session as often as any other, instead of at random
   * @returns {Promise<Measured>}
   */
  async measure({ operation, callers, milliseconds, operations = Infinity, inTurn = false }) {
    const call = await this.#calls(operation, callers, inTurn ? roundRobin : picker);
    const limit = Math.min(operations, call.limit ?? Infinity);
    this.#latencies.reset();
    const cpuBefore = process.cpuUsage();
    const started = performance.now();
    const done = await closedLoop(call, callers, started + milliseconds, limit, this.#latencies);
    const elapsed = performance.now() - started;
    const cpu = process.cpuUsage(cpuBefore);
    await call.check?.();
    const { p50, p99 } = this.#latencies.summary();
    return {
      rate: (done / elapsed) * 1000,
      p50,
      p99,
      clientCpu: (cpu.user + cpu.system) / done,
      operations: done,
    };
  }

  /**
   * Gets at a steady rate, without waiting for earlier results (an open loop), until stopped. Latencies count from the
   * moment when a call was due.
   *
   * @param {{ perSecond: number, until: Promise<unknown> }} pace
   */
  async paced({ perSecond, until }) {
    const call = await this.#calls('get', 1, picker);
    this.#latencies.reset();
    let stopped = false;
    let running = 0;
    let failure;
    const stop = () => {
      stopped = true;
    };
    until.then(stop, stop);
    const started = performance.now();
    let sent = 0;
    while (!stopped) {
      for (; started + (sent * 1000) / perSecond <= performance.now(); sent += 1) {
        const due = started + (sent * 1000) / perSecond;
        running += 1;
        call(0, (error) => {
          running -= 1;
          failure ??= error;
          this.#latencies.add(performance.now() - due);
        });
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    while (running > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    if (failure) throw failure;
    return this.#latencies.summary();
  }

  /**
   * @param {Operation} operation
   * @param {number} callers
   * @param {typeof picker} choose
   * @returns {Promise<Call>}
   */
  async #calls(operation, callers, choose) {
    const store = this.#store;
    switch (operation) {
      case 'get': {
        this.#sids ??= this.#readSids();
        const pick = choose(this.#sids, callers);
        return (caller, done) => {
          store.get(pick(caller), (error, found) => {
            done(error ?? (found ? undefined : new Error('get: a session was not found')));
          });
        };
      }
      case 'set': {
        this.#loaded ??= await this.#load();
        return this.#setter(this.#loaded, choose(this.#loaded, callers), (one) =>
          one.session.touch(),
        );
      }
      case 'set foreign': {
        this.#loaded ??= await this.#load();
        this.#foreign ??= this.#loaded.map(({ sid, session: { cookie: _, ...rest } }) => ({
          sid,
          session: { ...rest, cookie: plainCookie() },
        }));
        return this.#setter(this.#foreign, choose(this.#foreign, callers), (one) => {
          one.session.cookie.expires = new Date(Date.now() + MAX_AGE_SECONDS * 1000);
        });
      }
      case 'set new':
        return this.#creator();
      case 'touch': {
        this.#loaded ??= await this.#load();
        const pick = choose(this.#loaded, callers);
        return (caller, done) => {
          const { sid, session } = pick(caller);
          session.touch();
          store.touch(sid, session, done);
        };
      }
      case 'destroy':
        return this.#destroyer(callers);
      default:
        throw new Error(`no such operation: ${operation}`);
    }
  }

  /**
   * @param {{ sid: string, session: object }[]} kept
   * @param {(caller: number) => { sid: string, session: object }} pick
   * @param {(one: { session: object }) => void} touch
   * @returns {Call}
   */
  #setter(kept, pick, touch) {
    const store = this.#store;
    const call = (caller, done) => {
      const one = pick(caller);
      one.session.views = 1000 + ((one.session.views + 1) % 9000);
      touch(one);
      store.set(one.sid, one.session, done);
    };
    call.check = async () => {
      for (const { sid, session } of spread(kept, CHECKED)) {
        const found = await this.#get(sid);
        if (found?.views !== session.views) throw new Error('set: a change was not stored');
      }
    };
    return call;
  }

  /** @returns {Call} */
  #creator() {
    const store = this.#store;
    const content = contents(this.#rows.bytes);
    const created = [];
    const call = (_caller, done) => {
      const request = {};
      store.generate(request);
      Object.assign(request.session, content);
      created.push(request.sessionID);
      store.set(request.sessionID, request.session, done);
    };
    call.limit = Math.ceil(CREATED_BYTES / this.#rows.bytes);
    call.check = async () => {
      for (const sid of spread(created, CHECKED)) {
        if (!(await this.#get(sid))) throw new Error('set new: a session was not stored');
      }
    };
    return call;
  }

  /**
   * @param {number} callers
   * @returns {Promise<Call>}
   */
  async #destroyer(callers) {
    const store = this.#store;
    const enough = Math.min(
      callers === 1 ? 5_000 : 20_000,
      Math.floor(CREATED_BYTES / this.#rows.bytes),
    );
    if (this.#doomed.length < enough) {
      const first = this.#doomedNumber;
      const last = first + enough - this.#doomed.length - 1;
      this.#doomedNumber = last + 1;
      await this.opened.fill({
        first,
        last,
        bytes: this.#rows.bytes,
        ttlSeconds: MAX_AGE_SECONDS,
      });
      for (let i = first; i <= last; i += 1) this.#doomed.push(sidOf(i));
    }
    this.#ended = [];
    const call = (_caller, done) => {
      const sid = this.#doomed.pop();
      this.#ended.push(sid);
      store.destroy(sid, done);
    };
    call.limit = this.#doomed.length;
    call.check = async () => {
      for (const sid of spread(this.#ended, CHECKED)) {
        if (await this.#get(sid)) throw new Error('destroy: a session is still there');
      }
    };
    return call;
  }

  #readSids() {
    const { sessions } = this.#rows;
    const count = Math.min(sessions, READ_SIDS);
    return Array.from({ length: count }, (_, i) => sidOf(1 + Math.floor((i * sessions) / count)));
  }

  /** Session objects as in a request: from the store, through express-session's `createSession`. */
  async #load() {
    const { sessions, bytes } = this.#rows;
    const count = Math.min(sessions, Math.floor(LOADED_BYTES / bytes));
    const loaded = [];
    for (let from = 0; from < count; from += 64) {
      const numbers = Array.from({ length: Math.min(64, count - from) }, (_, i) =>
        Math.floor(1 + ((from + i) * sessions) / count),
      );
      loaded.push(
        ...(await Promise.all(
          numbers.map(async (number) => {
            const sid = sidOf(number);
            const found = await this.#get(sid);
            if (found?.user.id !== numberText(number)) throw new Error('another session was read');
            const request = { sessionID: sid, sessionStore: this.#store };
            return { sid, session: this.#store.createSession(request, found) };
          }),
        )),
      );
    }
    return loaded;
  }

  /** @param {string} sid */
  #get(sid) {
    return new Promise((resolve, reject) => {
      this.#store.get(sid, (error, found) => (error ? reject(error) : resolve(found)));
    });
  }
}

/**
 * @typedef {((caller: number, done: (error?: unknown) => void) => void) & {
 *   limit?: number,
 *   check?: () => Promise<void>,
 * }} Call
 */

/**
 * Runs callers, each of which calls again as soon as it has its result.
 *
 * @param {Call} call
 * @param {number} callers
 * @param {number} end a time of `performance.now()`
 * @param {number} limit of operations
 * @param {Latencies} latencies
 * @returns {Promise<number>} operations done
 */
function closedLoop(call, callers, end, limit, latencies) {
  return new Promise((resolve, reject) => {
    let sent = 0;
    let done = 0;
    let active = callers;

    /** @param {number} caller */
    const next = (caller) => {
      // A loop, because some stores call back before they return.
      for (;;) {
        const started = performance.now();
        if (started >= end || sent >= limit) {
          active -= 1;
          if (active === 0) resolve(done);
          return;
        }
        sent += 1;
        let inside = true;
        let answered = false;
        call(caller, (error) => {
          if (error) {
            reject(error);
            return;
          }
          done += 1;
          latencies.add(performance.now() - started);
          if (inside) answered = true;
          else next(caller);
        });
        inside = false;
        if (!answered) return;
      }
    };

    for (let caller = 0; caller < callers; caller += 1) next(caller);
  });
}

/**
 * A random choice, but never one of another caller, because callers are different users.
 *
 * @template T
 * @param {readonly T[]} from
 * @param {number} callers
 * @returns {(caller: number) => T}
 */
function picker(from, callers) {
  const each = Math.floor(from.length / callers);
  if (each === 0) throw new Error(`${callers} callers need more than ${from.length} sessions`);
  let state = 0x2545f491;
  return (caller) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return from[caller + callers * ((state >>> 0) % each)];
  };
}

/**
 * One after the other, for each caller its own.
 *
 * @template T
 * @param {readonly T[]} from
 * @param {number} callers
 * @returns {(caller: number) => T}
 */
function roundRobin(from, callers) {
  const each = Math.floor(from.length / callers);
  const turns = new Uint32Array(callers);
  return (caller) => from[caller + callers * (turns[caller]++ % each)];
}

/**
 * @template T
 * @param {readonly T[]} from
 * @param {number} count
 * @returns {T[]} evenly spread
 */
function spread(from, count) {
  const step = Math.max(1, Math.floor(from.length / count));
  return from.filter((_, i) => i % step === 0);
}

function plainCookie() {
  const expires = new Date(Date.now() + MAX_AGE_SECONDS * 1000);
  return { originalMaxAge: MAX_AGE_SECONDS * 1000, expires, httpOnly: true, path: '/' };
}
