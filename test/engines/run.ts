/**
 * Runs a cycle of store calls on engines other than Postgres, each in a container: `npm run test:engines`. It runs
 * with the statements that the store chooses, and again with the portable ones.
 *
 * It prints a line per engine. The exit code is 1 if one failed, and 0 if there is no Docker.
 * `npm run test:engines -- citus` runs only the named engines.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { DrizzleStore } from 'connect-drizzle';
import pg from 'pg';
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers';
import { cycle, schemaWith, tableWith, userOf } from './cycle.js';

interface Engine {
  readonly image: string;
  readonly command: string[];
  readonly environment: Record<string, string>;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** Text if the engine does not keep `json` byte for byte. */
  readonly data: 'json' | 'text';
  /** Statements to run after the table was created. */
  readonly setup: readonly string[];
}

const ENGINES: Readonly<Record<string, Engine>> = {
  citus: {
    image: 'citusdata/citus:latest',
    command: [],
    environment: { POSTGRES_PASSWORD: 'postgres' },
    port: 5432,
    user: 'postgres',
    password: 'postgres',
    database: 'postgres',
    data: 'json',
    setup: [`select create_distributed_table('sessions', 'id')`],
  },
  yugabyte: {
    image: 'yugabytedb/yugabyte:latest',
    command: ['bin/yugabyted', 'start', '--background=false'],
    environment: {},
    port: 5433,
    user: 'yugabyte',
    password: 'yugabyte',
    database: 'yugabyte',
    data: 'json',
    setup: [],
  },
  cockroach: {
    image: 'cockroachdb/cockroach:latest',
    command: ['start-single-node', '--insecure'],
    environment: {},
    port: 26257,
    user: 'root',
    password: '',
    database: 'defaultdb',
    data: 'text',
    setup: [],
  },
};

const START_LIMIT_MS = 300_000;

async function runOn(engine: Engine): Promise<void> {
  const { image, command, environment, port, user, password, database, data, setup } = engine;
  const container = new GenericContainer(image)
    .withExposedPorts(port)
    .withEnvironment(environment)
    .withCommand(command)
    .withStartupTimeout(START_LIMIT_MS);
  await using started = await container.start();
  const pool = new pg.Pool({
    host: started.getHost(),
    port: started.getMappedPort(port),
    user,
    password,
    database,
  });
  pool.on('error', () => {});
  try {
    await untilReady(pool);
    for (const statement of [...tableWith(data), ...setup]) await pool.query(statement);
    for (const choice of ['auto', 'portable'] as const) {
      await using store = new DrizzleStore(pool, {
        engine: choice,
        table: schemaWith(data),
        pruneSessionInterval: false,
        userId: userOf,
      });
      await cycle(store);
      await store.clear();
    }
  } finally {
    await pool.end();
  }
}

/** Waits for an engine, which accepts connections before it accepts queries. */
async function untilReady(pool: pg.Pool): Promise<void> {
  const limit = Date.now() + START_LIMIT_MS;
  for (;;) {
    try {
      await pool.query('select 1');
      return;
    } catch (error) {
      if (Date.now() > limit) throw error;
      await pause(500);
    }
  }
}

const names = process.argv.slice(2);
const unknown = names.find((name) => !Object.hasOwn(ENGINES, name));
if (unknown !== undefined) {
  console.error(`There is no engine ${unknown}, only ${Object.keys(ENGINES).join(', ')}`);
  process.exit(2);
}
try {
  await getContainerRuntimeClient();
} catch (error) {
  console.log(`Not run: it needs Docker, which does not answer (${error})`);
  process.exit(0);
}
for (const [name, engine] of Object.entries(ENGINES)) {
  if (names.length > 0 && !names.includes(name)) continue;
  try {
    await runOn(engine);
    console.log(`${name}: passed`);
  } catch (error) {
    console.log(`${name}: failed`, error);
    process.exitCode = 1;
  }
}
