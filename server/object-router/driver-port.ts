/** Port of the drivers: what the object-router asks of an object that this router owns. */
import type { Inode } from '../../registry/inode.ts';
import type { FileId } from '../core/ids.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';
import type { OwnedAttributes } from './inode-attributes.ts';

export interface OwnedSnapshot extends OwnedAttributes {}

export type ObjectChange =
  | { readonly kind: 'changed'; readonly before: Pick<OwnedSnapshot, 'sizeBytes' | 'mtime' | 'ctime'>; readonly stable: boolean }
  | { readonly kind: 'refused'; readonly error: Error };

/** An object that is open here: all of its I/O goes through it. */
export interface DrivenObject {
  readonly fileid: FileId;
  /** 8 bytes. */
  readonly verifier: Uint8Array;
  attributes(): OwnedSnapshot;
  /** Reads into `target`; resolves with the bytes read, short only at the end of the object. */
  read(offsetBytes: number, target: Buffer): MaybePromise<number>;
  /** `chunks` (not empty) belong to the object from now on. */
  write(offsetBytes: number, countBytes: number, chunks: readonly Uint8Array[], stable: boolean, now: Timestamp): Promise<ObjectChange>;
  commit(now: Timestamp): MaybePromise<null | { readonly kind: 'refused'; readonly error: Error }>;
  setAttributes(changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null }, now: Timestamp): Promise<ObjectChange>;
  /** The registry changed something of the inode at this time: ctime must not run back. */
  observeTime(time: Timestamp): void;
  /** Periodic work: seal what is old, upload, checkpoint, reclaim. */
  tick(): void;
  /** The backend works again after it did not: what waits because of it is tried at once. */
  backendRecovered(): void;
  /** Nothing of it is only here, and nothing waits: it may be closed and forgotten. */
  readonly isClean: boolean;
  /** Wall clock from which stored objects of it that nothing refers to may be deleted by `tick`; null: there are none. */
  readonly garbageDueMs: number | null;
  /** What keeps it from being safe or served, or null. */
  readonly problem: Error | null;
  /** Brings everything to the backend, as far as `deadlineMs` (monotonic) allows. */
  flush(deadlineMs: number): Promise<void>;
  /** Ends it in an orderly way; what is not on the backend stays in the local log. */
  close(): Promise<void>;
}

export interface ObjectDriver {
  /** Opens an object of class file or volume: claims it, recovers its log. @throws ApplianceError `object-damaged` when acknowledged data is missing. */
  open(inode: Inode): Promise<DrivenObject>;
}
