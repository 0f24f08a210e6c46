import { type Gate, gate } from './gate.js';

/** One thing that a request does with its session. A path is `a` or `a.b`. */
export type Step =
  /** Waits, with the session loaded, until the test continues it. */
  | readonly ['wait']
  | readonly ['set', path: string, value: unknown]
  | readonly ['push', path: string, value: unknown]
  | readonly ['delete', path: string]
  /** The lifetime of the cookie in milliseconds; null for a session cookie. */
  | readonly ['maxAge', milliseconds: number | null]
  | readonly ['save']
  | readonly ['reload']
  | readonly ['destroy']
  | readonly ['regenerate']
  /** `req.session = null`. */
  | readonly ['unset']
  /** Adds to a number with the store's `update()`. */
  | readonly ['add', path: string, by: number]
  /** Sends the headers and the first part of the body. */
  | readonly ['write'];

/** Options of the session middleware and of the store. */
export interface Setup {
  readonly resave?: boolean;
  readonly rolling?: boolean;
  readonly unset?: 'destroy' | 'keep';
  readonly maxAge?: number;
  /** The sid that `genid` always returns. */
  readonly sid?: string;
  /** The key of the session that contains its user, for the store's option `userId`. */
  readonly userKey?: string;
}

/** The response of a request. */
export interface Played {
  /** The content of the session without its cookie; null if the request has none. */
  readonly session: Record<string, unknown> | null;
  /** The error messages of steps that failed. */
  readonly errors: readonly string[];
}

/** What a request handler can do in a framework. */
export interface Hands {
  session(): object | null | undefined;
  save(): Promise<void>;
  reload(): Promise<void>;
  destroy(): Promise<void>;
  regenerate(): Promise<void>;
  unset(): void;
  add(path: string, by: number): Promise<void>;
  write(): void;
}

/** The points at which requests wait, by name. */
export class Waits {
  readonly #waits = new Map<string, { readonly arrived: Gate; readonly go: Gate }>();

  #of(name: string) {
    const known = this.#waits.get(name) ?? { arrived: gate(), go: gate() };
    this.#waits.set(name, known);
    return known;
  }

  /** Called by the request: waits until the test calls `go`. */
  pass(name: string): Promise<void> {
    this.#of(name).arrived.open();
    return this.#of(name).go.opened;
  }

  arrived(name: string): Promise<void> {
    return this.#of(name).arrived.opened;
  }

  go(name: string): void {
    this.#of(name).go.open();
  }
}

/** Plays the steps of a request. */
export async function play(
  steps: readonly Step[],
  hands: Hands,
  pass: (count: number) => Promise<void>,
): Promise<Played> {
  const errors: string[] = [];
  let waits = 0;
  for (const step of steps) {
    try {
      if (step[0] === 'wait') {
        await pass(waits);
        waits += 1;
      } else {
        await act(step, hands);
      }
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error));
    }
  }
  const session = hands.session();
  return { session: session ? contentOf(session) : null, errors };
}

async function act(step: Exclude<Step, readonly ['wait']>, hands: Hands): Promise<void> {
  switch (step[0]) {
    case 'add':
      return hands.add(step[1], step[2]);
    case 'save':
    case 'reload':
    case 'destroy':
    case 'regenerate':
    case 'unset':
    case 'write':
      return hands[step[0]]();
  }
  const session = hands.session();
  if (!session) throw new Error('no session');
  if (step[0] === 'maxAge') {
    const cookie: unknown = Reflect.get(session, 'cookie');
    if (typeof cookie === 'object' && cookie !== null) Reflect.set(cookie, 'maxAge', step[1]);
  } else {
    change(session, step);
  }
}

function change(
  session: object,
  step: Extract<Step, readonly ['set' | 'push' | 'delete', ...unknown[]]>,
): void {
  const keys = step[1].split('.');
  const last = keys.pop() ?? '';
  let place: unknown = session;
  for (const key of keys) place = isObject(place) ? Reflect.get(place, key) : undefined;
  if (!isObject(place)) throw new Error(`no ${step[1]}`);
  if (step[0] === 'delete') Reflect.deleteProperty(place, last);
  else if (step[0] === 'set') Reflect.set(place, last, step[2]);
  else {
    const list: unknown = Reflect.get(place, last);
    if (!Array.isArray(list)) throw new Error(`no list ${step[1]}`);
    list.push(step[2]);
  }
}

/** Returns a function for `update()` that adds to a number. */
export function adding(path: string, by: number): (session: object) => void {
  return (session) => {
    Reflect.set(session, path, Number(Reflect.get(session, path) ?? 0) + by);
  };
}

function contentOf(session: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(session).filter(([key]) => key !== 'cookie'));
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
