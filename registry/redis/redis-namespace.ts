/** The namespace of a vPool in Redis: every verb is one script, one round trip. Semantics in `registry/ports.ts`. */
import { assert, AssertionError } from '../../server/core/assert.ts';
import { ApplianceError } from '../../server/core/errors.ts';
import type { FileId, ObjectUuid, Term } from '../../server/core/ids.ts';
import type { Random, Timestamp } from '../../server/core/time.ts';
import { freshInode } from '../fresh-inode.ts';
import { DIRECTORY_BYTES, FILEID_MIN, INLINE_BYTES_CEILING, inlineUsedBytes, INODE_CLASSES, SYMLINK_BYTES_MAX } from '../inode-record.ts';
import type { Inode, InodeChanges, InodeClass } from '../inode.ts';
import type {
  CreateOutcome,
  EntriesOutcome,
  InlineWriteOutcome,
  LinkOutcome,
  LookupOutcome,
  Mutation,
  NamedEntry,
  Namespace,
  NewInode,
  PoolUsage,
  RemoveOutcome,
  RenameOutcome,
  SetAttributesOutcome,
} from '../ports.ts';
import { corrupt } from '../record-check.ts';
import { checkedCopy, checkedFile, checkedMutation, checkedName, isCount, isTimestamp, ownBytes, type SharedAttributes } from '../verb-arguments.ts';
import {
  DROP_INLINE_BASE_SCRIPT,
  DROP_TOMBSTONE_SCRIPT,
  FLIP_SCRIPT,
  OWNED_ATTRIBUTES_BYTES,
  PUT_OWNED_SCRIPT,
  SET_ATTRIBUTES_SCRIPT,
  WRITE_INLINE_SCRIPT,
} from './attribute-scripts.ts';
import { CREATE_SCRIPT, LINK_SCRIPT, REMOVE_SCRIPT, RENAME_SCRIPT } from './name-scripts.ts';
import { inodeOf, orderedInteger64, packCopy, packInode, putInteger64, unpackInode, unpackListed } from './packed-inode.ts';
import { packTerm } from './packed-owner.ts';
import { COUNTERS_SCRIPT, ENTRIES_SCRIPT, INODE_SCRIPT, LOOKUP_SCRIPT, TOMBSTONES_SCRIPT } from './read-scripts.ts';
import { bytesOrNull, decimalAt, listAt, listOfReply, numberAt, type RedisVerbs } from './redis-verbs.ts';

/** The root directory's number: the first one. */
export const ROOT_FILEID = FILEID_MIN as FileId;
/** Elements of `putOwnedAttributes` in one script: bounds how long others wait for it. */
const OWNED_PER_SCRIPT = 256;
const UINT32_MAX = 0xffff_ffff;

export interface RedisNamespaceComponents {
  readonly verbs: RedisVerbs;
  readonly random: Random;
  /** Files up to this size may live in their record; at most 64 KiB, the same in every router. */
  readonly inlineBytesMax: number;
}

export class RedisNamespace implements Namespace {
  readonly root = ROOT_FILEID;
  readonly inlineBytesMax: number;
  readonly #verbs: RedisVerbs;
  readonly #random: Random;

  constructor(components: RedisNamespaceComponents) {
    assert(components.inlineBytesMax <= INLINE_BYTES_CEILING, 'inline files have an upper bound');
    this.inlineBytesMax = components.inlineBytesMax;
    this.#verbs = components.verbs;
    this.#random = components.random;
  }

  async inode(fileid: FileId, inodeGeneration: number | null): Promise<Inode | null> {
    const reply = await this.#verbs.read(INODE_SCRIPT, [String(fileid)]);
    return this.#verbs.checked(() => {
      const packed = bytesOrNull(reply, 'Redis inode');
      if (packed === null) return null;
      const inode = knownInode(packed, fileid);
      return inode.state === 'live' && (inodeGeneration === null || inode.inodeGeneration === inodeGeneration) ? inode : null;
    });
  }

  async lookup(directory: FileId, name: Uint8Array): Promise<LookupOutcome> {
    const reply = await this.#verbs.read(LOOKUP_SCRIPT, [String(directory), name]);
    return this.#verbs.checked((): LookupOutcome => {
      const where = 'Redis lookup';
      const [packedDirectory, packedInode] = listOfReply(reply, where);
      const found = directoryFrom(bytesOrNull(packedDirectory, where), directory);
      if ('kind' in found) return found;
      if (numberAt(reply, 2, where) === 0) return { kind: 'absent', directory: found };
      return { kind: 'found', inode: namedFrom(bytesOrNull(packedInode, where), directory), directory: found };
    });
  }

  async entries(directory: FileId, afterCookie: number, limit: number): Promise<EntriesOutcome> {
    assert(isCount(afterCookie) && isCount(limit), 'cookies and limits are counts');
    // One entry more than asked for tells whether this is the end.
    const first = orderedInteger64(Math.min(afterCookie + 1, Number.MAX_SAFE_INTEGER));
    const reply = await this.#verbs.read(ENTRIES_SCRIPT, [String(directory), orderedInteger64(directory), first, limit + 1]);
    return this.#verbs.checked((): EntriesOutcome => {
      const where = 'Redis entries';
      const found = directoryFrom(bytesOrNull(listOfReply(reply, where)[0], where), directory);
      if ('kind' in found) return found;
      const members = listAt(reply, 1, where);
      const inodes = listAt(reply, 2, where);
      const eof = members.length <= limit;
      const entries: NamedEntry[] = [];
      for (let at = 0; at < Math.min(members.length, limit); at += 1) {
        const member = bytesOrNull(members[at], where);
        const packed = bytesOrNull(inodes[at], where);
        if (member === null || packed === null) return corrupt(where, 'an entry is missing');
        const { name, cookie, fileid } = unpackListed(member, where);
        const inode = namedFrom(packed, directory);
        if (inode.fileid !== fileid) return corrupt(where, `inode ${inode.fileid} came for ${fileid}`);
        entries.push({ name, cookie, inode });
      }
      return { kind: 'entries', directory: found, entries, eof };
    });
  }

  async createFile(mutation: Mutation, directory: FileId, name: Uint8Array, file: NewInode): Promise<CreateOutcome> {
    const checked = checkedFile(file);
    assert(checked.class !== 'none' && isCount(checked.sizeBytes), 'a file has a class and a size');
    assert(checked.class !== 'inline' || checked.sizeBytes <= this.inlineBytesMax, 'an inline file is not larger than the limit');
    return this.#create('createFile', mutation, directory, name, {
      ...this.#fresh(mutation, checked),
      type: 'file',
      class: checked.class,
      nlink: 1,
      sizeBytes: checked.sizeBytes,
      usedBytes: 0,
      exclusiveVerifier: checked.exclusiveVerifier,
      inlineBytes: checked.class === 'inline' ? new Uint8Array(0) : null,
      uuid: this.#random.bytes(16).toString('hex') as ObjectUuid,
    });
  }

  async createDirectory(mutation: Mutation, directory: FileId, name: Uint8Array, attributes: SharedAttributes): Promise<CreateOutcome> {
    return this.#create('createDirectory', mutation, directory, name, {
      ...this.#fresh(mutation, attributes),
      type: 'directory',
      nlink: 2,
      sizeBytes: DIRECTORY_BYTES,
      usedBytes: DIRECTORY_BYTES,
      parent: directory,
    });
  }

  async createSymlink(
    mutation: Mutation,
    directory: FileId,
    name: Uint8Array,
    target: Uint8Array,
    attributes: SharedAttributes,
  ): Promise<CreateOutcome> {
    assert(target.byteLength <= SYMLINK_BYTES_MAX, `a symlink has at most ${SYMLINK_BYTES_MAX} bytes`);
    return this.#create('createSymlink', mutation, directory, name, {
      ...this.#fresh(mutation, attributes),
      type: 'symlink',
      nlink: 1,
      sizeBytes: target.byteLength,
      usedBytes: inlineUsedBytes(target.byteLength),
      symlinkTarget: target,
    });
  }

  async remove(mutation: Mutation, directory: FileId, name: Uint8Array): Promise<RemoveOutcome> {
    return this.#verbs.mutate('remove', REMOVE_SCRIPT, mutation, [String(directory), checkedName(name), '']);
  }

  async removeDirectory(mutation: Mutation, directory: FileId, name: Uint8Array): Promise<RemoveOutcome> {
    return this.#verbs.mutate('removeDirectory', REMOVE_SCRIPT, mutation, [String(directory), checkedName(name), '1']);
  }

  async rename(mutation: Mutation, fromDirectory: FileId, fromName: Uint8Array, toDirectory: FileId, toName: Uint8Array): Promise<RenameOutcome> {
    const args = [String(fromDirectory), checkedName(fromName), String(toDirectory), checkedName(toName)];
    return this.#verbs.mutate('rename', RENAME_SCRIPT, mutation, args);
  }

  async link(mutation: Mutation, object: FileId, directory: FileId, name: Uint8Array): Promise<LinkOutcome> {
    return this.#verbs.mutate('link', LINK_SCRIPT, mutation, [String(object), String(directory), checkedName(name)]);
  }

  async setAttributes(
    mutation: Mutation,
    fileid: FileId,
    changes: InodeChanges,
    guardCtime: Timestamp | null,
    expectClass: InodeClass | null,
  ): Promise<SetAttributesOutcome> {
    const { mode, uid, gid, sizeBytes, atime, mtime } = changes;
    assert(sizeBytes === null || isCount(sizeBytes), 'a size is a count of bytes');
    for (const number of [mode, uid, gid]) assert(number === null || (isCount(number) && number <= UINT32_MAX), 'mode, uid and gid have 32 bits');
    for (const time of [atime, mtime]) assert(time === null || isTimestamp(time), 'a time is an nfstime3');
    return this.#verbs.mutate('setAttributes', SET_ATTRIBUTES_SCRIPT, mutation, [
      String(fileid),
      guardCtime === null ? '' : packTime(guardCtime),
      expectClass === null ? '' : INODE_CLASSES.indexOf(expectClass),
      mode === null ? '' : mode & 0o7777,
      uid ?? '',
      gid ?? '',
      sizeBytes ?? '',
      atime === null ? '' : packTime(atime),
      mtime === null ? '' : packTime(mtime),
      this.inlineBytesMax,
    ]);
  }

  async writeInline(mutation: Mutation, fileid: FileId, offsetBytes: number, bytes: Uint8Array): Promise<InlineWriteOutcome> {
    assert(isCount(offsetBytes) && isCount(offsetBytes + bytes.byteLength), 'an offset is a count of bytes');
    // What cannot fit need not be sent; its last byte is enough for the verb to say so.
    const sent = bytes.byteLength > this.inlineBytesMax ? new Uint8Array(this.inlineBytesMax + 1) : ownBytes(bytes);
    return this.#verbs.mutate('writeInline', WRITE_INLINE_SCRIPT, mutation, [String(fileid), offsetBytes, sent, this.inlineBytesMax]);
  }

  async flipToFile(mutation: Mutation, fileid: FileId): Promise<SetAttributesOutcome> {
    return this.#verbs.mutate('flipToFile', FLIP_SCRIPT, mutation, [String(fileid)]);
  }

  async dropInlineBase(mutation: Mutation, fileid: FileId, term: Term): Promise<void> {
    await this.#verbs.mutate('dropInlineBase', DROP_INLINE_BASE_SCRIPT, mutation, [String(fileid), packTerm(term)]);
  }

  async putOwnedAttributes(mutation: Mutation, batch: Parameters<Namespace['putOwnedAttributes']>[1]): Promise<void> {
    for (let from = 0; from < batch.length; from += OWNED_PER_SCRIPT) {
      const packed = packOwned(batch.slice(from, from + OWNED_PER_SCRIPT));
      await this.#verbs.mutate('putOwnedAttributes', PUT_OWNED_SCRIPT, mutation, [packed]);
    }
  }

  async usage(): Promise<PoolUsage> {
    const reply = await this.#verbs.read(COUNTERS_SCRIPT, []);
    return this.#verbs.checked(() => ({ inodes: decimalAt(reply, 2, 'Redis meta'), usedBytes: decimalAt(reply, 3, 'Redis meta') }));
  }

  async tombstones(after: FileId, limit: number): Promise<{ inode: Inode; sinceMs: number }[]> {
    const reply = await this.#verbs.read(TOMBSTONES_SCRIPT, [String(after), limit]);
    return this.#verbs.checked(() =>
      listOfReply(reply, 'Redis tombstones').map((element) => {
        const packed = bytesOrNull(element, 'Redis tombstones') ?? Buffer.alloc(0);
        const { inode, unlinkedMs } = unpackInode(packed, 'Redis tombstones');
        return { inode, sinceMs: unlinkedMs ?? corrupt(`Redis inode ${inode.fileid}`, 'listed as a tombstone, but live') };
      }),
    );
  }

  async dropTombstone(mutation: Mutation, fileid: FileId): Promise<void> {
    await this.#verbs.mutate('dropTombstone', DROP_TOMBSTONE_SCRIPT, mutation, [String(fileid)]);
  }

  #fresh(mutation: Mutation, attributes: SharedAttributes): ReturnType<typeof freshInode> {
    // The script gives the number.
    return freshInode(ROOT_FILEID, this.#random.bytes(6).readUIntBE(0, 6), attributes, checkedMutation(mutation).now);
  }

  async #create(
    verb: 'createFile' | 'createDirectory' | 'createSymlink',
    mutation: Mutation,
    directory: FileId,
    name: Uint8Array,
    inode: Inode,
  ): Promise<CreateOutcome> {
    const packed = packWritable(inode);
    return this.#verbs.mutate(verb, CREATE_SCRIPT, mutation, [String(directory), checkedName(name), packed]);
  }
}

/** A packed inode that a reader will accept. @throws AssertionError when its caller made an impossible inode. */
function packWritable(inode: Inode): Buffer {
  try {
    const packed = packInode({ inode, nextCookie: inode.type === 'directory' ? 3 : null, unlinkedMs: null }, 0);
    unpackInode(packed, 'inode to be stored');
    return packed;
  } catch (error) {
    if (error instanceof ApplianceError || error instanceof RangeError) throw new AssertionError(error.message);
    throw error;
  }
}

function packOwned(batch: Parameters<Namespace['putOwnedAttributes']>[1]): Buffer {
  const packed = Buffer.alloc(batch.length * OWNED_ATTRIBUTES_BYTES);
  for (const [index, owned] of batch.entries()) {
    assert(isCount(owned.fileid), 'a fileid is a count');
    const at = index * OWNED_ATTRIBUTES_BYTES;
    putInteger64(packed, at, owned.fileid);
    packTerm(owned.term).copy(packed, at + 8);
    packCopy(checkedCopy(owned)).copy(packed, at + 40);
  }
  return packed;
}

function packTime(time: Timestamp): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeUInt32LE(time.seconds, 0);
  bytes.writeUInt32LE(time.nanoseconds, 4);
  return bytes;
}

/** The inode that was asked for, and no other. */
function knownInode(packed: Buffer, fileid: FileId): Inode {
  const inode = inodeOf(packed, 'Redis inode');
  return inode.fileid === fileid ? inode : corrupt(`Redis inode ${fileid}`, `the record is of ${inode.fileid}`);
}

/** A live directory, or why it is none. */
function directoryFrom(
  packed: Buffer | null,
  fileid: FileId,
): Inode | { readonly kind: 'stale' } | { readonly kind: 'not-directory'; readonly inode: Inode } {
  if (packed === null) return { kind: 'stale' };
  const inode = knownInode(packed, fileid);
  if (inode.state !== 'live') return { kind: 'stale' };
  return inode.type === 'directory' ? inode : { kind: 'not-directory', inode };
}

/** What an entry of a directory names: there is such an inode, and it is live. */
function namedFrom(packed: Buffer | null, directory: FileId): Inode {
  const where = `Redis directory ${directory}`;
  if (packed === null || packed.byteLength === 0) return corrupt(where, 'names an inode that does not exist');
  const inode = inodeOf(packed, where);
  return inode.state === 'live' ? inode : corrupt(where, `names ${inode.fileid}, which is unlinked`);
}
