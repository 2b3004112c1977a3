/** Messages between the registry's main-thread side and its worker. Structured clones; byte strings have buffers of their own. */
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../server/core/ids.ts';
import type { Timestamp } from '../../server/core/time.ts';
import type { InodeChanges, InodeClass } from '../inode.ts';
import type { Verb } from '../outcome-codec.ts';
import type { ClosedEpoch, Mutation, Namespace, NewInode, Ownership, Protection } from '../ports.ts';
import type { SharedAttributes } from '../verb-arguments.ts';
import type { OperationSettings } from './operation-memory.ts';
import type { NewRegistry } from './schema.ts';

/** Random parts of a new inode; drawn on the main thread, where the Random port is. */
export interface DrawnInode {
  readonly inodeGeneration: number;
  readonly uuid: ObjectUuid;
}

export type OwnedAttributes = Parameters<Namespace['putOwnedAttributes']>[1][number];
export type OwnerFields = Parameters<Ownership['update']>[3];

/** What each verb is called with, after its mutation. */
export interface VerbArguments {
  createFile: readonly [directory: FileId, name: Uint8Array, file: NewInode, drawn: DrawnInode];
  createDirectory: readonly [directory: FileId, name: Uint8Array, attributes: SharedAttributes, drawn: DrawnInode];
  createSymlink: readonly [directory: FileId, name: Uint8Array, target: Uint8Array, attributes: SharedAttributes, drawn: DrawnInode];
  remove: readonly [directory: FileId, name: Uint8Array];
  removeDirectory: readonly [directory: FileId, name: Uint8Array];
  rename: readonly [fromDirectory: FileId, fromName: Uint8Array, toDirectory: FileId, toName: Uint8Array];
  link: readonly [object: FileId, directory: FileId, name: Uint8Array];
  setAttributes: readonly [fileid: FileId, changes: InodeChanges, guardCtime: Timestamp | null, expectClass: InodeClass | null];
  writeInline: readonly [fileid: FileId, offsetBytes: number, bytes: Uint8Array];
  flipToFile: readonly [fileid: FileId];
  dropInlineBase: readonly [fileid: FileId, term: Term];
  putOwnedAttributes: readonly [batch: readonly OwnedAttributes[]];
  dropTombstone: readonly [fileid: FileId];
  claim: readonly [
    fileid: FileId,
    router: RouterId,
    expected: Term | null,
    closing: ClosedEpoch | null,
    nonce: string,
    counterMin: number,
    verifier: Uint8Array,
  ];
  beginMove: readonly [fileid: FileId, term: Term, to: RouterId, nonce: string];
  transfer: readonly [fileid: FileId, term: Term, attempt: Term, closing: ClosedEpoch | null, protection: Protection];
  update: readonly [fileid: FileId, term: Term, fields: OwnerFields];
  join: readonly [router: RouterId, incarnation: Incarnation, addresses: readonly string[], version: string];
  renew: readonly [router: RouterId, incarnation: Incarnation];
  markDead: readonly [router: RouterId, incarnation: Incarnation, leaseCounterSeen: number];
  leave: readonly [router: RouterId, incarnation: Incarnation];
  release: readonly [sequence: number];
}

export interface VerbRequest<V extends Verb = Verb> {
  readonly kind: 'verb';
  readonly id: number;
  readonly verb: V;
  /** null: membership and outbox verbs, which have none. */
  readonly mutation: Mutation | null;
  readonly arguments: VerbArguments[V];
}

export type Request =
  | VerbRequest
  /** Writes something harmless: is the disk well again? */
  | { readonly kind: 'probe'; readonly id: number }
  | { readonly kind: 'close'; readonly id: number };

/** Main thread to worker: the requests of one loop turn. */
export interface RequestBatch {
  readonly requests: readonly Request[];
  /** Wall clock of the Clock port minus Date.now(): the worker judges deadlines on the caller's clock. */
  readonly wallOffsetMs: number;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

export type Answer =
  | { readonly id: number; readonly outcome: string }
  | { readonly id: number; readonly failure: Failure }
  /** A bug in a verb: the promise rejects with an AssertionError. */
  | { readonly id: number; readonly bug: string };

/** Worker to main thread. */
export type WorkerMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'refused'; readonly failure: Failure }
  /** Answers of one transaction. `trouble` not null: it failed as a whole, for this reason. */
  | { readonly kind: 'answers'; readonly answers: readonly Answer[]; readonly trouble: Failure | null };

export interface WorkerSettings {
  readonly path: string;
  readonly vpoolName: string;
  /** null: the registry exists and must be there. */
  readonly create: NewRegistry | null;
  readonly inlineBytesMax: number;
  readonly operations: OperationSettings;
  /** The WAL is written back when it has this many pages and nobody waits, and in any case at eight times as many. */
  readonly checkpointPages: number;
}
