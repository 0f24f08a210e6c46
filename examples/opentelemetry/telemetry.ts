import diagnostics from 'node:diagnostics_channel';
import { performance } from 'node:perf_hooks';
import {
  type Attributes,
  type Meter,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
} from '@opentelemetry/api';
import type { DrizzleStore } from 'connect-drizzle';

/** In seconds. OpenTelemetry's own buckets are meant for milliseconds: the first ends at 5. */
const durationBuckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30];

const operations = ['get', 'set', 'touch', 'destroy', 'update', 'prune', 'statement'] as const;

/** The data that the store publishes with each event: no sid, and no content of a session. */
interface Context {
  operation: string;
  id?: string;
  rows?: number;
  statement?: string;
  error?: unknown;
}

interface Running {
  span: Span;
  startedAt: number;
}

/**
 * Creates a span for each operation of a store, and metrics of all of them. Returns a function that stops it.
 *
 * A span is a child of the span that was active when the store was called, such as the request's. The same is true of a
 * statement for one call. A statement for several calls is a child of the store's own span, `connect-drizzle …`, which
 * has a separate trace with links to the callers' spans.
 */
export function observe(store: DrizzleStore, tracer: Tracer, meter: Meter): () => void {
  const duration = meter.createHistogram('connect_drizzle.operation.duration', {
    description: 'How long an operation of the session store took',
    unit: 's',
    advice: { explicitBucketBoundaries: durationBuckets },
  });
  const batch = meter.createHistogram('connect_drizzle.statement.rows', {
    description: 'How many callers one statement served',
    unit: '{row}',
  });
  const stopStats = observeStats(store, meter);
  const running = new WeakMap<object, Running>();

  const begin = (context: Context) => {
    const span = tracer.startSpan(`session ${context.operation}`, {
      kind: context.operation === 'statement' ? SpanKind.CLIENT : SpanKind.INTERNAL,
      attributes: { 'db.system.name': 'postgresql', 'db.operation.name': nameOf(context) },
    });
    // The id is a hash. It shows which spans belong to one session.
    if (context.id) span.setAttribute('connect_drizzle.session.id', context.id);
    running.set(context, { span, startedAt: performance.now() });
  };

  const finish = (context: Context) => {
    const found = running.get(context);
    if (!found) return;
    running.delete(context);
    const { span, startedAt } = found;
    const attributes: Attributes = { operation: context.operation };
    if (context.operation === 'statement') {
      attributes.statement = nameOf(context);
      if (context.rows !== undefined) {
        batch.record(context.rows, attributes);
        span.setAttribute('db.operation.batch.size', context.rows);
      }
    }
    if (context.error !== undefined) {
      attributes['error.type'] = codeOf(context.error);
      span.setAttribute('error.type', codeOf(context.error));
      span.setStatus({ code: SpanStatusCode.ERROR });
    }
    duration.record((performance.now() - startedAt) / 1000, attributes);
    span.end();
  };

  const subscribers = {
    start: begin,
    // Only an operation that threw ends here; the others end with their promise.
    end: (context: Context) => 'error' in context && finish(context),
    asyncStart: () => {},
    asyncEnd: finish,
    error: () => {},
  };
  const channels = operations.map((operation) =>
    diagnostics.tracingChannel<unknown, Context>(`connect-drizzle:${operation}`),
  );
  for (const channel of channels) channel.subscribe(subscribers);
  return () => {
    for (const channel of channels) channel.unsubscribe(subscribers);
    stopStats();
  };
}

/** Reports the store's own counts when the metrics are collected. */
function observeStats(store: DrizzleStore, meter: Meter): () => void {
  const counters = (
    [
      'hits',
      'misses',
      'statements',
      'rows',
      'retries',
      'merges',
      'dropped',
      'unreadable',
      'pruned',
    ] as const
  ).map((name) => [name, meter.createObservableCounter(`connect_drizzle.${name}`)] as const);
  const cached = meter.createObservableGauge('connect_drizzle.cached');
  const listening = meter.createObservableGauge('connect_drizzle.listening');

  const instruments = [cached, listening, ...counters.map(([, counter]) => counter)];
  const collect: Parameters<Meter['addBatchObservableCallback']>[0] = (result) => {
    const stats = store.stats();
    for (const [name, counter] of counters) result.observe(counter, stats[name]);
    result.observe(cached, stats.cached);
    result.observe(listening, stats.sync === 'up' ? 1 : 0);
  };
  meter.addBatchObservableCallback(collect, instruments);
  return () => meter.removeBatchObservableCallback(collect, instruments);
}

function nameOf({ operation, statement }: Context): string {
  return statement ?? operation;
}

/** Returns the stable code of the store's errors, because a message may contain more than telemetry should. */
function codeOf(error: unknown): string {
  if (error instanceof Error) return 'code' in error ? String(error.code) : error.name;
  return 'unknown';
}
