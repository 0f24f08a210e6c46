import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { Connection, Result } from '../../src/drivers/driver.js';
import { ServerClock } from '../../src/drivers/support/server-clock.js';
import type { Statements } from '../../src/queries/contract.js';
import type { StatementSettings } from '../../src/queries/fragments.js';
import { statementsFor } from '../../src/queries/statements.js';
import { viewOf } from '../../src/queries/view.js';
import { sessions } from '../../src/schema.js';
import { monotonicMs } from '../../src/util/clock.js';
import { parse, refusals } from './refusals.js';

interface Sent {
  readonly name: string | undefined;
  readonly text: string;
}

/** Records statements. A query of ids, ranks or a session returns rows, and a write changes `changed` rows. */
function recording(sent: Sent[], changed: number): Connection {
  const clock = new ServerClock();
  const sentMs = monotonicMs();
  clock.read(Date.now(), sentMs);
  const answer = (text: string): Result => {
    if (/^(update|delete|insert)/.test(text)) return { rows: [], rowCount: changed };
    if (/as "seen_us"/.test(text)) {
      const rows = ['one', 'two', 'three'].map((id, at) => [id, String(9 - at)]);
      return { rows, rowCount: rows.length };
    }
    if (/as "head"/.test(text)) return { rows: [['1,1,1,0,one', '{}', null]], rowCount: 1 };
    return { rows: [['one']], rowCount: 1 };
  };
  return {
    clock,
    run: async ({ name, text }) => {
      sent.push({ name, text });
      return answer(text);
    },
    release() {},
    destroy() {},
  };
}

const ROW = {
  id: 'one',
  data: '{}',
  expiresAt: 2,
  userId: null,
  version: 1,
  createdAt: 1,
  seenExpiresAt: 1,
};

/** Calls all statements, so that each is compiled. */
async function callAll(statements: Statements, on: Connection): Promise<void> {
  const times = { beganMs: monotonicMs(), atMs: monotonicMs() + 1000 };
  const { id } = ROW;
  await statements.read(on, [id], [times]);
  for (const createdAt of [0, 1]) {
    await statements.touch(on, [{ id, createdAt, expiresAt: 2, aliveAt: 0 }], [times]);
  }
  await statements.save(on, [ROW], [times]);
  await statements.create(on, [ROW], [times]);
  await statements.put(on, [ROW], [times]);
  await statements.end(on, [id], [times]);
  await statements.bury(on, [id], [times]);
  await statements.clear(on, times);
  await statements.endUser(on, times, 'ada', '');
  for (const own of ['one', 'three']) await statements.endBeyond(on, times, 'ada', own, 1, 1);
  for (const userId of [undefined, 'ada']) {
    await statements.list(on, { userId, after: '', limit: 1, now: 1 });
  }
  await statements.listIds(on, { after: '', limit: 1, now: 1 });
  await statements.count(on);
  await statements.prune(on, 1);
  await statements.probe(on);
  await statements.listStored(on, '', '', 1);
  await statements.countStored(on, '');
  await statements.reseal(on, [ROW]);
  // The server's clock is now read by a statement of its own.
  on.clock.forget();
  await statements.save(on, [ROW], [times]);
}

const view = viewOf(sessions, (column) => column.name, true);

function settingsWith(settings: Partial<StatementSettings>): StatementSettings {
  return {
    ...view,
    withUser: true,
    maxLifetime: undefined,
    prepared: true,
    engine: { isPortable: true, limitsLockWaits: false },
    announce: undefined,
    ...settings,
  };
}

const variants: Record<string, Partial<StatementSettings>> = {
  plain: {},
  'with sync': { announce: { channel: 'channel', sender: 'sender' } },
  'with maxLifetime': { maxLifetime: 3600 },
  'without users': { withUser: false },
  'with data as text': { dataType: 'text' },
};

async function compiled(settings: StatementSettings): Promise<Sent[]> {
  const sent: Sent[] = [];
  const statements = statementsFor(settings);
  for (const changed of [0, 1]) await callAll(statements, recording(sent, changed));
  return sent;
}

describe.each(Object.entries(variants))('the portable statements, %s', (_, settings) => {
  test.each(refusals)('contain nothing that $engine refuses: $what', async ({ isIn }) => {
    const sent = await compiled(settingsWith(settings));
    const found = sent.filter(({ text }) => isIn(parse(text))).map(({ text }) => text);
    expect([...new Set(found)]).toEqual([]);
  });
});

test('these checks cover every statement that the portable set declares', async () => {
  const folder = fileURLToPath(new URL('../../src/queries/portable', import.meta.url));
  const source = readdirSync(folder)
    .map((name) => readFileSync(`${folder}/${name}`, 'utf8'))
    .join('\n');
  const declared = Array.from(
    source.matchAll(/(?:statement|command|ending)\(\s*'(\w+)'/g),
    ([, kind]) => kind,
  );
  expect(declared.length).toBeGreaterThan(20);
  const names = (await compiled(settingsWith({ announce: { channel: 'c', sender: 's' } }))).map(
    ({ name }) => name,
  );
  const missing = declared.filter(
    (kind) => !names.some((name) => name?.startsWith(`connect_drizzle_${kind}_`)),
  );
  // This statement is never prepared, so it has no name.
  expect(missing).toEqual(['expired_ids_any_engine']);
});

test('these checks find what the statements for Postgres contain', async () => {
  const engine = { isPortable: false, limitsLockWaits: true };
  const sent = await compiled(
    settingsWith({ engine, maxLifetime: 3600, announce: { channel: 'c', sender: 's' } }),
  );
  const hits = refusals.filter(({ isIn }) => sent.some(({ text }) => isIn(parse(text))));
  expect(hits.map(({ what }) => what)).toEqual(
    expect.arrayContaining([
      'volatile functions in a write',
      'stable functions of columns in a write',
      'stable functions in SET (measured on 13.2)',
      'functions that are not immutable in RETURNING',
      'SELECT … FOR UPDATE over several shards (measured on 13.2)',
      'ctid in a write (measured on 13.2)',
      'a write without the distribution column, and so to all shards',
      'INSERT … SELECT, which no key routes',
      'locks other than FOR UPDATE of one primary key, such as SKIP LOCKED',
      'settings for one statement: set_config(…, true)',
    ]),
  );
});

test('every write limits its wait for a row if the engine can', async () => {
  const limited = await compiled(
    settingsWith({ engine: { isPortable: true, limitsLockWaits: true } }),
  );
  const writes = limited.filter(({ text }) => parse(text).isWrite);
  const without = writes.filter(({ text }) => !text.includes('lock_timeout'));
  expect(writes.length).toBeGreaterThan(20);
  expect(without.map(({ text }) => text)).toEqual([]);
});
