/**
 * A version that a process has seen of a session, and when. Versions only grow; an ended session has the version
 * infinity. Times are milliseconds on one clock.
 */
export interface Observation {
  readonly sid: string;
  readonly version: number;
  readonly calledAt: number;
  readonly answeredAt: number;
}

export interface Staleness {
  /** Calls that returned an older version than the same process knew before. */
  readonly backward: string[];
  /** Calls that returned an older version than any process had known for longer than the bound. */
  readonly tooOld: string[];
  /** The number of calls that returned an older version than any process knew before. */
  readonly stale: number;
  /** The longest time for which a newer version was known than a call returned. */
  readonly oldestMs: number;
}

/** Checks the histories of several processes on the same sessions. */
export function judgeHistories(
  histories: readonly (readonly Observation[])[],
  boundMs: number,
): Staleness {
  const all = bySid(histories.flat());
  const backward: string[] = [];
  const tooOld: string[] = [];
  let stale = 0;
  let oldestMs = 0;
  for (const [process, history] of histories.entries()) {
    for (const [sid, own] of bySid(history)) {
      const knownHere = knownAt(own);
      const knownAnywhere = knownAt(all.get(sid) ?? []);
      for (const { version, calledAt } of own) {
        const text = `process ${process} got version ${version} of ${sid} at ${calledAt}`;
        const known = knownHere(calledAt);
        if (version < known) backward.push(`${text}, and knew ${known}`);
        const longKnown = knownAnywhere(calledAt - boundMs);
        if (version < longKnown)
          tooOld.push(`${text}, ${longKnown} was known ${boundMs} ms before`);
        if (version < knownAnywhere(calledAt)) stale += 1;
        oldestMs = Math.max(oldestMs, calledAt - (knownAnywhere.since(version) ?? calledAt));
      }
    }
  }
  return { backward, tooOld, stale, oldestMs };
}

function bySid(observations: readonly Observation[]): Map<string, Observation[]> {
  const groups = new Map<string, Observation[]>();
  for (const observation of observations) {
    const group = groups.get(observation.sid);
    if (group === undefined) groups.set(observation.sid, [observation]);
    else group.push(observation);
  }
  return groups;
}

/** Returns the newest version known at a time. `since` returns when a newer version than this one was first known. */
function knownAt(observations: readonly Observation[]) {
  const steps: { at: number; version: number }[] = [];
  for (const { version, answeredAt } of observations.toSorted(
    (one, other) => one.answeredAt - other.answeredAt,
  )) {
    if (version > (steps.at(-1)?.version ?? Number.NEGATIVE_INFINITY)) {
      steps.push({ at: answeredAt, version });
    }
  }
  const known = (time: number): number =>
    steps.findLast(({ at }) => at <= time)?.version ?? Number.NEGATIVE_INFINITY;
  return Object.assign(known, {
    since: (version: number) => steps.find((step) => step.version > version)?.at,
  });
}
