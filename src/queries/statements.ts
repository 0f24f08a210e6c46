/**
 * Puts the statements of a store together.
 *
 * @module
 */
import type { Statements } from './contract.js';
import { fragmentsOf, type StatementSettings } from './fragments.js';
import { manyRows } from './many-rows.js';
import { oneRow } from './one-row.js';
import { rekeyStatements } from './rekeying.js';
import { rowStatements } from './row-outcomes.js';
import { clockReader } from './server-time.js';
import { tableStatements } from './table-statements.js';

/** Declares the statements of a store; nothing is compiled or sent yet. */
export function statementsFor(settings: StatementSettings): Statements {
  const fragments = fragmentsOf(settings);
  const readClock = clockReader(settings.prepared);
  return {
    ...rowStatements(oneRow(settings, fragments), manyRows(settings, fragments), readClock),
    ...tableStatements(settings, fragments, readClock),
    ...rekeyStatements(settings, fragments),
  };
}
