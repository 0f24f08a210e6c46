import { tracingChannel } from 'node:diagnostics_channel';
import type { TraceContext } from 'connect-drizzle';

/** A statement that a store of this process sends. */
export interface SentStatement {
  readonly name: string;
  readonly rows: number;
  /** `undefined` while it is in flight. */
  ended?: 'answered' | 'refused';
  /** The SQLSTATE with which it was refused. */
  state?: string | undefined;
}

export interface StatementLog {
  /** All statements since the log was opened, in the order in which they were sent. */
  readonly sent: readonly SentStatement[];
  /** The numbers of their rows, in order; only of statements with this name if one is given. */
  rows(name?: string): number[];
  readonly underWay: number;
  /** The most statements that were in flight at once. */
  readonly mostUnderWay: number;
  /** The SQLSTATEs of refused statements. */
  readonly refusals: string[];
  close(): void;
  [Symbol.dispose](): void;
}

/** Records statements through the tracing channel of the package. */
export function logStatements(): StatementLog {
  const channel = tracingChannel<'connect-drizzle:statement', TraceContext>(
    'connect-drizzle:statement',
  );
  const sent: SentStatement[] = [];
  const byContext = new WeakMap<object, SentStatement>();
  let underWay = 0;
  let mostUnderWay = 0;
  const end = (context: TraceContext, ended: 'answered' | 'refused', error?: unknown) => {
    const statement = byContext.get(context);
    if (statement === undefined) return;
    underWay -= 1;
    statement.ended = ended;
    statement.state = causeCode(error);
  };
  const subscriber = {
    start(context: TraceContext) {
      const statement = { name: context.statement ?? '', rows: context.rows ?? 0 };
      byContext.set(context, statement);
      sent.push(statement);
      underWay += 1;
      mostUnderWay = Math.max(mostUnderWay, underWay);
    },
    end() {},
    asyncStart(context: TraceContext & { error?: unknown }) {
      end(context, 'error' in context ? 'refused' : 'answered', context.error);
    },
    asyncEnd() {},
    error() {},
  };
  channel.subscribe(subscriber);
  const close = () => void channel.unsubscribe(subscriber);
  return {
    sent,
    rows: (name) =>
      sent.filter((each) => name === undefined || each.name === name).map((each) => each.rows),
    get underWay() {
      return underWay;
    },
    get mostUnderWay() {
      return mostUnderWay;
    },
    get refusals() {
      return sent.flatMap((each) => each.state ?? []);
    },
    close,
    [Symbol.dispose]: close,
  };
}

/** The SQLSTATE in the cause of an error of the package. */
export function causeCode(error: unknown): string | undefined {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === 'object' && cause !== null && 'code' in cause
    ? String(cause.code)
    : undefined;
}
