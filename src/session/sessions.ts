/**
 * Creates the parts of a store that load, save and revoke sessions.
 *
 * @module
 */
import type { Settings } from '../options.js';
import type { Codec } from './codec.js';
import { Loader } from './load.js';
import type { Rekeying } from './rekey.js';
import { type Announce, Revoker } from './revoking.js';
import { Saver } from './save.js';

export interface Sessions {
  readonly loader: Loader;
  readonly saver: Saver;
  readonly revoker: Revoker;
  readonly rekeying: Rekeying;
}

export function createSessions(
  codec: Codec,
  settings: Settings,
  announce: Announce,
  log: (message: string) => void,
): Sessions {
  const saver = new Saver(codec, settings);
  const loader = new Loader(codec, saver, settings.maxLifetime, log);
  return {
    saver,
    loader,
    revoker: new Revoker(settings.maxSessionsPerUser, announce),
    rekeying: { codec, onUnreadable: (id, error) => loader.unreadable(id, error) },
  };
}
