/**
 * Times, medians and percentiles.
 *
 * @module
 */

/**
 * The time on a clock that all processes and threads of the machine share.
 *
 * @returns {number} milliseconds
 */
export function sharedClockMs() {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * @param {readonly number[]} values
 * @returns {number} NaN where there are none
 */
export function median(values) {
  const sorted = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * @param {Float64Array | readonly number[]} sorted ascending
 * @param {number} share 0.99 for the 99th percentile
 * @returns {number} NaN where there are none
 */
export function percentile(sorted, share) {
  if (sorted.length === 0) return Number.NaN;
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

/** Durations in milliseconds, the first million of them kept. */
export class Latencies {
  #values = new Float64Array(1 << 20);
  #count = 0;
  #max = 0;

  reset() {
    this.#count = 0;
    this.#max = 0;
  }

  /** @param {number} milliseconds */
  add(milliseconds) {
    if (this.#count < this.#values.length) this.#values[this.#count++] = milliseconds;
    if (milliseconds > this.#max) this.#max = milliseconds;
  }

  /** @returns {{ samples: number, p50: number, p99: number, max: number }} milliseconds */
  summary() {
    const sorted = this.#values.slice(0, this.#count).sort();
    return {
      samples: this.#count,
      p50: percentile(sorted, 0.5),
      p99: percentile(sorted, 0.99),
      max: this.#max,
    };
  }
}

/**
 * One row from several rounds: the median of each number, the first of anything else.
 *
 * @template {Record<string, unknown>} T
 * @param {readonly T[]} rounds at least one
 * @returns {T}
 */
export function medians(rounds) {
  return /** @type {T} */ (
    Object.fromEntries(
      Object.entries(rounds[0]).map(([key, value]) => [
        key,
        typeof value === 'number' ? median(rounds.map((round) => Number(round[key]))) : value,
      ]),
    )
  );
}
