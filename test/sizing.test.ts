import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const calculator = fileURLToPath(new URL('../bench/sizing.js', import.meta.url));

async function sizing(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, [calculator, ...args])).stdout;
}

test('docs/sizing.md has the tables that the calculator prints', async () => {
  expect(await sizing('--check')).toBe('');
});

test('more sessions never need fewer resources', async () => {
  const counts = Array.from({ length: 10 }, (_, at) => 10 ** at);
  const sizes: Record<string, number>[] = JSON.parse(
    await sizing('--json', '--sessions', counts.join()),
  );
  for (const name of ['cores', 'nodes', 'processes', 'connections']) {
    const needed = sizes.map((size) => size[name] ?? Number.NaN);
    expect(needed).toEqual(needed.toSorted((a, b) => a - b));
  }
});

test.each([
  ['--sessions', 'many'],
  ['--views', '0'],
])('%s %s is refused with an error', async (...args) => {
  await expect(sizing(...args)).rejects.toThrow('must be a positive number');
});
