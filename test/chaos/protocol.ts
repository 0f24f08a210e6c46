/** The messages between the main process of the chaos test and the processes under load. */

/** The processes under load. Only process `a` writes the key `a`, and only `b` the key `b`. */
export type Name = 'a' | 'b';

export interface WorkerSettings {
  readonly name: Name;
  readonly driver: 'node-postgres' | 'postgres-js';
  readonly url: string;
  readonly timeoutSeconds: number;
  readonly heartbeatSeconds: number;
  readonly callsPerSecond: number;
  readonly seed: number;
}

/** The content of a session: the last value of each process, and a number that `update()` increments. */
export type Content = Readonly<Partial<Record<Name | 'updates', number>>>;

/** A call, with times of {@link nowMs}. `at` is its acknowledgement; without it, the outcome is unknown. */
export type Entry =
  | { readonly kind: 'create'; readonly sid: string; readonly at: number | undefined }
  | {
      readonly kind: 'set';
      readonly sid: string;
      readonly value: number;
      readonly at: number | undefined;
    }
  | { readonly kind: 'update'; readonly sid: string; readonly at: number | undefined }
  | { readonly kind: 'touch'; readonly sid: string; readonly at: number | undefined }
  | { readonly kind: 'destroy'; readonly sid: string; readonly at: number | undefined }
  | {
      readonly kind: 'read';
      readonly sid: string;
      readonly calledAt: number;
      /** null: there was no session. */
      readonly content: Content | null;
    };

export type Order =
  | { readonly do: 'load'; readonly isOn: boolean }
  /** Sessions that the other process has created, and that it has ended. */
  | { readonly do: 'learn'; readonly created: string[]; readonly ended: string[] }
  /** Calls the store until it works. The result is how many milliseconds that took. */
  | { readonly do: 'recover'; readonly limitMs: number }
  /** Runs DISCARD ALL on the idle connections of the app's pool. */
  | { readonly do: 'discard' }
  /** Waits until no call is in flight. The result is everything that has happened since the last report. */
  | { readonly do: 'report' }
  /** Closes the store and the app's pool. */
  | { readonly do: 'close' };

export interface Report {
  readonly entries: Entry[];
  /** Calls that exceeded their limit, and calls that never settled. */
  readonly lateCalls: string[];
  readonly slowestMs: number;
  /** Connections of the app's pool that are neither in use nor idle. */
  readonly leaked: number;
  readonly cacheHits: number;
  /** The longest time without `sync`. */
  readonly syncDownMs: number;
  /** The times at which `sync` came up. */
  readonly syncUpAt: number[];
  /** The codes of errors other than lost connections and timeouts. */
  readonly unexpected: string[];
}

export type Answer = { readonly call: number } & (
  | { readonly result: Report | number | undefined }
  | { readonly error: string }
);

/** A monotonic clock that all processes of a machine share. */
export function nowMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** A generator of pseudo-random numbers from 0 to 1 (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(from: readonly T[], random: () => number): T | undefined {
  return from[Math.floor(random() * from.length)];
}
