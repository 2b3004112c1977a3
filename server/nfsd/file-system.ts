/**
 * The FileSystem port: what nfsd serves. One method per NFSv3 procedure that needs a file system, in RFC 1813's terms and with its
 * status codes, so that any store can be put behind NFSv3. `memory-file-system.ts` is the example implementation.
 *
 * Conventions
 * - A method answers at once where it can and with a promise where it must wait (`MaybePromise`). It never rejects for a client's
 *   mistake or the environment's failure: both are a `status`. A rejection is a bug; nfsd answers SERVERFAULT and reports it.
 * - Handles and names are borrowed: they point into the received record and are valid only until the method first returns to the event loop; copy to keep.
 * - Names are bytes, not text. nfsd has refused the empty name, names with `/` or NUL and names over 255 bytes. `.` and `..` reach `lookup` only.
 * - Attributes in results are snapshots: never mutated after they were handed out. They are null only where they cannot be had.
 * - Everything that changes the namespace is durable before the result is given (RFC 1813 §4.8).
 */
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';

/** ftype3, RFC 1813 §2.5. */
export const FileType = { REG: 1, DIR: 2, BLK: 3, CHR: 4, LNK: 5, SOCK: 6, FIFO: 7 } as const;
export type FileType = (typeof FileType)[keyof typeof FileType];

/** nfsstat3, RFC 1813 §2.6. */
export const Status = {
  OK: 0,
  PERM: 1,
  NOENT: 2,
  IO: 5,
  NXIO: 6,
  ACCES: 13,
  EXIST: 17,
  XDEV: 18,
  NODEV: 19,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  FBIG: 27,
  NOSPC: 28,
  ROFS: 30,
  MLINK: 31,
  NAMETOOLONG: 63,
  NOTEMPTY: 66,
  DQUOT: 69,
  STALE: 70,
  REMOTE: 71,
  BADHANDLE: 10001,
  NOT_SYNC: 10002,
  BAD_COOKIE: 10003,
  NOTSUPP: 10004,
  TOOSMALL: 10005,
  SERVERFAULT: 10006,
  BADTYPE: 10007,
  JUKEBOX: 10008,
} as const;
export type Status = (typeof Status)[keyof typeof Status];
export type ErrorStatus = Exclude<Status, 0>;

/** stable_how, RFC 1813 §3.3.7. */
export const Stability = { UNSTABLE: 0, DATA_SYNC: 1, FILE_SYNC: 2 } as const;
export type Stability = (typeof Stability)[keyof typeof Stability];

/** fattr3 without rdev (always 0): RFC 1813 §2.5. Sizes are exact numbers below 2^53. */
export interface Attributes {
  readonly type: FileType;
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly usedBytes: number;
  /** Same for the whole export, from every router and for ever. */
  readonly fsid: bigint;
  readonly fileid: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
}

/** wcc_attr: what an object was before an operation. */
export interface PreAttributes {
  readonly sizeBytes: number;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
}

/** wcc_data: `before` and `after` are taken in the same critical section as the change, or are null. */
export interface Wcc {
  readonly before: PreAttributes | null;
  readonly after: Attributes | null;
}

/** sattr3: null = don't change. Times: a timestamp, or the server's clock. */
export interface SetAttributes {
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly sizeBytes: number | null;
  readonly atime: Timestamp | 'server' | null;
  readonly mtime: Timestamp | 'server' | null;
}

/** Who calls, after squashing; and what makes this call recognisable when it is sent again. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, at most 16. */
  readonly gids: readonly number[];
  /** IP address text of the client. */
  readonly address: string;
  /**
   * Identity of this very call across retransmissions, sockets and routers (design section 5): client address, AUTH_SYS machine name and
   * stamp, xid and a 128-bit hash of the whole call with its credentials. Computed when first asked for; ask before the first await.
   */
  operationId(): string;
  /**
   * Identity of this WRITE across retransmissions, sockets and routers: 128 bits in four words made of client, xid, range and a CRC of the data. Cheaper than
   * `operationId`, which digests the data; enough to tell calls of the last seconds on one object apart. Answers the CRC-32 of the data.
   */
  writeIdentity(offsetBytes: number, countBytes: number, chunks: readonly Uint8Array[], into: Uint32Array): number;
}

/** Opaque handle bytes, at most 56 (ESXi's limit). */
export type Handle = Uint8Array;

export type Result<T> = ({ readonly status: 0 } & T) | { readonly status: ErrorStatus };
/** Errors carry the object's or directory's attributes where they can be had (post_op_attr of the resfail). */
export type AttributedResult<T> = ({ readonly status: 0 } & T) | { readonly status: ErrorStatus; readonly attributes: Attributes | null };
/** Errors carry wcc_data. */
export type WccResult<T = object> = ({ readonly status: 0; readonly wcc: Wcc } & T) | { readonly status: ErrorStatus; readonly wcc: Wcc };

export interface DirectoryEntry {
  readonly fileid: number;
  /** Owned by the result. */
  readonly name: Uint8Array;
  /** Stable per entry while it exists, never 0, below 2^53; passing it back continues behind this entry. */
  readonly cookie: number;
  /** Only when asked for; null where they cannot be had in time. */
  readonly attributes: Attributes | null;
  readonly handle: Handle | null;
}

export type CreateHow =
  | { readonly mode: 'unchecked' | 'guarded'; readonly attributes: SetAttributes }
  /** `verifier`: 8 bytes, borrowed. */
  | { readonly mode: 'exclusive'; readonly verifier: Uint8Array };

export interface Created {
  readonly handle: Handle;
  readonly attributes: Attributes;
}

/** FSSTAT3resok numbers. */
export interface FsStat {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly availableBytes: number;
  readonly totalFiles: number;
  readonly freeFiles: number;
  readonly availableFiles: number;
  readonly invariantSeconds: number;
}

/** What FSINFO says of this file system; nfsd adds nothing. */
export interface FsInfo {
  readonly readMaxBytes: number;
  readonly readPreferredBytes: number;
  readonly readMultipleBytes: number;
  readonly writeMaxBytes: number;
  readonly writePreferredBytes: number;
  readonly writeMultipleBytes: number;
  readonly readdirPreferredBytes: number;
  readonly fileSizeMaxBytes: number;
  readonly timeDelta: Timestamp;
  /** FSF3_* bits. */
  readonly properties: number;
}

export type ReadAnswer = AttributedResult<{ bytesRead: number; eof: boolean; attributes: Attributes | null }>;
export type WriteAnswer = WccResult<{ countBytes: number; committed: Stability; verifier: Uint8Array }>;

/** Whom an answer is given to that comes later, in place of a promise. Exactly one of the two is called, once, perhaps before the operation returned. */
export interface Later<T> {
  settle(answer: T): void;
  /** As a promise that rejects: a bug. */
  broken(error: unknown): void;
}

export interface FileSystem {
  /**
   * Resolves an export path or a directory below one, without leading or trailing slash (`vpool1`, `vpool1/vm7`), to a handle.
   * NOENT: no such export or directory; NOTDIR: it is something else.
   */
  mount(caller: Caller, path: string): MaybePromise<Result<{ handle: Handle }>>;

  getattr(caller: Caller, object: Handle): MaybePromise<Result<{ attributes: Attributes }>>;
  /** `guardCtime` not null: NOT_SYNC unless the object's ctime equals it. */
  setattr(caller: Caller, object: Handle, changes: SetAttributes, guardCtime: Timestamp | null): MaybePromise<WccResult>;
  /** Result attributes of an error are those of the directory. */
  lookup(
    caller: Caller,
    directory: Handle,
    name: Uint8Array,
  ): MaybePromise<AttributedResult<{ handle: Handle; attributes: Attributes | null; directoryAttributes: Attributes | null }>>;
  /** `granted` is a subset of `mask` (ACCESS3_* bits). */
  access(caller: Caller, object: Handle, mask: number): MaybePromise<AttributedResult<{ granted: number; attributes: Attributes | null }>>;
  readlink(caller: Caller, object: Handle): MaybePromise<AttributedResult<{ target: Uint8Array; attributes: Attributes | null }>>;

  /**
   * Reads into `target` (owned by the file system until the result is there). `bytesRead` is short only at the end of the file;
   * `eof` is true exactly when `offsetBytes + bytesRead >= size`.
   */
  read(caller: Caller, object: Handle, offsetBytes: number, target: Buffer): MaybePromise<ReadAnswer>;
  /** Null: `later` is told. */
  read(caller: Caller, object: Handle, offsetBytes: number, target: Buffer, later: Later<ReadAnswer>): MaybePromise<ReadAnswer> | null;
  /**
   * Writes the bytes of `chunks` (`countBytes` together; owned by the file system from now on, never modified by anybody).
   * `committed` is at least what was asked. `verifier` is 8 bytes and the same as in COMMIT; it changes only when data that was answered UNSTABLE may be gone.
   */
  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<WriteAnswer>;
  /** Null: `later` is told. */
  write(
    caller: Caller,
    object: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    later: Later<WriteAnswer>,
  ): MaybePromise<WriteAnswer> | null;
  /** `countBytes` 0 = to the end of the file. Past the end is fine. */
  commit(caller: Caller, object: Handle, offsetBytes: number, countBytes: number): MaybePromise<WccResult<{ verifier: Uint8Array }>>;

  create(caller: Caller, directory: Handle, name: Uint8Array, how: CreateHow): MaybePromise<WccResult<Created>>;
  mkdir(caller: Caller, directory: Handle, name: Uint8Array, attributes: SetAttributes): MaybePromise<WccResult<Created>>;
  symlink(caller: Caller, directory: Handle, name: Uint8Array, target: Uint8Array, attributes: SetAttributes): MaybePromise<WccResult<Created>>;
  remove(caller: Caller, directory: Handle, name: Uint8Array): MaybePromise<WccResult>;
  rmdir(caller: Caller, directory: Handle, name: Uint8Array): MaybePromise<WccResult>;
  rename(
    caller: Caller,
    fromDirectory: Handle,
    fromName: Uint8Array,
    toDirectory: Handle,
    toName: Uint8Array,
  ): MaybePromise<{ readonly status: Status; readonly fromWcc: Wcc; readonly toWcc: Wcc }>;
  link(
    caller: Caller,
    object: Handle,
    directory: Handle,
    name: Uint8Array,
  ): MaybePromise<{ readonly status: Status; readonly attributes: Attributes | null; readonly directoryWcc: Wcc }>;

  /**
   * Entries behind `cookie` (0 = from the start, beginning with `.` and `..`), at most `limit`, in cookie order. `eof` when nothing follows
   * them. An unknown cookie continues behind where it would be. `cookieVerifier` (8 bytes) is what the client sent back; implementations
   * with stable cookies always return zeros and accept anything.
   */
  readdir(
    caller: Caller,
    directory: Handle,
    cookie: number,
    cookieVerifier: Uint8Array,
    limit: number,
    wantAttributes: boolean,
  ): MaybePromise<AttributedResult<{ entries: readonly DirectoryEntry[]; eof: boolean; attributes: Attributes | null; cookieVerifier: Uint8Array }>>;

  fsstat(caller: Caller, object: Handle): MaybePromise<AttributedResult<{ stat: FsStat; attributes: Attributes | null }>>;
  fsinfo(caller: Caller, object: Handle): MaybePromise<AttributedResult<{ info: FsInfo; attributes: Attributes | null }>>;
  /** `linkMax`, name_max is 255, no_trunc, chown_restricted and case_preserving true, case_insensitive false. */
  pathconf(caller: Caller, object: Handle): MaybePromise<AttributedResult<{ linkMax: number; attributes: Attributes | null }>>;
}
