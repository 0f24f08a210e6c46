/**
 * The messages on a notification channel.
 *
 * A message is one letter for its kind, the sender's eight characters, and a body: `c` and `d` carry the
 * ids of changed or ended sessions (43 characters each, separated by commas), `h` the number of a
 * heartbeat.
 *
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';

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

/** A message about sessions; its body lists their ids. */
export type Announcement = Message & { readonly kind: 'change' | 'destroy' };

export function isAnnouncement(message: Message): message is Announcement {
  return message.kind !== 'heartbeat';
}

/**
 * Returns the channel of a table, on which every store that uses the table listens.
 *
 * It is derived from the names of the table and of the schema that the table is really in, not from the
 * table's oid: after a swap by renaming, stores opened before and after it share a channel, as they
 * share the table. A partitioned table has the channel of its root.
 */
export function channelOf(schemaName: string, tableName: string): string {
  const name = JSON.stringify([schemaName, tableName]);
  return `connect_drizzle_${createHash('sha256').update(name).digest('hex').slice(0, 16)}`;
}

/** Returns a new mark by which a store recognizes its own messages. */
export function newSender(): string {
  return randomBytes(6).toString('base64url');
}

export function heartbeat(sender: string, beat: number): string {
  return `h${sender}${beat}`;
}

/** Returns a message, or `undefined` if no store of this package sent it. */
export function readMessage(payload: string): Message | undefined {
  const kind = KINDS[payload.charAt(0)];
  if (kind === undefined || payload.length <= 1 + SENDER_LENGTH) return undefined;
  return {
    kind,
    sender: payload.slice(1, 1 + SENDER_LENGTH),
    body: payload.slice(1 + SENDER_LENGTH),
  };
}
