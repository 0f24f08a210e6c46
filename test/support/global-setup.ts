import type { TestProject } from 'vitest/node';
import { makeServerReachable, openServer } from './postgres.js';
import { reportStatementSet } from './statement-set.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** The URL of the Postgres server that all test files share. */
    postgresUrl: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const removeCopy = makeServerReachable();
  const server = await openServer();
  project.provide('postgresUrl', server.url);
  console.log(`Postgres: ${server.from}`);
  reportStatementSet();
  return async () => {
    await server.stop();
    removeCopy();
  };
}
