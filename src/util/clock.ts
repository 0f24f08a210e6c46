/**
 * The clocks and timers of this package.
 *
 * They are captured when this module is loaded, so fake timers that an app's tests install later neither
 * stop nor speed up a store. Import them from here, never from the globals or from `node:timers` and `node:process`: in a
 * CommonJS build, these have the fake ones. Some fake `process.nextTick` and `queueMicrotask`, too.
 *
 * @module
 */
import { performance } from 'node:perf_hooks';
import * as process from 'node:process';
import * as timers from 'node:timers';
import * as timersPromises from 'node:timers/promises';

export const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate } = timers;
export const { nextTick } = process;

const settled = Promise.resolve();

/** Like `queueMicrotask`, which may be a fake one. */
export function microtask(callback: () => void): void {
  void settled.then(callback);
}

const sleep = timersPromises.setTimeout;
const wallMs = Date.now;

/** A wall clock that runs ahead by less than this is being adjusted; the machine was not suspended. */
const ADJUSTMENT_MS = 100;

/** Milliseconds on a clock that cannot be set. It stops while the machine is suspended. */
export const monotonicMs: () => number = performance.now.bind(performance);

let lastMonotonicMs = monotonicMs();
let lastWallMs = wallMs();
let suspendedMs = 0;

/**
 * Milliseconds for measuring how old something is. While a machine is suspended, the monotonic clock
 * stops and the wall clock does not, so this clock jumps ahead whenever the wall clock does. It never
 * goes back: setting the wall clock can only make things look older than they are.
 */
export function agingMs(): number {
  const monotonic = monotonicMs();
  const wall = wallMs();
  const aheadMs = wall - lastWallMs - (monotonic - lastMonotonicMs);
  if (aheadMs > ADJUSTMENT_MS) suspendedMs += aheadMs;
  lastMonotonicMs = monotonic;
  lastWallMs = wall;
  return monotonic + suspendedMs;
}

/**
 * Waits until what is in the sockets has been read. A timer that is late, because the event loop was blocked, runs
 * before that.
 */
export function socketsRead(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => setImmediate(resolve));
  });
}

/** Waits for a time (at most 24 days, Node's limit), or until the signal is aborted. Keeps no process alive. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}
