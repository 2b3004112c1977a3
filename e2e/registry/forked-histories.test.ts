/** Two routers that changed the same small worlds without knowing of each other, since Redis was put back in between: whatever they did, the registry is sound, and no file of either is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Inode } from '../../registry/inode.ts';
import type { NewInode } from '../../registry/ports.ts';
import { Member } from '../../registry/redis/testing/linked-registry.ts';
import type { FileId } from '../../server/core/ids.ts';
import { SeededRandom } from '../random.ts';
import { scratchFor } from '../scratch.ts';
import { stackOf } from '../test-stack.ts';
import { RestorableRedis, until } from './restorable-redis.ts';

const WORLDS = 60;
const CHANGES = 10;
const ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
const INLINE: NewInode = { ...ATTRIBUTES, class: 'inline', sizeBytes: 0, exclusiveVerifier: null };
const NAMES = ['a', 'b', 'c', 'd', 'e'].map((text) => new Uint8Array(Buffer.from(text)));

/** A top directory, and what was in it when the histories parted. */
interface World {
  readonly directories: FileId[];
  readonly files: FileId[];
}

/** What one router was told in its history. */
class Past {
  readonly made = new Set<FileId>();
  readonly unlinked = new Set<FileId>();
  readonly #member: Member;
  readonly #random: SeededRandom;

  constructor(member: Member, seed: number) {
    this.#member = member;
    this.#random = new SeededRandom(seed);
  }

  async change(world: World): Promise<void> {
    const { namespace } = this.#member.registry;
    const mutation = this.#member.mutation();
    const [directory, other] = [this.#of(world.directories), this.#of(world.directories)];
    const [name, otherName] = [this.#of(NAMES), this.#of(NAMES)];
    const file = this.#of(world.files);
    switch (this.#random.below(10)) {
      case 0:
      case 1: {
        const outcome = await until(() => namespace.createFile(mutation, directory, name, INLINE));
        if (outcome.kind === 'created') this.#isMade(outcome.inode, world.files);
        return;
      }
      case 2: {
        const outcome = await until(() => namespace.createDirectory(mutation, directory, name, ATTRIBUTES));
        if (outcome.kind === 'created') this.#isMade(outcome.inode, world.directories);
        return;
      }
      case 3: {
        const outcome = await until(() => namespace.createSymlink(mutation, directory, name, otherName, ATTRIBUTES));
        if (outcome.kind === 'created') this.#isMade(outcome.inode, world.files);
        return;
      }
      case 4: {
        await until(() => namespace.link(mutation, file, directory, name));
        return;
      }
      case 5: {
        const outcome = await until(() => namespace.remove(mutation, directory, name));
        if (outcome.kind === 'removed') this.#isUnlinked(outcome.inode);
        return;
      }
      case 6: {
        const outcome = await until(() => namespace.removeDirectory(mutation, directory, name));
        if (outcome.kind === 'removed') this.#isUnlinked(outcome.inode);
        return;
      }
      case 7: {
        await until(() => namespace.writeInline(mutation, file, 0, name));
        return;
      }
      default: {
        const outcome = await until(() => namespace.rename(mutation, directory, name, other, otherName));
        if (outcome.kind === 'renamed' && outcome.replaced !== null) this.#isUnlinked(outcome.replaced);
      }
    }
  }

  #isMade(inode: Inode, among: FileId[]): void {
    this.made.add(inode.fileid);
    among.push(inode.fileid);
  }

  #isUnlinked(inode: Inode): void {
    if (inode.state === 'unlinked') this.unlinked.add(inode.fileid);
  }

  #of<T>(all: readonly T[]): T {
    return all[this.#random.below(all.length)] ?? assert.fail('none to choose from');
  }
}

/** All that can be reached from the root, as a client with small pages would. */
async function reachable({ registry: { namespace } }: Member): Promise<Set<FileId>> {
  const found = new Set<FileId>([namespace.root]);
  for (const directory of found) {
    if ((await until(() => namespace.inode(directory, null)))?.type !== 'directory') continue;
    for (let cookie = 0, eof = false; !eof;) {
      const page = await until(() => namespace.entries(directory, cookie, 3));
      assert.ok(page.kind === 'entries');
      for (const entry of page.entries) found.add(entry.inode.fileid);
      cookie = page.entries.at(-1)?.cookie ?? cookie;
      ({ eof } = page);
    }
  }
  return found;
}

test('whatever two routers did without each other: the registry is sound, and what neither removed can be reached', async (t) => {
  const seed = Number(process.env['VFERRY_TEST_SEED'] ?? 1);
  const redis = await RestorableRedis.forTest(t);
  const a = stackOf(t).use(await Member.joined(redis.options));
  const directory = await scratchFor(t, 'router-b');
  const b = await Member.joined({ ...redis.options, directory });
  const { namespace } = a.registry;
  const worlds: World[] = [];
  const before = new Past(a, seed);
  for (let index = 0; index < WORLDS; index += 1) {
    const top = await namespace.createDirectory(a.mutation(), namespace.root, new Uint8Array(Buffer.from(`world ${index}`)), ATTRIBUTES);
    assert.ok(top.kind === 'created');
    before.made.add(top.inode.fileid);
    const world = { directories: [top.inode.fileid], files: [] as FileId[] };
    for (const [at, name] of NAMES.slice(0, 4).entries()) {
      const made =
        at < 2
          ? await namespace.createDirectory(a.mutation(), top.inode.fileid, name, ATTRIBUTES)
          : await namespace.createFile(a.mutation(), world.directories.at(-1) ?? top.inode.fileid, name, INLINE);
      assert.ok(made.kind === 'created');
      before.made.add(made.inode.fileid);
      (at < 2 ? world.directories : world.files).push(made.inode.fileid);
    }
    worlds.push(world);
  }
  await redis.backUp();
  const pastOf = async (member: Member, its: number): Promise<Past> => {
    const past = new Past(member, its);
    for (const { directories, files } of worlds) {
      const world = { directories: [...directories], files: [...files] };
      for (let count = 0; count < CHANGES; count += 1) await past.change(world);
    }
    return past;
  };
  const ofB = await pastOf(b, seed + 1_000_000);
  await b[Symbol.asyncDispose]();
  await redis.restore();
  const ofA = await pastOf(a, seed + 2_000_000);
  const again = stackOf(t).use(await Member.joined({ ...redis.options, directory, router: b.router }));
  const problems: string[] = [];
  await until(async () => {
    problems.length = 0;
    for await (const problem of again.registry.verify()) problems.push(problem);
  });
  assert.deepEqual(problems, [], `VFERRY_TEST_SEED=${seed}`);
  const found = await reachable(a);
  for (const past of [ofA, ofB])
    for (const fileid of past.made) assert.ok(found.has(fileid) !== past.unlinked.has(fileid), `inode ${fileid}, VFERRY_TEST_SEED=${seed}`);
  for (const fileid of before.made) {
    if (!ofA.unlinked.has(fileid) && !ofB.unlinked.has(fileid)) assert.ok(found.has(fileid), `inode ${fileid} of before, VFERRY_TEST_SEED=${seed}`);
  }
});
