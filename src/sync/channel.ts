/**
 * The messages on a notification channel.
 *
 * A message has one letter for its kind, eight characters for the sender, and a body. For `c` and `d` the body contains the
 * ids of changed or ended sessions (43 characters each, separated by commas), for `h` the number of a heartbeat.
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
 * Returns the channel of a table. Every store that uses the table listens on it.
 *
 * The channel depends on the names of the table and of its real schema, not on the table's oid. So if two tables are
 * swapped by renaming, stores opened before and after that still share a channel, as they share the table. A partitioned
 * table has the channel of its root.
 */
export function channelOf(schemaName: string, tableName: string): string {
  const name = JSON.stringify([schemaName, tableName]);
  return `connect_drizzle_${createHash('sha256').update(name).digest('hex').slice(0, 16)}`;
}

/** Returns a new name, with which a store recognises its own messages. */
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
