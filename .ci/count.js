// Prints, from a report of vitest's JSON reporter, how many tests passed, failed and were skipped.
import { readFileSync } from 'node:fs';

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const tests = report.testResults.flatMap((file) => file.assertionResults);
const having = (status) => tests.filter((each) => each.status === status).length;
// A file that failed as a whole contains no failed test.
const brokenFiles = report.testResults.filter(
  (file) =>
    file.status === 'failed' && !file.assertionResults.some((each) => each.status === 'failed'),
).length;
const passed = having('passed');
const failed = having('failed') + brokenFiles;
console.log(passed, failed, tests.length - passed - having('failed'));
