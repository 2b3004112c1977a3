/** Many clients at once: every history is one that a plain model could have had, in the order of the change sequence, and that order keeps to real time. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import fc from 'fast-check';

import type { FileId } from '../../server/core/ids.ts';
import type { Timestamp } from '../../server/core/time.ts';
import { timestampOf } from '../../server/core/time.ts';
import { ModelNamespace } from '../conformance/model.ts';
import { bytesOf, INCARNATION, INLINE, ROUTER } from '../conformance/world.ts';
import type { Inode } from '../inode.ts';
import type { LookupOutcome, Mutation } from '../ports.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
after(() => redis[Symbol.asyncDispose]());

async function joined(): Promise<TestRegistry> {
  const under = await TestRegistry.open(redis.port);
  await under.registry.membership.join(ROUTER, INCARNATION, [], 'test');
  return under;
}

async function assertSound(under: TestRegistry): Promise<void> {
  const problems: string[] = [];
  for await (const problem of under.registry.verify()) problems.push(problem);
  assert.deepEqual(problems, []);
}

let operations = 0;
function mutationAt(now: Timestamp): Mutation {
  operations += 1;
  return { operationId: `10.0.0.${operations % 5}|${operations}`, incarnation: INCARNATION, now, notAfterMs: Infinity };
}

test('of many concurrent GUARDED creates of one name exactly one wins; the others are told the winner', async () => {
  await using first = await joined();
  await using stack = new AsyncDisposableStack();
  const clients = Array.from({ length: 8 }, () => stack.use(first.another()));
  for (let round = 0; round < 20; round += 1) {
    const name = bytesOf(`.lck-${round}`);
    const root = first.registry.namespace.root;
    const outcomes = await Promise.all(
      clients.map((client) => client.registry.namespace.createFile(mutationAt(timestampOf(client.wallMs())), root, name, INLINE)),
    );
    const won = outcomes.filter((outcome) => outcome.kind === 'created');
    assert.equal(won.length, 1);
    for (const outcome of outcomes) {
      assert.ok(outcome.kind === 'created' || outcome.kind === 'exists');
      assert.equal(outcome.inode.fileid, won[0]?.inode.fileid);
    }
  }
  await assertSound(first);
});

test('two directories moved into each other by different clients never form a cycle', async () => {
  await using first = await joined();
  await using second = first.another();
  const { namespace } = first.registry;
  const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
  let moved = 0;
  for (let round = 0; round < 30; round += 1) {
    const made = await Promise.all(
      ['a', 'b'].map((name) =>
        namespace.createDirectory(mutationAt(timestampOf(first.wallMs())), namespace.root, bytesOf(`${name}${round}`), attributes),
      ),
    );
    const [a, b] = made.map((outcome) => (outcome.kind === 'created' ? outcome.inode.fileid : null));
    assert.ok(a !== null && a !== undefined && b !== null && b !== undefined);
    const outcomes = await Promise.all([
      namespace.rename(mutationAt(timestampOf(first.wallMs())), namespace.root, bytesOf(`a${round}`), b, bytesOf('x')),
      second.registry.namespace.rename(mutationAt(timestampOf(first.wallMs())), namespace.root, bytesOf(`b${round}`), a, bytesOf('x')),
    ]);
    assert.deepEqual(outcomes.map((outcome) => outcome.kind).sort(), ['invalid', 'renamed']);
    moved += 1;
  }
  assert.equal(moved, 30);
  await assertSound(first);
});

const NAMES = ['a', 'b', 'c'];
const name = fc.constantFrom(...NAMES);
/** Places: 0 the root, 1 and 2 directories in it. */
const place = fc.nat({ max: 2 });
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ verb: fc.constant('create' as const), place, name }) },
  { weight: 3, arbitrary: fc.record({ verb: fc.constant('remove' as const), place, name }) },
  { weight: 4, arbitrary: fc.record({ verb: fc.constant('rename' as const), place, name, to: place, toName: name }) },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant('link' as const), object: fc.nat({ max: 5 }), place, name }) },
  { weight: 3, arbitrary: fc.record({ verb: fc.constant('lookup' as const), place, name }) },
  { weight: 2, arbitrary: fc.record({ verb: fc.constant('write' as const), object: fc.nat({ max: 5 }), byte: fc.nat({ max: 255 }) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
const plans = fc.array(fc.array(step, { minLength: 5, maxLength: 25 }), { minLength: 2, maxLength: 5 });

interface Done {
  readonly step: Exclude<Step, { verb: 'lookup' }>;
  readonly now: Timestamp;
  readonly operationId: string;
  readonly object: FileId;
  readonly outcome: { readonly kind: string };
  readonly began: number;
  readonly ended: number;
  sequence: number;
}

interface Seen {
  readonly place: number;
  readonly name: string;
  readonly outcome: LookupOutcome;
  readonly began: number;
  readonly ended: number;
}

test('histories of several clients are linearizable: a plain model in sequence order answers the same, look-ups included', async () => {
  let changed = 0;
  const linearizable = fc.asyncProperty(plans, async (clientPlans) => {
    await using first = await joined();
    await using stack = new AsyncDisposableStack();
    const { namespace } = first.registry;
    const { root } = namespace;
    const attributes = { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null };
    const directories: FileId[] = [root];
    for (const text of ['d1', 'd2']) {
      const made = await namespace.createDirectory(mutationAt(timestampOf(first.wallMs())), root, bytesOf(text), attributes);
      assert.ok(made.kind === 'created');
      directories.push(made.inode.fileid);
    }
    const rootInode = await namespace.inode(root, null);
    assert.ok(rootInode !== null);
    const model = new ModelNamespace(rootInode, namespace.inlineBytesMax);
    for (const directory of directories.slice(1)) {
      const inode = await namespace.inode(directory, null);
      assert.ok(inode !== null);
      model.inodes.push(inode);
      model.names.push({ directory: root, name: `d${model.names.length + 1}`, fileid: directory });
    }

    // Files that links and writes aim at: those created so far, by anybody.
    const files: FileId[] = [];
    const done: Done[] = [];
    const seen: Seen[] = [];
    let ticks = 0;
    const clients = clientPlans.map(() => stack.use(first.another()));
    await Promise.all(
      clientPlans.map(async (plan, at) => {
        const client = clients[at];
        assert.ok(client !== undefined);
        for (const next of plan) {
          const began = ticks++;
          const space = client.registry.namespace;
          const directory = 'place' in next ? (directories[next.place] ?? root) : root;
          if (next.verb === 'lookup') {
            const outcome = await space.lookup(directory, bytesOf(next.name));
            seen.push({ place: next.place, name: next.name, outcome, began, ended: ticks++ });
            continue;
          }
          const mutation = mutationAt(timestampOf(first.wallMs()));
          const object = 'object' in next ? (files[next.object % Math.max(1, files.length)] ?? root) : root;
          const outcome = await run(space, next, mutation, directory, directories, object);
          if (outcome.kind === 'created' && 'inode' in outcome) files.push((outcome.inode as Inode).fileid);
          done.push({
            step: next,
            now: mutation.now,
            operationId: mutation.operationId ?? '',
            object,
            outcome,
            began,
            ended: ticks++,
            sequence: 0,
          });
        }
      }),
    );

    const sequences = new Map<string, number>();
    for (const client of clients) for (const entry of client.link.entries.values()) sequences.set(entry.operationId ?? '', entry.sequence);
    const changes = done.filter((entry) => {
      entry.sequence = sequences.get(entry.operationId) ?? 0;
      return entry.sequence > 0;
    });
    changes.sort((a, b) => a.sequence - b.sequence);
    changed += changes.length;
    /** States of each directory: when it was so, and what names it had. */
    const versions = directories.map((directory) => [versionOf(model, directory, 0)]);
    for (const [at, change] of changes.entries()) {
      for (const later of changes.slice(at + 1)) assert.ok(later.ended > change.began, 'nothing comes before what had ended when it began');
      assert.deepEqual(change.outcome, applied(model, change, directories), `change ${change.sequence}, ${change.step.verb}`);
      for (const [index, directory] of directories.entries()) versions[index]?.push(versionOf(model, directory, change.sequence));
    }
    for (const inode of model.inodes) assert.deepEqual(await namespace.inode(inode.fileid, null), inode);
    for (const look of seen) {
      if (look.outcome.kind !== 'found' && look.outcome.kind !== 'absent') assert.fail(`lookup answered ${look.outcome.kind}`);
      const { directory } = look.outcome;
      const inode = look.outcome.kind === 'found' ? look.outcome.inode : null;
      const before = Math.max(0, ...changes.filter((change) => change.ended < look.began).map((change) => change.sequence));
      const firstAfter = Math.min(Infinity, ...changes.filter((change) => change.began > look.ended).map((change) => change.sequence));
      const states = versions[look.place] ?? [];
      const possible = states.filter((state, at) => (states[at + 1]?.sequence ?? Infinity) > before && state.sequence < firstAfter);
      assert.ok(
        possible.some((state) => sameInode(state.directory, directory) && sameInode(state.named.get(look.name) ?? null, inode)),
        `what lookup ${look.name} saw was never so`,
      );
    }
    await assertSound(first);
  });
  await fc.assert(linearizable, { seed: 20261122, numRuns: 20, endOnFailure: true });
  await fc.assert(linearizable, { numRuns: 5, endOnFailure: true });
  assert.ok(changed > 200, `${changed} changes`);
});

function run(
  space: TestRegistry['registry']['namespace'],
  next: Done['step'],
  mutation: Mutation,
  directory: FileId,
  directories: readonly FileId[],
  object: FileId,
): Promise<{ readonly kind: string }> {
  switch (next.verb) {
    case 'create':
      return space.createFile(mutation, directory, bytesOf(next.name), INLINE);
    case 'remove':
      return space.remove(mutation, directory, bytesOf(next.name));
    case 'rename':
      return space.rename(mutation, directory, bytesOf(next.name), directories[next.to] ?? directory, bytesOf(next.toName));
    case 'link':
      return space.link(mutation, object, directory, bytesOf(next.name));
    case 'write':
      return space.writeInline(mutation, object, 0, Uint8Array.of(next.byte));
  }
}

/** What the model answers to a change. */
function applied(model: ModelNamespace, change: Done, directories: readonly FileId[]): unknown {
  const { step: next, now, object } = change;
  const directory = 'place' in next ? (directories[next.place] ?? object) : object;
  switch (next.verb) {
    case 'create': {
      const { inode } = change.outcome as unknown as { inode: Inode };
      assert.equal(model.creationKind(directory, next.name), 'created');
      const made = model.add(directory, next.name, inode, now);
      return { kind: 'created', inode, directory: { before: made.before, after: made.after } };
    }
    case 'remove':
      return model.remove(directory, next.name, now, false);
    case 'rename':
      return model.rename(directory, next.name, directories[next.to] ?? directory, next.toName, now);
    case 'link':
      return model.link(object, directory, next.name, now);
    case 'write':
      return model.writeInline(object, 0, Uint8Array.of(next.byte), now);
  }
}

function versionOf(
  model: ModelNamespace,
  directory: FileId,
  sequence: number,
): { sequence: number; directory: Inode | null; named: Map<string, Inode> } {
  const named = new Map<string, Inode>();
  for (const text of NAMES) {
    const inode = model.at(directory, text);
    if (inode !== undefined) named.set(text, inode);
  }
  return { sequence, directory: model.get(directory) ?? null, named };
}

function sameInode(a: Inode | null, b: Inode | null): boolean {
  if (a === null || b === null) return a === b;
  return JSON.stringify({ ...a, inlineBytes: [...(a.inlineBytes ?? [])] }) === JSON.stringify({ ...b, inlineBytes: [...(b.inlineBytes ?? [])] });
}
