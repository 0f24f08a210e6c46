/**
 * A process under load: makes mixed calls at a limited rate and records each one.
 */

import { setTimeout as pause } from 'node:timers/promises';
import { inspect } from 'node:util';
import {
  ConnectionError,
  DrizzleStore,
  SessionStoreError,
  type Source,
  StoreTimeoutError,
} from 'connect-drizzle';
import type { SessionData } from 'express-session';
import pg from 'pg';
import postgres from 'postgres';
import { generated, loaded } from '../support/requests.js';
import {
  type Answer,
  type Content,
  type Entry,
  nowMs,
  type Order,
  pick,
  type Report,
  randomFrom,
  type WorkerSettings,
} from './protocol.js';

const settings: WorkerSettings = JSON.parse(process.argv[2] ?? '{}');
const { name, timeoutSeconds, heartbeatSeconds, callsPerSecond } = settings;
const random = randomFrom(settings.seed);

const MOST_SESSIONS = 150;
const MOST_IN_FLIGHT = 48;
const TICK_MS = 10;
/** A call may take `timeout` and the time of one statement that was already sent. */
const LIMIT_MS = timeoutSeconds * 2000 + 500;
/** If a timer is later than this, the process was blocked, and calls are not blamed for that time. */
const LATE_TIMER_MS = 50;

const pool = new pg.Pool({ connectionString: settings.url, max: 10, application_name: name });
pool.on('error', () => {});
const sql = postgres(settings.url, {
  max: 10,
  connection: { application_name: name },
  onnotice: () => {},
});
const source: Source = settings.driver === 'node-postgres' ? pool : sql;
const store = new DrizzleStore(source, {
  timeout: timeoutSeconds,
  cache: true,
  sync: { heartbeat: heartbeatSeconds },
  pruneSessionInterval: 5,
  errorLog: () => {},
});

const live: string[] = [];
const ended: string[] = [];
/** Sessions that a call of this process is saving. No other call saves them meanwhile. */
const saving = new Set<string>();
const values = new Map<string, number>();
const inFlight = new Map<number, { what: string; startedAt: number }>();
let calls = 0;
let isOn = false;
let created = 0;

let entries: Entry[] = [];
let lateCalls: string[] = [];
let unexpected: string[] = [];
let slowestMs = 0;
let syncDownMs = 0;
let syncUpAt: number[] = [];
let downSince: number | undefined = nowMs();
/** How long this process was blocked so far. */
let lagMs = 0;

store.on('sync', (state) => {
  if (state === 'down') downSince ??= nowMs();
  else if (downSince !== undefined) {
    syncUpAt.push(nowMs());
    syncDownMs = Math.max(syncDownMs, nowMs() - downSince);
    downSince = undefined;
  }
});

/** Runs a call. Returns `undefined` if it failed. */
async function call<T>(what: string, run: () => Promise<T>): Promise<{ value: T } | undefined> {
  calls += 1;
  const number = calls;
  const startedAt = nowMs();
  const lagBeforeMs = lagMs;
  inFlight.set(number, { what, startedAt });
  try {
    return { value: await run() };
  } catch (error) {
    if (!(error instanceof ConnectionError) && !(error instanceof StoreTimeoutError)) {
      unexpected.push(describe(error));
    }
    return undefined;
  } finally {
    inFlight.delete(number);
    const tookMs = nowMs() - startedAt;
    slowestMs = Math.max(slowestMs, tookMs);
    if (tookMs > LIMIT_MS + lagMs - lagBeforeMs)
      lateCalls.push(`${what} took ${Math.round(tookMs)} ms`);
  }
}

/** The code of an error, and the SQLSTATE of its cause. */
function describe(error: unknown): string {
  if (!(error instanceof SessionStoreError)) return inspect(error);
  const { code, cause } = error;
  return cause?.code === undefined ? code : `${code} (${cause.code})`;
}

async function read(sid: string): Promise<void> {
  const calledAt = nowMs();
  const found = await call('get', () => store.get(sid));
  if (found !== undefined) note({ kind: 'read', sid, calledAt, content: contentOf(found.value) });
}

async function set(sid: string): Promise<void> {
  if (saving.has(sid)) return;
  saving.add(sid);
  try {
    const calledAt = nowMs();
    const request = await call('load', () => loaded(store, sid).catch(noSession));
    if (request === undefined) return;
    note({ kind: 'read', sid, calledAt, content: contentOf(request.value) });
    if (request.value === null) return;
    const session = request.value;
    const value = (values.get(sid) ?? 0) + 1;
    values.set(sid, value);
    session[name] = value;
    session.touch();
    const saved = await call('set', () => store.set(sid, session));
    note({ kind: 'set', sid, value, at: saved && nowMs() });
  } finally {
    saving.delete(sid);
  }
}

async function touch(sid: string): Promise<void> {
  const request = await call('load', () => loaded(store, sid).catch(noSession));
  const session = request?.value;
  if (!session) return;
  session.touch();
  const touched = await call('touch', () => store.touch(sid, session));
  note({ kind: 'touch', sid, at: touched && nowMs() });
}

async function update(sid: string): Promise<void> {
  const updated = await call('update', () =>
    store.update(sid, (session) => {
      const content: SessionData & { updates?: number } = session;
      content.updates = (content.updates ?? 0) + 1;
    }),
  );
  // There was no session, so there was no update.
  if (updated !== undefined && updated.value === undefined) return;
  note({ kind: 'update', sid, at: updated && nowMs() });
}

async function destroy(sid: string): Promise<void> {
  forget(sid);
  const destroyed = await call('destroy', () => store.destroy(sid));
  note({ kind: 'destroy', sid, at: destroyed && nowMs() });
  if (destroyed === undefined) return;
  ended.push(sid);
  tell({ created: [], ended: [sid] });
}

async function create(): Promise<void> {
  created += 1;
  const sid = `${name}-${settings.seed}-${created}`;
  const session = generated(store, sid);
  const saved = await call('create', () => store.set(sid, session));
  note({ kind: 'create', sid, at: saved && nowMs() });
  if (saved !== undefined) {
    live.push(sid);
    tell({ created: [sid], ended: [] });
  } else if (random() < 0.5) {
    // The user logs out. That must hold, whatever the outcome of the first call.
    await destroy(sid);
  }
}

function noSession(error: unknown): null {
  if (error instanceof Error && error.message.startsWith('no session')) return null;
  throw error;
}

function contentOf(session: object | null | undefined): Content | null {
  if (session === null || session === undefined) return null;
  const { a, b, updates }: Content = session;
  return { a, b, updates };
}

function note(entry: Entry): void {
  entries.push(entry);
}

function forget(sid: string): void {
  const at = live.indexOf(sid);
  if (at !== -1) live.splice(at, 1);
}

/** Tells the other process, through the main process. */
function tell(news: { created: string[]; ended: string[] }): void {
  process.send?.({ news });
}

async function anything(): Promise<void> {
  const what = random();
  const sid = pick(live, random);
  if (live.length < 20 || sid === undefined) return create();
  if (what < 0.4) return read(sid);
  if (what < 0.45) return read(pick(ended, random) ?? sid);
  if (what < 0.7) return set(sid);
  if (what < 0.78) return touch(sid);
  if (what < 0.86) return update(sid);
  if (what < 0.92 && live.length < MOST_SESSIONS) return create();
  return live.length > MOST_SESSIONS / 2 ? destroy(sid) : read(sid);
}

let owed = 0;
let tickedAt = nowMs();
setInterval(() => {
  const at = nowMs();
  const lateMs = at - tickedAt - TICK_MS;
  if (lateMs > LATE_TIMER_MS) lagMs += lateMs;
  owed = Math.min(owed + ((at - tickedAt) / 1000) * callsPerSecond, callsPerSecond / 10);
  tickedAt = at;
  for (; owed >= 1; owed -= 1) {
    if (isOn && inFlight.size < MOST_IN_FLIGHT) void anything();
  }
}, TICK_MS);

/** Waits until no call is in flight. A call that never settles is reported as late. */
async function quiet(): Promise<void> {
  const startedAt = nowMs();
  while (inFlight.size > 0 && nowMs() - startedAt < 2 * LIMIT_MS) await pause(10);
  for (const { what, startedAt: since } of inFlight.values()) {
    lateCalls.push(`${what} has not settled after ${Math.round(nowMs() - since)} ms`);
  }
  inFlight.clear();
}

/** The number of connections that the app's pool has lost. */
async function leakedConnections(): Promise<number> {
  const inUse = () => pool.totalCount - pool.idleCount + pool.waitingCount;
  const startedAt = nowMs();
  while (inUse() > 0 && nowMs() - startedAt < 2 * LIMIT_MS) await pause(10);
  return inUse();
}

async function recover(wantedMs: number): Promise<number> {
  const startedAt = nowMs();
  for (;;) {
    const probe = `probe-${name}-${created}`;
    created += 1;
    const worked = await Promise.all([
      store.set(probe, generated(store, probe)).then(() => store.get(probe)),
      store.touch(probe, generated(store, probe)),
    ]).then(
      ([found]) => found !== undefined,
      () => false,
    );
    const tookMs = nowMs() - startedAt;
    if (worked || tookMs > wantedMs) return tookMs;
    await pause(20);
  }
}

/** Uses only idle connections, because connecting has no time limit here. */
async function discardAll(): Promise<void> {
  const clients = await Promise.all(Array.from({ length: pool.idleCount }, () => pool.connect()));
  await Promise.all(
    clients.map(async (client) => {
      const limited = { text: 'discard all', query_timeout: 1000 };
      await client.query(limited).then(
        () => client.release(),
        () => client.release(true),
      );
    }),
  );
}

async function obey(order: Order): Promise<Report | number | undefined> {
  switch (order.do) {
    case 'load':
      isOn = order.isOn;
      return undefined;
    case 'learn':
      live.push(...order.created);
      for (const sid of order.ended) {
        forget(sid);
        ended.push(sid);
      }
      return undefined;
    case 'recover':
      return recover(order.limitMs);
    case 'discard':
      await discardAll();
      return undefined;
    case 'report': {
      await quiet();
      const leaked = await leakedConnections();
      if (downSince !== undefined) syncDownMs = Math.max(syncDownMs, nowMs() - downSince);
      const report: Report = {
        entries,
        lateCalls,
        slowestMs,
        leaked,
        cacheHits: store.stats().hits,
        syncDownMs,
        syncUpAt,
        unexpected,
      };
      entries = [];
      syncUpAt = [];
      lateCalls = [];
      unexpected = [];
      ended.splice(0, Math.max(0, ended.length - 1000));
      return report;
    }
    case 'close':
      await store.close();
      await pool.end();
      await sql.end({ timeout: 1 });
      return undefined;
  }
}

process.on('message', ({ call: number, order }: { call: number; order: Order }) => {
  obey(order).then(
    (result) => process.send?.({ call: number, result } satisfies Answer),
    (error) => process.send?.({ call: number, error: inspect(error) } satisfies Answer),
  );
});
process.on('disconnect', () => process.exit(1));
await store.ready();
process.send?.({ call: 0, result: undefined } satisfies Answer);
