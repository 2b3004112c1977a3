/** Proof that a finding is found, and that `npm run fuzz` can run every module. Their bounded runs are unit tests beside them. */
import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { run } from './command.ts';

const ROOT = join(import.meta.dirname, '..');
const RUNNER = join(import.meta.dirname, 'fuzzing', 'run-module.ts');

const fuzzRound = async (module: string, seed: number, iterations: number, allowedCodes: readonly number[]): Promise<number> =>
  (
    await run([process.execPath, '--max-old-space-size=256', RUNNER, module, String(seed), String(iterations)], {
      cwd: ROOT,
      timeoutMs: 120_000,
      allowedCodes,
    })
  ).code;

test('the canary is found', async () => {
  assert.equal(await fuzzRound('e2e/fuzzing/canary.fuzz.ts', 1, 1000, [0, 1]), 1);
});

for (const module of globSync('{server,registry,cache,backends}/**/*.fuzz.ts', { cwd: ROOT }).toSorted()) {
  test(`${module} runs under npm run fuzz`, async () => {
    assert.equal(await fuzzRound(module, 1, 20, [0]), 0);
  });
}
