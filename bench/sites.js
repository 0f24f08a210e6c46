/**
 * Express apps on the contenders, and the HTTP load generator in a separate process.
 *
 * @module
 */
import { fileURLToPath } from 'node:url';
import { serverCpuMilliseconds, startNode } from './machine.js';
import { Remote, startAll } from './subject.js';

/** The store calls of each page, by path. */
export const ROUTES = Object.freeze({ read: 'get + touch', write: 'get + set' });

/** Size of each session in these sections. */
export const BYTES = 200;

/** One plain named statement per call, and touches once a minute: the minimum for a store on Postgres. */
export const BARE_STORE = Object.freeze({
  name: 'by hand',
  label: 'bare store',
  options: { touchAfter: 60 },
});

/** An app on one contender. */
export class Site {
  /**
   * @param {import('./subject.js').Subject} subject
   * @param {number} port
   * @param {Remote} generator
   */
  constructor(subject, port, generator) {
    this.subject = subject;
    this.label = subject.label;
    this.port = port;
    this.generator = generator;
  }

  /**
   * Runs a command of http-load.js.
   *
   * @param {'closed' | 'open' | 'visit'} command
   * @param {object} argument
   * @returns {Promise<Record<string, number>>} its answer, with the CPU time per request in microseconds
   */
  async load(command, argument) {
    const appBefore = await this.subject.call('cpu');
    const serverBefore = serverCpuMilliseconds(this.subject.serverPid);
    const answer = await this.generator.call(command, { port: this.port, ...argument });
    const serverMs = serverCpuMilliseconds(this.subject.serverPid) - serverBefore;
    const appMs = (await this.subject.call('cpu')) - appBefore;
    return {
      ...answer,
      appCpu: (appMs * 1000) / answer.requests,
      serverCpu: (serverMs * 1000) / answer.requests,
    };
  }
}

/**
 * Starts an app for each contender, and stops them after `measure`.
 *
 * @template T
 * @param {import('./bench.js').Bench} bench
 * @param {readonly Omit<Parameters<typeof import('./subject.js').Subject.start>[1], 'url'>[]} contenders
 * @param {string} database
 * @param {(sites: Site[]) => Promise<T>} measure
 * @returns {Promise<T>}
 */
export async function withSites(bench, contenders, database, measure) {
  const url = await bench.postgres.createDatabase(database);
  const wanted = contenders.filter(({ name }) => bench.contenders.includes(name));
  const subjects = await startAll(
    bench,
    wanted.map((one) => ({ ...one, url })),
  );
  const file = fileURLToPath(new URL('./http-load.js', import.meta.url));
  const generator = new Remote(startNode(file, bench.cores.load));
  try {
    const sites = [];
    for (const subject of subjects) {
      sites.push(new Site(subject, await subject.call('serve'), generator));
    }
    return await measure(sites);
  } finally {
    generator.child.disconnect();
    for (const subject of subjects) await subject.close();
  }
}
