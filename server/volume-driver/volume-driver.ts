/**
 * Opens objects: claims them in the registry, loads the checkpoint, finds the end of the log and applies what is behind the checkpoint
 * (design section 6, Recovery). Volumes and files differ in names, preallocation and write-back only.
 */
import type { ObjectStore } from '../../backends/object-store.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import type { Inode } from '../../registry/inode.ts';
import type { ClosedEpoch, Mutation, OwnerRecord, Registry } from '../../registry/ports.ts';
import { assert } from '../core/assert.ts';
import type { Disk } from '../core/disk.ts';
import { ApplianceError } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { Histogram } from '../core/histogram.ts';
import type { Incarnation, ObjectUuid, RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import { timestampOf } from '../core/time.ts';
import { ObjectLog } from '../object-log/object-log.ts';
import type { FoundSegment, LogEnd } from '../object-log/recovery.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import { scanEveryRecord, scanLocalSegment, sealByCopy } from '../object-log/segment-scan.ts';
import type { DrivenObject, ObjectDriver } from '../object-router/driver-port.ts';
import { BackendReads } from './backend-reads.ts';
import { BlockObject } from './block-object.ts';
import { BlockReader } from './block-reader.ts';
import { OpenObject } from './driven-object.ts';
import type { UnsealedSegment } from './driven-object.ts';
import { ObjectKeeper } from './object-keeper.ts';
import { ObjectLoader, sameTerm } from './object-loader.ts';
import type { Loaded } from './object-loader.ts';
import { ObjectRecords } from './object-records.ts';
import type { PagePool } from './page-pool.ts';
import { ReadAheadBudget } from './read-ahead-budget.ts';
import { ReadAhead, ReadAheadStatistics } from './read-ahead.ts';
import { SegmentRecall } from './segment-recall.ts';
import type { RowIds } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';
import type { StoredWriter } from './stored-writer.ts';
import type { WriteAdmission } from './write-admission.ts';
import type { MakeWriteBack, WriteBack } from './write-back.ts';

export interface VolumeDriverSettings {
  readonly segmentBytes: number;
  readonly sealAfterMs: number;
  readonly checkpointAfterBytes: number;
  readonly graceTimeMs: number;
  /** How long a write waits at the dirty bound before the client is asked to come back. */
  readonly patienceMs: number;
  /** Bytes that may be read ahead and not read yet, all objects together. Default 128 MiB; 0: no reading ahead. */
  readonly readAheadBytesMax?: number;
}

const READ_AHEAD_BYTES_MAX = 128 * 1024 * 1024;
/** Of the 16 requests that the backend gets at a time: the others are for reads that nobody foresaw. */
const READ_AHEAD_REQUESTS_MAX = 12;

export interface VolumeDriverComponents {
  readonly disk: Disk;
  readonly files: SegmentFiles;
  readonly store: ObjectStore;
  readonly writer: StoredWriter;
  readonly cache: BlockCache;
  readonly pool: PagePool;
  readonly rowIds: RowIds;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly admission: WriteAdmission;
  readonly syncLatency: Histogram;
  /** By class. */
  readonly writeBack: { readonly volume: MakeWriteBack | null; readonly file: MakeWriteBack | null };
  readonly names: { readonly volume: StorageNames; readonly file: StorageNames };
}

export class VolumeDriver implements ObjectDriver {
  /** What is asked of the backend again, and what it does not have right. */
  readonly reads: BackendReads;
  readonly readAheadBudget: ReadAheadBudget;
  /** Closed before the segment files are. */
  readonly recall: SegmentRecall;
  readonly readAheadStatistics = new ReadAheadStatistics();
  readonly #components: VolumeDriverComponents;
  readonly #loader: ObjectLoader;
  readonly #settings: VolumeDriverSettings;
  readonly #self: { router: RouterId; incarnation: Incarnation };

  constructor(components: VolumeDriverComponents, settings: VolumeDriverSettings, self: { router: RouterId; incarnation: Incarnation }) {
    this.#components = components;
    this.reads = new BackendReads({ clock: components.clock, logger: components.logger });
    this.recall = new SegmentRecall(components);
    this.#loader = new ObjectLoader({ ...components, reads: this.reads });
    this.readAheadBudget = new ReadAheadBudget({
      bytesMax: settings.readAheadBytesMax ?? READ_AHEAD_BYTES_MAX,
      requestsMax: READ_AHEAD_REQUESTS_MAX,
    });
    this.#settings = settings;
    this.#self = self;
  }

  async open(inode: Inode): Promise<DrivenObject> {
    const { registry } = this.#components;
    const uuid = inode.uuid;
    assert(uuid !== null && (inode.class === 'file' || inode.class === 'volume'), `inode ${inode.fileid} is not an object`);
    const names = this.#components.names[inode.class];
    const owner = await registry.ownership.owner(inode.fileid);
    const loaded = await this.#loader.load(inode, uuid, names, owner);
    try {
      const end = await this.#loader.findEnd(uuid, names, owner, loaded);
      if (end.kind === 'damaged') {
        if (owner !== null) {
          await registry.ownership.update(this.#mutation(), inode.fileid, owner.term, { state: { kind: 'recovering', reason: end.reason } });
        }
        throw new ApplianceError('object-damaged', `object ${inode.fileid} (${uuid}) cannot be served: ${end.reason}`);
      }
      const durable = await this.#makeDurable(end, owner?.root.uploadedSegment ?? 0);
      return await this.#start(inode, uuid, names, owner, loaded, durable);
    } catch (error) {
      loaded.map.close();
      throw error;
    }
  }

  /**
   * What a recovery found may lie in the page cache only, if just the process died, and a sync that failed before it did makes later ones of the same
   * file worthless. So before anybody is told that it is there, what is not proven to be durable is copied to a new file.
   */
  async #makeDurable(end: LogEnd & { kind: 'found' }, uploadedSegment: number): Promise<LogEnd & { kind: 'found' }> {
    const { disk, files, random, registry } = this.#components;
    const segments: FoundSegment[] = [];
    for (const found of end.segments) {
      const { local } = found;
      if (local === null || found.scan.header === null || found.number <= uploadedSegment || found.lastSequence <= end.provenSequence) {
        segments.push(found);
        continue;
      }
      const scan = await scanEveryRecord(disk, files, local);
      if ((scan.records.at(-1)?.sequence ?? 0) < (found.records.at(-1)?.sequence ?? 0))
        throw new ApplianceError('block-corrupt', `${local.path} does not read as it did a moment ago: the disk is failing`, { retryable: true });
      await sealByCopy({ disk, files, random, vpoolUuid: registry.vpool.uuid }, local, scan, found.lastSequence);
      segments.push({ ...found, scan: await scanLocalSegment(disk, files, local) });
    }
    return { ...end, segments };
  }

  async #start(
    inode: Inode,
    uuid: ObjectUuid,
    names: StorageNames,
    owner: OwnerRecord | null,
    loaded: Loaded,
    end: LogEnd & { kind: 'found' },
  ): Promise<OpenObject> {
    const { files, clock, random, logger, registry } = this.#components;
    const claimed = await this.#claim(inode, owner, end);
    failPoint('recovery.after-close');
    for (const leftover of end.leftovers) await files.drop(leftover);
    const { state, rows } = await this.#loader.apply(loaded, end);

    const term = claimed.term;
    const records = new ObjectRecords({ namespace: registry.namespace, ownership: registry.ownership, clock }, this.#self.incarnation, inode, term);
    const verifier = end.unstableOpen ? random.bytes(8) : claimed.verifier;
    if (end.unstableOpen) await records.update({ verifier });
    if (owner?.state.kind === 'recovering') await records.update({ state: { kind: 'running' } });

    let opened: OpenObject | null = null;
    let keeper: ObjectKeeper | null = null;
    let writeBack: WriteBack | null = null;
    const reader = new BlockReader({
      files,
      store: this.#components.store,
      reads: this.reads,
      recall: this.recall,
      cache: this.#components.cache,
      names,
      logger,
    });
    const object = new BlockObject(
      {
        map: loaded.map,
        table: loaded.table,
        reader,
        readAhead: new ReadAhead(
          { ...this.#components, uuid, map: loaded.map, table: loaded.table, names, budget: this.readAheadBudget, recall: this.recall },
          this.readAheadStatistics,
        ),
        cache: this.#components.cache,
        admission: this.#components.admission,
        hooks: {
          confirmUnprotected: () => keeper?.confirmUnprotected(),
          touched: (startBlock, blockCount) => writeBack?.touched(startBlock, blockCount),
        },
      },
      { uuid, term },
      { ...state, unstableOpen: end.unstableOpen },
      end.lastSequence,
      { patienceMs: this.#settings.patienceMs },
    );
    for (const [number, row] of rows) object.adoptSegment(number, row);
    const log = new ObjectLog(
      {
        files,
        clock,
        random,
        logger,
        syncLatency: this.#components.syncLatency,
        events: {
          apply: (record) => object.apply(record),
          opened: (segment) => object.segmentOpened(segment),
          sealed: (segment, totalBytes, lastSequence) => keeper?.sealed(segment, totalBytes, lastSequence),
          fault: (damaged, durableSequence, kept) => opened?.fault(damaged, durableSequence, kept),
          renewVerifier: async () => opened?.renewVerifier(),
          relocate: (records) => object.relocate(records),
          relocated: () => opened?.relocated(),
        },
      },
      { vpoolUuid: registry.vpool.uuid, objectUuid: uuid, term, cut: claimed.root.closedEpochs.at(-1) ?? null },
      { segmentBytes: this.#settings.segmentBytes, preallocate: inode.class === 'volume', patienceMs: this.#settings.patienceMs },
      { nextSegment: Math.max(end.lastSegment, claimed.root.uploadedSegment) + 1, nextSequence: end.lastSequence + 1 },
    );
    object.attachLog(log);
    const make = this.#components.writeBack[inode.class === 'volume' ? 'volume' : 'file'];
    if (make !== null) {
      const store = (name: string, chunks: readonly Uint8Array[]): Promise<void> =>
        this.#components.writer.put(names.bucket(uuid, ''), names.object(uuid, '', name), { kind: 'bytes', chunks });
      writeBack = make({ uuid, term, map: loaded.map, table: loaded.table, reader, store });
      for (const segment of end.segments)
        for (const record of segment.records) if (record.blockCount > 0) writeBack.touched(record.startBlock, record.blockCount);
    }
    keeper = new ObjectKeeper(
      {
        store: this.#components.store,
        writer: this.#components.writer,
        files,
        names,
        records,
        clock,
        logger,
        object,
        log,
        writeBack,
        pagesPressed: () => this.#components.pool.isPressed,
      },
      {
        vpoolUuid: registry.vpool.uuid,
        sealAfterMs: this.#settings.sealAfterMs,
        checkpointAfterBytes: this.#settings.checkpointAfterBytes,
        graceTimeMs: this.#settings.graceTimeMs,
      },
      {
        owner: claimed,
        checkpointNumber: loaded.checkpointNumber,
        checkpointSequence: loaded.sequence,
        checkpointRow: loaded.checkpointRow,
        garbage: loaded.garbage,
      },
    );
    const unsealed: UnsealedSegment[] = [];
    for (const segment of end.segments) {
      const { local } = segment;
      if (local === null) continue;
      if (segment.number <= claimed.root.uploadedSegment) await files.release(local);
      else if (segment.scan.sealed && (segment.scan.records.at(-1)?.sequence ?? 0) <= segment.lastSequence) {
        files.grow(local, segment.scan.endOffset);
        keeper.sealed(local, segment.scan.endOffset, segment.lastSequence);
      } else unsealed.push({ segment: local, lastSequence: segment.lastSequence });
    }
    // Below the checkpoint nothing local is needed for recovery any more: what is there serves reads.
    for (const local of files.segmentsOf(uuid))
      if (local.number < loaded.nextSegment && local.number <= claimed.root.uploadedSegment) await files.release(local);
    opened = new OpenObject(
      { disk: this.#components.disk, files, random, vpoolUuid: registry.vpool.uuid, logger, records },
      { fileid: inode.fileid, object, log, keeper, verifier, unsealed },
    );
    failPoint('recovery.before-open');
    try {
      await this.#firstRecords(inode, opened, end);
    } catch (error) {
      // Nobody will use this log: it must not go on beside that of the next attempt.
      await opened.close();
      throw error;
    }
    if (end.segments.length > 0) {
      logger.info(
        { fileid: inode.fileid, object: uuid, segments: end.segments.length, lastSequence: end.lastSequence, verifierChanged: end.unstableOpen },
        'the log of an object was recovered',
      );
    }
    return opened;
  }

  /** The contents a flipped file had as an inline file; the mark that ends the window of lost UNSTABLE data. */
  async #firstRecords(inode: Inode, opened: OpenObject, end: LogEnd & { kind: 'found' }): Promise<void> {
    const now = timestampOf(this.#components.clock.wallMs());
    if (inode.inlineBytes !== null && inode.inlineBytes.length > 0 && end.lastSequence === 0) {
      // Times and size stay what the registry says: this is not a modification.
      const written = await opened.object.write(0, inode.inlineBytes.length, [Buffer.from(inode.inlineBytes)], true, inode.mtime);
      if (written.kind === 'refused') throw written.error;
    }
    if (end.unstableOpen) {
      const marked = await opened.object.commit(now);
      if (marked !== null) throw marked.error;
    }
  }

  async #claim(inode: Inode, owner: OwnerRecord | null, end: LogEnd & { kind: 'found' }): Promise<OwnerRecord> {
    const wroteSomething = owner !== null && end.segments.some((segment) => sameTerm(segment.term, owner.term));
    const closing: ClosedEpoch | null = wroteSomething ? { term: owner.term, lastSegment: end.lastSegment, lastSequence: end.lastSequence } : null;
    const nonce = this.#components.random.bytes(8).toString('hex');
    failPoint('object.before-claim');
    const outcome = await this.#components.registry.ownership.claim(
      this.#mutation(),
      inode.fileid,
      this.#self.router,
      owner?.term ?? null,
      closing,
      nonce,
    );
    failPoint('object.after-claim');
    if (outcome.kind === 'done') return outcome.owner;
    if (outcome.kind === 'gone') throw new ApplianceError('object-gone', `object ${inode.fileid} was removed`);
    throw new ApplianceError('fenced', `object ${inode.fileid} was claimed by router ${outcome.owner.router} meanwhile`, { retryable: true });
  }

  #mutation(): Mutation {
    return { operationId: null, incarnation: this.#self.incarnation, now: timestampOf(this.#components.clock.wallMs()), notAfterMs: Infinity };
  }
}
