import { once } from 'node:events';
import { DrizzleStore, idOf } from 'connect-drizzle';
import session from 'express-session';
import { expect, test } from 'vitest';
import { sessionWith } from './support/sessions.js';

const event = { id: idOf('sid'), local: false };

test('listeners get the typed arguments of their event', async () => {
  await using store = new DrizzleStore();
  const heard: unknown[] = [];
  store
    .on('destroy', ({ id, local }) => heard.push(['destroy', id.length, local]))
    .once('change', ({ id, local }) => heard.push(['change', id.length, local]))
    .addListener('sync', (state) => heard.push(['sync', state === 'up']))
    .prependListener('connect', () => heard.push('connect'))
    .prependOnceListener('disconnect', () => heard.push('disconnect'));
  for (const _ of [1, 2]) {
    store.emit('destroy', event);
    store.emit('change', event);
    store.emit('sync', 'up');
    store.emit('connect');
    store.emit('disconnect');
  }
  expect(heard).toEqual([
    ['destroy', 43, false],
    ['change', 43, false],
    ['sync', true],
    'connect',
    'disconnect',
    ['destroy', 43, false],
    ['sync', true],
    'connect',
  ]);
});

test('listeners can be removed', async () => {
  await using store = new DrizzleStore();
  const listener = (_: { id: string }) => expect.unreachable();
  store.on('destroy', listener).off('destroy', listener);
  store.on('destroy', listener).removeListener('destroy', listener);
  expect(store.emit('destroy', event)).toBe(false);
});

test('an app may emit events of its own', async () => {
  await using store = new DrizzleStore();
  const heard: unknown[] = [];
  store.on('backup', (files: number, path: string) => heard.push([files, path]));
  store.emit('backup', 7, './backup');
  expect(heard).toEqual([[7, './backup']]);
});

test('once() of node:events receives events, and express-session accepts the store', async () => {
  await using store = new DrizzleStore('memory://', { timeout: 300 });
  session({ store, secret: 'secret', resave: false, saveUninitialized: false });
  expect(store.listenerCount('connect')).toBe(1);
  const changed = once(store, 'change');
  await store.set('sid', sessionWith());
  expect(await changed).toEqual([{ id: idOf('sid'), local: true }]);
  const destroyed = once(store, 'destroy');
  await store.destroy('sid');
  expect(await destroyed).toEqual([{ id: idOf('sid'), local: true }]);
});

test('listeners and events of a wrong type do not compile', () => {
  const mistakes = (store: DrizzleStore) => {
    // @ts-expect-error the event is an object
    store.on('destroy', (id: string) => id);
    // @ts-expect-error it has no such field
    store.once('change', ({ sid }) => sid);
    // @ts-expect-error there is no such state
    store.on('sync', (state: 'sideways') => state);
    // @ts-expect-error connect has no argument
    store.off('connect', (id: string) => id);
    // @ts-expect-error the event lacks a field
    store.emit('destroy', { id: 'id' });
    // @ts-expect-error the event is missing
    store.emit('change');
  };
  expect(mistakes).toBeTypeOf('function');
});
