/**
 * Ports of the Object Registry: namespace, ownership, membership of one vPool (design section 5). `sqlite/` implements them for a single
 * router, `redis/` for a cluster; `conformance.ts` is the suite that both pass.
 *
 * Contract
 * - Every verb is one atomic transaction: compare-and-set on what it read, durable before its promise resolves, linearizable.
 * - Verbs that change something take a `Mutation`. They increment the vPool's change sequence; {generation, sequence, operation id, verb,
 *   after-image, result} is written to the outbox in the same transaction. What changed nothing (refusals, repetitions) moves no sequence.
 *   `putOwnedAttributes` stays out of the outbox: the owner's own log is the redo log of what it copies, until `update` says that the object is `clean`:
 *   that entry has the inode, since from then on nobody asks the owner.
 * - A `Mutation` with an operation id is executed once per verb: the same id answers with the first outcome, refusals included, without effect, for
 *   15 minutes since it was last asked for and at least while it is among the last 1,024 per client (the part of the id before the first `|`). A bound on
 *   all remembered operations (400,000 in SQLite) takes precedence. A call that needs one verb twice must use two ids.
 * - Names have 1 to 255 bytes without NUL and `/` and are not "." or "..", symlink targets at most 4,096 bytes: anything else is the caller's bug (AssertionError).
 * - `now` is the caller's wall clock; the registry makes times monotone with `max(old + 1 ns, now)`.
 * - Outcomes that a caller must branch on are unions. Environment failures reject with ApplianceError: `registry-unavailable` (retryable, had no
 *   effect or an unknown one: ask again with the same operation id), `registry-corrupt`, `registry-no-space`, `incarnation-dead` (the caller's
 *   incarnation was replaced or marked dead: it must stop), `generation-changed`.
 * - Reads answer at once where the registry can (SQLite always; `MaybePromise`), else with a promise. A read that starts after a verb's promise
 *   resolved sees that verb. Reads fail (throw or reject) with `registry-corrupt`, `registry-unavailable`.
 * - Inodes handed out are snapshots, never mutated. Names are bytes, copied.
 */
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../server/core/ids.ts';
import type { Lease } from '../server/core/lease.ts';
import type { MaybePromise } from '../server/core/maybe-promise.ts';
import type { Timestamp } from '../server/core/time.ts';
import type { Inode, InodeChanges, InodeClass } from './inode.ts';

export interface Mutation {
  /** `client|...`; null for what is idempotent or internal. */
  readonly operationId: string | null;
  /** The caller's incarnation: refused unless it joined and is neither replaced nor dead. */
  readonly incarnation: Incarnation;
  readonly now: Timestamp;
  /** Wall-clock milliseconds after which the verb must not take effect any more (refused with `registry-unavailable`); Infinity = never. */
  readonly notAfterMs: number;
}

/** A directory before and after a change: nfsd's wcc_data. */
export interface DirectoryChange {
  readonly before: Inode;
  readonly after: Inode;
}

export interface NewInode {
  readonly class: InodeClass;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Initial size; nonzero only for class volume, file or inline with a size in the CREATE. */
  readonly sizeBytes: number;
  readonly atime: Timestamp | null;
  readonly mtime: Timestamp | null;
  readonly exclusiveVerifier: Uint8Array | null;
}

/** `stale`: no live inode of that number and generation. `not-directory`: it is none. Common to verbs that name a directory. */
export type DirectoryRefusal = { readonly kind: 'stale' } | { readonly kind: 'not-directory'; readonly inode: Inode };

export type LookupOutcome =
  | { readonly kind: 'found'; readonly inode: Inode; readonly directory: Inode }
  | { readonly kind: 'absent'; readonly directory: Inode }
  | DirectoryRefusal;

export type EntriesOutcome =
  /** `eof`: no entry follows the last one given. */
  { readonly kind: 'entries'; readonly directory: Inode; readonly entries: readonly NamedEntry[]; readonly eof: boolean } | DirectoryRefusal;

export type CreateOutcome =
  | { readonly kind: 'created'; readonly inode: Inode; readonly directory: DirectoryChange }
  /** The name is taken; nothing was changed. The caller applies UNCHECKED, GUARDED and EXCLUSIVE (verifier compare) itself. */
  | { readonly kind: 'exists'; readonly inode: Inode; readonly directory: Inode }
  | DirectoryRefusal;

export type RemoveOutcome =
  /** `inode` is the after-image: nlink lowered; state `unlinked` when it was the last name (tombstone until its data is gone). */
  | { readonly kind: 'removed'; readonly inode: Inode; readonly directory: DirectoryChange }
  | { readonly kind: 'absent'; readonly directory: Inode }
  | { readonly kind: 'is-directory' | 'not-a-directory' | 'not-empty'; readonly directory: Inode }
  | DirectoryRefusal;

export type RenameOutcome =
  | {
      readonly kind: 'renamed';
      readonly inode: Inode;
      readonly from: DirectoryChange;
      readonly to: DirectoryChange;
      /** After-image of what the target name denoted, when it was replaced. */
      readonly replaced: Inode | null;
    }
  /** Both names denote the same inode, or the same name: nothing to do (RFC 1813 §3.3.14). */
  | { readonly kind: 'unchanged'; readonly from: Inode; readonly to: Inode }
  | { readonly kind: 'absent'; readonly from: Inode; readonly to: Inode }
  /** exists: type mismatch file over directory or the reverse; invalid: a directory into itself or below (cycle). */
  | { readonly kind: 'target-not-empty' | 'target-exists' | 'invalid'; readonly from: Inode; readonly to: Inode }
  | { readonly kind: 'stale'; readonly which: 'from' | 'to' }
  | { readonly kind: 'not-directory'; readonly which: 'from' | 'to' };

export type LinkOutcome =
  | { readonly kind: 'linked'; readonly inode: Inode; readonly directory: DirectoryChange }
  | { readonly kind: 'exists'; readonly inode: Inode; readonly directory: Inode }
  | { readonly kind: 'is-directory'; readonly directory: Inode }
  | { readonly kind: 'too-many-links'; readonly directory: Inode }
  | { readonly kind: 'object-stale' }
  | DirectoryRefusal;

export type SetAttributesOutcome =
  | { readonly kind: 'changed'; readonly before: Inode; readonly after: Inode }
  | { readonly kind: 'guard-mismatch'; readonly inode: Inode }
  /** The inode is not of the class that the caller saw (an inline file became a file): look again. */
  | { readonly kind: 'class-changed'; readonly inode: Inode }
  | { readonly kind: 'stale' };

export type InlineWriteOutcome =
  | { readonly kind: 'written'; readonly before: Inode; readonly after: Inode }
  /** Would grow past the inline limit: flip it to class file first. */
  | { readonly kind: 'too-large'; readonly inode: Inode }
  | { readonly kind: 'class-changed'; readonly inode: Inode }
  | { readonly kind: 'stale' };

export interface NamedEntry {
  readonly name: Uint8Array;
  /** Per-directory counter, from 3 up (1 and 2 are "." and ".."), stable under create and remove of other names. */
  readonly cookie: number;
  readonly inode: Inode;
}

/** Use of the vPool, kept incrementally: answering costs no scan. Live inodes, the root included; owned objects count with their lazy copies. */
export interface PoolUsage {
  readonly inodes: number;
  readonly usedBytes: number;
}

/** What the owner of an object tells of it. */
export interface OwnedCopy {
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
}

export interface Namespace {
  /** Fileid of the root directory; made when the vPool is created. */
  readonly root: FileId;
  /** Bytes up to which a file may be inline. */
  readonly inlineBytesMax: number;

  /** The live inode with this number and, if not null, this generation; null when there is none. */
  inode(fileid: FileId, inodeGeneration: number | null): MaybePromise<Inode | null>;
  /** Plain names only ("." and ".." are the caller's). Both inodes are of one instant. */
  lookup(directory: FileId, name: Uint8Array): MaybePromise<LookupOutcome>;
  /** Entries with cookie > `afterCookie` in cookie order, at most `limit`; costs O(limit + log n). */
  entries(directory: FileId, afterCookie: number, limit: number): MaybePromise<EntriesOutcome>;

  createFile(mutation: Mutation, directory: FileId, name: Uint8Array, file: NewInode): Promise<CreateOutcome>;
  createDirectory(
    mutation: Mutation,
    directory: FileId,
    name: Uint8Array,
    attributes: Pick<NewInode, 'mode' | 'uid' | 'gid' | 'atime' | 'mtime'>,
  ): Promise<CreateOutcome>;
  createSymlink(
    mutation: Mutation,
    directory: FileId,
    name: Uint8Array,
    target: Uint8Array,
    attributes: Pick<NewInode, 'mode' | 'uid' | 'gid' | 'atime' | 'mtime'>,
  ): Promise<CreateOutcome>;
  /** Removes a name of something that is not a directory. */
  remove(mutation: Mutation, directory: FileId, name: Uint8Array): Promise<RemoveOutcome>;
  removeDirectory(mutation: Mutation, directory: FileId, name: Uint8Array): Promise<RemoveOutcome>;
  rename(mutation: Mutation, fromDirectory: FileId, fromName: Uint8Array, toDirectory: FileId, toName: Uint8Array): Promise<RenameOutcome>;
  link(mutation: Mutation, object: FileId, directory: FileId, name: Uint8Array): Promise<LinkOutcome>;

  /**
   * Registry part of SETATTR. A size is changed here for class inline and up to `inlineBytesMax` only; for any other class, and beyond that limit,
   * the answer is `class-changed`: flip it to class file first (or ask its owner). A new size moves mtime unless `changes` sets that.
   * `guardCtime` not null: refused unless the ctime equals it. `expectClass` not null: class compare-and-set.
   */
  setAttributes(
    mutation: Mutation,
    fileid: FileId,
    changes: InodeChanges,
    guardCtime: Timestamp | null,
    expectClass: InodeClass | null,
  ): Promise<SetAttributesOutcome>;
  /** WRITE of an inline file, one atomic step: contents, size, mtime, ctime. */
  writeInline(mutation: Mutation, fileid: FileId, offsetBytes: number, bytes: Uint8Array): Promise<InlineWriteOutcome>;
  /** Inline -> file: changes the class, keeps the inline bytes as the base until `dropInlineBase`. Already class file: `changed` with before = after. */
  flipToFile(mutation: Mutation, fileid: FileId): Promise<SetAttributesOutcome>;
  /** A root covers the base of a flipped file: forget the inline bytes. */
  dropInlineBase(mutation: Mutation, fileid: FileId, term: Term): Promise<void>;
  /** The owner's lazy copy of size, used and times; ignored unless `term` is the owner record's and the inode is live. Not a namespace change: no operation id. Batched. */
  putOwnedAttributes(mutation: Mutation, batch: readonly (OwnedCopy & { fileid: FileId; term: Term })[]): Promise<void>;

  usage(): MaybePromise<PoolUsage>;
  /** Unlinked inodes with class file or volume, fileid > `after`: their data waits for deletion. `sinceMs` = wall clock of the unlink (its `now`). */
  tombstones(after: FileId, limit: number): Promise<{ inode: Inode; sinceMs: number }[]>;
  /** Forgets a tombstone whose data is gone, and its owner record. Idempotent. */
  dropTombstone(mutation: Mutation, fileid: FileId): Promise<void>;
}

/** A closed epoch of an object: objects of that term outside this range do not exist. */
export interface ClosedEpoch {
  readonly term: Term;
  /** Number of the last segment of the term (0: the term wrote none). */
  readonly lastSegment: number;
  /** Last sequence of the term that counts. */
  readonly lastSequence: number;
}

/** What the registry knows of an object's stored state (design section 6). */
export interface Root {
  /** Name of the newest checkpoint object, or null: none yet. */
  readonly checkpoint: string | null;
  /** All segments up to this number are on the backend and were read back; 0 = none. */
  readonly uploadedSegment: number;
  readonly uploadedSequence: number;
  /** Oldest first; those wholly below the checkpoint are dropped. */
  readonly closedEpochs: readonly ClosedEpoch[];
}

export type Protection =
  | { readonly kind: 'clean' }
  | { readonly kind: 'unprotected' }
  | { readonly kind: 'protected'; readonly replicas: readonly RouterId[] };

export interface OwnerRecord {
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly term: Term;
  readonly state:
    | { readonly kind: 'running' }
    | { readonly kind: 'recovering'; readonly reason: string }
    | { readonly kind: 'halted'; readonly reason: string };
  /** For people: a handover under way. */
  readonly moving: { readonly from: RouterId; readonly to: RouterId; readonly attempt: Term } | null;
  readonly root: Root;
  readonly protection: Protection;
  /** Write verifier of the object, 8 bytes: the same from every router, renewed only when data answered UNSTABLE may be gone. */
  readonly verifier: Uint8Array;
}

export type OwnerOutcome =
  | { readonly kind: 'done'; readonly owner: OwnerRecord }
  /** The record is not what the caller expected: here is what it is now. */
  | { readonly kind: 'conflict'; readonly owner: OwnerRecord }
  /** The record belongs to another router whose incarnation is neither dead nor replaced: only it may give the object away. */
  | { readonly kind: 'owner-alive'; readonly owner: OwnerRecord }
  /** Unlinked or no such inode. */
  | { readonly kind: 'gone' };

export interface Ownership {
  owner(fileid: FileId): MaybePromise<OwnerRecord | null>;
  /** Records of `router` with fileid > `after` in fileid order. */
  ownedBy(router: RouterId, after: FileId, limit: number): Promise<OwnerRecord[]>;
  /**
   * Claims an object of class file or volume for the caller: a new term above every earlier one. `router` is the caller. `expected` is the term the
   * caller saw (null: no record yet; creates it with `uuid` from the inode, an empty root, protection `clean` and a verifier:
   * `inlineVerifier` for class file, random for class volume). `closing` closes
   * the old term in the root in the same step (it must be the term `expected`); null only when there is no old term or it wrote nothing, and then
   * nothing of that term exists. State becomes `running`, `moving` null; the caller may set `recovering` instead.
   * A record of another router is claimed only when the incarnation in it is dead, left or replaced (else `owner-alive`); that its protection allows it is
   * the caller's to judge. `counterMin`: the new term's counter is above it (terms that the caller knows of and the registry may have forgotten; 0 = none).
   */
  claim(
    mutation: Mutation,
    fileid: FileId,
    router: RouterId,
    expected: Term | null,
    closing: ClosedEpoch | null,
    nonce: string,
    counterMin?: number,
  ): Promise<OwnerOutcome>;
  /**
   * Begins a move to router `to`: reserves an epoch above every earlier one, with `nonce`, and notes it in `moving` (compare-and-set on `term`, which must
   * be the caller's incarnation's). Replaces a former attempt, whose number is burnt. The owner stays the same. The attempt is for the incarnation of `to`
   * that lives now, the only one that can know of it.
   */
  beginMove(mutation: Mutation, fileid: FileId, term: Term, to: RouterId, nonce: string): Promise<OwnerOutcome>;
  /**
   * The switch of a move, by the owner in `term`: the record goes to `moving.to`, its living incarnation, and the term `attempt`; compare-and-set on `term` and
   * `moving.attempt`. `closing` as in `claim`. State `running`, `moving` null, the given protection; root and verifier stay. `conflict` also when the
   * incarnation that the attempt began with is not the router's living one.
   */
  transfer(mutation: Mutation, fileid: FileId, term: Term, attempt: Term, closing: ClosedEpoch | null, protection: Protection): Promise<OwnerOutcome>;
  /**
   * Compare-and-set on the term (generation, counter and nonce). Fields left out stay. The counter of a `moving.attempt` is never given out again. A root's uploadedSegment never goes backwards
   * (assertion: `conflict`). `attributes`: as by putOwnedAttributes, in the same change; the inode is noted with it when the protection is `clean`.
   */
  update(
    mutation: Mutation,
    fileid: FileId,
    term: Term,
    fields: {
      root?: Root;
      state?: OwnerRecord['state'];
      protection?: Protection;
      verifier?: Uint8Array;
      moving?: OwnerRecord['moving'];
      attributes?: OwnedCopy;
    },
  ): Promise<OwnerOutcome>;
}

export interface RouterRecord {
  readonly id: RouterId;
  readonly incarnation: Incarnation;
  /** URLs: `nfs://host:port`, `peer://host:port`, `http://host:port` (admin). */
  readonly addresses: readonly string[];
  readonly version: string;
  readonly leaseCounter: number;
  readonly dead: boolean;
}

export interface Membership {
  /** Registers a new incarnation of a router, replacing (and killing) its former one. */
  join(router: RouterId, incarnation: Incarnation, addresses: readonly string[], version: string): Promise<RouterRecord>;
  /** Compare-and-set on a live incarnation; raises the lease counter. Rejects with `incarnation-dead`. */
  renew(router: RouterId, incarnation: Incarnation): Promise<RouterRecord>;
  routers(): Promise<RouterRecord[]>;
  /** Marks an incarnation dead for good; `conflict` when the counter moved since the claimant saw it. */
  markDead(router: RouterId, incarnation: Incarnation, leaseCounterSeen: number): Promise<'dead' | 'conflict'>;
  /** Clean goodbye: the incarnation is dead, nothing needs recovery. */
  leave(router: RouterId, incarnation: Incarnation): Promise<void>;
}

/** One entry of the redo log of namespace changes (invariant 7). */
export interface OutboxEntry {
  readonly generation: number;
  readonly sequence: number;
  readonly operationId: string | null;
  readonly verb: string;
  /** JSON: after-images of every record that the verb changed. Byte strings are base64. */
  readonly afterImage: string;
  /** JSON of the outcome that a repeated operation id is answered with, while it is remembered; null without operation id. */
  readonly outcome: string | null;
}

export interface Outbox {
  /** Entries with sequence > `after` in order. */
  pending(after: number, limit: number): Promise<OutboxEntry[]>;
  /** They are on the backend: forget up to and including `sequence`. */
  release(sequence: number): Promise<void>;
  /** Last change sequence given out, and the generation of the registry. */
  position(): Promise<{ generation: number; sequence: number }>;
}

export interface Registry extends AsyncDisposable {
  readonly vpool: { readonly name: string; readonly uuid: string };
  readonly namespace: Namespace;
  readonly ownership: Ownership;
  readonly membership: Membership;
  readonly outbox: Outbox;
  /** What is wrong, or null: for /readyz. */
  health(): string | null;
  /** Offline check of every record against every other: messages, empty when all is well. */
  verify(): AsyncIterable<string>;
}

/** A registry that several routers share. */
export interface ClusterRegistry extends Registry {
  /** Of the incarnation that this registry was opened for; renewed by itself from `membership.join` on. */
  readonly lease: Lease;
  /** Milliseconds since the registry last confirmed something that this router wrote: a move switches only when this is small. */
  readonly confirmedAgoMs: number;
}
