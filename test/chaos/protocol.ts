/** What the main process of the chaos test and the processes under load tell each other. */

/** The processes under load; each is the only one that writes the key of its name. */
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

/** What a session of this test holds: the last value of each process, and a number that `update()` raises. */
export type Content = Readonly<Partial<Record<Name | 'updates', number>>>;

/** What happened, on the clock of {@link nowMs}. A call was acknowledged `at`, or failed and may have happened. */
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
  /** Calls until one works; answers with the milliseconds that took. */
  | { readonly do: 'recover'; readonly limitMs: number }
  /** DISCARD ALL on connections of the app's pool. */
  | { readonly do: 'discard' }
  /** Waits until no call is in flight, and answers with all that has happened since the last time. */
  | { readonly do: 'report' }
  /** Closes the store and the app's pool. */
  | { readonly do: 'close' };

export interface Report {
  readonly entries: Entry[];
  /** Calls that took longer than they may, and calls that never settled. */
  readonly lateCalls: string[];
  readonly slowestMs: number;
  /** Connections of the app's pool that nobody uses and that are not idle. */
  readonly leaked: number;
  readonly cacheHits: number;
  /** The longest time without `sync`. */
  readonly syncDownMs: number;
  /** When `sync` came up. */
  readonly syncUpAt: number[];
  /** The codes of errors that are neither lost connections nor time-outs. */
  readonly unexpected: string[];
}

export type Answer = { readonly call: number } & (
  | { readonly result: Report | number | undefined }
  | { readonly error: string }
);

/** A clock that all processes of a machine share, and that nobody sets. */
export function nowMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** Numbers from 0 to 1 that follow from the seed (mulberry32). */
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
