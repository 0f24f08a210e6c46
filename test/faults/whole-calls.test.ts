import { type DrizzleStore, StoreTimeoutError } from 'connect-drizzle';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../support/eventually.js';
import { holding } from '../support/obstacles.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { sessionWith } from '../support/sessions.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());

afterAll(() => database.drop());

const userId = (session: object): string => Reflect.get(session, 'user');

describe('the timeout of a call that sends several statements', () => {
  /**
   * Starts a call whose first statement takes a second and whose second one waits for a row that the app has locked.
   * Then starts a call that only waits. Both have the same timeout, so the first must give up first.
   */
  async function orderOf(call: (store: DrizzleStore) => Promise<unknown>): Promise<string[]> {
    const store = await database.store({ timeout: 2, userId, maxSessionsPerUser: 1 });
    await eventually(() => store.set('held', sessionWith({ user: 'u' })));
    await eventually(() => store.set('slow', sessionWith({ user: 'other' })));
    await database.query(`
      create function linger() returns trigger language plpgsql as $$ begin
        if new.data ->> 'slow' is not null then perform pg_sleep(1); end if;
        return new;
      end $$;
      create trigger linger before insert or update on sessions
        for each row execute function linger();
    `);
    await using _ = await holding(database, {
      text: `select from sessions where user_id = 'u' for update`,
      values: [],
    });
    const order: string[] = [];
    const settled = (name: string, promise: Promise<unknown>) =>
      promise.catch((error) => {
        expect(error).toBeInstanceOf(StoreTimeoutError);
        order.push(name);
      });
    const several = settled('several', call(store));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await Promise.all([several, settled('one', store.destroy('held'))]);
    return order;
  }

  const newSession = () => sessionWith({ user: 'u', slow: true });

  test('covers all statements of a log-in beyond maxSessionsPerUser', async () => {
    expect(await orderOf((store) => store.set('new', newSession()))).toEqual(['several', 'one']);
  });

  test('covers all statements of an update that sets the user', async () => {
    const update = (store: DrizzleStore) => store.update('slow', () => newSession());
    expect(await orderOf(update)).toEqual(['several', 'one']);
  });
});

describe('a session that another process keeps changing', () => {
  /** A store with a short timeout, and the store of another process. */
  async function contended() {
    const store = await database.store({ timeout: 1 });
    await eventually(() => store.set('a', sessionWith({ n: 0 })));
    const other = await database.store();
    return { store, other };
  }

  test('makes an update give up after its timeout', async () => {
    const { store, other } = await contended();
    let tries = 0;
    // On a busy machine, the call may time out after the first try.
    while (tries <= 1) {
      tries = 0;
      const updated = store.update('a', async (session) => {
        tries += 1;
        // Keeps a fast machine from reaching the limit of tries.
        await new Promise((resolve) => setTimeout(resolve, 20));
        await other.set('a', sessionWith({ n: tries }));
        Object.assign(session, { mine: true });
      });
      await expect(updated).rejects.toThrow(StoreTimeoutError);
    }
    const before = tries;
    await other.get('a');
    expect(tries).toBe(before);
  });
});
