/** The mutants follow the code: a guard that is written in another way now would not be taken out any more, and count as not found. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { MUTANTS } from './mutants.ts';

const ROOT = join(import.meta.dirname, '../../..');

test('every mutant takes out text that stands in the code exactly once', async () => {
  const misfits: string[] = [];
  for (const { name, patches } of MUTANTS) {
    const sources = new Map<string, string>();
    for (const { file, find, replace } of patches) {
      const parts = (sources.get(file) ?? (await readFile(join(ROOT, file), 'utf8'))).split(find);
      if (parts.length !== 2) misfits.push(`${name}: ${parts.length - 1} times in ${file}: ${find}`);
      else sources.set(file, parts.join(replace));
    }
  }
  assert.deepEqual(misfits, []);
});

test('mutants are told apart by their names, and each takes something out', () => {
  assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
  for (const { name, patches } of MUTANTS) assert.ok(patches.length > 0 && patches.every(({ find, replace }) => find !== replace), name);
});

test('a unit test that is said to find a mutant is there', async () => {
  for (const { name, foundBy } of MUTANTS) {
    if (foundBy === undefined) continue;
    const source = await readFile(join(ROOT, foundBy.textIn ?? foundBy.file), 'utf8');
    // Names that are made of values stand there without them.
    assert.ok(source.includes(foundBy.test.replace(/: \{.*/, ': ')), `${name}: there is no "${foundBy.test}" in ${foundBy.file}`);
  }
});
