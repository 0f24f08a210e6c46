/**
 * Tracing through `node:diagnostics_channel`: one tracing channel per operation, named
 * `connect-drizzle:<operation>`. No context contains a sid or a session.
 *
 * @module
 */
import { tracingChannel } from 'node:diagnostics_channel';

/** The context that subscribers get. */
export interface TraceContext {
  readonly operation: Operation;
  /** The id of the session, `base64url(SHA-256(sid))`, if the operation concerns one. */
  readonly id?: string;
  /** The name of a statement. */
  readonly statement?: string;
  /** The number of sessions that a statement reads or writes. */
  readonly rows?: number;
}

export type Operation = 'get' | 'set' | 'touch' | 'destroy' | 'update' | 'prune' | 'statement';

const channel = (operation: Operation) =>
  tracingChannel<object, TraceContext>(`connect-drizzle:${operation}`);

export const tracing = {
  get: channel('get'),
  set: channel('set'),
  touch: channel('touch'),
  destroy: channel('destroy'),
  update: channel('update'),
  prune: channel('prune'),
  statement: channel('statement'),
} as const;

/** Runs an operation, and traces it if there are subscribers. */
export function traced<T>(context: TraceContext, run: () => Promise<T>): Promise<T> {
  return tracing[context.operation].hasSubscribers ? observed(context, run) : run();
}

async function observed<T>(context: TraceContext, run: () => Promise<T>): Promise<T> {
  const kept: { result?: T } = {};
  // Subscribers get the result of a traced promise, and here that would be a session.
  const keep = async () => {
    kept.result = await run();
  };
  await tracing[context.operation].tracePromise(keep, context);
  return kept.result as T;
}
