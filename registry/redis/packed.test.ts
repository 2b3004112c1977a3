/** Packed records and replies: what is written is read back equal; anything else is refused as corrupt, never half understood, never a crash. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId } from '../../server/core/ids.ts';
import { systemClock, systemRandom } from '../../server/core/node-time.ts';
import { image, inode, outcome, owner } from '../conformance/record-arbitraries.ts';
import type { InodeRecord } from '../inode-record.ts';
import type { Inode } from '../inode.ts';
import type { Mutation, OwnerRecord } from '../ports.ts';
import { packedSequence, packInode, unpackInode } from './packed-inode.ts';
import { packChanges, packOutcome, unpackChanges, unpackOutcome } from './packed-outcome.ts';
import { packOwner, unpackOwner } from './packed-owner.ts';
import { redisKeys } from './redis-keys.ts';
import type { RedisLink, ScriptReply } from './redis-link.ts';
import { RedisMembership } from './redis-membership.ts';
import { RedisNamespace } from './redis-namespace.ts';
import { RedisOwnership } from './redis-ownership.ts';
import { RedisVerbs } from './redis-verbs.ts';

const sequence = fc.nat({ max: Number.MAX_SAFE_INTEGER });

function recordOf(value: Inode): InodeRecord {
  return {
    inode: value,
    nextCookie: value.type === 'directory' && value.state === 'live' ? Number.MAX_SAFE_INTEGER : null,
    unlinkedMs: value.state === 'unlinked' ? Number.MAX_SAFE_INTEGER : null,
  };
}

test('an inode survives its packed form, numbers up to 2^53 - 1 and all bytes included', () => {
  fc.assert(
    fc.property(inode, sequence, (value, of) => {
      const packed = packInode(recordOf(value), of);
      assert.deepEqual(unpackInode(packed, 'test'), recordOf(value));
      assert.equal(packedSequence(packed), of);
    }),
  );
});

test('an owner record survives its packed form', () => {
  fc.assert(
    fc.property(owner, sequence, (value, of) => {
      const receiver = 'f'.repeat(32) as Incarnation;
      const entry = { owner: value, counterMax: Number.MAX_SAFE_INTEGER, ...(value.moving === null ? {} : { receiver }) };
      const packed = packOwner(entry, of);
      assert.deepEqual(unpackOwner(packed, 'test'), entry);
      assert.equal(packedSequence(packed), of);
    }),
  );
});

/** Directories that are no more have no counter in Redis. */
const storable = image.map((value) => ({
  ...value,
  inodes: value.inodes
    .filter((record, at, all) => all.findIndex((other) => other.inode.fileid === record.inode.fileid) === at)
    .map((record) => recordOf(record.inode)),
  droppedInodes: [],
  entries: value.entries.filter((entry) => entry.name.byteLength > 0),
  owners: value.owners.filter((entry, at, all) => all.findIndex((other) => other.owner.fileid === entry.owner.fileid) === at),
  droppedOwners: [],
}));

test('outcomes and after-images survive their packed forms', () => {
  fc.assert(
    fc.property(outcome, storable, sequence, ([verb, value], after, of) => {
      const changes = packChanges({ ...after, owners: after.owners.map((entry) => ({ ...entry, counterMax: Number.MAX_SAFE_INTEGER })) }, of);
      const expected = { ...after, owners: after.owners.map((entry) => ({ ...entry, counterMax: Number.MAX_SAFE_INTEGER })) };
      assert.deepEqual(unpackChanges(changes, 'test'), expected);
      if (typeof value === 'object' && value !== null && 'kind' in value) {
        assert.deepEqual(unpackOutcome(verb, packOutcome(verb, value as never), changes, 'test'), value);
      }
    }),
  );
});

/** Bytes with a slice replaced by another. */
function damaged(bytes: Buffer, at: number, length: number, by: Uint8Array): Buffer {
  const start = at % (bytes.byteLength + 1);
  return Buffer.concat([bytes.subarray(0, start), by, bytes.subarray(Math.min(bytes.byteLength, start + length))]);
}
const damage = fc.tuple(fc.nat(), fc.nat({ max: 9 }), fc.uint8Array({ maxLength: 9 }));

function decodesOrRefuses(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof ApplianceError && error.code === 'registry-corrupt', String(error instanceof Error ? error.stack : error));
  }
}

test('damaged records are refused as corrupt, or mean what they say', () => {
  fc.assert(
    fc.property(inode, owner, outcome, storable, damage, (anInode, anOwner, [verb, value], after, [at, length, by]) => {
      decodesOrRefuses(() => unpackInode(damaged(packInode(recordOf(anInode), 7), at, length, by), 'test'));
      decodesOrRefuses(() => unpackOwner(damaged(packOwner({ owner: anOwner, counterMax: anOwner.term.counter }, 7), at, length, by), 'test'));
      decodesOrRefuses(() => unpackChanges(damaged(packChanges(after, 7), at, length, by), 'test'));
      const packed = typeof value === 'object' && value !== null && 'kind' in value ? packOutcome(verb, value as never) : Buffer.alloc(0);
      decodesOrRefuses(() => unpackOutcome(verb, damaged(packed, at, length, by), Buffer.alloc(0), 'test'));
    }),
    { numRuns: 1_000 },
  );
});

const reply: fc.Arbitrary<ScriptReply> = fc.letrec<{ reply: ScriptReply }>((tie) => ({
  reply: fc.oneof(
    { maxDepth: 3 },
    fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    fc.oneof(fc.integer(), fc.constantFrom(0, 1, 2, 3, 6)),
    fc.constant(null),
    fc.array(tie('reply'), { maxLength: 7 }),
  ),
})).reply;

test('a Redis that answers nonsense gets registry-corrupt, never a wrong answer, and nothing of it gets into the outbox', async () => {
  const mutation: Mutation = {
    operationId: '10.0.0.1|1',
    incarnation: '1'.repeat(32) as Incarnation,
    now: { seconds: 1, nanoseconds: 2 },
    notAfterMs: Infinity,
  };
  const known = new Set(['registry-corrupt', 'registry-unavailable', 'registry-no-space', 'incarnation-dead']);
  await fc.assert(
    fc.asyncProperty(reply, async (answer) => {
      let entries = 0;
      const link: RedisLink = {
        generation: 1,
        problem: null,
        async change(_script, _keys, _args, entryOf) {
          if ((entryOf?.(answer) ?? null) !== null) entries += 1;
          return answer;
        },
        read: async () => answer,
      };
      const verbs = new RedisVerbs({ link, keys: redisKeys('x'), clock: systemClock, random: systemRandom });
      const namespace = new RedisNamespace({ verbs, random: systemRandom, inlineBytesMax: 4_096 });
      const ownership = new RedisOwnership({ verbs, random: systemRandom });
      const membership = new RedisMembership({ verbs });
      const name = new Uint8Array([1]);
      const term = { generation: 1, counter: 1, nonce: 'c'.repeat(16) };
      const router = 'a'.repeat(32) as RouterId;
      const calls: readonly (() => Promise<unknown>)[] = [
        async () => namespace.lookup(namespace.root, name),
        async () => namespace.entries(namespace.root, 0, 10),
        async () => namespace.usage(),
        () => namespace.tombstones(0 as FileId, 10),
        () => namespace.remove(mutation, namespace.root, name),
        () => namespace.writeInline(mutation, namespace.root, 0, name),
        () => ownership.ownedBy(router, 0 as FileId, 10),
        () => ownership.beginMove(mutation, namespace.root, term, 'b'.repeat(32) as RouterId, 'c'.repeat(16)),
        () => membership.routers(),
        () => membership.join(router, mutation.incarnation, [], ''),
      ];
      for (const call of calls) {
        try {
          await call();
        } catch (error) {
          // Status 4 of a script is its caller's bug.
          if (error instanceof Error && error.name === 'AssertionError' && Array.isArray(answer) && answer[0] === 4) continue;
          assert.ok(error instanceof ApplianceError && known.has(error.code), String(error instanceof Error ? error.stack : error));
        }
      }
      assert.equal(entries, 0);
    }),
    { numRuns: 300 },
  );
});

test('packed records are those of docs/formats/redis.md', () => {
  const time = (seconds: number): { seconds: number; nanoseconds: number } => ({ seconds, nanoseconds: seconds + 1 });
  const file: Inode = {
    fileid: 0x0102 as FileId,
    inodeGeneration: 0x0304,
    type: 'file',
    class: 'inline',
    state: 'live',
    mode: 0o644,
    uid: 5,
    gid: 6,
    nlink: 1,
    sizeBytes: 3,
    usedBytes: 512,
    atime: time(7),
    mtime: time(8),
    ctime: time(9),
    parent: null,
    exclusiveVerifier: new Uint8Array(8).fill(0xee),
    symlinkTarget: null,
    inlineBytes: new Uint8Array([1, 2, 3]),
    uuid: 'a'.repeat(32) as ObjectUuid,
  };
  assert.equal(
    packInode({ inode: file, nextCookie: null, unlinkedMs: null }, 0x0a0b).toString('hex'),
    [
      '01 0b0a000000000000 0201000000000000 0403000000000000 000100 a401 05000000 06000000 01000000 0300000000000000 0002000000000000',
      '07000000 08000000 08000000 09000000 09000000 0a000000 0000000000000000 0000000000000000 0000000000000000 0b 0000 03000000',
      `${'ee'.repeat(8)} ${'61'.repeat(32)} 010203`,
    ]
      .join('')
      .replaceAll(' ', ''),
  );
  const term = { generation: 1, counter: 2, nonce: 'c'.repeat(16) };
  const record: OwnerRecord = {
    fileid: 0x0102 as FileId,
    uuid: 'a'.repeat(32) as ObjectUuid,
    router: 'b'.repeat(32) as RouterId,
    incarnation: 'd'.repeat(32) as Incarnation,
    term,
    state: { kind: 'running' },
    moving: { from: 'b'.repeat(32) as RouterId, to: 'e'.repeat(32) as RouterId, attempt: { ...term, counter: 3 } },
    root: { checkpoint: 'k', uploadedSegment: 4, uploadedSequence: 5, closedEpochs: [{ term, lastSegment: 6, lastSequence: 7 }] },
    protection: { kind: 'clean' },
    verifier: new Uint8Array(8).fill(0xff),
  };
  const packedTerm = (counter: string): string => `0100000000000000 ${counter}00000000000000 ${'63'.repeat(16)}`;
  assert.equal(
    packOwner({ owner: record, counterMax: 3, receiver: 'f'.repeat(32) as Incarnation }, 0x0a0b).toString('hex'),
    [
      `01 0b0a000000000000 0201000000000000 ${'61'.repeat(32)} ${'62'.repeat(32)} ${'64'.repeat(32)} ${packedTerm('02')} 0300000000000000`,
      `01 ${'62'.repeat(32)} ${'65'.repeat(32)} ${packedTerm('03')} ${'66'.repeat(32)} ${'ff'.repeat(8)} 12000000 10000000 45000000`,
      `${Buffer.from('{"kind":"running"}').toString('hex')} ${Buffer.from('{"kind":"clean"}').toString('hex')}`,
      `0400000000000000 0500000000000000 01000000 6b ${packedTerm('02')} 0600000000000000 0700000000000000`,
    ]
      .join('')
      .replaceAll(' ', ''),
  );
  assert.equal(redisKeys('vpool1').operationAge, 'vf:{vpool1}:operation-age');
});
