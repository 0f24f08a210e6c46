/**
 * The clocks and timers of this package.
 *
 * They are captured when this module is loaded, so fake timers that an app's tests install later neither stop nor speed up
 * a store. Import them from here, never from the globals or from `node:timers` and `node:process`: in a CommonJS build,
 * these contain the fake timers. Some fake timers also replace `process.nextTick` and `queueMicrotask`.
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

/** Like `queueMicrotask`, which an app's test may have replaced. */
export function microtask(callback: () => void): void {
  void settled.then(callback);
}

const sleep = timersPromises.setTimeout;
const wallMs = Date.now;

/** If the wall clock jumps ahead by less than this, it is being adjusted; the machine was not suspended. */
const ADJUSTMENT_MS = 100;

/** Milliseconds on a clock that cannot be set. It stops while the machine is suspended. */
export const monotonicMs: () => number = performance.now.bind(performance);

let lastMonotonicMs = monotonicMs();
let lastWallMs = wallMs();
let suspendedMs = 0;

/**
 * Milliseconds for measuring the age of something. While a machine is suspended, the monotonic clock stops and the wall
 * clock does not. So this clock jumps ahead whenever the wall clock does. It never goes back: a change of the wall clock
 * can only make things look older than they are.
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
 * Waits until the event loop has read the data that has arrived on sockets. After a blocked event loop, late timers run
 * before that.
 */
export function socketsRead(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => setImmediate(resolve));
  });
}

/** Waits for a time (at most 24 days, Node's limit), or until the signal is aborted. Does not keep the process alive. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}
