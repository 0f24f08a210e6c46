/**
 * The store's diagnostics as OpenTelemetry spans and metrics, printed to the console.
 *
 *     npx tsx examples/opentelemetry/server.ts                                   in memory
 *     npx tsx examples/opentelemetry/server.ts postgres://user:password@host/name
 *
 * Open http://localhost:3000 a few times: each request has a span, and the store's spans are its
 * children. The metrics follow every ten seconds, and when the server stops. A real app exports to a
 * collector instead; copy `observe` from telemetry.ts unchanged.
 */
import { context, metrics, SpanKind, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  ConsoleMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import {
  BasicTracerProvider,
  ConsoleSpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { DrizzleStore } from 'connect-drizzle';
import express from 'express';
import session from 'express-session';
import { observe } from './telemetry.js';

declare module 'express-session' {
  interface SessionData {
    /** How often the page was opened in this session. */
    views: number;
  }
}

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
const traces = new BasicTracerProvider({
  spanProcessors: [new SimpleSpanProcessor(new ConsoleSpanExporter())],
});
trace.setGlobalTracerProvider(traces);
const meters = new MeterProvider({
  readers: [
    new PeriodicExportingMetricReader({
      exporter: new ConsoleMetricExporter(),
      exportIntervalMillis: 10_000,
      exportTimeoutMillis: 5_000,
    }),
  ],
});
metrics.setGlobalMeterProvider(meters);

const store = new DrizzleStore(process.argv[2] ?? 'memory://', {
  createTableIfMissing: true,
  cache: true,
});
const tracer = trace.getTracer('connect-drizzle-example');
const stop = observe(store, tracer, metrics.getMeter('connect-drizzle-example'));

const app = express();
app.use((request, response, next) => {
  const span = tracer.startSpan(`${request.method} ${request.path}`, { kind: SpanKind.SERVER });
  response.on('close', () => span.end());
  context.with(trace.setSpan(context.active(), span), next);
});
app.use(
  session({
    store,
    secret: process.env.SESSION_SECRET ?? 'good enough for an example',
    resave: false,
    saveUninitialized: false,
    cookie: { sameSite: 'lax', secure: 'auto' },
  }),
);
app.get('/', ({ session }, response) => {
  session.views = (session.views ?? 0) + 1;
  response.type('text').send(`Opened ${session.views} times in this session.\n`);
});

await store.ready();
const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', (error) => {
  if (error) throw error;
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : address;
  console.log(`The page is at http://localhost:${port}`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(async () => {
      await meters.shutdown();
      await traces.shutdown();
      stop();
      await store.close();
    });
  });
}
