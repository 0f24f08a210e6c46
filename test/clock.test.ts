/** The clocks of the package: what moves them and what does not. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

/** Adjusts the machine's clocks, which the package takes when it is loaded. */
const machine = { wallAheadMs: 0 };
type Clock = typeof import('../src/util/clock.js');
let clock: Clock;

beforeEach(async () => {
  machine.wallAheadMs = 0;
  const wallMs = Date.now;
  vi.spyOn(Date, 'now').mockImplementation(() => wallMs() + machine.wallAheadMs);
  vi.resetModules();
  clock = await import('../src/util/clock.js');
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** How much older something looks after `change`, in seconds. */
function agedBy(change: () => void): number {
  const beforeMs = clock.agingMs();
  change();
  return Math.round((clock.agingMs() - beforeMs) / 1000);
}

test('what happened before the machine was suspended looks as old as it is', () => {
  // The monotonic clock stands still meanwhile.
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
});

test('a wall clock that is set back makes nothing look younger, and hides no suspension after it', () => {
  expect(agedBy(() => (machine.wallAheadMs -= 3_600_000))).toBe(0);
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
});

test('a wall clock that is set forward and back again makes nothing look younger', () => {
  const beforeMs = clock.agingMs();
  machine.wallAheadMs = 60_000;
  const forwardMs = clock.agingMs();
  machine.wallAheadMs = 0;
  expect(clock.agingMs()).toBeGreaterThanOrEqual(forwardMs);
  expect(forwardMs - beforeMs).toBeGreaterThan(59_000);
});

test('a wall clock that is being adjusted does not speed the clock up', () => {
  const steps = () => {
    for (let step = 0; step < 1000; step += 1) {
      machine.wallAheadMs += 50;
      clock.agingMs();
    }
  };
  expect(agedBy(steps)).toBeLessThan(10);
});

test('suspension and a wall clock that is set do not move the clock of deadlines', () => {
  const beforeMs = clock.monotonicMs();
  machine.wallAheadMs = 3_600_000;
  expect(clock.monotonicMs() - beforeMs).toBeLessThan(600_000);
  machine.wallAheadMs = 0;
  expect(clock.monotonicMs()).toBeGreaterThanOrEqual(beforeMs);
});

/** Waits for each timer of the package once. */
async function useTimers(used: Clock) {
  const { setTimeout, setImmediate, setInterval, clearInterval, nextTick, microtask, pause } = used;
  await new Promise<void>((resolve) => nextTick(resolve));
  await new Promise<void>((resolve) => microtask(resolve));
  await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise<void>((resolve) => {
    const interval = setInterval(() => {
      clearInterval(interval);
      resolve();
    }, 1);
  });
  await pause(1, new AbortController().signal);
}

test('the fake clocks and timers of an app are not used', async () => {
  vi.useFakeTimers({ now: 0 });
  // Jest and sinon replace these, too, by default; Node's own code needs the real `process.nextTick`.
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
  const clocks = () => [clock.monotonicMs(), clock.agingMs()];
  const [monotonic = 0, aging = 0] = clocks();
  vi.advanceTimersByTime(3_600_000);
  const [monotonicLater = 0, agingLater = 0] = clocks();
  expect(monotonicLater - monotonic).toBeLessThan(600_000);
  expect(agingLater - aging).toBeLessThan(600_000);
  await useTimers(clock);
});

test('in a CommonJS build neither, although sinon replaces the functions of node:timers there', async () => {
  const require = createRequire(import.meta.url);
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('../src/util/clock.ts', import.meta.url))],
    platform: 'node',
    format: 'cjs',
    write: false,
  });
  const module: { exports?: Clock } = {};
  new Function('module', 'require', outputFiles[0]?.text ?? '')(module, require);
  if (module.exports === undefined) throw new Error('nothing was built');
  const fake = () => {
    throw new Error('a fake timer');
  };
  for (const name of ['setTimeout', 'setInterval', 'clearInterval', 'setImmediate'] as const) {
    vi.spyOn(require('node:timers'), name).mockImplementation(fake);
  }
  vi.spyOn(require('node:timers/promises'), 'setTimeout').mockImplementation(fake);
  await useTimers(module.exports);
});
