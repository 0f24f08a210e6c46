/**
 * An app with OpenTelemetry and a store on node-postgres. It calls the store inside spans and prints all spans as
 * JSON. It runs in a process of its own, because the instrumentation patches `pg` when it is loaded.
 */
import { createRequire } from 'node:module';
import { context, SpanKind, type Tracer, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { PgInstrumentation } from '@opentelemetry/instrumentation-pg';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  ParentBasedSampler,
  SamplingDecision,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { DrizzleStore } from 'connect-drizzle';
import { until } from './obstacles.js';

/** The parts of a span that the tests need. */
export interface SeenSpan {
  readonly name: string;
  readonly trace: string;
  readonly id: string;
  readonly parent: string | null;
  readonly links: readonly string[];
  readonly isError: boolean;
  readonly batchSize: unknown;
}

export type Seen = Record<Scenario, readonly SeenSpan[]>;

const exporter = new InMemorySpanExporter();
const root = {
  shouldSample: (_context: unknown, _traceId: string, name: string) => ({
    decision: name.startsWith('ignored')
      ? SamplingDecision.NOT_RECORD
      : SamplingDecision.RECORD_AND_SAMPLED,
  }),
  toString: () => 'all but those whose name says ignored',
};
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
trace.setGlobalTracerProvider(
  new BasicTracerProvider({
    sampler: new ParentBasedSampler({ root }),
    spanProcessors: [new SimpleSpanProcessor(exporter)],
  }),
);
new PgInstrumentation().enable();
const pg: typeof import('pg') = createRequire(import.meta.url)('pg');

const url = process.env.TEST_APP_DATABASE;
const tracer: Tracer = trace.getTracer('app');
const admin = new pg.Pool({ connectionString: url });
const pool = new pg.Pool({ connectionString: url });
const store = new DrizzleStore(pool, {
  createTableIfMissing: true,
  pruneSessionInterval: false,
  errorLog: () => {},
  lanes: 1,
});

const LOCK_WAITS = `select from pg_stat_activity
  where datname = current_database() and wait_event_type = 'Lock'`;

async function request<T>(name: string, handle: () => Promise<T>): Promise<T> {
  const span = tracer.startSpan(name, { kind: SpanKind.SERVER, root: true });
  try {
    return await context.with(trace.setSpan(context.active(), span), handle);
  } finally {
    span.end();
  }
}

const scenarios = {
  lone: () => request('GET /', () => store.get('a')),
  waiting: async () => {
    const holder = await admin.connect();
    await holder.query('begin; lock table sessions in access exclusive mode');
    const first = request('first', () => store.get('a'));
    // The only lane for reads is busy when the second call starts.
    await until(async () => (await holder.query(LOCK_WAITS)).rows.length > 0);
    const second = request('second', () => store.get('b'));
    await holder.query('commit');
    holder.release();
    await Promise.all([first, second]);
  },
  batch: () =>
    Promise.all(['a', 'b', 'c'].map((sid) => request(`GET /${sid}`, () => store.get(sid)))),
  sameRequest: () => request('GET /', () => Promise.all([store.get('a'), store.get('b')])),
  ignored: () =>
    Promise.all(['a', 'b'].map((sid) => request(`ignored ${sid}`, () => store.get(sid)))),
  outside: () => Promise.all([store.get('a'), store.get('b')]),
  failing: async () => {
    await admin.query('alter table sessions rename to away');
    await Promise.allSettled(['a', 'b'].map((sid) => request(sid, () => store.get(sid))));
  },
} satisfies Record<string, () => Promise<unknown>>;

export type Scenario = keyof typeof scenarios;

if (url !== undefined) {
  await store.ready();
  const seen: Record<string, SeenSpan[]> = {};
  for (const [name, run] of Object.entries(scenarios)) {
    exporter.reset();
    await run();
    seen[name] = exporter.getFinishedSpans().map((span) => ({
      name: span.name,
      trace: span.spanContext().traceId,
      id: span.spanContext().spanId,
      parent: span.parentSpanContext?.spanId ?? null,
      links: span.links.map((link) => link.context.spanId),
      isError: span.status.code === 2,
      batchSize: span.attributes['db.operation.batch.size'],
    }));
  }
  console.log(JSON.stringify(seen));
  await store.close();
  await Promise.all([pool.end(), admin.end()]);
}
