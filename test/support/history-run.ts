import { type ChildProcess, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { idOf } from 'connect-drizzle';
import fc from 'fast-check';
import { bundleProgram } from './bundle.js';
import type { TestDatabase } from './database.js';
import type { Destroy, History, Look, Read, Write } from './history.js';
import type { Order, Report, StoreKind, Told } from './history-process.js';

/** A simulated request, which loads its session, changes and saves it a few times, and ends. */
interface PlannedRequest {
  readonly process: number;
  /** The browser whose session it is. */
  readonly browser: number;
  /** Whether it has the cookie from before the last log-out of the browser. */
  readonly isStale: boolean;
  /** The changes of each save: the key, and whether it is deleted. If empty, it saves what it read. */
  readonly saves: readonly (readonly (readonly [key: string, isDeleted: boolean])[])[];
  readonly ending: 'save' | 'touch' | 'log out';
  /** How many calls of other requests happen between two of its own. */
  readonly slowness: number;
}

export interface Plan {
  readonly browsers: number;
  /** How many requests run at once. */
  readonly concurrency: number;
  readonly requests: readonly PlannedRequest[];
}

const keys = ['a', 'b', 'c', 'd'];

const request = fc.record<PlannedRequest>({
  process: fc.nat(1),
  browser: fc.nat(2),
  isStale: weighted([9, false], [1, true]),
  saves: fc.array(
    fc.uniqueArray(fc.tuple(fc.constantFrom(...keys), weighted([4, false], [1, true])), {
      maxLength: 2,
      selector: ([key]) => key,
    }),
    { minLength: 1, maxLength: 3 },
  ),
  ending: weighted<PlannedRequest['ending']>([10, 'save'], [8, 'touch'], [1, 'log out']),
  slowness: weighted([6, 0], [3, 4], [1, 40]),
});

export const plan = fc.record<Plan>({
  browsers: fc.constant(3),
  concurrency: fc.integer({ min: 8, max: 32 }),
  requests: fc.array(request, { minLength: 200, maxLength: 300, size: 'max' }),
});

function weighted<T>(...choices: [weight: number, value: T][]): fc.Arbitrary<T> {
  return fc.oneof(...choices.map(([weight, value]) => ({ weight, arbitrary: fc.constant(value) })));
}

/** A process that carries out orders. */
export class HistoryProcess {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (report: Report) => void>();
  #calls = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', (report: Report) => {
      this.#waiting.get(report.call)?.(report);
      this.#waiting.delete(report.call);
    });
  }

  static async start(kind: StoreKind, database: TestDatabase): Promise<HistoryProcess> {
    const program = await bundleProgram({ file: 'history-process.ts' });
    const child = fork(program, [kind], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      execArgv: [],
      env: { ...process.env, DATABASE_URL: database.url },
    });
    await once(child, 'message');
    return new HistoryProcess(child);
  }

  tell(order: Order): Promise<Report> {
    const call = this.#calls;
    this.#calls += 1;
    return new Promise((resolve) => {
      this.#waiting.set(call, resolve);
      this.#child.send({ call, order } satisfies Told);
    });
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill();
    await ended;
  }
}

/** A logical clock, which ticks at each event. `sleep` also ends when nothing is left that could tick. */
class Clock {
  #now = 0;
  #underWay = 0;
  readonly #sleeping: { readonly until: number; readonly wake: () => void }[] = [];

  tick(): number {
    this.#now += 1;
    this.#wake();
    return this.#now;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#underWay += 1;
    try {
      return await work();
    } finally {
      this.#underWay -= 1;
      this.#wake();
    }
  }

  sleep(ticks: number): Promise<void> {
    return new Promise((wake) => {
      this.#sleeping.push({ until: this.#now + ticks, wake });
      setImmediate(() => this.#wake());
    });
  }

  #wake(): void {
    this.#sleeping.sort((one, other) => one.until - other.until);
    for (;;) {
      const [first] = this.#sleeping;
      if (first === undefined || (first.until > this.#now && this.#underWay > 0)) return;
      this.#now = Math.max(this.#now, first.until);
      this.#sleeping.shift();
      first.wake();
      // Its work may wake the others.
      if (this.#underWay === 0) return;
    }
  }
}

/** Runs a plan in several processes and records its history. */
export async function runPlan(
  { browsers, concurrency, requests }: Plan,
  processes: readonly HistoryProcess[],
  database: TestDatabase,
): Promise<History & { readonly errors: readonly string[] }> {
  const clock = new Clock();
  const writes: Write[] = [];
  const reads: Read[] = [];
  const destroys: Destroy[] = [];
  const looks: Look[] = [];
  const errors: string[] = [];
  const sessions: { current: string; former: string | undefined }[] = [];
  const all: string[] = [];
  let values = 0;
  let looking = Promise.resolve();

  const tell = async (process: number, order: Order) => {
    const invoked = clock.tick();
    const report = await clock.during(async () => processes[process]?.tell(order));
    const answered = clock.tick();
    if (report?.error !== undefined) errors.push(report.error);
    return { report, process, invoked, acked: report?.error === undefined ? answered : Infinity };
  };

  const begin = async (browser: number) => {
    const session = randomUUID();
    all.push(session);
    const content = Object.fromEntries(keys.slice(0, 2).map((key) => [key, ++values]));
    const { report, ...call } = await tell(browser % 2, { do: 'create', sid: session, content });
    for (const [key, value] of Object.entries(content))
      writes.push({ ...call, session, key, value });
    sessions[browser] = { current: session, former: sessions[browser]?.current };
  };

  const look = () => {
    looking = looking.then(async () => {
      const rows = await database.query<{ id: string; version: number; data: string | null }>(
        'select id, version, data::text as data from sessions where id = any($1)',
        [all.map(idOf)],
      );
      for (const { id, version, data } of rows) looks.push({ session: id, version, data });
    });
  };

  const read = async (process: number, number: number, session: string) => {
    const { report, ...call } = await tell(process, { do: 'begin', request: number, sid: session });
    if (report?.error !== undefined) return false;
    const content = report?.content ?? null;
    reads.push({ ...call, session, content });
    return content !== null;
  };

  const perform = async (planned: PlannedRequest, number: number) => {
    const { process, browser, isStale, saves, ending, slowness } = planned;
    const { current = '', former } = sessions[browser % browsers] ?? {};
    const session = isStale && former !== undefined ? former : current;
    if (!(await read(process, number, session))) return;
    for (const [at, save] of saves.entries()) {
      await clock.sleep(slowness);
      if (at === saves.length - 1 && ending !== 'save') break;
      const changes = save.map(([key, isDeleted]) => [key, isDeleted ? null : ++values] as const);
      const order: Order = { do: 'save', request: number, changes };
      const { report, ...call } = await tell(process, order);
      for (const [key, value] of changes) {
        if (report?.error === undefined && !report?.changed?.includes(key)) continue;
        writes.push({ ...call, session, key, value: value ?? undefined });
      }
    }
    if (ending === 'touch') await tell(process, { do: 'touch', request: number });
    if (ending === 'log out') {
      const { report, ...call } = await tell(process, { do: 'destroy', request: number });
      destroys.push({ ...call, session });
      if (sessions[browser % browsers]?.current === session) await begin(browser % browsers);
    }
    if (number % 8 === 0) look();
    await tell(process, { do: 'end', request: number });
  };

  for (let browser = 0; browser < browsers; browser += 1) await begin(browser);
  const queue = requests.entries();
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      for (const [number, planned] of queue) await perform(planned, number);
    }),
  );
  look();
  await looking;
  for (const session of all) {
    for (const process of processes.keys()) await read(process, -1, session);
  }
  return { writes, reads, destroys, looks, errors };
}
