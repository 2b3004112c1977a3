/**
 * Port: another way than uploading the log's segments to bring an object's data to the backend. Volumes have none; files have pieces
 * (server/file-driver).
 */
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { BlockReader } from './block-reader.ts';
import type { ExtentMap } from './extent-map.ts';
import type { SegmentTable } from './segment-table.ts';

export interface WriteBack {
  /** These blocks are in the log now. */
  touched(startBlock: number, blockCount: number): void;
  /**
   * Stores every touched block elsewhere than in the log and maps it there, so that segments lose their last reference. Blocks written meanwhile stay
   * in the log. Rejects as the store does; what was done until then stays, the rest is touched still.
   */
  relocate(): Promise<void>;
  /** Log bytes after which it is time for that although the object is busy. */
  readonly relocateAfterBytes: number;
}

/** What a WriteBack works on. */
export interface WriteBackObject {
  readonly uuid: ObjectUuid;
  readonly term: Term;
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly reader: BlockReader;
  /** Stores an object under its plain name (object-names.ts) and reads it back. */
  store(name: string, chunks: readonly Uint8Array[]): Promise<void>;
}

export type MakeWriteBack = (object: WriteBackObject) => WriteBack;
