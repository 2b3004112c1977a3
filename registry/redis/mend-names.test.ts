/** Two histories of one namespace put together: whatever does not fit is made to fit, and nothing that lives loses its last name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { FileId } from '../../server/core/ids.ts';
import { type Linked, mendNames, type Mending, type SequencedName } from './mend-names.ts';
import { ROOT_FILEID } from './redis-namespace.ts';

type World = { readonly live: ReadonlyMap<FileId, Linked>; readonly names: readonly SequencedName[] };

const id = (index: number): FileId => (ROOT_FILEID + index) as FileId;
const file = (nlink: number): Linked => ({ isDirectory: false, nlink, parent: null, nextCookie: null });
const directory = (nlink: number, parent: number, nextCookie: number): Linked => ({ isDirectory: true, nlink, parent: id(parent), nextCookie });
const entry = (inDirectory: number, name: string, fileid: number, cookie: number, sequence: number): SequencedName => ({
  directory: id(inDirectory),
  name: Buffer.from(name),
  fileid: id(fileid),
  cookie,
  sequence,
});
const key = (one: Pick<SequencedName, 'directory' | 'name'>): string => `${one.directory}/${Buffer.from(one.name).toString('latin1')}`;

function mended({ live, names }: World, { inodes, entries, droppedEntries }: Mending): World {
  const kept = new Map(names.map((one) => [key(one), one]));
  for (const one of droppedEntries) assert.ok(kept.delete(key(one)), `${key(one)} is dropped once`);
  for (const one of entries) kept.set(key(one), { ...one, sequence: 1_000_000 });
  return { live: new Map([...live, ...inodes]), names: [...kept.values()] };
}

/** What verify-redis.ts asks of a registry, of names. */
function assertSound({ live, names }: World): void {
  const cookies = new Set<string>();
  const counts = new Map<FileId, number>();
  const subdirectories = new Map<FileId, number>();
  for (const one of names) {
    const parent = live.get(one.directory);
    const inode = live.get(one.fileid);
    assert.ok(parent?.isDirectory === true && inode !== undefined, key(one));
    assert.ok(one.cookie < (parent.nextCookie ?? 0), `cookie of ${key(one)}`);
    assert.ok(!cookies.has(`${one.directory} ${one.cookie}`), `cookie ${one.cookie} of ${key(one)} twice`);
    cookies.add(`${one.directory} ${one.cookie}`);
    counts.set(one.fileid, (counts.get(one.fileid) ?? 0) + 1);
    if (!inode.isDirectory) continue;
    assert.equal(inode.parent, one.directory);
    subdirectories.set(one.directory, (subdirectories.get(one.directory) ?? 0) + 1);
  }
  for (const [fileid, { isDirectory, nlink, parent }] of live) {
    const count = counts.get(fileid) ?? 0;
    if (!isDirectory) {
      assert.ok(count > 0, `${fileid} has a name`);
      assert.equal(nlink, count);
      continue;
    }
    assert.equal(count, fileid === ROOT_FILEID ? 0 : 1, `names of directory ${fileid}`);
    assert.equal(nlink, 2 + (subdirectories.get(fileid) ?? 0));
    let up: FileId | null = parent;
    for (let steps = 0; up !== ROOT_FILEID; steps += 1) {
      assert.ok(up !== null && steps < 100, `${fileid} is reachable`);
      up = live.get(up)?.parent ?? null;
    }
  }
}

test('what fits stays as it is', () => {
  const live = new Map([
    [id(0), directory(3, 0, 5)],
    [id(1), directory(2, 0, 4)],
    [id(2), file(2)],
  ]);
  const names = [entry(0, 'd', 1, 3, 1), entry(0, 'x', 2, 4, 2), entry(1, 'y', 2, 3, 3)];
  assertSound({ live, names });
  assert.deepEqual(mendNames(live, names), { inodes: new Map(), entries: [], droppedEntries: [], told: [] });
});

test('a link that was made beside a newer change counts; a cookie that was given out twice is given to one', () => {
  const live = new Map([
    [id(0), directory(2, 0, 5)],
    [id(1), file(1)],
    [id(2), file(1)],
  ]);
  const names = [entry(0, 'x', 1, 3, 1), entry(0, 'second', 1, 4, 2), entry(0, 'other', 2, 4, 3)];
  const mending = mendNames(live, names);
  assert.deepEqual([...mending.inodes], [[id(0), directory(2, 0, 6)], [id(1), file(2)]]); // prettier-ignore
  assert.deepEqual(mending.entries.map(({ cookie, fileid }) => [cookie, fileid]), [[5, id(2)]]); // prettier-ignore
  assert.deepEqual([mending.droppedEntries, mending.told], [[], []]);
  assertSound(mended({ live, names }, mending));
});

test('a name of what another one removed goes; what was made in a directory that another one removed is found in the root', () => {
  const live = new Map([
    [id(0), directory(2, 0, 4)],
    [id(2), file(1)],
  ]);
  const names = [entry(0, 'removed', 1, 3, 1), entry(3, 'made', 2, 3, 2)];
  const mending = mendNames(live, names);
  assert.equal(mending.told.length, 3);
  const after = mended({ live, names }, mending);
  assert.deepEqual(after.names.map((one) => [key(one), one.fileid]), [[`${ROOT_FILEID}/recovered-${id(2)}`, id(2)]]); // prettier-ignore
  assertSound(after);
});

test('a directory that was renamed by both has the name that it says; two that were moved into each other are both reachable', () => {
  const live = new Map([
    [id(0), directory(4, 0, 6)],
    [id(1), directory(2, 0, 4)],
    [id(2), directory(2, 3, 4)],
    [id(3), directory(3, 2, 4)],
  ]);
  const names = [entry(0, 'new', 1, 3, 1), entry(0, 'newer', 1, 4, 2), entry(2, 'b', 3, 3, 1), entry(3, 'a', 2, 3, 2)];
  const after = mended({ live, names }, mendNames(live, names));
  assertSound(after);
  assert.ok(after.names.some((one) => key(one) === `${ROOT_FILEID}/newer`));
  assert.equal(after.names.length, 3);
});

test('whatever does not fit: it fits afterwards, all that lives has a name, and there is nothing more to mend', () => {
  const inode = fc.record({ isDirectory: fc.boolean(), nlink: fc.nat(4), parent: fc.nat(9), nextCookie: fc.integer({ min: 3, max: 8 }) });
  const name = fc.record({ directory: fc.nat(9), text: fc.constantFrom('a', 'b', 'c', `recovered-${id(2)}`), fileid: fc.nat(9), cookie: fc.integer({ min: 3, max: 8 }) }); // prettier-ignore
  fc.assert(
    fc.property(
      fc.array(fc.option(inode), { maxLength: 8 }),
      fc.uniqueArray(name, { maxLength: 20, selector: (one) => `${one.directory}/${one.text}` }),
      (inodes, given) => {
        const live = new Map<FileId, Linked>([[ROOT_FILEID, directory(2, 0, 3)]]);
        for (const [index, one] of inodes.entries()) {
          if (one !== null) live.set(id(index + 1), one.isDirectory ? directory(one.nlink, one.parent, one.nextCookie) : file(one.nlink));
        }
        const names = given.map((one, index) => entry(one.directory, one.text, one.fileid, one.cookie, index + 1));
        const after = mended({ live, names }, mendNames(live, names));
        assertSound(after);
        assert.deepEqual(mendNames(after.live, after.names), { inodes: new Map(), entries: [], droppedEntries: [], told: [] });
      },
    ),
    { seed: 20_261_123, numRuns: 5_000 },
  );
});
