/** Which statements the tests run on, and what is left out on the portable ones. */

/** Set by `STATEMENTS=portable`. */
export const isPortable = process.env.STATEMENTS === 'portable';

/** Files that are about the statements for Postgres, and why. */
export const postgresOnly: Readonly<Record<string, string>> = {
  'engine-detection': 'its stores choose their statements themselves',
  'portable/*': 'its stores choose their statements themselves',
  batching: 'a portable statement has one row: there are no batches',
  compression: 'the portable statements are not measured',
};

/** Prints what is left out. */
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
