/** Conformance: random histories of verbs, every answer compared with a plain model, then the outbox replayed and compared with the result. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { FileId } from '../../server/core/ids.ts';
import type { Timestamp } from '../../server/core/time.ts';
import type { Inode } from '../inode.ts';
import type { CreateOutcome } from '../ports.ts';
import { ModelNamespace } from './model.ts';
import { outboxOf } from './outbox.ts';
import { Replay } from './replay.ts';
import { bytesOf, INLINE, NO_CHANGES, type OpenRegistry, textOf, World } from './world.ts';

const NAMES = ['a', 'b', 'c', 'B', '\xff'];

/** `place`s pick one of the fileids seen so far, old and gone ones included. */
const place = fc.nat({ max: 40 });
const name = fc.constantFrom(...NAMES);
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ verb: fc.constant('file' as const), place, name, volume: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ verb: fc.constant('directory' as const), place, name }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('symlink' as const), place, name }) },
  { weight: 3, arbitrary: fc.record({ verb: fc.constant('remove' as const), place, name, directory: fc.boolean() }) },
  { weight: 6, arbitrary: fc.record({ verb: fc.constant('rename' as const), place, name, to: place, toName: name }) },
  { weight: 3, arbitrary: fc.record({ verb: fc.constant('link' as const), object: place, place, name }) },
  {
    weight: 2,
    arbitrary: fc.record({
      verb: fc.constant('attributes' as const),
      place,
      mode: fc.option(fc.nat({ max: 0o7777 })),
      sizeBytes: fc.option(fc.nat({ max: 5_000 })),
      mtime: fc.option(fc.record({ seconds: fc.nat(), nanoseconds: fc.nat({ max: 999_999_999 }) }, { noNullPrototype: true })),
      guarded: fc.option(fc.boolean()),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ verb: fc.constant('write' as const), place, offset: fc.nat({ max: 4_200 }), bytes: fc.uint8Array({ maxLength: 40 }) }),
  },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('flip' as const), place }) },
  { weight: 1, arbitrary: fc.record({ verb: fc.constant('drop-tombstone' as const), place }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
/** Clocks of different callers disagree: `skewMs` moves this one's back or forth. */
const history = fc.array(fc.record({ step, skewMs: fc.integer({ min: -2_000, max: 2_000 }) }), { minLength: 30, maxLength: 120 });

export function againstModelConformance(title: string, open: OpenRegistry): void {
  test(`${title}: random histories give the answers of a plain model, and the outbox gives the namespace again`, async () => {
    await fc.assert(
      fc.asyncProperty(history, async (steps) => {
        await using world = await World.open(open);
        const model = new ModelNamespace(await world.live(world.root), world.namespace.inlineBytesMax);
        const run = new Run(world, model);
        for (const [index, { step: next, skewMs }] of steps.entries()) {
          if (index === 25) await world.reopen();
          world.advanceWallMs(10);
          await run.step(next, timestampWithSkew(world, skewMs));
        }
        await run.assertSame();
        await world.assertSound();
        const replay = new Replay();
        for (const entry of await outboxOf(world)) replay.apply(entry);
        if (replay.inodes.size > 0) await replay.assertEqual(world);
      }),
      { numRuns: 20, endOnFailure: true },
    );
  });
}

function timestampWithSkew(world: World, skewMs: number): Timestamp {
  const { seconds, nanoseconds } = world.now();
  return { seconds: seconds + Math.trunc(skewMs / 1_000), nanoseconds };
}

class Run {
  readonly #world: World;
  readonly #model: ModelNamespace;
  readonly #seen: FileId[];
  #operations = 0;

  constructor(world: World, model: ModelNamespace) {
    this.#world = world;
    this.#model = model;
    // The root twice as likely as others; a number that never was.
    this.#seen = [world.root, world.root, 999_999 as FileId];
  }

  #fileid(index: number): FileId {
    return this.#seen[index % this.#seen.length] ?? this.#world.root;
  }

  async step(next: Step, now: Timestamp): Promise<void> {
    const world = this.#world;
    const { namespace } = world;
    const model = this.#model;
    this.#operations += 1;
    const mutation = world.mutation({ now, operationId: `client|${this.#operations}` });
    switch (next.verb) {
      case 'file': {
        const file = { ...INLINE, class: next.volume ? ('volume' as const) : ('inline' as const) };
        const directory = this.#fileid(next.place);
        const outcome = await namespace.createFile(mutation, directory, bytesOf(next.name), file);
        this.#created(outcome, directory, next.name, now, (made) => ModelNamespace.newFile(file, made, now));
        return;
      }
      case 'directory': {
        const directory = this.#fileid(next.place);
        const attributes = { mode: 0o755, uid: 1, gid: 2, atime: null, mtime: null };
        const outcome = await namespace.createDirectory(mutation, directory, bytesOf(next.name), attributes);
        this.#created(outcome, directory, next.name, now, (made) => ({
          ...ModelNamespace.newFile({ ...INLINE, ...attributes }, made, now),
          type: 'directory',
          class: 'none',
          nlink: 2,
          sizeBytes: 4096,
          usedBytes: 4096,
          parent: directory,
          inlineBytes: null,
          uuid: null,
        }));
        return;
      }
      case 'symlink': {
        const directory = this.#fileid(next.place);
        const attributes = { mode: 0o777, uid: 1, gid: 2, atime: null, mtime: null };
        const outcome = await namespace.createSymlink(mutation, directory, bytesOf(next.name), bytesOf('target'), attributes);
        this.#created(outcome, directory, next.name, now, (made) => ({
          ...ModelNamespace.newFile({ ...INLINE, ...attributes }, made, now),
          type: 'symlink',
          class: 'none',
          sizeBytes: 6,
          usedBytes: 512,
          symlinkTarget: bytesOf('target'),
          inlineBytes: null,
          uuid: null,
        }));
        return;
      }
      case 'remove': {
        const directory = this.#fileid(next.place);
        const expected = model.remove(directory, next.name, now, next.directory);
        const actual = next.directory
          ? await namespace.removeDirectory(mutation, directory, bytesOf(next.name))
          : await namespace.remove(mutation, directory, bytesOf(next.name));
        assert.deepEqual(actual, expected);
        return;
      }
      case 'rename': {
        const [from, to] = [this.#fileid(next.place), this.#fileid(next.to)];
        const expected = model.rename(from, next.name, to, next.toName, now);
        assert.deepEqual(await namespace.rename(mutation, from, bytesOf(next.name), to, bytesOf(next.toName)), expected);
        return;
      }
      case 'link': {
        const [object, directory] = [this.#fileid(next.object), this.#fileid(next.place)];
        const expected = model.link(object, directory, next.name, now);
        assert.deepEqual(await namespace.link(mutation, object, directory, bytesOf(next.name)), expected);
        return;
      }
      case 'attributes': {
        const fileid = this.#fileid(next.place);
        const changes = { ...NO_CHANGES, mode: next.mode, sizeBytes: next.sizeBytes, mtime: next.mtime };
        const ctime = model.get(fileid)?.ctime ?? now;
        const guard = next.guarded === null ? null : next.guarded ? ctime : { ...ctime, nanoseconds: (ctime.nanoseconds + 1) % 1_000_000_000 };
        const expected = model.setAttributes(fileid, changes, guard, now);
        assert.deepEqual(await namespace.setAttributes(mutation, fileid, changes, guard, null), expected);
        return;
      }
      case 'write': {
        const fileid = this.#fileid(next.place);
        const expected = model.writeInline(fileid, next.offset, next.bytes, now);
        assert.deepEqual(await namespace.writeInline(mutation, fileid, next.offset, next.bytes), expected);
        return;
      }
      case 'flip': {
        const fileid = this.#fileid(next.place);
        assert.deepEqual(await namespace.flipToFile(mutation, fileid), model.flipToFile(fileid));
        return;
      }
      case 'drop-tombstone':
        model.dropTombstone(this.#fileid(next.place));
        await namespace.dropTombstone(mutation, this.#fileid(next.place));
        return;
    }
  }

  #created(
    outcome: CreateOutcome,
    directory: FileId,
    text: string,
    now: Timestamp,
    expected: (drawn: Pick<Inode, 'fileid' | 'inodeGeneration' | 'uuid'>) => Inode,
  ): void {
    const kind = this.#model.creationKind(directory, text);
    assert.equal(outcome.kind, kind);
    if (outcome.kind === 'created') {
      const { fileid, inodeGeneration, uuid } = outcome.inode;
      assert.ok(!this.#seen.includes(fileid) && fileid > 63);
      this.#seen.push(fileid);
      assert.deepEqual(outcome.inode, expected({ fileid, inodeGeneration, uuid }));
      const change = this.#model.add(directory, text, outcome.inode, now);
      assert.deepEqual(outcome.directory, { before: change.before, after: change.after });
    } else if (outcome.kind === 'exists') {
      assert.deepEqual(outcome, { kind: 'exists', inode: this.#model.at(directory, text), directory: this.#model.get(directory) });
    }
  }

  /** The whole namespace is the model's. */
  async assertSame(): Promise<void> {
    const world = this.#world;
    const model = this.#model;
    for (const fileid of this.#seen) assert.deepEqual(await world.inode(fileid), model.get(fileid) ?? null);
    for (const inode of model.inodes.filter((candidate) => candidate.type === 'directory')) {
      const listed = (await world.list(inode.fileid, 2)).map((entry) => ({ name: textOf(entry.name), inode: entry.inode }));
      const expected = model.names
        .filter((entry) => entry.directory === inode.fileid)
        .map((entry) => ({ name: entry.name, inode: model.get(entry.fileid) }));
      const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1);
      assert.deepEqual(listed.sort(byName), expected.sort(byName));
    }
    assert.deepEqual(await world.namespace.usage(), model.usage());
    const tombstones = (await world.namespace.tombstones(0 as FileId, 1_000)).map((tombstone) => tombstone.inode);
    assert.deepEqual(
      tombstones,
      model.tombstones.sort((a, b) => a.fileid - b.fileid),
    );
  }
}
