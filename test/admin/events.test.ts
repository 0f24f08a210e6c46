import { request as httpRequest } from 'node:http';
import { idOf } from 'connect-drizzle';
import { sessionAdmin } from 'connect-drizzle/admin';
import express from 'express';
import { expect, test, vi } from 'vitest';
import { EventStreams, STREAM_LIMITS } from '../../src/admin/events.js';
import { accessTo } from '../../src/lifecycle/access.js';
import { type AdminSite, adminSite, asAdmin, MOUNT } from '../support/admin.js';
import { eventsOf, nextEvent } from '../support/event-stream.js';
import { database, ends, useDatabase } from '../support/fault-database.js';
import { serve } from '../support/http.js';
import { inTime } from '../support/in-time.js';
import { sessionWith } from '../support/sessions.js';

// The server-sent events that open pages listen to.

useDatabase();

interface Counts {
  changed: number;
  ended: number;
}

async function listen(
  { site }: Pick<AdminSite, 'site'>,
  headers: Record<string, string> = asAdmin,
) {
  const opening = site.browser().open(`${MOUNT}/events`, { headers });
  const response = await inTime('a stream opens', opening);
  const events = eventsOf(response);
  const counts = (found: (counts: Counts) => boolean) =>
    nextEvent(events, ({ name, data }) => name === 'counts' && found(JSON.parse(data)));
  return {
    response,
    counts,
    /** Resolves when the stream is open. */
    opened: () => nextEvent(events, () => true),
    /** Resolves when the server has ended the stream. */
    ended: () => inTime('a stream ends', drain(events)),
  };
}

async function drain(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events);
}

test('a stream counts the sessions that change and end', async () => {
  const admin = await adminSite();
  const stream = await listen(admin);
  expect(stream.response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
  expect(stream.response.headers.get('cache-control')).toBe('no-store, no-transform');
  await stream.opened();
  await admin.add('a sid');
  await admin.add('another');
  await stream.counts(({ changed }) => changed === 2);
  await admin.store.destroy('a sid');
  await stream.counts(({ changed, ended }) => changed === 2 && ended === 1);
  await stream.response.body?.cancel().catch(() => {});
});

test('a stream sends only counts, and at most one message a second', async () => {
  const admin = await adminSite();
  const store = admin.store;
  const streams = new EventStreams(
    { store, access: accessTo(store) ?? never() },
    { messageMs: 5, streamMs: 60_000 },
  );
  const app = express().get('/events', (request, response) =>
    streams.open(request, response, undefined),
  );
  const site = await serve(app);
  ends.push(site.close);
  const events = eventsOf(await site.browser().open('/events'));
  const secrets = ['a sid', idOf('a sid'), 'Ada'];
  await admin.add('a sid', { user: 'Ada' });
  const { data } = await nextEvent(events, (event) => event.data.includes('"changed":1'));
  expect(data).toBe('{"changed":1,"ended":0}');
  expect(secrets.some((secret) => data.includes(secret))).toBe(false);
  // Changes are counted until the next message is due, so a burst is one message.
  expect(STREAM_LIMITS.messageMs).toBe(1000);
  await events.return(undefined);
});

test('the server ends a stream after a minute, so that the app authorizes it again', async () => {
  expect(STREAM_LIMITS.streamMs).toBe(60_000);
  const { store } = await adminSite();
  const streams = new EventStreams(
    { store, access: accessTo(store) ?? never() },
    { messageMs: 5, streamMs: 20 },
  );
  const app = express().get('/events', (request, response) =>
    streams.open(request, response, undefined),
  );
  const site = await serve(app);
  ends.push(site.close);
  const answer = await inTime('a stream ends', site.browser().get('/events'));
  expect(answer.text).toContain('retry: 2000');
  // The page listens to the store only while a stream is open.
  expect([store.listenerCount('change'), store.listenerCount('destroy')]).toEqual([0, 0]);
});

test('a stream that authorize refuses gets 403', async () => {
  const admin = await adminSite();
  const { response } = await listen(admin, {});
  expect(response.status).toBe(403);
  expect(admin.store.listenerCount('change')).toBe(0);
});

test('close() of the store ends open streams, and streams opened later end at once', async () => {
  const admin = await adminSite();
  const streams = [await listen(admin), await listen(admin)];
  for (const { opened } of streams) await opened();
  const closing = admin.store.close();
  for (const { ended } of streams) await ended();
  await inTime('the store closes', closing);
  const late = await inTime('a late stream ends', admin.admin.get('/events'));
  expect([late.status, late.text]).toEqual([200, '']);
  expect(admin.store.listenerCount('destroy')).toBe(0);
});

test('close() of the HTTP server ends open streams', async () => {
  const admin = await adminSite();
  const stream = await listen(admin);
  await stream.opened();
  const closed = new Promise((resolve) => admin.site.server.close(resolve));
  await stream.ended();
  admin.site.server.closeIdleConnections();
  await inTime('the server closes', closed);
});

test.each([
  ['this process', undefined],
  ['another process', true],
])('a log-out of the admin in %s ends the admin’s stream and no other', async (_, sync) => {
  const admin = await adminSite({
    store: { sync: sync ?? false },
    app: (page) =>
      express()
        .use((request, _response, next) => {
          // express-session sets this.
          request.sessionID = String(request.get('x-sid'));
          next();
        })
        .use(MOUNT, page),
  });
  const { store } = admin;
  const other = sync ? await database.store({ sync: true }) : store;
  if (sync) await expect.poll(() => store.stats().sync).toBe('up');
  await admin.add('sid of the admin');
  await admin.add('sid of another');
  const stream = await listen(admin, { ...asAdmin, 'x-sid': 'sid of the admin' });
  const others = await listen(admin, { ...asAdmin, 'x-sid': 'sid of a second admin' });
  await stream.opened();
  await other.destroy('sid of another');
  await stream.counts(({ ended }) => ended === 1);
  await other.destroy('sid of the admin');
  await stream.ended();
  await others.counts(({ ended }) => ended === 2);
  await others.response.body?.cancel().catch(() => {});
});

test('a client that disconnects leaves no listener behind', async () => {
  const admin = await adminSite();
  const request = httpRequest(`${admin.site.url}${MOUNT}/events`, { headers: asAdmin });
  request.on('error', () => {});
  const answered = new Promise((resolve) => request.once('response', resolve));
  request.end();
  await inTime('the stream opens', answered);
  expect(admin.store.listenerCount('destroy')).toBe(1);
  request.destroy();
  await expect.poll(() => admin.store.listenerCount('destroy')).toBe(0);
});

test('many pages and streams on one store cause no MaxListeners warning', async () => {
  const warned = vi.fn();
  process.on('warning', warned);
  try {
    const admin = await adminSite();
    const pages = Array.from({ length: 12 }, () =>
      sessionAdmin({ store: admin.store, authorize: () => true }),
    );
    expect(pages).toHaveLength(12);
    const streams = await Promise.all(Array.from({ length: 12 }, () => listen(admin)));
    await admin.store.set('a sid', sessionWith());
    await admin.store.close();
    for (const { ended } of streams) await ended();
    expect(warned).not.toHaveBeenCalled();
  } finally {
    process.off('warning', warned);
  }
});

function never(): never {
  throw new Error('The store gives no access');
}
