/**
 * The local disk as a port: callback style where the hot path goes, promises elsewhere. The node implementation is
 * `node-disk.ts`; tests wrap it with faults (ENOSPC, EIO, short writes, slow syncs) and simulation replaces it.
 *
 * Errors are Node system errors (`code` ENOSPC, EIO, EROFS, ENOENT ...), passed through.
 */
export interface Disk {
  /** Opens an existing file for reading and writing. */
  open(path: string, mode: 'read' | 'read-write'): Promise<DiskFile>;
  /** Creates a file; fails with EEXIST when it is there. */
  create(path: string): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Size of a file in bytes. */
  size(path: string): Promise<number>;
  /** Names in a directory, unordered. */
  list(directory: string): Promise<string[]>;
  /** Creates a directory and its parents, durable when the promise resolves. */
  makeDirectory(directory: string): Promise<void>;
  /** Makes creates, renames and unlinks in `directory` durable. */
  syncDirectory(directory: string): Promise<void>;
  /** Free and total bytes of the file system that holds `path`. */
  space(path: string): Promise<{ freeBytes: number; totalBytes: number }>;
}

export interface DiskFile {
  readonly path: string;
  /** Size in bytes at this moment. */
  size(): Promise<number>;
  /**
   * Writes `buffers` one after another at `offsetBytes`, all of them or fails; borrowed until `done`.
   * Small writes may be done at once (then `done` is called before this returns); large ones run in the thread pool.
   * Durable only after `sync`.
   */
  write(offsetBytes: number, buffers: readonly Uint8Array[], done: (error: Error | null) => void): void;
  /** fdatasync. On error nothing is known about any write since the last good sync: never call it again on this file. */
  sync(done: (error: Error | null) => void): void;
  /** Reads into `target` from `offsetBytes`; `bytesRead` is short only at the end of the file. May be done at once, as a write. */
  read(offsetBytes: number, target: Uint8Array, done: (error: Error | null, bytesRead: number) => void): void;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}
