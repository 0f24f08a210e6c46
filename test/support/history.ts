/**
 * The checker of histories: whether what simulated requests did and saw is possible.
 *
 * Times are ticks of the process that drives all others. `invoked` is before a call is sent and `acked` after its
 * answer arrives. So a call that is acked before another one is invoked happens before it. A store also keeps the
 * order of the calls of one process, so an earlier call of the same process happens before a later one.
 *
 * @module
 */

/** A call on one session. */
interface Call {
  readonly session: string;
  readonly process: number;
  readonly invoked: number;
  /** Infinity if the call failed or had no answer: its outcome is unknown. */
  readonly acked: number;
}

/** A change of a key that a call saved. */
export interface Write extends Call {
  readonly key: string;
  /** Unique; `undefined` if the key was deleted. */
  readonly value: number | undefined;
}

/** What a request loaded; null if there was no session. */
export interface Read extends Call {
  readonly content: Readonly<Record<string, number>> | null;
}

export type Destroy = Call;

/** A row as the test has read it. Looks are in order. */
export interface Look {
  readonly session: string;
  readonly version: number;
  readonly data: string | null;
}

export interface History {
  /** Includes the initial content of the sessions. */
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
  readonly destroys: readonly Destroy[];
  readonly looks: readonly Look[];
}

export type FaultKind =
  /** An acknowledged change is missing, and no later change of the key explains it. */
  | 'lost'
  /** A session was seen after its end had been acknowledged. */
  | 'revived'
  /** A session is missing although no call ended it. */
  | 'vanished'
  /** A value was seen that no call had written yet. */
  | 'invented'
  /** A version was reused, or stayed while the data changed. */
  | 'version';

export interface Fault {
  readonly kind: FaultKind;
  readonly session: string;
  /** The change or the version. */
  readonly what: string;
}

type HappensBefore = (one: Call, other: Call) => boolean;

/**
 * Returns everything in a history that is impossible.
 *
 * @param keepsCallOrder whether the store promises that calls of one process take effect in their order
 */
export function faultsIn(
  { writes, reads, destroys, looks }: History,
  keepsCallOrder = true,
): Fault[] {
  const happensBefore: HappensBefore = (one, other) =>
    one.acked < other.invoked || (keepsCallOrder && calledBefore(one, other));
  const writesOf = groupBy(writes, ({ session, key }) => `${session} ${key}`);
  const destroysOf = groupBy(destroys, ({ session }) => session);
  const keys = new Set(writes.map(({ key }) => key));
  return [
    ...reads.flatMap((read) => {
      const { session, content } = read;
      const ends = destroysOf.get(session) ?? [];
      if (content === null) {
        const isEnded = ends.some((destroy) => destroy.invoked < read.acked);
        return isEnded ? [] : [{ kind: 'vanished', session, what: 'it' } satisfies Fault];
      }
      if (ends.some((destroy) => happensBefore(destroy, read))) {
        return [{ kind: 'revived', session, what: 'it' } satisfies Fault];
      }
      const values = new Map(Object.entries(content));
      return [...keys].flatMap((key) => {
        const ofKey = writesOf.get(`${session} ${key}`) ?? [];
        const kind = faultOfValue(read, values.get(key), ofKey, happensBefore);
        return kind === undefined ? [] : [{ ...kind, session }];
      });
    }),
    ...versionFaults(looks),
  ];
}

/** A value is possible if one of its writes is not known to have been overwritten before the read. */
function faultOfValue(
  read: Read,
  value: number | undefined,
  writes: readonly Write[],
  happensBefore: HappensBefore,
): Pick<Fault, 'kind' | 'what'> | undefined {
  const known = writes.filter((write) => happensBefore(write, read));
  const sources = writes.filter((write) => write.value === value && write.invoked < read.acked);
  const isPossible =
    // A missing key needs no deletion if it was never written.
    (value === undefined && known.length === 0) ||
    sources.some((source) => !known.some((later) => happensBefore(source, later)));
  if (isPossible) return undefined;
  if (sources.length === 0 && value !== undefined) return { kind: 'invented', what: `${value}` };
  const newest = known.reduce((one, other) => (one.invoked > other.invoked ? one : other));
  return { kind: 'lost', what: `${newest.key} = ${newest.value} (${newest.invoked})` };
}

function calledBefore(one: Call, other: Call): boolean {
  return one.process === other.process && one.invoked < other.invoked && one.acked < Infinity;
}

function versionFaults(looks: readonly Look[]): Fault[] {
  const last = new Map<string, Look>();
  const seen = new Set<string>();
  return looks.flatMap((look) => {
    const { session, version, data } = look;
    const before = last.get(session);
    last.set(session, look);
    if (before?.version === version && before.data === data) return [];
    const state = `${session} ${version}`;
    if (!seen.has(state)) {
      seen.add(state);
      return [];
    }
    return [{ kind: 'version', session, what: `${version} again` } satisfies Fault];
  });
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

/** Counts the faults of each kind. A fault that was seen several times counts once. */
export function tally(faults: readonly Fault[]): Partial<Record<FaultKind, number>> {
  const counts: Partial<Record<FaultKind, number>> = {};
  const seen = new Set<string>();
  for (const { kind, session, what } of faults) {
    const fault = `${kind} ${session} ${what}`;
    if (seen.has(fault)) continue;
    seen.add(fault);
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}
