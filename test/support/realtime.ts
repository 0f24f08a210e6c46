import { once } from 'node:events';
import { type DrizzleStore, idOf, type SessionEvent } from 'connect-drizzle';
import { sessionWith } from './sessions.js';

export interface HeardEvent extends SessionEvent {
  readonly name: 'change' | 'destroy';
}

/** Resolves when `sync` is up in all stores. */
export async function up(...stores: DrizzleStore[]): Promise<void> {
  await Promise.all(stores.map((store) => untilSync(store, 'up')));
}

export async function untilSync(store: DrizzleStore, state: 'up' | 'down'): Promise<void> {
  while (store.stats().sync !== state) await once(store, 'sync');
}

/** Collects the events of a store from now on. */
export function hear(store: DrizzleStore): HeardEvent[] {
  const heard: HeardEvent[] = [];
  for (const name of ['change', 'destroy'] as const) {
    store.on(name, (event: SessionEvent) => heard.push({ name, ...event }));
  }
  return heard;
}

let markers = 0;

/** Resolves when one store has heard everything that the other has done so far. (Notifications keep their order.) */
export async function caughtUp(listening: DrizzleStore, writing: DrizzleStore): Promise<void> {
  markers += 1;
  const sid = `marker ${markers}`;
  const id = idOf(sid);
  const heard = new Promise<void>((resolve) => {
    const look = (event: SessionEvent) => {
      if (event.id !== id) return;
      listening.off('change', look);
      resolve();
    };
    listening.on('change', look);
  });
  await writing.set(sid, sessionWith());
  await heard;
}

/** The events of these sids, in order. */
export function about(heard: readonly HeardEvent[], ...sids: string[]): HeardEvent[] {
  const ids = new Set(sids.map(idOf));
  return heard.filter((event) => ids.has(event.id));
}

/** Resolves with the next event of this name for a session. */
export async function heardOf(store: DrizzleStore, name: 'change' | 'destroy', sid: string) {
  const id = idOf(sid);
  for (;;) {
    const [event]: SessionEvent[] = await once(store, name);
    if (event?.id === id) return event;
  }
}
