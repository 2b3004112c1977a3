/**
 * Brings together what is stored of an object: its checkpoint and the records behind it, from the local disk and the backend. It only reads; opening
 * an object and checking it offline (fsck) both begin here.
 */
import { StoreError } from '../../backends/object-store.ts';
import type { ObjectStore } from '../../backends/object-store.ts';
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord, Root } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import { sameTerm } from '../core/ids.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { findLogEnd } from '../object-log/recovery.ts';
import type { LogEnd } from '../object-log/recovery.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import { readSealed, scanBytes } from '../object-log/segment-scan.ts';
import type { SegmentBytes, SegmentScan } from '../object-log/segment-scan.ts';
import { BackendReads } from './backend-reads.ts';
import type { Look } from './backend-reads.ts';
import type { GarbageEntry } from './checkpoint-codec.ts';
import { ExtentMap } from './extent-map.ts';
import { formatObjectName, parseObjectName } from './object-names.ts';
import type { ObjectName } from './object-names.ts';
import { decodeObjectState } from './object-state.ts';
import { openCheckpoint } from './open-checkpoint.ts';
import type { CheckpointReader, OpenedCheckpoint } from './open-checkpoint.ts';
import type { PagePool } from './page-pool.ts';
import type { PageSource } from './page-residence.ts';
import { applyRecovered } from './recovered-records.ts';
import type { RecoveredState } from './recovered-records.ts';
import { SegmentTable } from './segment-table.ts';
import type { RowIds } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';
import { StoredPages } from './stored-pages.ts';

/** Bytes of a checkpoint that are read at once when it is opened. */
const TAIL_BYTES = 256 * 1024;

const EMPTY_ROOT: Root = { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };

/** What the root's checkpoint says, before the records behind it are applied. The map is the caller's to close. */
export interface Loaded {
  readonly uuid: ObjectUuid;
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly state: RecoveredState;
  readonly sequence: number;
  readonly nextSegment: number;
  readonly checkpointNumber: number;
  readonly checkpointRow: number;
  readonly garbage: readonly GarbageEntry[];
}

type ScannedBytes = SegmentBytes & { readonly scan?: SegmentScan };

export interface ObjectLoaderComponents {
  readonly disk: Disk;
  readonly files: SegmentFiles;
  readonly store: ObjectStore;
  readonly pool: PagePool;
  readonly rowIds: RowIds;
  readonly clock: Clock;
  /** Default: one that takes for damaged what is wrong after some attempts. */
  readonly reads?: BackendReads;
}

export class ObjectLoader {
  readonly #components: ObjectLoaderComponents;
  readonly #reads: BackendReads;
  /** Of whoever has long work to do last. */
  #lastTurn: Promise<void> = Promise.resolve();

  constructor(components: ObjectLoaderComponents) {
    this.#components = components;
    this.#reads = components.reads ?? new BackendReads({ clock: components.clock, logger: silentLogger }, { damagedAfterMs: 0 });
  }

  /** The checkpoint that the root names, or an empty map. */
  load(inode: Inode, uuid: ObjectUuid, names: StorageNames, owner: OwnerRecord | null): Promise<Loaded> {
    const name = owner?.root.checkpoint ?? null;
    return name === null ? Promise.resolve(this.#emptyMap(inode, uuid, names)) : this.#load(uuid, names, name);
  }

  /** The end of the log behind it; of its first segments if `upTo` says that others are to come from elsewhere. */
  findEnd(uuid: ObjectUuid, names: StorageNames, owner: OwnerRecord | null, loaded: Loaded, upTo = Infinity): Promise<LogEnd> {
    return findLogEnd(
      {
        disk: this.#components.disk,
        files: this.#components.files,
        remote: { open: (number, term) => this.#remoteSegment(uuid, names, number, term) },
        turn: () => this.#turn(),
      },
      { uuid, ownerTerm: owner?.term ?? { generation: 0, counter: 0, nonce: '0000000000000000' }, root: owner?.root ?? EMPTY_ROOT },
      { segment: loaded.nextSegment, sequence: loaded.sequence, unstableOpen: loaded.state.unstableOpen },
      upTo,
    );
  }

  /** Applies the records behind the checkpoint. Returns size and times, and the table row of every segment of the object. */
  async apply(loaded: Loaded, end: LogEnd & { kind: 'found' }): Promise<{ state: RecoveredState; rows: Map<number, number> }> {
    const { table } = loaded;
    const rows = new Map<number, number>();
    const terms = new Map(end.segments.map((segment) => [segment.number, segment.term]));
    for (const row of table.rows()) {
      if (table.kind(row) !== 'segment' || table.objectUuid(row) !== '') continue;
      const number = table.number(row);
      const term = terms.get(number);
      // Begun when the checkpoint was made, and lost without a record: the number belongs to a later term now, or to none.
      if (number >= loaded.nextSegment && table.live(row) === 0 && (term === undefined || !sameTerm(term, table.term(row)))) table.free(row);
      else rows.set(number, row);
    }
    const segments = end.segments.map((segment) => ({ ...segment, sizeBytes: segment.local === null ? segment.scan.endOffset : 0 }));
    const state = await applyRecovered(loaded.map, table, rows, segments, loaded.state, this.#components.clock, this.#components.pool.framesMax);
    return { state, rows };
  }

  /** One in each turn of the event loop: several segments arrive at once, and clients of other objects wait. */
  #turn(): Promise<void> {
    this.#lastTurn = this.#lastTurn.then(() => new Promise((resolve) => this.#components.clock.soon(resolve)));
    return this.#lastTurn;
  }

  #emptyMap(inode: Inode, uuid: ObjectUuid, names: StorageNames): Loaded {
    const table = new SegmentTable(this.#components.rowIds);
    const map = new ExtentMap({ pool: this.#components.pool, table, source: this.#pageSource(uuid, names, table) });
    const state = { sizeBytes: inode.sizeBytes, atime: inode.atime, mtime: inode.mtime, ctime: inode.ctime, unstableOpen: false };
    return { uuid, map, table, state, sequence: 0, nextSegment: 1, checkpointNumber: 0, checkpointRow: 0, garbage: [] };
  }

  async #load(uuid: ObjectUuid, names: StorageNames, name: string): Promise<Loaded> {
    const parsed = parseObjectName(name);
    if (parsed === null || parsed.kind !== 'checkpoint')
      throw new ApplianceError('registry-corrupt', `the root of object ${uuid} names "${name}", which is no checkpoint`);
    const opened = await this.#reads.ask(`checkpoint ${names.bucket(uuid, '')}/${names.object(uuid, '', name)}`, 'checkpoint-corrupt', () =>
      this.#openCheckpoint(uuid, names, name, parsed),
    );
    const { header } = opened;
    return {
      uuid,
      map: opened.map,
      table: opened.table,
      state: { ...decodeObjectState(header.attributes), sizeBytes: header.objectSizeBytes },
      sequence: header.sequence,
      nextSegment: header.nextSegment,
      checkpointNumber: header.number,
      checkpointRow: opened.ownRow,
      garbage: opened.garbage,
    };
  }

  /** One look: every read of it is a new one, so that a wrong answer is not believed twice. */
  async #openCheckpoint(uuid: ObjectUuid, names: StorageNames, name: string, parsed: ObjectName): Promise<Look<OpenedCheckpoint>> {
    const bucket = names.bucket(uuid, '');
    const object = names.object(uuid, '', name);
    const head = await this.#components.store.head(bucket, object);
    if (head.kind === 'absent') return head;
    let absent = false;
    const get = async (offsetBytes: number, lengthBytes: number): Promise<Buffer> => {
      const answer = await this.#components.store.get(bucket, object, { offsetBytes, lengthBytes });
      absent ||= answer.kind === 'absent';
      // What is not there is short: the opening ends, and is told from a wrong one by the flag.
      return answer.kind === 'absent' ? Buffer.alloc(0) : answer.bytes;
    };
    // The manifest is at the end and read in small pieces: most are whole in the first answer.
    const tailOffset = Math.max(0, head.sizeBytes - TAIL_BYTES);
    const tail = await get(tailOffset, head.sizeBytes - tailOffset);
    const reader: CheckpointReader = {
      description: `${bucket}/${object}`,
      size: () => Promise.resolve(head.sizeBytes),
      read: async (offsetBytes, lengthBytes) => {
        if (offsetBytes < tailOffset) return get(offsetBytes, lengthBytes);
        return tail.subarray(offsetBytes - tailOffset, offsetBytes - tailOffset + lengthBytes);
      },
    };
    try {
      const opened = await openCheckpoint({
        reader,
        pool: this.#components.pool,
        rowIds: this.#components.rowIds,
        sourceOf: (table) => this.#pageSource(uuid, names, table),
      });
      const { header } = opened;
      if (header.objectUuid === uuid && header.number === parsed.number && sameTerm(header.term, parsed.term))
        return { kind: 'right', value: opened };
      opened.map.close();
      return { kind: 'wrong', message: `says that it is number ${header.number} of object ${header.objectUuid}` };
    } catch (error) {
      if (errorCode(error) !== 'checkpoint-corrupt') throw error;
      return absent ? { kind: 'absent' } : { kind: 'wrong', message: `is damaged: ${(error as Error).message}` };
    }
  }

  #pageSource(uuid: ObjectUuid, names: StorageNames, table: SegmentTable): PageSource {
    return new StoredPages({ store: this.#components.store, reads: this.#reads, names }, uuid, table);
  }

  async #remoteSegment(uuid: ObjectUuid, names: StorageNames, number: number, term: Term): Promise<ScannedBytes> {
    try {
      return await this.#askForSegment(uuid, names, number, term);
    } catch (error) {
      if (errorCode(error) !== 'segment-corrupt') throw error;
      // The recovery says what it means that there is none, and the object keeps the reason.
      return { sizeBytes: 0, read: () => Promise.resolve(Buffer.alloc(0)) };
    }
  }

  /** Records of a segment of the backend with the calls that they name, which its index does not: it is read as a whole. Rejects with `segment-corrupt` when it is damaged. */
  readEveryRecord(uuid: ObjectUuid, names: StorageNames, number: number, term: Term): Promise<readonly DecodedRecord[]> {
    const bucket = names.bucket(uuid, '');
    const object = names.object(uuid, '', formatObjectName({ kind: 'segment', number, term }));
    return this.#reads.ask(`segment ${bucket}/${object}`, 'segment-corrupt', async (): Promise<Look<readonly DecodedRecord[]>> => {
      const head = await this.#components.store.head(bucket, object);
      if (head.kind === 'absent') return head;
      const answer = await this.#components.store.get(bucket, object, { offsetBytes: 0, lengthBytes: head.sizeBytes });
      if (answer.kind === 'absent') return answer;
      await this.#turn();
      const scan = scanBytes(answer.bytes, { uuid, number, term });
      return scan.sealed ? { kind: 'right', value: scan.records } : { kind: 'wrong', message: 'is not the sealed segment that it should be' };
    });
  }

  /** Its three reads are checked together before anybody sees them: what does not belong together, or is cut, is asked for again. */
  #askForSegment(uuid: ObjectUuid, names: StorageNames, number: number, term: Term): Promise<ScannedBytes> {
    const bucket = names.bucket(uuid, '');
    const object = names.object(uuid, '', formatObjectName({ kind: 'segment', number, term }));
    return this.#reads.ask(`segment ${bucket}/${object}`, 'segment-corrupt', async (): Promise<Look<ScannedBytes>> => {
      const head = await this.#components.store.head(bucket, object);
      if (head.kind === 'absent') return head;
      let absent = false;
      const read = new Map<string, Buffer>();
      const bytes: SegmentBytes = {
        sizeBytes: head.sizeBytes,
        read: async (offsetBytes, lengthBytes) => {
          const key = `${offsetBytes}+${lengthBytes}`;
          const known = read.get(key);
          if (known !== undefined) return known;
          const answer = await this.#components.store.get(bucket, object, { offsetBytes, lengthBytes });
          if (answer.kind === 'found' && answer.bytes.length === lengthBytes) {
            read.set(key, answer.bytes);
            return answer.bytes;
          }
          absent = answer.kind === 'absent';
          throw new StoreError('corrupt', `the answer for ${lengthBytes} bytes at ${offsetBytes} is ${absent ? 'that it is not there' : 'short'}`);
        },
      };
      try {
        const scan = await readSealed(bytes, { uuid, number, term }, () => this.#turn());
        if (scan !== null) return { kind: 'right', value: { ...bytes, scan } };
        return { kind: 'wrong', message: 'is not the sealed segment that it should be' };
      } catch (error) {
        if (absent) return { kind: 'absent' };
        throw error;
      }
    });
  }
}
