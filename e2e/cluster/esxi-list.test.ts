/** All 45 checks of esxi.md 10 by number: each is a test on two routers, or it says here where it is and why. */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '..', '..');

/** Nothing of these runs in `npm test`. */
const ELSEWHERE: Readonly<Record<number, string>> = {
  14: 'ten minutes without a call: `npm run soak:cluster -- --idle`',
  45: 'hours: `npm run soak:cluster -- --minutes 1440`',
};

/** These run, but not all that esxi.md says. */
const SHORTENED: Readonly<Record<number, string>> = {
  1: 'the calls come from ports below 1024 only where the tests run as root and libnfs is the client (live-migration.test.ts)',
  34: '200 rounds; 1,000 in the soak',
  35: '300 renewals as fast as they go; by the clock in the soak',
  36: 'the time for which the host is silent is its own matter and left out',
  39: '10 switches; 100 in the soak',
  40: 'another address takes the calls over: an address that moves, with connections of the same four numbers, needs a network of its own and comes with the moving of addresses',
  41: '3 s; 15 s and 60 s in the soak',
  42: '4 s; 20, 40 and 130 s in the soak',
  43: 'bounded by the machine of the tests: the 10 ms are printed, not judged',
};

function titles(): string[] {
  const files = [...globSync('e2e/cluster/*.test.ts', { cwd: ROOT }), ...globSync('server/nfsd/conformance/*.ts', { cwd: ROOT })];
  return files.flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/['`]esxi (\d+)[ :(]/g)].map((match) => match[1] ?? ''));
}

for (let check = 1; check <= 45; check += 1) {
  const where = ELSEWHERE[check];
  const shortened = SHORTENED[check];
  const how = where ?? (shortened === undefined ? 'is a test' : `is a test: ${shortened}`);
  test(`list of esxi.md 10, ${check}: ${how}`, () => {
    assert.equal(titles().includes(String(check)), where === undefined);
  });
}
