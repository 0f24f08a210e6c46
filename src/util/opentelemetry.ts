/**
 * OpenTelemetry. The statement of a batch belongs to several requests, so it gets a separate trace, with links to the
 * spans of its callers. (A statement for one call needs nothing: it runs in the async context of its caller.)
 *
 * `@opentelemetry/api` registers itself as a global symbol, so that its versions and copies find each other. The store
 * uses this symbol and needs no dependency.
 *
 * @module
 */
import type { AsyncResource } from 'node:async_hooks';
import { hasMethod, property } from './guards.js';

const API = Symbol.for('opentelemetry.js.api.1');
const SPAN = Symbol.for('OpenTelemetry Context Key SPAN');
const SAMPLED = 1;
const ERROR_STATUS = { code: 2 };

interface SpanContext {
  readonly traceFlags: number;
}

interface Span {
  spanContext(): SpanContext;
  setStatus(status: { readonly code: number }): unknown;
  end(): void;
}

interface Context {
  getValue(key: symbol): unknown;
  setValue(key: symbol, value: unknown): Context;
}

interface Tracer {
  startSpan(
    name: string,
    options: {
      readonly root: boolean;
      readonly links: readonly { readonly context: SpanContext }[];
      readonly attributes: Readonly<Record<string, string | number>>;
    },
  ): Span;
}

interface Api {
  readonly context: {
    active(): Context;
    with<T>(context: Context, run: () => T): T;
  };
  readonly trace: { getTracer(name: string): Tracer };
}

/** Runs the statement of a batch. If the app uses OpenTelemetry and samples one of the callers, creates a span with links. */
export function asBatch<T>(
  name: string,
  callers: readonly AsyncResource[],
  run: () => Promise<T>,
): Promise<T> {
  const api: unknown = Reflect.get(globalThis, API);
  return isApi(api) ? linked(api, name, callers, run) : run();
}

async function linked<T>(
  api: Api,
  name: string,
  callers: readonly AsyncResource[],
  run: () => Promise<T>,
): Promise<T> {
  const links = sampledSpans(api, callers).map((span) => ({ context: span.spanContext() }));
  if (links.length === 0) return run();
  const attributes = { 'db.system.name': 'postgresql', 'db.operation.batch.size': callers.length };
  const tracer = api.trace.getTracer('connect-drizzle');
  const span = tracer.startSpan(`connect-drizzle ${name}`, { root: true, links, attributes });
  try {
    return await api.context.with(api.context.active().setValue(SPAN, span), run);
  } catch (error) {
    span.setStatus(ERROR_STATUS);
    throw error;
  } finally {
    span.end();
  }
}

/** Returns the sampled spans of the callers, each once: a request may have made several of the calls. */
function sampledSpans(api: Api, callers: readonly AsyncResource[]): Span[] {
  const spans = new Set<Span>();
  for (const caller of callers) {
    const span = caller.runInAsyncScope(() => api.context.active().getValue(SPAN));
    if (isSpan(span) && (span.spanContext().traceFlags & SAMPLED) !== 0) spans.add(span);
  }
  return [...spans];
}

function isApi(value: unknown): value is Api {
  const context = property(value, 'context');
  return (
    hasMethod(context, 'active') &&
    hasMethod(context, 'with') &&
    hasMethod(property(value, 'trace'), 'getTracer')
  );
}

function isSpan(value: unknown): value is Span {
  return hasMethod(value, 'spanContext');
}
