import { hasMethod, property } from '../../util/guards.js';

/** A client of node-postgres. */
interface Client {
  /** The client of pg's native bindings. */
  readonly native?: unknown;
  getTransactionStatus?(): unknown;
}

/** The last transaction status from the server, for clients of pg before 8.21, which do not provide it. */
const statuses = new WeakMap<object, unknown>();

export function watchTransactions(client: Client): void {
  if (client.getTransactionStatus !== undefined || statuses.has(client)) return;
  const connection = property(client, 'connection');
  if (!isPrependable(connection)) return;
  statuses.set(client, undefined);
  // Must run before the client's own listener, which calls the callback.
  connection.prependListener('readyForQuery', (message) => {
    statuses.set(client, property(message, 'status'));
  });
}

interface Prependable {
  prependListener(event: string, listener: (message: unknown) => void): unknown;
}

function isPrependable(value: unknown): value is Prependable {
  return hasMethod(value, 'prependListener');
}

/** Whether a client is in a transaction, or in a failed one. */
export function isInTransaction(client: Client): boolean {
  const { native } = client;
  if (native !== undefined && !hasMethod(native, 'getTransactionStatus')) return false;
  const status = client.getTransactionStatus?.() ?? statuses.get(client);
  return status === 'T' || status === 'E';
}
