import pg from 'pg';
import { expect, test } from 'vitest';
import { adminSite, type ListBody } from '../support/admin.js';
import { database, useDatabase } from '../support/fault-database.js';

// A page of the list costs the server the same on a table of any size.

useDatabase();

const SESSIONS = 40_000;

interface Sent {
  readonly text: string;
  readonly values: string[];
}

/** A pool that records the statements of the list. */
function notingPool(sent: Sent[]): pg.Pool {
  class Client extends pg.Client {
    override query(...args: never[]): never {
      const [config] = args as unknown as [{ text?: string; values?: string[] }];
      const { text = '', values = [] } = config;
      if (/created_us/.test(text) && /order by/.test(text)) sent.push({ text, values });
      return (super.query as (...all: never[]) => never)(...args);
    }
  }
  return database.pool({ Client });
}

interface Node {
  'Node Type': string;
  'Index Name'?: string;
  'Actual Rows': number;
  Plans?: Node[];
}

async function nodesOf({ text, values }: Sent): Promise<Node[]> {
  const [row] = await database.query<{ 'QUERY PLAN': { Plan: Node }[] }>(
    `explain (analyze, costs off, timing off, summary off, format json) ${text}`,
    values,
  );
  const all = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(all)];
  const plan = row?.['QUERY PLAN'][0]?.Plan;
  return plan === undefined ? [] : all(plan);
}

test('the first page, a page in the middle and a user’s page are read in order through an index', async () => {
  const sent: Sent[] = [];
  const { admin } = await adminSite({ pool: notingPool(sent) });
  await database.query('create index sessions_created_at_index on sessions (created_at, id)');
  await database.query(
    `insert into sessions (id, data, user_id, created_at, expires_at)
     select 'id' || lpad(n::text, 41, '0'), '{"cookie":{}}', 'user ' || n % 1000,
       timestamptz '2026-01-01' + n * interval '1 second', now() + interval '1 day'
     from generate_series(1, ${SESSIONS}) n`,
  );
  await database.query('vacuum analyze sessions');
  const middle = `${Date.parse('2026-01-01T00:00:00Z') + (SESSIONS / 2) * 1000}000.id`;
  const { sessions } = await admin.json<ListBody>(`/?before=${middle}`);
  expect(Number(sessions[0]?.id.slice(2))).toBe(SESSIONS / 2 - 1);
  await admin.json('/');
  await admin.json('/?user=user%207');
  expect(sent).toHaveLength(3);
  for (const [at, index] of ['created_at', 'created_at', 'user_id'].entries()) {
    const nodes = await nodesOf(sent[at] ?? { text: '', values: [] });
    const scans = nodes.filter((node) => /Scan/.test(node['Node Type']));
    expect(scans.map((node) => node['Index Name'] ?? node['Node Type']).join()).toContain(
      `sessions_${index}_index`,
    );
    expect(scans.every((node) => node['Actual Rows'] <= 51)).toBe(true);
  }
});
