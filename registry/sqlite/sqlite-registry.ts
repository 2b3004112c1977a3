/**
 * The Object Registry of a single router, on the SQLite that is part of Node: one file, no server (design section 5).
 *
 * Changes go to a worker thread that commits them in groups; reads are answered at once on the calling thread. What a promise answered is
 * durable (WAL, synchronous = FULL) and seen by every later read.
 */
import { assert } from '../../server/core/assert.ts';
import type { FileId, ObjectUuid } from '../../server/core/ids.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Clock, Random } from '../../server/core/time.ts';
import { INLINE_BYTES_CEILING, SYMLINK_BYTES_MAX } from '../inode-record.ts';
import { inlineVerifier } from '../inode.ts';
import { OBJECT_VERIFIER_BYTES } from '../owner-record.ts';
import type { Membership, Namespace, Outbox, OutboxEntry, Ownership, Registry } from '../ports.ts';
import { HEX_32 } from '../record-check.ts';
import { checkedAttributes, checkedFile, checkedMutation, checkedName, isCount, ownBytes } from '../verb-arguments.ts';
import type { OperationSettings } from './operation-memory.ts';
import { RegistryReader } from './registry-reader.ts';
import { RegistryWriter } from './registry-writer.ts';
import { ROOT_FILEID } from './schema.ts';
import { verifyRegistry } from './verify.ts';
import type { DrawnInode } from './worker-protocol.ts';

export interface SqliteRegistrySettings {
  /** Files up to this size may live in their record; at most 64 KiB. */
  readonly inlineBytesMax: number;
  readonly operations: OperationSettings;
  /** Pages of 4 KiB in the write-ahead log from which on it is written back to the database. */
  readonly checkpointPages: number;
}

export const SQLITE_REGISTRY_DEFAULTS: SqliteRegistrySettings = {
  inlineBytesMax: 4_096,
  operations: { keptMs: 15 * 60_000, keptPerClient: 1_024, keptMax: 400_000 },
  checkpointPages: 2_000,
};

/** Entries are some microseconds each to read and check: a long list is read over several turns of the loop, which serves NFS. */
const OUTBOX_ENTRIES_PER_TURN = 64;

export interface SqliteRegistryOptions {
  /** Database file; beside it are `-wal` and `-shm`. The directory must exist and be locked by the caller. */
  readonly path: string;
  /** A new registry belongs to this vPool; an existing one must. */
  readonly vpoolName: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly settings?: SqliteRegistrySettings;
}

type NamespaceReads = 'inode' | 'lookup' | 'entries' | 'usage';

/** The registry's reads answer at once here: for composition and benchmarks that know what they have. */
export interface SqliteRegistry extends Registry {
  readonly namespace: Omit<Namespace, NamespaceReads> & Pick<RegistryReader, NamespaceReads>;
  readonly ownership: Omit<Ownership, 'owner'> & Pick<RegistryReader, 'owner'>;
}

/**
 * Opens a registry, or makes it when there is none.
 * @throws ApplianceError `registry-foreign` (another vPool's, or no registry), `registry-version`, `registry-corrupt`, `registry-unavailable`,
 * `registry-no-space`.
 */
export async function openSqliteRegistry(options: SqliteRegistryOptions): Promise<SqliteRegistry> {
  const { path, vpoolName, clock, random, logger } = options;
  const settings = options.settings ?? SQLITE_REGISTRY_DEFAULTS;
  assert(settings.inlineBytesMax <= INLINE_BYTES_CEILING, 'inline files have an upper bound');
  const drawn = (): DrawnInode => ({ inodeGeneration: random.bytes(6).readUIntBE(0, 6), uuid: random.bytes(16).toString('hex') as ObjectUuid });
  const fresh = drawn();
  const reader = new RegistryReader(path, (message) => writer.noteCorruption(message));
  const writer: RegistryWriter = new RegistryWriter(
    { clock, logger, onChange: () => reader.changed() },
    {
      ...settings,
      path,
      vpoolName,
      create: { vpoolName, vpoolUuid: fresh.uuid, rootGeneration: fresh.inodeGeneration, nowMs: clock.wallMs() },
    },
  );
  await writer.open();
  let vpoolUuid: string;
  try {
    vpoolUuid = reader.meta().vpoolUuid;
  } catch (error) {
    reader.close();
    await writer.close();
    throw error;
  }

  const namespace: SqliteRegistry['namespace'] = {
    root: ROOT_FILEID as FileId,
    inlineBytesMax: settings.inlineBytesMax,
    inode: (fileid, inodeGeneration) => reader.inode(fileid, inodeGeneration),
    lookup: (directory, name) => reader.lookup(directory, name),
    entries: (directory, afterCookie, limit) => reader.entries(directory, afterCookie, limit),
    usage: () => reader.usage(),
    tombstones: async (after, limit) => reader.tombstones(after, limit),
    createFile: async (mutation, directory, name, file) =>
      writer.call('createFile', checkedMutation(mutation), [directory, checkedName(name), checkedFile(file), drawn()]),
    createDirectory: async (mutation, directory, name, attributes) =>
      writer.call('createDirectory', checkedMutation(mutation), [directory, checkedName(name), checkedAttributes(attributes), drawn()]),
    createSymlink: async (mutation, directory, name, target, attributes) => {
      assert(target.byteLength <= SYMLINK_BYTES_MAX, `a symlink has at most ${SYMLINK_BYTES_MAX} bytes`);
      return writer.call('createSymlink', checkedMutation(mutation), [
        directory,
        checkedName(name),
        ownBytes(target),
        checkedAttributes(attributes),
        drawn(),
      ]);
    },
    remove: async (mutation, directory, name) => writer.call('remove', checkedMutation(mutation), [directory, checkedName(name)]),
    removeDirectory: async (mutation, directory, name) => writer.call('removeDirectory', checkedMutation(mutation), [directory, checkedName(name)]),
    rename: async (mutation, fromDirectory, fromName, toDirectory, toName) =>
      writer.call('rename', checkedMutation(mutation), [fromDirectory, checkedName(fromName), toDirectory, checkedName(toName)]),
    link: async (mutation, object, directory, name) => writer.call('link', checkedMutation(mutation), [object, directory, checkedName(name)]),
    setAttributes: async (mutation, fileid, changes, guardCtime, expectClass) => {
      assert(changes.sizeBytes === null || isCount(changes.sizeBytes), 'a size is a count of bytes');
      return writer.call('setAttributes', checkedMutation(mutation), [fileid, changes, guardCtime, expectClass]);
    },
    writeInline: async (mutation, fileid, offsetBytes, bytes) => {
      assert(isCount(offsetBytes) && isCount(offsetBytes + bytes.byteLength), 'an offset is a count of bytes');
      // What cannot fit need not be sent; its last byte is enough for the verb to say so.
      const sent = bytes.byteLength > settings.inlineBytesMax ? new Uint8Array(settings.inlineBytesMax + 1) : ownBytes(bytes);
      return writer.call('writeInline', checkedMutation(mutation), [fileid, offsetBytes, sent]);
    },
    flipToFile: async (mutation, fileid) => writer.call('flipToFile', checkedMutation(mutation), [fileid]),
    dropInlineBase: async (mutation, fileid, term) => {
      await writer.call('dropInlineBase', checkedMutation(mutation), [fileid, term]);
    },
    putOwnedAttributes: async (mutation, batch) => {
      if (batch.length > 0) await writer.call('putOwnedAttributes', checkedMutation(mutation), [batch]);
    },
    dropTombstone: async (mutation, fileid) => {
      await writer.call('dropTombstone', checkedMutation(mutation), [fileid]);
    },
  };

  const ownership: SqliteRegistry['ownership'] = {
    owner: (fileid) => reader.owner(fileid),
    ownedBy: async (router, after, limit) => reader.ownedBy(router, after, limit),
    claim: async (mutation, fileid, router, expected, closing, nonce, counterMin = 0) => {
      assert(isCount(counterMin), 'a counter is a count');
      // A file shows the same verifier before and after it stopped being inline; with its first record, so that no crash comes between.
      const inode = reader.inode(fileid, null);
      const verifier = ownBytes(inode?.class === 'file' ? inlineVerifier(inode) : random.bytes(OBJECT_VERIFIER_BYTES));
      return writer.call('claim', checkedMutation(mutation), [fileid, router, expected, closing, nonce, counterMin, verifier]);
    },
    beginMove: async (mutation, fileid, term, to, nonce) => writer.call('beginMove', checkedMutation(mutation), [fileid, term, to, nonce]),
    transfer: async (mutation, fileid, term, attempt, closing, protection) =>
      writer.call('transfer', checkedMutation(mutation), [fileid, term, attempt, closing, protection]),
    update: async (mutation, fileid, term, fields) => {
      const sent = fields.verifier === undefined ? fields : { ...fields, verifier: ownBytes(fields.verifier) };
      return writer.call('update', checkedMutation(mutation), [fileid, term, sent]);
    },
  };

  const membership: Membership = {
    join: async (router, incarnation, addresses, version) => {
      assert(HEX_32.test(router) && HEX_32.test(incarnation), 'router ids and incarnations are 32 hex digits');
      return writer.call('join', null, [router, incarnation, addresses, version]);
    },
    renew: async (router, incarnation) => writer.call('renew', null, [router, incarnation]),
    routers: async () => reader.routers(),
    markDead: async (router, incarnation, leaseCounterSeen) => writer.call('markDead', null, [router, incarnation, leaseCounterSeen]),
    leave: async (router, incarnation) => {
      await writer.call('leave', null, [router, incarnation]);
    },
  };

  const outbox: Outbox = {
    pending: async (after, limit) => {
      const all: OutboxEntry[] = [];
      for (let last = after; all.length < limit;) {
        const wanted = Math.min(limit - all.length, OUTBOX_ENTRIES_PER_TURN);
        const page = reader.pending(last, wanted);
        all.push(...page);
        last = page.at(-1)?.sequence ?? last;
        if (page.length < wanted) break;
        await new Promise<void>((resolve) => clock.soon(resolve));
      }
      return all;
    },
    release: async (sequence) => {
      await writer.call('release', null, [sequence]);
    },
    position: async () => reader.position(),
  };

  return {
    vpool: { name: vpoolName, uuid: vpoolUuid },
    namespace,
    ownership,
    membership,
    outbox,
    health: () => writer.health(),
    verify: () => verifyRegistry(path),
    async [Symbol.asyncDispose]() {
      // The reader first: the last connection to close writes the WAL back and removes it, and the reader could not.
      reader.close();
      await writer.close();
    },
  };
}
