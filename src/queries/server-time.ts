/**
 * Converts the times of a call to the server's clock.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { monotonicMs } from '../util/clock.js';
import { db, statement } from './compile.js';
import { clockMs, text } from './sql.js';
import type { CallTimes } from './wire.js';

/**
 * Reads the server's clock. Returns `undefined` if that is not necessary. Every read of a session also reads the clock, so
 * a write rarely has to wait for this statement.
 */
export type ReadClock = (on: Connection) => Promise<void> | undefined;

export function clockReader(prepared: boolean): ReadClock {
  const read = statement('clock', prepared, [], () =>
    db.select({ ms: text(clockMs).as('ms') }).from(sql`(values (1)) as once`),
  );
  return (on) => {
    if (on.clock.isFresh) return undefined;
    const sentMs = monotonicMs();
    return read(on, {}).then(([row]) => on.clock.read(Number(row?.ms), sentMs));
  };
}

/** Returns the server time before which a write must run. */
export function untilOf(on: Connection, { atMs }: CallTimes): string {
  return String(on.clock.earliest(atMs));
}

/** Returns the server time at which a call began, or slightly later. */
export function beganOf(on: Connection, { beganMs }: CallTimes): string {
  return String(on.clock.latest(beganMs));
}
