/**
 * Host and port of a source's server, for error messages. Never a user or a password.
 *
 * @module
 */
import { property } from '../../util/guards.js';

const DEFAULT_PORT = '5432';

/** Returns the host and port in a URL, or `undefined` if the text is not a URL. */
export function serverOfUrl(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const { hostname, port, searchParams } = new URL(text);
  const host = searchParams.get('host') || hostname || 'localhost';
  return named(host, port || searchParams.get('port') || DEFAULT_PORT);
}

/** Returns host and port of a node-postgres pool, with the same defaults as its clients. */
export function serverOfPool(options: object): string | undefined {
  const url = property(options, 'connectionString');
  if (typeof url === 'string') return serverOfUrl(url);
  const { PGHOST, PGPORT } = process.env;
  const host = property(options, 'host') || PGHOST || 'localhost';
  return named(String(host), String(property(options, 'port') || PGPORT || DEFAULT_PORT));
}

/** Returns hosts and ports of a postgres-js instance. */
export function serverOfPostgresJs(options: object): string {
  const hosts = [property(options, 'host')].flat();
  const ports = [property(options, 'port')].flat();
  return hosts.map((host, at) => named(String(host), String(ports[at] ?? ports[0]))).join(', ');
}

/** Returns host and port of Bun's `SQL`. */
export function serverOfBunSql(options: object): string {
  const host = property(options, 'hostname') || 'localhost';
  return named(String(host), String(property(options, 'port') || DEFAULT_PORT));
}

/** The host may be the folder of a Unix socket. */
function named(host: string, port: string): string {
  return host.startsWith('/') ? host : `${host}:${port}`;
}
