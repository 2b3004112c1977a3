/**
 * Brings together what is stored of an object: its checkpoint and the records behind it, from the local disk and the backend. It only reads; opening
 * an object and checking it offline (fsck) both begin here.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import { StoreError } from '../../backends/object-store.ts';
import type { Inode } from '../../registry/inode.ts';
import type { OwnerRecord, Root } from '../../registry/ports.ts';
import type { Disk } from '../core/disk.ts';
import { ApplianceError } from '../core/errors.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Clock } from '../core/time.ts';
import { findLogEnd } from '../object-log/recovery.ts';
import type { LogEnd } from '../object-log/recovery.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { SegmentBytes } from '../object-log/segment-scan.ts';
import type { GarbageEntry } from './checkpoint-codec.ts';
import { ExtentMap } from './extent-map.ts';
import { formatObjectName, parseObjectName } from './object-names.ts';
import { decodeObjectState } from './object-state.ts';
import { openCheckpoint } from './open-checkpoint.ts';
import type { CheckpointReader } from './open-checkpoint.ts';
import type { PagePool } from './page-pool.ts';
import type { PageSource } from './page-residence.ts';
import { applyRecovered } from './recovered-records.ts';
import type { RecoveredState } from './recovered-records.ts';
import { SegmentTable } from './segment-table.ts';
import type { RowIds } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

const EMPTY_ROOT: Root = { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };

/** What the root's checkpoint says, before the records behind it are applied. The map is the caller's to close. */
export interface Loaded {
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly state: RecoveredState;
  readonly sequence: number;
  readonly nextSegment: number;
  readonly checkpointNumber: number;
  readonly checkpointRow: number;
  readonly garbage: readonly GarbageEntry[];
}

export interface ObjectLoaderComponents {
  readonly disk: Disk;
  readonly files: SegmentFiles;
  readonly store: ObjectStore;
  readonly pool: PagePool;
  readonly rowIds: RowIds;
  readonly clock: Clock;
}

export class ObjectLoader {
  readonly #components: ObjectLoaderComponents;

  constructor(components: ObjectLoaderComponents) {
    this.#components = components;
  }

  /** The checkpoint that the root names, or an empty map. */
  load(inode: Inode, uuid: ObjectUuid, names: StorageNames, owner: OwnerRecord | null): Promise<Loaded> {
    const name = owner?.root.checkpoint ?? null;
    return name === null ? Promise.resolve(this.#emptyMap(inode, uuid, names)) : this.#load(uuid, names, name);
  }

  /** The end of the log behind it. */
  findEnd(uuid: ObjectUuid, names: StorageNames, owner: OwnerRecord | null, loaded: Loaded): Promise<LogEnd> {
    return findLogEnd(
      {
        disk: this.#components.disk,
        files: this.#components.files,
        remote: { open: (number, term) => this.#remoteSegment(uuid, names, number, term) },
      },
      { uuid, ownerTerm: owner?.term ?? { generation: 0, counter: 0, nonce: '0000000000000000' }, root: owner?.root ?? EMPTY_ROOT },
      { segment: loaded.nextSegment, sequence: loaded.sequence, unstableOpen: loaded.state.unstableOpen },
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
    const state = await applyRecovered(loaded.map, table, rows, end.segments, loaded.state, this.#components.clock);
    return { state, rows };
  }

  #emptyMap(inode: Inode, uuid: ObjectUuid, names: StorageNames): Loaded {
    const table = new SegmentTable(this.#components.rowIds);
    const map = new ExtentMap({ pool: this.#components.pool, table, source: this.#pageSource(uuid, names, table) });
    const state = { sizeBytes: inode.sizeBytes, atime: inode.atime, mtime: inode.mtime, ctime: inode.ctime, unstableOpen: false };
    return { map, table, state, sequence: 0, nextSegment: 1, checkpointNumber: 0, checkpointRow: 0, garbage: [] };
  }

  async #load(uuid: ObjectUuid, names: StorageNames, name: string): Promise<Loaded> {
    const parsed = parseObjectName(name);
    if (parsed === null || parsed.kind !== 'checkpoint')
      throw new ApplianceError('registry-corrupt', `the root of object ${uuid} names "${name}", which is no checkpoint`);
    const opened = await openCheckpoint({
      reader: this.#checkpointReader(uuid, names, name),
      pool: this.#components.pool,
      rowIds: this.#components.rowIds,
      sourceOf: (table) => this.#pageSource(uuid, names, table),
    });
    const { header } = opened;
    if (header.objectUuid !== uuid || header.number !== parsed.number || !sameTerm(header.term, parsed.term)) {
      opened.map.close();
      throw new ApplianceError('checkpoint-corrupt', `checkpoint ${name} says that it is number ${header.number} of object ${header.objectUuid}`);
    }
    return {
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

  /** The root says that the checkpoint exists: absence means not visible yet. */
  #checkpointReader(uuid: ObjectUuid, names: StorageNames, name: string): CheckpointReader {
    const bucket = names.bucket(uuid, '');
    const object = names.object(uuid, '', name);
    return {
      description: `${bucket}/${object}`,
      size: async () => {
        const head = await this.#components.store.head(bucket, object);
        if (head.kind === 'absent') throw new StoreError('retry', `checkpoint ${bucket}/${object} is not visible on the backend`);
        return head.sizeBytes;
      },
      read: (offsetBytes, lengthBytes) => this.#readObject(bucket, object, offsetBytes, lengthBytes),
    };
  }

  #pageSource(uuid: ObjectUuid, names: StorageNames, table: SegmentTable): PageSource {
    return {
      read: (row, offsetBytes, lengthBytes) => {
        const owner = (table.objectUuid(row) === '' ? uuid : table.objectUuid(row)) as ObjectUuid;
        const bucket = names.bucket(owner, table.bucket(row));
        return this.#readObject(bucket, names.object(owner, table.bucket(row), table.objectName(row)), offsetBytes, lengthBytes);
      },
    };
  }

  async #remoteSegment(uuid: ObjectUuid, names: StorageNames, number: number, term: Term): Promise<SegmentBytes> {
    const bucket = names.bucket(uuid, '');
    const object = names.object(uuid, '', formatObjectName({ kind: 'segment', number, term }));
    const head = await this.#components.store.head(bucket, object);
    if (head.kind === 'absent') throw new StoreError('retry', `segment ${bucket}/${object} is not visible on the backend`);
    return { sizeBytes: head.sizeBytes, read: (offsetBytes, lengthBytes) => this.#readObject(bucket, object, offsetBytes, lengthBytes) };
  }

  async #readObject(bucket: string, object: string, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const answer = await this.#components.store.get(bucket, object, { offsetBytes, lengthBytes });
    if (answer.kind === 'absent') throw new StoreError('retry', `${bucket}/${object} is not visible on the backend`);
    if (answer.bytes.length !== lengthBytes) throw new StoreError('corrupt', `${bucket}/${object} ends before byte ${offsetBytes + lengthBytes}`);
    return answer.bytes;
  }
}

/** Same epoch and same nonce. */
export function sameTerm(a: Term, b: Term): boolean {
  return a.generation === b.generation && a.counter === b.counter && a.nonce === b.nonce;
}
