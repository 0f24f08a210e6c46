/**
 * Where the server of a source is, for error messages: hosts and ports, never a user or a password.
 *
 * @module
 */
import { property } from '../../util/guards.js';

const DEFAULT_PORT = '5432';

/** Returns the host and port in a URL, or `undefined` if it is no URL. */
export function serverOfUrl(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const { hostname, port, searchParams } = new URL(text);
  const host = searchParams.get('host') || hostname || 'localhost';
  return named(host, port || searchParams.get('port') || DEFAULT_PORT);
}

/** Returns where the clients of a pool of node-postgres connect, as they find it out themselves. */
export function serverOfPool(options: object): string | undefined {
  const url = property(options, 'connectionString');
  if (typeof url === 'string') return serverOfUrl(url);
  const { PGHOST, PGPORT } = process.env;
  const host = property(options, 'host') || PGHOST || 'localhost';
  return named(String(host), String(property(options, 'port') || PGPORT || DEFAULT_PORT));
}

/** Returns where a postgres-js connects; it may have several hosts. */
export function serverOfPostgresJs(options: object): string {
  const hosts = [property(options, 'host')].flat();
  const ports = [property(options, 'port')].flat();
  return hosts.map((host, at) => named(String(host), String(ports[at] ?? ports[0]))).join(', ');
}

/** Returns where an `SQL` of Bun connects. */
export function serverOfBunSql(options: object): string {
  const host = property(options, 'hostname') || 'localhost';
  return named(String(host), String(property(options, 'port') || DEFAULT_PORT));
}

/** A host may be a folder: that of a socket. */
function named(host: string, port: string): string {
  return host.startsWith('/') ? host : `${host}:${port}`;
}
