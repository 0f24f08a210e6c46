/**
 * A thread that counts for its parent how many requests are due. It sleeps with `Atomics.wait`, which is much more precise
 * than a timer and, unlike polling, does not use the core.
 *
 * @module
 */
import { parentPort, workerData } from 'node:worker_threads';
import { sharedClockMs } from './stats.js';

/** @type {{ due: Float64Array, started: number }} milliseconds since the start, and on the shared clock */
const { due, started } = workerData;

const neverNotified = new Int32Array(new SharedArrayBuffer(4));

let count = 0;
while (count < due.length) {
  const waitMs = started + due[count] - sharedClockMs();
  if (waitMs > 0) Atomics.wait(neverNotified, 0, 0, waitMs);
  const elapsed = sharedClockMs() - started;
  while (count < due.length && due[count] <= elapsed) count += 1;
  parentPort.postMessage(count);
}
