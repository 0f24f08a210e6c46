import { randomUUID } from 'node:crypto';
import { Browser } from './http.js';
import type { Played, Setup, Step } from './script.js';

/** A browser tab on a scripted app. Tabs of one browser start with the same cookies. */
export class Tab {
  readonly #browser: Browser;
  readonly #setup: Setup;

  constructor(url: string, setup: Setup = {}, cookies: ReadonlyMap<string, string> = new Map()) {
    this.#browser = new Browser(url);
    for (const [name, value] of cookies) this.#browser.cookies.set(name, value);
    this.#setup = setup;
  }

  /** Another tab, possibly on another process. */
  another(url: string = this.#browser.base): Tab {
    return new Tab(url, this.#setup, this.#browser.cookies);
  }

  /** The sid in the signed cookie. */
  get sid(): string {
    const [cookie = ''] = this.#browser.cookies.values();
    const value = decodeURIComponent(cookie).replace(/^s:/, '');
    return value.slice(0, value.lastIndexOf('.'));
  }

  /** Runs a whole request. */
  async run(...steps: Step[]): Promise<Played> {
    return (await this.begin(...steps)).end();
  }

  /** Runs a request until it waits for the first time, or ends. */
  async begin(...steps: Step[]): Promise<Running> {
    const name = randomUUID();
    const headers = { 'x-setup': JSON.stringify(this.#setup) };
    const answer = this.#browser.post('/play', { name, steps }, { headers });
    const ended = answer.then(({ status, text }): Played => {
      if (status !== 200) throw new Error(`${status}: ${text}`);
      return JSON.parse(text);
    });
    // `end()` returns the error.
    ended.catch(() => {});
    const waits = steps.filter(([kind]) => kind === 'wait').length;
    const control = new Browser(this.#browser.base);
    const running = new Running(name, waits, control, ended);
    await running.arrival();
    return running;
  }
}

/** A request that has loaded its session and waits. */
export class Running {
  readonly #name: string;
  readonly #waits: number;
  readonly #control: Browser;
  readonly #ended: Promise<Played>;
  #at = 0;

  constructor(name: string, waits: number, control: Browser, ended: Promise<Played>) {
    this.#name = name;
    this.#waits = waits;
    this.#control = control;
    this.#ended = ended;
  }

  /** Resolves when it waits; at once if it has no more waits. */
  async arrival(): Promise<void> {
    if (this.#at >= this.#waits) return;
    const path = `/arrived/${this.#name}.${this.#at}`;
    await Promise.race([this.#control.get(path), this.#ended]);
  }

  /** Continues it to its next wait, or to its end. */
  async next(): Promise<void> {
    await this.#control.post(`/go/${this.#name}.${this.#at}`);
    this.#at += 1;
    if (this.#at < this.#waits) await this.arrival();
    else await this.#ended;
  }

  /** Continues it to its end. */
  async end(): Promise<Played> {
    while (this.#at < this.#waits) await this.next();
    return this.#ended;
  }
}
