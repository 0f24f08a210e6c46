/**
 * The parts of a store that the admin page needs in addition to the public methods.
 *
 * @module
 */
import type { Settings } from '../options.js';
import type { FragmentSettings } from '../queries/fragments.js';
import type { SessionView } from '../queries/view.js';
import type { Sessions } from '../session/sessions.js';
import { isObject } from '../util/guards.js';
import type { Run } from './replies.js';
import type { Runtime } from './runtime.js';

export interface StoreAccess {
  readonly settings: Settings;
  /** For building statements about the store's table. */
  readonly table: FragmentSettings;
  readonly sessions: Sessions;
  /** Aborted when the store is closed. */
  readonly closing: AbortSignal;
  /** Runs a call with the time limit of the store's own calls. */
  perform<T>(run: Run<T>): Promise<T>;
  log(message: string, error?: unknown): void;
}

/** A global symbol, because in the CommonJS build each entry file has a copy of this module. */
const ACCESS = Symbol.for('connect-drizzle.access');

/** Gives the admin page access to a store. */
export function grantAccess(
  store: object,
  view: SessionView,
  settings: Settings,
  runtime: Runtime,
  sessions: Sessions,
): void {
  const access: StoreAccess = {
    settings,
    table: {
      ...view,
      withUser: settings.userId !== undefined,
      maxLifetime: settings.maxLifetime,
      prepared: settings.preparedStatements,
      announce: undefined,
    },
    sessions,
    closing: runtime.closing,
    perform: (run) =>
      runtime.perform(
        () => run,
        (value) => value,
        (error) => {
          throw error;
        },
      ),
    log: (message, error) => runtime.log(message, error),
  };
  Object.defineProperty(store, ACCESS, { value: access });
}

/** Returns the access to a store; `undefined` if the value is not a store. */
export function accessTo(store: unknown): StoreAccess | undefined {
  return hasAccess(store) ? store[ACCESS] : undefined;
}

function hasAccess(store: unknown): store is { readonly [ACCESS]: StoreAccess } {
  return isObject(store) && ACCESS in store;
}
