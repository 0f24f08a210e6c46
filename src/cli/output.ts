/**
 * The output of the command line: text for people, JSON for programs, progress on a terminal.
 *
 * @module
 */
import { createInterface } from 'node:readline/promises';
import { styleText } from 'node:util';
import { monotonicMs } from '../util/clock.js';

/** A stream that may be a terminal. */
export interface OutputStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  hasColors?(): boolean;
  write(text: string): unknown;
}

/** The streams and the environment of a command. */
export interface Io {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Ends commands that run until they are stopped. */
  readonly signal?: AbortSignal;
}

export type Format = 'text' | 'json' | 'jsonl';

/** A value in a row. Dates are printed in UTC. */
export type Cell = string | number | boolean | Date | null;
export type Row = Readonly<Record<string, unknown>>;

/** A column of a table: its title, and its text for a row. */
export interface Column<Item> {
  readonly title: string;
  readonly text: (item: Item) => Cell;
  readonly isNumber?: boolean;
}

/**
 * Control characters, characters that change the direction of text, line separators and lone surrogates. A user id is an
 * app's data. Printed without escapes, it could move the cursor, hide a line or change a terminal's settings.
 */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Replaces characters that have an effect on a terminal with escapes such as `\u001b`. */
export function escaped(text: string): string {
  return text.replace(UNSAFE, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** Returns JSON that is safe to print. Outside of strings, the only unsafe character in JSON is the line break. */
function json(value: unknown, indent?: number, margin = ''): string {
  const lines = JSON.stringify(value, undefined, indent).split('\n');
  return lines.map((line) => margin + escaped(line)).join('\n');
}

export class Output {
  readonly #io: Io;
  readonly format: Format;

  constructor(io: Io, format: Format) {
    this.#io = io;
    this.format = format;
  }

  /** Prints a list. In JSON, `name` is its key, and `more` has the other keys. */
  list<Item extends Row>(
    name: string,
    items: readonly Item[],
    columns: readonly Column<Item>[],
    more: Row = {},
  ): void {
    if (this.format === 'json') this.#line(json({ [name]: items, ...more }, 2));
    else if (this.format === 'jsonl') this.lines(items);
    else this.#table(items, columns);
  }

  /** Prints one value per line, as JSON. */
  lines(items: readonly Row[]): void {
    for (const item of items) this.#line(json(item));
  }

  /**
   * Prints an object with a list as JSON, item by item, because all of it may be too long for a string. In JSON Lines,
   * only the items. `value` must have a key. Prints nothing before the first item is available.
   */
  async longList(value: Row, name: string, items: AsyncIterable<Row>): Promise<void> {
    if (this.format === 'jsonl') {
      for await (const item of items) this.lines([item]);
      return;
    }
    const start = `${json(value, 2).slice(0, -'\n}'.length)},\n  ${json(name)}: [`;
    let isEmpty = true;
    for await (const item of items) {
      const before = isEmpty ? `${start}\n` : ',\n';
      this.#io.stdout.write(before + json(item, 2, '    '));
      isEmpty = false;
    }
    this.#line(isEmpty ? `${start}]\n}` : '\n  ]\n}');
  }

  /** Prints one result: `text` for people, `value` for programs. */
  result(value: Row, text: string): void {
    if (this.format === 'text') this.text(text);
    else this.value(value);
  }

  /** Prints one result, as JSON in every format. */
  value(value: Row): void {
    this.#line(json(value, this.format === 'jsonl' ? undefined : 2));
  }

  /** Prints labels and values, one pair per line. */
  record(value: Row, pairs: readonly (readonly [label: string, value: Cell])[]): void {
    if (this.format !== 'text') {
      this.value(value);
      return;
    }
    const width = Math.max(...pairs.map(([label]) => label.length));
    for (const [label, cell] of pairs) {
      this.#line(`${this.#style('bold', label.padEnd(width))}  ${shown(cell)}`);
    }
  }

  /** Prints text that may have several lines. */
  text(text: string): void {
    for (const line of text.split('\n')) this.#line(escaped(line));
  }

  /** Prints a note for people on stderr, so that it does not go into a pipe. */
  note(text: string): void {
    this.#io.stderr.write(`${escaped(text)}\n`);
  }

  error(text: string): void {
    const { stderr } = this.#io;
    stderr.write(`${styled(stderr, 'red', 'connect-drizzle:')} ${escaped(text)}\n`);
  }

  /** Whether the program can ask the user a question: stdin and stderr are terminals. */
  get isInteractive(): boolean {
    return this.#io.stdin.isTTY === true && this.#io.stderr.isTTY === true;
  }

  /** Asks a question on the terminal. Only `y` and `yes` agree. */
  async confirm(question: string): Promise<boolean> {
    const { stdin, stderr } = this.#io;
    stderr.write(`${escaped(question)} [y/N] `);
    const lines = createInterface({ input: stdin });
    try {
      for await (const line of lines) return /^\s*y(es)?\s*$/i.test(line);
      return false;
    } finally {
      lines.close();
    }
  }

  /** Starts a progress bar. It is shown only if stderr is a terminal. */
  progress(label: string, total: number, unit = 'sessions'): Progress {
    return new Progress(this.#io.stderr, label, total, unit);
  }

  #table<Item>(items: readonly Item[], columns: readonly Column<Item>[]): void {
    const cells = items.map((item) => columns.map(({ text }) => shown(text(item))));
    const widths = columns.map(({ title }, at) =>
      Math.max(title.length, ...cells.map((row) => row[at]?.length ?? 0)),
    );
    const line = (row: readonly string[]) =>
      row
        .map((cell, at) => {
          const width = widths[at] ?? 0;
          return columns[at]?.isNumber ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd();
    this.#line(this.#style('bold', line(columns.map(({ title }) => title))));
    for (const row of cells) this.#line(line(row));
  }

  #style(format: Style, text: string): string {
    return styled(this.#io.stdout, format, text);
  }

  #line(text: string): void {
    this.#io.stdout.write(`${text}\n`);
  }
}

type Style = 'bold' | 'red';

/** Styles text for a terminal that has colors and a user who wants them (`NO_COLOR`, `FORCE_COLOR`). */
function styled(stream: OutputStream, format: Style, text: string): string {
  return stream.isTTY && stream.hasColors?.() ? styleText(format, text) : text;
}

/** Returns a cell's text. */
function shown(cell: Cell): string {
  if (cell === null) return '-';
  if (cell instanceof Date) return cell.toISOString().replace('T', ' ').replace(/\.\d+/, '');
  return typeof cell === 'number' ? cell.toLocaleString('en-US') : escaped(String(cell));
}

const BAR_WIDTH = 24;
const REDRAW_MS = 100;

export class Progress {
  readonly #stream: OutputStream;
  readonly #label: string;
  readonly #total: number;
  readonly #unit: string;
  readonly #startedMs = monotonicMs();
  #drawnMs = Number.NEGATIVE_INFINITY;
  #done = 0;

  constructor(stream: OutputStream, label: string, total: number, unit: string) {
    this.#stream = stream;
    this.#label = label;
    this.#total = total;
    this.#unit = unit;
  }

  add(count: number): void {
    this.#done += count;
    if (monotonicMs() - this.#drawnMs >= REDRAW_MS) this.#draw();
  }

  /** Draws the last state and leaves it on the screen. */
  end(): void {
    if (!this.#stream.isTTY) return;
    this.#draw();
    this.#stream.write('\n');
  }

  #draw(): void {
    if (!this.#stream.isTTY) return;
    this.#drawnMs = monotonicMs();
    // The total is an estimate.
    const total = Math.max(this.#total, this.#done, 1);
    const share = this.#done / total;
    const bar = '='.repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH);
    const seconds = (this.#drawnMs - this.#startedMs) / 1000;
    const rate = seconds > 0 ? Math.round(this.#done / seconds) : 0;
    const numbers = `${shown(this.#done)}/${shown(total)} ${this.#unit}, ${shown(rate)} a second`;
    const text = `${this.#label} [${bar}] ${Math.floor(share * 100)} %, ${numbers}`;
    const { columns = 80 } = this.#stream;
    this.#stream.write(`\r${text.slice(0, columns - 1)}\u001b[K`);
  }
}
