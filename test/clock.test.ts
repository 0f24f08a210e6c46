/** What moves the clocks of the package, and what does not. */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

/** Moves the machine's wall clock. The package captures the clocks when it is loaded. */
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

/** How many seconds of age `change` adds. */
function agedBy(change: () => void): number {
  const beforeMs = clock.agingMs();
  change();
  return Math.round((clock.agingMs() - beforeMs) / 1000);
}

test('the time during which the machine is suspended counts as age', () => {
  // During a suspension, the wall clock goes on and the monotonic clock stands still.
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
});

test('setting the wall clock back reduces no age, and a later suspension still counts', () => {
  expect(agedBy(() => (machine.wallAheadMs -= 3_600_000))).toBe(0);
  expect(agedBy(() => (machine.wallAheadMs += 60_000))).toBe(60);
});

test('setting the wall clock forward and back again reduces no age', () => {
  const beforeMs = clock.agingMs();
  machine.wallAheadMs = 60_000;
  const forwardMs = clock.agingMs();
  machine.wallAheadMs = 0;
  expect(clock.agingMs()).toBeGreaterThanOrEqual(forwardMs);
  expect(forwardMs - beforeMs).toBeGreaterThan(59_000);
});

test('many small adjustments of the wall clock add almost no age', () => {
  const steps = () => {
    for (let step = 0; step < 1000; step += 1) {
      machine.wallAheadMs += 50;
      clock.agingMs();
    }
  };
  expect(agedBy(steps)).toBeLessThan(10);
});

test('a suspension or a change of the wall clock does not move the clock of deadlines', () => {
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

test('the package does not use fake clocks and timers of the app', async () => {
  vi.useFakeTimers({ now: 0 });
  // Jest and sinon replace this one, too, by default. Node's own code needs the real `process.nextTick`.
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
  const clocks = () => [clock.monotonicMs(), clock.agingMs()];
  const [monotonic = 0, aging = 0] = clocks();
  vi.advanceTimersByTime(3_600_000);
  const [monotonicLater = 0, agingLater = 0] = clocks();
  expect(monotonicLater - monotonic).toBeLessThan(600_000);
  expect(agingLater - aging).toBeLessThan(600_000);
  await useTimers(clock);
});

test('the CommonJS build does not use fake timers, even if they replace the functions of node:timers', async () => {
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
