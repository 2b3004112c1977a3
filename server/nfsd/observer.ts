/** What nfsd tells about each NFS call; metrics implement it. Called on the hot path: no allocation, no I/O. */
export interface NfsObserver {
  started(procedure: number): void;
  /** `status`: nfsstat3, or -1 when the call was refused at the RPC level. Bytes: READ data sent, WRITE data received. */
  finished(procedure: number, status: number, latencyMs: number, bytesRead: number, bytesWritten: number): void;
}
