/** Arbitrary records of every kind, for property tests of stored forms. */
import fc from 'fast-check';

import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../server/core/ids.ts';
import type { AfterImage } from '../after-image.ts';
import type { Inode } from '../inode.ts';
import type { Outcomes, Verb } from '../outcome-codec.ts';
import type { OwnerRecord, RouterRecord } from '../ports.ts';

const plain = { noNullPrototype: true };
const hex = (digits: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: digits, maxLength: digits });
const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const fileid = fc.integer({ min: 64, max: Number.MAX_SAFE_INTEGER }) as unknown as fc.Arbitrary<FileId>;
const timestamp = fc.record({ seconds: fc.nat({ max: 0xffff_ffff }), nanoseconds: fc.nat({ max: 999_999_999 }) }, plain);
const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength }).map((value) => new Uint8Array(value));
const uuid = hex(32) as fc.Arbitrary<ObjectUuid>;
const router = hex(32) as fc.Arbitrary<RouterId>;
const incarnation = hex(32) as fc.Arbitrary<Incarnation>;
const term: fc.Arbitrary<Term> = fc.record({ generation: count, counter: count, nonce: hex(16) }, plain);

const base = {
  fileid,
  inodeGeneration: fc.nat({ max: 2 ** 48 - 1 }),
  mode: fc.nat({ max: 0o7777 }),
  uid: fc.nat({ max: 0xffff_ffff }),
  gid: fc.nat({ max: 0xffff_ffff }),
  usedBytes: count,
  atime: timestamp,
  mtime: timestamp,
  ctime: timestamp,
  exclusiveVerifier: fc.option(fc.uint8Array({ minLength: 8, maxLength: 8 }).map((value) => new Uint8Array(value))),
};
const linked = fc.nat({ max: 0xffff_ffff }).map((nlink) => ({ nlink, state: nlink === 0 ? ('unlinked' as const) : ('live' as const) }));
const shape = fc.oneof(
  fc.record({ parent: fileid, sizeBytes: count }, plain).map((fields) => ({
    ...fields,
    type: 'directory' as const,
    class: 'none' as const,
    symlinkTarget: null,
    inlineBytes: null,
    uuid: null,
  })),
  fc.record({ symlinkTarget: bytes(300), sizeBytes: count }, plain).map((fields) => ({
    ...fields,
    type: 'symlink' as const,
    class: 'none' as const,
    parent: null,
    inlineBytes: null,
    uuid: null,
  })),
  fc.record({ inlineBytes: bytes(5_000), more: fc.nat(), uuid }, plain).map(({ more, ...fields }) => ({
    ...fields,
    sizeBytes: fields.inlineBytes.byteLength + more,
    type: 'file' as const,
    class: 'inline' as const,
    parent: null,
    symlinkTarget: null,
  })),
  fc.record({ inlineBytes: fc.option(bytes(100)), sizeBytes: count, uuid }, plain).map((fields) => ({
    ...fields,
    type: 'file' as const,
    class: 'file' as const,
    parent: null,
    symlinkTarget: null,
  })),
  fc.record({ sizeBytes: count, uuid }, plain).map((fields) => ({
    ...fields,
    type: 'file' as const,
    class: 'volume' as const,
    inlineBytes: null,
    parent: null,
    symlinkTarget: null,
  })),
);
export const inode: fc.Arbitrary<Inode> = fc
  .tuple(fc.record(base, plain), linked, shape)
  .map(([fields, links, rest]) => ({ ...fields, ...links, ...rest }));

export const owner: fc.Arbitrary<OwnerRecord> = fc.record(
  {
    fileid,
    uuid,
    router,
    incarnation,
    term,
    state: fc.oneof(
      fc.constant({ kind: 'running' as const }),
      fc.record({ kind: fc.constantFrom('recovering' as const, 'halted' as const), reason: fc.string({ unit: 'binary', maxLength: 50 }) }, plain),
    ),
    moving: fc.option(fc.record({ from: router, to: router, attempt: term }, plain)),
    root: fc.record(
      {
        checkpoint: fc.option(fc.string({ maxLength: 50 })),
        uploadedSegment: count,
        uploadedSequence: count,
        closedEpochs: fc.array(fc.record({ term, lastSegment: count, lastSequence: count }, plain), { maxLength: 4 }),
      },
      plain,
    ),
    protection: fc.oneof(
      fc.record({ kind: fc.constantFrom('clean' as const, 'unprotected' as const) }, plain),
      fc.record({ kind: fc.constant('protected' as const), replicas: fc.array(router, { maxLength: 3 }) }, plain),
    ),
    verifier: fc.uint8Array({ minLength: 8, maxLength: 8 }).map((value) => new Uint8Array(value)),
  },
  plain,
);

const change = fc.record({ before: inode, after: inode }, plain);
const of = <K extends string, T extends object>(kind: K, fields: { [P in keyof T]: fc.Arbitrary<T[P]> }): fc.Arbitrary<{ kind: K } & T> =>
  fc.record({ kind: fc.constant(kind), ...fields }, plain) as unknown as fc.Arbitrary<{ kind: K } & T>;

/** Every verb with every kind of outcome. */
export const outcome = fc.oneof(
  ...(['createFile', 'createDirectory', 'createSymlink'] as const).map((verb) =>
    fc.tuple(
      fc.constant(verb),
      fc.oneof(
        of('created', { inode, directory: change }),
        of('exists', { inode, directory: inode }),
        of('stale', {}),
        of('not-directory', { inode }),
      ),
    ),
  ),
  ...(['remove', 'removeDirectory'] as const).map((verb) =>
    fc.tuple(
      fc.constant(verb),
      fc.oneof(
        of('removed', { inode, directory: change }),
        ...(['absent', 'is-directory', 'not-a-directory', 'not-empty'] as const).map((kind) => of(kind, { directory: inode })),
        of('stale', {}),
      ),
    ),
  ),
  fc.tuple(
    fc.constant('rename' as const),
    fc.oneof(
      of('renamed', { inode, from: change, to: change, replaced: fc.option(inode) }),
      ...(['unchanged', 'absent', 'target-not-empty', 'target-exists', 'invalid'] as const).map((kind) => of(kind, { from: inode, to: inode })),
      of('stale', { which: fc.constantFrom('from' as const, 'to' as const) }),
      of('not-directory', { which: fc.constantFrom('from' as const, 'to' as const) }),
    ),
  ),
  fc.tuple(
    fc.constant('link' as const),
    fc.oneof(
      of('linked', { inode, directory: change }),
      of('exists', { inode, directory: inode }),
      of('is-directory', { directory: inode }),
      of('too-many-links', { directory: inode }),
      of('object-stale', {}),
    ),
  ),
  ...(['setAttributes', 'flipToFile'] as const).map((verb) =>
    fc.tuple(
      fc.constant(verb),
      fc.oneof(of('changed', { before: inode, after: inode }), of('guard-mismatch', { inode }), of('class-changed', { inode }), of('stale', {})),
    ),
  ),
  fc.tuple(
    fc.constant('writeInline' as const),
    fc.oneof(of('written', { before: inode, after: inode }), of('too-large', { inode }), of('class-changed', { inode }), of('stale', {})),
  ),
  ...(['claim', 'beginMove', 'transfer', 'update'] as const).map((verb) =>
    fc.tuple(fc.constant(verb), fc.oneof(of('done', { owner }), of('conflict', { owner }), of('gone', {}))),
  ),
  fc.tuple(fc.constant('claim' as const), of('owner-alive', { owner })),
  fc.tuple(fc.constantFrom('dropInlineBase' as const, 'putOwnedAttributes' as const, 'dropTombstone' as const, 'leave' as const), fc.constant(null)),
  fc.tuple(
    fc.constantFrom('join' as const, 'renew' as const),
    fc.record(
      { id: router, incarnation, addresses: fc.array(fc.string(), { maxLength: 3 }), version: fc.string(), leaseCounter: count, dead: fc.boolean() },
      plain,
    ) as fc.Arbitrary<RouterRecord>,
  ),
  fc.tuple(fc.constant('markDead' as const), fc.constantFrom('dead' as const, 'conflict' as const)),
) as unknown as fc.Arbitrary<[Verb, Outcomes[Verb]]>;

export const image: fc.Arbitrary<AfterImage> = fc.record(
  {
    inodes: fc.array(
      fc.tuple(inode, fc.integer({ min: 3, max: Number.MAX_SAFE_INTEGER }), count).map(([value, nextCookie, unlinkedMs]) => ({
        inode: value,
        nextCookie: value.type === 'directory' ? nextCookie : null,
        unlinkedMs: value.state === 'unlinked' ? unlinkedMs : null,
      })),
      { maxLength: 3 },
    ),
    droppedInodes: fc.array(fileid, { maxLength: 2 }),
    entries: fc.array(
      fc.record({ directory: fileid, name: bytes(255), cookie: fc.integer({ min: 3, max: Number.MAX_SAFE_INTEGER }), fileid }, plain),
      {
        maxLength: 2,
      },
    ),
    droppedEntries: fc.array(fc.record({ directory: fileid, name: bytes(255) }, plain), { maxLength: 2 }),
    owners: fc.array(fc.record({ owner, counterMax: count }, plain), { maxLength: 2 }),
    droppedOwners: fc.array(fileid, { maxLength: 2 }),
  },
  plain,
);
