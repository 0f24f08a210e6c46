import { expect, test } from 'vitest';
import { backoffMs } from '../src/util/backoff.js';

const backoff = { firstMs: 100, longestMs: 15_000 };

test('the mean wait doubles with each retry, up to the longest wait', () => {
  const means = [0, 1, 2, 6, 7, 8, 1e6].map((retries) => backoffMs(retries, backoff, 0.5));
  expect(means).toEqual([100, 200, 400, 6400, 12_800, 15_000, 15_000]);
});

test('jitter spreads the wait between half and one and a half times the mean', () => {
  expect(backoffMs(0, backoff, 0)).toBe(50);
  expect(backoffMs(0, backoff, 1)).toBe(150);
  expect(backoffMs(99, backoff, 0)).toBe(7500);
  const waits = new Set(Array.from({ length: 100 }, () => backoffMs(0, backoff)));
  expect(waits.size).toBeGreaterThan(50);
  for (const wait of waits) expect(wait >= 50 && wait < 150).toBe(true);
});
