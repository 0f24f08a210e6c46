/** The set of statements that the tests use, and the tests that are left out on the portable set. */

/** Whether the tests use the portable set: with `STATEMENTS=portable`. */
export const isPortable = process.env.STATEMENTS === 'portable';

/** Files that test only the statements for Postgres, and why. */
export const postgresOnly: Readonly<Record<string, string>> = {
  'engine-detection': 'its stores choose their statements themselves',
  'portable/*': 'its stores choose their statements themselves',
  batching: 'a portable statement has one row: there are no batches',
  plans: 'the plans are those of the statements for Postgres',
  compression: 'the portable statements are not measured',
};

/** Prints which files are left out. */
export function reportStatementSet(): void {
  if (!isPortable) return;
  console.log('Statements: the portable ones. Left out:');
  for (const [name, reason] of Object.entries(postgresOnly)) console.log(`  ${name}: ${reason}`);
}

/** For `test.skipIf(onPortable(reason))`: whether the portable statements are tested. Prints the reason if so. */
export function onPortable(reason: string): boolean {
  if (isPortable) console.log(`Left out on the portable statements: ${reason}`);
  return isPortable;
}
