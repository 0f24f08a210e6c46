/**
 * What the drivers' listeners have in common, and the words that travel on a channel.
 *
 * A message is a kind, the sender's eight characters, and what it is about:
 * `c` or `d` with ids (`43 characters, comma, …`) for sessions changed or ended, `h` with a number for a heartbeat.
 *
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';

/** What a listener tells its owner. */
export interface ListenHandlers {
  onMessage(payload: string): void;
  /** The connection is gone; told once. */
  onLost(): void;
  /** Ends the connection while it is still being made; opening it then fails. */
  readonly signal: AbortSignal;
}

/** A connection that listens. */
export interface Listener {
  /** Sends a message to the channel, through the listening connection itself. */
  send(payload: string): Promise<void>;
  /** Ends it at once; `onLost` is not told. */
  close(): Promise<void>;
}

/** Opens a listener of a driver, on the source's own settings or on a URL of its own. */
export type Listen = (
  channel: string,
  connectionString: string | undefined,
  handlers: ListenHandlers,
) => Promise<Listener>;

const SENDER_LENGTH = 8;

const KINDS: Readonly<Record<string, Message['kind']>> = {
  c: 'change',
  d: 'destroy',
  h: 'heartbeat',
};

export interface Message {
  readonly kind: 'change' | 'destroy' | 'heartbeat';
  readonly sender: string;
  readonly body: string;
}

/** What is told of sessions: a body of ids. */
export type Announcement = Message & { readonly kind: 'change' | 'destroy' };

export function isAnnouncement(message: Message): message is Announcement {
  return message.kind !== 'heartbeat';
}

/** The channel of a table: every store on it listens there. */
export function channelOf(schemaName: string | undefined, tableName: string): string {
  const name = JSON.stringify([schemaName ?? 'public', tableName]);
  return `connect_drizzle_${createHash('sha256').update(name).digest('hex').slice(0, 16)}`;
}

/** By what a store knows its own messages. */
export function newSender(): string {
  return randomBytes(6).toString('base64url');
}

export function heartbeat(sender: string, beat: number): string {
  return `h${sender}${beat}`;
}

/** Reads a message; `undefined` for what no store of this package has sent. */
export function readMessage(payload: string): Message | undefined {
  const kind = KINDS[payload.charAt(0)];
  if (kind === undefined || payload.length <= 1 + SENDER_LENGTH) return undefined;
  return {
    kind,
    sender: payload.slice(1, 1 + SENDER_LENGTH),
    body: payload.slice(1 + SENDER_LENGTH),
  };
}
