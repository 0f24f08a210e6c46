import { beforeAll, describe, expect, test } from 'vitest';
import { withDatabase } from './support/database.js';
import { launch } from './support/example.js';
import type { Seen, SeenSpan } from './support/instrumented-app.js';

// The spans that @opentelemetry/instrumentation-pg creates for the store's statements.

let seen: Seen;
beforeAll(async () => {
  await withDatabase(async ({ url }) => {
    const app = launch(process.execPath, ['--import', 'tsx', 'test/support/instrumented-app.ts'], {
      env: { TEST_APP_DATABASE: url },
    });
    await app.ended;
    seen = JSON.parse(/^\{.*\}$/m.exec(app.output)?.[0] ?? app.output);
  });
});

function only(spans: readonly SeenSpan[], pattern: RegExp): SeenSpan {
  const [found, ...others] = spans.filter(({ name }) => pattern.test(name));
  if (found === undefined || others.length > 0) {
    throw new Error(`not one span ${pattern} in ${spans.map(({ name }) => name).join(', ')}`);
  }
  return found;
}

const STATEMENT = /^pg\.query:connect_drizzle_/;
const BATCH = /^connect-drizzle /;

describe('the statement of a lone call', () => {
  test('has a span below that of its request, as has the wait for a connection', () => {
    const request = only(seen.lone, /^GET/);
    expect(only(seen.lone, STATEMENT)).toMatchObject({ trace: request.trace, parent: request.id });
    expect(only(seen.lone, /^pg-pool/)).toMatchObject({ trace: request.trace, parent: request.id });
    expect(seen.lone).toHaveLength(3);
  });

  test('has a span below that of its own request, even if it waited for another request', () => {
    const statements = seen.waiting.filter(({ name }) => STATEMENT.test(name));
    const requests = ['first', 'second'].map((name) => only(seen.waiting, new RegExp(`^${name}$`)));
    expect(statements.map(({ parent }) => parent)).toEqual(requests.map(({ id }) => id));
  });
});

describe('the statement of a batch', () => {
  test('has a trace of its own, with links to the spans of its callers', () => {
    const batch = only(seen.batch, BATCH);
    const requests = ['a', 'b', 'c'].map((name) => only(seen.batch, new RegExp(`^GET /${name}$`)));
    expect(batch).toMatchObject({
      name: 'connect-drizzle read',
      parent: null,
      links: requests.map(({ id }) => id),
      batchSize: 3,
      isError: false,
    });
    expect(requests.map(({ trace }) => trace)).not.toContain(batch.trace);
    expect(only(seen.batch, STATEMENT)).toMatchObject({ trace: batch.trace, parent: batch.id });
  });

  test('links only once to a span with several calls in the batch', () => {
    expect(only(seen.sameRequest, BATCH)).toMatchObject({
      links: [only(seen.sameRequest, /^GET/).id],
      batchSize: 2,
    });
  });

  test('has no batch span if no caller has a span, or none is sampled', () => {
    for (const spans of [seen.outside, seen.ignored]) {
      expect(only(spans, STATEMENT)).toMatchObject({ parent: null, links: [] });
      expect(spans.filter(({ name }) => BATCH.test(name))).toEqual([]);
    }
  });

  test('has a span with the status error if it fails', () => {
    expect(only(seen.failing, BATCH)).toMatchObject({ isError: true });
  });
});
