/**
 * Cancel requests of node-postgres.
 *
 * @module
 */
import { Socket } from 'node:net';
import { hasMethod, property } from '../../util/guards.js';
import type { CancelRequests } from './cancel-requests.js';

/**
 * Sends a cancel request for the statement of a client, over the connection of a new client. Does nothing if that is
 * impossible: the pool has no class of clients, or pg cannot create one because a certificate file is missing.
 */
export function cancelStatementOf(
  client: object,
  newClient: () => object,
  requests: CancelRequests,
): void {
  try {
    sendCancel(client, newClient, requests);
  } catch {
    // The driver closes the connection anyway. Without a cancel request, the server notices that later.
  }
}

/**
 * Does not use pg's own `cancel()`: it has no `error` listener, so an unreachable server would end the process, and it
 * sends the secret key in plain text even if the connection uses TLS.
 */
function sendCancel(client: object, newClient: () => object, requests: CancelRequests): void {
  const { host, port, processID, secretKey } = fieldsOf(client);
  if (typeof processID !== 'number' || typeof host !== 'string') return;
  const connection = property(newClient(), 'connection');
  if (!isCancelling(connection)) return;
  const { stream } = connection;
  const send = () => connection.cancel(processID, secretKey);
  connection.on('error', () => {});
  connection.on('sslconnect', send);
  connection.on('connect', () => {
    if (!connection.ssl) send();
    else if (connection.sslNegotiation !== 'direct') connection.requestSsl();
  });
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`);
  else connection.connect(port, host);
  requests.add(stream);
}

function fieldsOf(client: object): Record<string, unknown> {
  const names = ['host', 'port', 'processID', 'secretKey'];
  return Object.fromEntries(names.map((name) => [name, property(client, name)]));
}

/** The parts of a client's connection that a cancel request uses. pg-native has none. */
interface CancellingConnection {
  readonly stream: Socket;
  readonly ssl: unknown;
  readonly sslNegotiation?: unknown;
  connect(port: unknown, host?: string): void;
  on(event: string, listener: () => void): void;
  requestSsl(): void;
  cancel(processID: number, secretKey: unknown): void;
}

function isCancelling(connection: unknown): connection is CancellingConnection {
  return (
    hasMethod(connection, 'cancel') &&
    hasMethod(connection, 'requestSsl') &&
    property(connection, 'stream') instanceof Socket
  );
}
