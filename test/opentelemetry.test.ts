import { beforeAll, describe, expect, test } from 'vitest';
import { withDatabase } from './support/database.js';
import { launch } from './support/example.js';
import type { Seen, SeenSpan } from './support/instrumented-app.js';

// With @opentelemetry/instrumentation-pg: where the spans of the store's statements belong.

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
  test('is a child of its request’s span, and so is the wait for a connection', () => {
    const request = only(seen.lone, /^GET/);
    expect(only(seen.lone, STATEMENT)).toMatchObject({ trace: request.trace, parent: request.id });
    expect(only(seen.lone, /^pg-pool/)).toMatchObject({ trace: request.trace, parent: request.id });
    expect(seen.lone).toHaveLength(3);
  });

  test('is one even if it waited for the statement of another request', () => {
    const statements = seen.waiting.filter(({ name }) => STATEMENT.test(name));
    const requests = ['first', 'second'].map((name) => only(seen.waiting, new RegExp(`^${name}$`)));
    expect(statements.map(({ parent }) => parent)).toEqual(requests.map(({ id }) => id));
  });
});

describe('the statement of a batch', () => {
  test('is a separate trace, with links to its callers’ spans', () => {
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

  test('links to a span once, however many of its calls are in the batch', () => {
    expect(only(seen.sameRequest, BATCH)).toMatchObject({
      links: [only(seen.sameRequest, /^GET/).id],
      batchSize: 2,
    });
  });

  test('creates no span if no caller has one, or none is sampled', () => {
    for (const spans of [seen.outside, seen.ignored]) {
      expect(only(spans, STATEMENT)).toMatchObject({ parent: null, links: [] });
      expect(spans.filter(({ name }) => BATCH.test(name))).toEqual([]);
    }
  });

  test('shows that it failed', () => {
    expect(only(seen.failing, BATCH)).toMatchObject({ isError: true });
  });
});
