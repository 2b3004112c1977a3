/**
 * What the tests of this folder want of an NFSv3 client: promises, plain values, statuses as numbers. A call rejects only when no answer came (connection
 * lost); every status is an answer. Implemented over the project's own client by `datastore-client.ts`.
 */
import type { Attributes, Stability } from '../server/nfsd/file-system.ts';

export type FileHandle = Uint8Array;

export interface NewAttributes {
  readonly mode?: number;
  readonly sizeBytes?: number;
}

export interface Found {
  readonly status: number;
  /** Empty unless the status is OK. */
  readonly handle: FileHandle;
  readonly attributes: Attributes | null;
}

export interface Listed {
  readonly name: string;
  readonly fileid: number;
  readonly attributes: Attributes | null;
}

/** Of clients that have several routers: who answered and what it took, in words; for reports of what went wrong. */
export interface Answered {
  readonly answeredBy?: string;
}

export interface StoreClient extends AsyncDisposable {
  /** Handle of the export's root. */
  readonly root: FileHandle;
  getattr(object: FileHandle): Promise<{ readonly status: number; readonly attributes: Attributes | null }>;
  setattr(object: FileHandle, changes: NewAttributes): Promise<{ readonly status: number }>;
  lookup(directory: FileHandle, name: string): Promise<Found>;
  read(
    object: FileHandle,
    offsetBytes: number,
    countBytes: number,
  ): Promise<{ readonly status: number; readonly data: Buffer; readonly eof: boolean } & Answered>;
  /** `verifier` in hex. */
  write(
    object: FileHandle,
    offsetBytes: number,
    data: Uint8Array,
    stability: Stability,
  ): Promise<{ readonly status: number; readonly countBytes: number; readonly committed: Stability; readonly verifier: string } & Answered>;
  commit(object: FileHandle): Promise<{ readonly status: number; readonly verifier: string }>;
  create(directory: FileHandle, name: string, how: 'guarded' | 'unchecked', attributes: NewAttributes): Promise<Found>;
  mkdir(directory: FileHandle, name: string): Promise<Found>;
  remove(directory: FileHandle, name: string): Promise<{ readonly status: number }>;
  rmdir(directory: FileHandle, name: string): Promise<{ readonly status: number }>;
  rename(fromDirectory: FileHandle, fromName: string, toDirectory: FileHandle, toName: string): Promise<{ readonly status: number }>;
  link(object: FileHandle, directory: FileHandle, name: string): Promise<{ readonly status: number }>;
  /** All entries but `.` and `..`, by READDIRPLUS. @throws Error when a page has an error status. */
  list(directory: FileHandle): Promise<Listed[]>;
}
