/** The receiver's side of a move: the log of another router's object, copied and applied while it is written there (design section 10). */
import type { OwnerRecord } from '../../registry/ports.ts';
import { assert } from '../core/assert.ts';
import { ApplianceError } from '../core/errors.ts';
import { failPoint, reached } from '../core/fail-points.ts';
import { sameTerm } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { termOfSegment } from '../object-log/recovery.ts';
import { ReplicaLog } from '../object-log/replica-log.ts';
import { RecordFlag, RecordKind } from '../object-log/segment-codec.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { PreparedSegment, SegmentFiles } from '../object-log/segment-files.ts';
import type { DrivenObject, Replica } from '../object-router/driver-port.ts';
import type { LogPiece, LogPosition, MoveOffer } from '../object-router/peer-port.ts';
import type { ArrivedSegment } from './driven-object.ts';
import type { ObjectAssembly, ObjectBasis } from './object-assembly.ts';
import type { PagePool } from './page-pool.ts';
import { applyRecovered } from './recovered-records.ts';
import type { RecoveredState } from './recovered-records.ts';
import { SEGMENT_ROWS_KEPT } from './segment-rows.ts';

/** What is on the backend: checkpoint and the segments behind it that the root covers. */
export interface ReplicaStart {
  readonly lastSegment: number;
  readonly lastSequence: number;
  /** Of those segments. */
  readonly loggedBytes: number;
  readonly state: RecoveredState;
  /** Segment number -> row of the table. */
  readonly rows: Map<number, number>;
}

interface ReplicaComponents {
  readonly files: SegmentFiles;
  readonly pool: PagePool;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly assembly: ObjectAssembly;
  readonly registry: { readonly vpool: { readonly uuid: string } };
}

export class ObjectReplica implements Replica {
  readonly #components: ReplicaComponents;
  readonly #basis: ObjectBasis;
  readonly #offer: MoveOffer;
  readonly #log: ReplicaLog;
  readonly #rows: Map<number, number>;
  readonly #loggedBytes: number;
  /** Of what was to be copied. */
  readonly #firstSegment: number;
  #state: RecoveredState;
  /** Nothing more is to be done with it. */
  #over = false;
  /** The file of the first segment that is to be written here, made while the attempt comes to its end. */
  #next: { readonly number: number; readonly made: Promise<PreparedSegment> } | null = null;
  #settled = false;
  #turn: Promise<void> = Promise.resolve();

  constructor(components: ReplicaComponents, basis: ObjectBasis, offer: MoveOffer, start: ReplicaStart) {
    this.#components = components;
    this.#basis = basis;
    this.#offer = offer;
    // Older ones are not asked for by number any more; a large object has tens of thousands.
    this.#rows = new Map();
    for (const [number, row] of start.rows) if (number > start.lastSegment - SEGMENT_ROWS_KEPT) this.#rows.set(number, row);
    this.#state = start.state;
    this.#loggedBytes = start.loggedBytes;
    this.#firstSegment = start.lastSegment + 1;
    this.#log = new ReplicaLog(
      components.files,
      {
        vpoolUuid: components.registry.vpool.uuid,
        fileid: basis.inode.fileid,
        uuid: basis.loaded.uuid,
        attempt: basis.term,
        termOf: (number) => termOfSegment(offer.owner.root, offer.owner.term, number),
      },
      { segment: start.lastSegment + 1, lastSequence: start.lastSequence },
    );
  }

  /** It was dropped, or has become an open object, or could not. */
  get isOver(): boolean {
    return this.#settled;
  }

  get position(): LogPosition {
    return this.#log.position;
  }

  append(pieces: readonly LogPiece[]): Promise<void> {
    return this.#inTurn(async () => {
      for (const piece of pieces) {
        this.#checkUse();
        const records = await this.#log.append(piece);
        if (records.length > 0) await this.#apply(piece, records);
        failPoint('move.replica-appended');
      }
    });
  }

  /** One after the other: nobody closes a file, or the map, under a call that uses it. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  async #apply(piece: LogPiece, records: readonly DecodedRecord[]): Promise<void> {
    const { map, table } = this.#basis.loaded;
    const { clock, pool } = this.#components;
    const { unstableOpen } = this.#state;
    const segment = { number: piece.segment, term: piece.term, sizeBytes: 0, records };
    const state = await applyRecovered(map, table, this.#rows, [segment], this.#state, clock, pool.framesMax);
    let open = unstableOpen;
    for (const record of records) {
      if ((record.flags & RecordFlag.UNSTABLE) !== 0) open = true;
      else if (record.kind === RecordKind.COMMIT_MARK) open = false;
      if (record.blockCount > 0) this.#basis.writeBack?.touched(record.startBlock, record.blockCount);
    }
    this.#state = { ...state, unstableOpen: open };
  }

  sync(): Promise<number> {
    return this.#inTurn(async () => {
      this.#checkUse();
      failPoint('move.replica-before-sync');
      await this.#log.sync();
      failPoint('move.replica-synced');
      return this.#log.lastSequence;
    });
  }

  prepare(lastSegment: number): void {
    // Of an object that nobody writes to nothing is made ready: many are moved at once when a router is drained.
    if (this.#over || this.#next !== null || lastSegment < this.#firstSegment) return;
    const { inode, loaded, term } = this.#basis;
    const number = lastSegment + 1;
    const made = this.#components.files.prepare(loaded.uuid, number, term, inode.class === 'volume');
    // Whoever wants it sees it.
    made.catch(() => undefined);
    this.#next = { number, made };
  }

  /** It is not needed. */
  async #dropNext(): Promise<void> {
    const next = this.#next;
    this.#next = null;
    const prepared = await next?.made.catch(() => null);
    if (prepared === undefined || prepared === null) return;
    await prepared.file.close();
    await this.#components.files.drop(prepared.segment);
  }

  activate(owner: OwnerRecord): Promise<DrivenObject> {
    return this.#inTurn(() => this.#activate(owner));
  }

  async #activate(owner: OwnerRecord): Promise<DrivenObject> {
    this.#checkUse();
    // From here on it is this router's object, and the files are its log: what goes wrong is for a recovery, which finds them by the owner's term.
    this.#over = true;
    try {
      failPoint('move.replica-before-activate');
      await this.#log.close();
      this.#checkFit(owner);
      return this.#open(owner);
    } catch (error) {
      await this.#log.close();
      await this.#dropNext();
      this.#basis.loaded.map.close();
      throw error;
    } finally {
      this.#settled = true;
    }
  }

  #checkFit({ term, root }: OwnerRecord): void {
    const { lastSequence, position } = this.#log;
    if (!sameTerm(term, this.#basis.term) || root.checkpoint !== this.#offer.owner.root.checkpoint || position.offsetBytes !== 0)
      throw this.#unfit('it is not what the owner record speaks of');
    const closed = root.closedEpochs.at(-1);
    if (root.uploadedSegment >= position.segment || (closed !== undefined && closed.lastSequence !== lastSequence))
      throw this.#unfit(`it ends with record ${lastSequence}`);
    // What the other router said of its end was two things.
    if (this.#next !== null && this.#next.number !== position.segment)
      throw this.#unfit(`it ends before segment ${position.segment}, not ${this.#next.number}`);
  }

  #open(owner: OwnerRecord): DrivenObject {
    const { files, assembly, logger } = this.#components;
    const { loaded, inode } = this.#basis;
    const { root } = owner;
    const { lastSequence, position } = this.#log;
    const arrived = this.#log.received.map(({ replica, totalBytes, lastSequence: last }): ArrivedSegment => {
      const uploaded = replica.number <= root.uploadedSegment;
      const row = this.#rows.get(replica.number);
      if (uploaded && row !== undefined) loaded.table.setSizeBytes(row, totalBytes);
      return { segment: files.enter(replica, totalBytes), totalBytes, lastSequence: last, uploaded };
    });
    let loggedBytes = this.#loggedBytes;
    for (const { uploaded, totalBytes } of arrived) if (uploaded) loggedBytes += totalBytes;
    const opened = assembly.open(this.#basis, {
      owner,
      records: assembly.records(inode, owner.term),
      verifier: owner.verifier,
      state: this.#state,
      lastSegment: position.segment - 1,
      lastSequence,
      rows: this.#rows,
      claimed: true,
      loggedBytes,
      moved: true,
      unsealed: [],
      arrived,
    });
    // Who was held wants to write.
    if (this.#next !== null) {
      assert(this.#next.number === opened.log.nextSegment, 'a log goes on behind its last segment');
      opened.log.prepareAhead(this.#next.made);
      this.#next = null;
    } else if (arrived.length > 0) opened.log.prepareAhead();
    // What runs now cannot be taken back.
    reached('move.replica-activated');
    logger.info({ fileid: inode.fileid, object: loaded.uuid, segments: arrived.length, lastSequence }, 'an object arrived from another router');
    return opened;
  }

  async discard(): Promise<void> {
    if (this.#over) return;
    // What runs ends at its next step.
    this.#over = true;
    await this.#inTurn(async () => {
      try {
        await this.#log.close();
        await this.#dropNext();
      } finally {
        this.#basis.loaded.map.close();
        this.#settled = true;
      }
      await this.#components.files.replicas.discard(this.#basis.loaded.uuid, this.#basis.term);
    });
  }

  #checkUse(): void {
    if (this.#over) throw this.#unfit('it is used up');
  }

  #unfit(why: string): ApplianceError {
    return new ApplianceError('replica-damaged', `the copy of object ${this.#basis.loaded.uuid} cannot be used: ${why}`, { retryable: true });
  }
}
