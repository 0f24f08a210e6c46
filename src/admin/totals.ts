/**
 * Numbers about the whole table. If the table is large, they are estimated from a sample. They are kept for a minute. So
 * their cost does not depend on the number of sessions and admins.
 *
 * @module
 */
import type { StoreAccess } from '../lifecycle/access.js';
import type { ExpiryCount } from '../queries/expiries.js';
import { monotonicMs, setTimeout } from '../util/clock.js';
import { Statements } from './statements.js';

export interface Totals {
  readonly live: number;
  readonly expired: number;
  readonly revoked: number;
  /** Whether the numbers are estimated. */
  readonly isEstimate: boolean;
  /** Bytes of the table with indexes and TOAST. */
  readonly bytes: number;
  /** Whether the table has an index that begins with `created_at`, which the listing of a large table needs. */
  readonly hasIndex: boolean;
  readonly expiries: readonly Expiries[];
}

/** Live sessions that expire from `from` until `until`, in milliseconds since 1970. The last `until` is null. */
export interface Expiries {
  readonly from: number;
  readonly until: number | null;
  readonly sessions: number;
}

/** About 8 MB. */
const SAMPLED_PAGES = 1000;
const KEPT_MS = 60_000;

interface Kept {
  readonly totals: Promise<Totals>;
  readonly untilMs: number;
  isEstimate?: boolean;
}

/** How long a page waits for optional numbers. */
const PATIENCE_MS = 500;

export class TableTotals {
  readonly #access: StoreAccess;
  readonly #statements: Statements;
  #kept: Kept | undefined;

  constructor(access: StoreAccess, statements = new Statements(access)) {
    this.#access = access;
    this.#statements = statements;
  }

  /** Returns the totals, at most a minute old. */
  read(): Promise<Totals> {
    if (this.#kept !== undefined && monotonicMs() < this.#kept.untilMs) return this.#kept.totals;
    const kept: Kept = { totals: this.#read(), untilMs: monotonicMs() + KEPT_MS };
    this.#kept = kept;
    kept.totals.then(
      ({ isEstimate }) => {
        kept.isEstimate = isEstimate;
      },
      () => {
        if (this.#kept === kept) this.#kept = undefined;
      },
    );
    return kept.totals;
  }

  /** Counts again at the next read, because sessions have ended. Keeps an estimate, which a few sessions hardly change. */
  invalidate(): void {
    if (this.#kept?.isEstimate !== true) this.#kept = undefined;
  }

  /** Returns the totals if they are available soon. The list must not fail or wait because of them. */
  soon(): Promise<Totals | undefined> {
    return new Promise((resolve) => {
      setTimeout(() => resolve(undefined), PATIENCE_MS).unref();
      this.read().then(resolve, (error) => {
        this.#access.log('The admin page cannot count the sessions', error);
        resolve(undefined);
      });
    });
  }

  async #read(): Promise<Totals> {
    const { createdAt } = this.#access.table.rows;
    const { bytes, pages } = await this.#statements.run((calls, deadline) => calls.sizes(deadline));
    const percent = Math.min(100, (SAMPLED_PAGES / pages) * 100);
    return this.#statements.run(async (calls, deadline) => {
      const { live, expired, revoked } = await calls.totals(deadline, percent);
      const hours = await calls.expiries(deadline, percent);
      const indexed = await calls.indexed(deadline);
      return {
        live,
        expired,
        revoked,
        isEstimate: percent < 100,
        bytes,
        hasIndex: indexed.has(createdAt.name),
        expiries: histogramOf(hours),
      };
    });
  }
}

const HOUR_MS = 3_600_000;
const WIDTHS_IN_HOURS = [1, 2, 3, 6, 12, 24, 48, 7 * 24, 30 * 24];
const BARS = 24;

/** The share of sessions that the bars of equal width must contain. The rest is in the last bar. */
const COVERED = 0.95;

/** Sums up hours in at most {@link BARS} bars of equal width, and one bar for all later hours. */
export function histogramOf(hours: readonly ExpiryCount[]): readonly Expiries[] {
  const first = hours[0]?.hour;
  if (first === undefined) return [];
  const total = sumOf(hours);
  const endOf = (width: number) => first + width * BARS * HOUR_MS;
  const width =
    WIDTHS_IN_HOURS.find(
      (each) => sumOf(hours.filter(({ hour }) => hour < endOf(each))) >= total * COVERED,
    ) ?? 30 * 24;
  const end = endOf(width);
  const last = hours.findLast(({ hour }) => hour < end)?.hour ?? first;
  const bars: Expiries[] = [];
  for (let from = first; from <= last; from += width * HOUR_MS) {
    const until = from + width * HOUR_MS;
    const inside = hours.filter(({ hour }) => hour >= from && hour < until);
    bars.push({ from, until, sessions: sumOf(inside) });
  }
  const later = sumOf(hours.filter(({ hour }) => hour >= end));
  if (later > 0) bars.push({ from: end, until: null, sessions: later });
  return bars;
}

function sumOf(hours: readonly ExpiryCount[]): number {
  return Math.round(hours.reduce((sum, { sessions }) => sum + sessions, 0));
}
