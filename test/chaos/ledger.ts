/**
 * Records what was acknowledged, and checks it against the table and against what the processes read.
 *
 * A process must see its own writes at once, and writes of the other process once they are older than the bound of
 * its cache.
 */
import type { Content, Entry, Name } from './protocol.js';

interface Write {
  readonly value: number;
  /** When it was acknowledged; `undefined` if its outcome is unknown. */
  readonly at: number | undefined;
}

class Account {
  isCreated = false;
  /** Oldest first. */
  readonly sets: Record<Name, Write[]> = { a: [], b: [] };
  readonly updates = { sent: 0, acknowledged: 0 };
  /** When each process had the acknowledgement that it ended the session. */
  readonly endedAt: Partial<Record<Name, number>> = {};
  mayHaveEnded = false;

  get isEnded(): boolean {
    return Object.keys(this.endedAt).length > 0;
  }

  /** The newest value that was acknowledged before a time. */
  acknowledged(key: Name, before = Number.POSITIVE_INFINITY): number {
    const write = this.sets[key].findLast(({ at }) => at !== undefined && at < before);
    return write?.value ?? 0;
  }

  /** Whether the table may contain a value: the one acknowledged last, or a later one with an unknown outcome. */
  allows(key: Name, value: number): boolean {
    const last = this.acknowledged(key);
    return value === last || this.sets[key].some((write) => write.value === value && value > last);
  }

  /** Drops writes that no longer matter. */
  compact(): void {
    for (const key of ['a', 'b'] as const) {
      const last = this.acknowledged(key);
      this.sets[key] = this.sets[key].filter(({ value }) => value >= last);
    }
  }
}

export interface Row {
  readonly sid: string;
  readonly content: Content;
}

export interface Violations {
  readonly lost: string[];
  readonly revived: string[];
  readonly stale: string[];
}

export class Ledger {
  acknowledgedWrites = 0;
  reads = 0;
  readonly violations: Violations = { lost: [], revived: [], stale: [] };
  readonly #boundMs: number;
  readonly #accounts = new Map<string, Account>();
  /** The violations reported so far, so that none is reported twice. */
  readonly #reported = new Set<string>();

  constructor(boundMs: number) {
    this.#boundMs = boundMs;
  }

  /** Adds what both processes did since the last call. */
  add(histories: Readonly<Record<Name, readonly Entry[]>>): void {
    for (const name of ['a', 'b'] as const) {
      for (const entry of histories[name]) this.#enter(name, entry);
    }
    for (const name of ['a', 'b'] as const) {
      for (const entry of histories[name]) if (entry.kind === 'read') this.#judgeRead(name, entry);
    }
    for (const account of this.#accounts.values()) account.compact();
  }

  /** Compares the live sessions of the table while no call is in flight. */
  judgeTable(rows: readonly Row[]): void {
    const live = new Map(rows.map(({ sid, content }) => [sid, content]));
    for (const [sid, account] of this.#accounts) {
      const content = live.get(sid);
      if (account.isEnded) {
        if (content !== undefined) this.#report('revived', sid, 'it is live in the table');
        continue;
      }
      if (content === undefined) {
        if (account.isCreated && !account.mayHaveEnded) this.#report('lost', sid, 'it is gone');
        continue;
      }
      for (const key of ['a', 'b'] as const) {
        const value = content[key] ?? 0;
        if (!account.allows(key, value)) {
          this.#report('lost', sid, `${key} is ${value}, not ${account.acknowledged(key)}`);
        }
      }
      const { sent, acknowledged } = account.updates;
      const updates = content.updates ?? 0;
      if (updates < acknowledged || updates > sent) {
        this.#report('lost', sid, `${updates} updates of ${acknowledged} to ${sent}`);
      }
    }
  }

  #enter(name: Name, entry: Entry): void {
    const { sid, kind } = entry;
    if (kind === 'read') {
      this.reads += 1;
      return;
    }
    const account = this.#accounts.get(sid) ?? new Account();
    this.#accounts.set(sid, account);
    const { at } = entry;
    if (at !== undefined) this.acknowledgedWrites += 1;
    switch (kind) {
      case 'create':
        account.isCreated ||= at !== undefined;
        break;
      case 'set':
        account.sets[name].push({ value: entry.value, at });
        break;
      case 'update':
        account.updates.sent += 1;
        if (at !== undefined) account.updates.acknowledged += 1;
        break;
      case 'destroy':
        if (at === undefined) account.mayHaveEnded = true;
        else account.endedAt[name] ??= at;
        break;
      case 'touch':
        break;
    }
  }

  #judgeRead(name: Name, { sid, calledAt, content }: Entry & { kind: 'read' }): void {
    const account = this.#accounts.get(sid);
    if (account === undefined) return;
    if (content === null) {
      if (account.isCreated && !account.isEnded && !account.mayHaveEnded) {
        this.#report('lost', sid, `${name} got no session`);
      }
      return;
    }
    for (const writer of ['a', 'b'] as const) {
      const isOwn = writer === name;
      const before = isOwn ? calledAt : calledAt - this.#boundMs;
      const endedAt = account.endedAt[writer];
      if (endedAt !== undefined && endedAt < before) {
        const agoMs = Math.round(calledAt - endedAt);
        const what = `${name} got it ${agoMs} ms after ${writer} had ended it`;
        this.#report(isOwn ? 'revived' : 'stale', sid, what);
      }
      const known = account.acknowledged(writer, before);
      const value = content[writer] ?? 0;
      if (value < known)
        this.#report('stale', sid, `${name} got ${writer} = ${value}, not ${known}`);
    }
  }

  #report(kind: keyof Violations, sid: string, what: string): void {
    const key = `${kind} ${sid} ${what}`;
    if (this.#reported.has(key)) return;
    this.#reported.add(key);
    this.violations[kind].push(`${sid}: ${what}`);
  }
}
