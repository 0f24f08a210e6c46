/**
 * Combines the statements of a store: those for Postgres, or those for any engine.
 *
 * @module
 */
import type { Statements } from './contract.js';
import { fragmentsOf, type StatementSettings } from './fragments.js';
import { manyRows } from './many-rows.js';
import { oneRow } from './one-row.js';
import { portableFragments } from './portable/fragments.js';
import { portableRow } from './portable/one-row.js';
import { portableTableStatements } from './portable/table-statements.js';
import { rekeyStatements } from './rekeying.js';
import { oneByOne, rowStatements } from './row-outcomes.js';
import { clockReader } from './server-time.js';
import { tableStatements } from './table-statements.js';

/** Declares the statements of a store; nothing is compiled or sent yet. */
export function statementsFor(settings: StatementSettings): Statements {
  if (settings.engine.isPortable) return portableStatements(settings);
  const fragments = fragmentsOf(settings);
  const readClock = clockReader(settings.prepared);
  return {
    ...rowStatements(oneRow(settings, fragments), manyRows(settings, fragments), readClock),
    ...tableStatements(settings, fragments, readClock),
    ...rekeyStatements(settings, fragments),
  };
}

/** Listings, counts and notifications are the same for all engines, except for the columns that they select. */
function portableStatements(settings: StatementSettings): Statements {
  const fragments = portableFragments(settings);
  const readClock = clockReader(settings.prepared);
  const one = portableRow(settings, fragments);
  return {
    ...oneByOne(one, readClock),
    ...tableStatements(settings, fragments, readClock),
    ...rekeyStatements(settings, fragments),
    ...portableTableStatements(settings, fragments, one, readClock),
  };
}
