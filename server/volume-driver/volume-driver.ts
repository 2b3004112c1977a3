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
import { ApplianceError, errorCode } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { Histogram } from '../core/histogram.ts';
import { sameTerm } from '../core/ids.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import { timestampOf } from '../core/time.ts';
import { settleForeign } from '../object-log/foreign-segments.ts';
import type { FoundSegment, LogEnd } from '../object-log/recovery.ts';
import type { DecodedRecord } from '../object-log/segment-codec.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import { scanEveryRecord, scanLocalSegment, sealByCopy } from '../object-log/segment-scan.ts';
import type { DrivenObject, FormerOwner, ObjectDriver, Replica } from '../object-router/driver-port.ts';
import type { MoveOffer } from '../object-router/peer-port.ts';
import { BackendReads } from './backend-reads.ts';
import type { OpenObject, UnsealedSegment } from './driven-object.ts';
import { ObjectAssembly } from './object-assembly.ts';
import { ObjectLoader } from './object-loader.ts';
import type { Loaded } from './object-loader.ts';
import { ObjectReplica } from './object-replica.ts';
import type { PagePool } from './page-pool.ts';
import { ReadAheadBudget } from './read-ahead-budget.ts';
import { ReadAheadStatistics } from './read-ahead.ts';
import { SegmentRecall } from './segment-recall.ts';
import type { RowIds } from './segment-table.ts';
import type { SealedSegment } from './segment-uploads.ts';
import type { StorageNames } from './storage-names.ts';
import type { StoredWriter } from './stored-writer.ts';
import { putTermClaim } from './term-claim.ts';
import type { WriteAdmission } from './write-admission.ts';
import type { MakeWriteBack, WriteBack } from './write-back.ts';

export interface VolumeDriverSettings {
  readonly segmentBytes: number;
  readonly sealAfterMs: number;
  readonly checkpointAfterBytes: number;
  readonly graceTimeMs: number;
  /** How long a write waits at the dirty bound before the client is asked to come back. */
  readonly patienceMs: number;
  /** How long nothing was written before an object is said to be clean, so that another router may take it over. Default 0. */
  readonly restMs?: number;
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
  /**
   * Told of calls that a log has and that were perhaps never answered: by a recovery of all that it finds, when they are durable, not before, and before the epoch is
   * closed, from when on the log does not say which they are; of a shrink that drops its blocks still, which may be sealed before it is answered. A process that dies in the recovery must not make its next life do them again (decision 0035). What it is told outlives the process.
   */
  readonly recovered?: (fileid: FileId, calls: readonly Uint32Array[]) => void;
  /**
   * Asked before records get out of the reach of a recovery: what is remembered of completed calls of the object outlives a power cut when it resolves. `durable` makes the
   * log durable up to where it is when that is called. Rejects as `durable` does.
   */
  readonly keepCalls?: (fileid: FileId, durable: () => Promise<void>) => Promise<void>;
  /** What earlier lives of the router answered nobody remembers (a power cut, a reboot): a recovery tells of the newest calls that the log has, answered or not. */
  readonly isMemoryLost?: boolean;
}

/** So many calls a recovery reads back from the log of an object whose router lost its memory, or little more: of the segments' heads, a GiB of small writes takes seconds. */
const CALLS_READ_BACK = 2 ** 16;

export class VolumeDriver implements ObjectDriver {
  /** What is asked of the backend again, and what it does not have right. */
  readonly reads: BackendReads;
  readonly readAheadBudget: ReadAheadBudget;
  /** Closed before the segment files are. */
  readonly recall: SegmentRecall;
  readonly readAheadStatistics = new ReadAheadStatistics();
  readonly #components: VolumeDriverComponents;
  readonly #loader: ObjectLoader;
  readonly #assembly: ObjectAssembly;
  readonly #self: { router: RouterId; incarnation: Incarnation };
  /** Taken over from other routers; the claim of the term is not on the backend yet. */
  readonly #unclaimed = new Set<ObjectUuid>();
  /** Objects on their way here; those that are over are forgotten with the next one. */
  readonly #arriving = new Map<ObjectUuid, ObjectReplica>();

  constructor(components: VolumeDriverComponents, settings: VolumeDriverSettings, self: { router: RouterId; incarnation: Incarnation }) {
    this.#components = components;
    this.reads = new BackendReads({ clock: components.clock, logger: components.logger });
    this.recall = new SegmentRecall(components);
    this.#loader = new ObjectLoader({ ...components, reads: this.reads });
    this.readAheadBudget = new ReadAheadBudget({
      bytesMax: settings.readAheadBytesMax ?? READ_AHEAD_BYTES_MAX,
      requestsMax: READ_AHEAD_REQUESTS_MAX,
    });
    this.#assembly = new ObjectAssembly(
      {
        ...components,
        reads: this.reads,
        recall: this.recall,
        readAheadBudget: this.readAheadBudget,
        readAheadStatistics: this.readAheadStatistics,
      },
      settings,
      self.incarnation,
    );
    this.#self = self;
  }

  async open(inode: Inode, counterMin = 0): Promise<DrivenObject> {
    const { registry, files } = this.#components;
    const uuid = uuidOf(inode);
    const names = this.#names(inode);
    // It is not known yet whether the object came; opened from its files, it could be open twice in a moment.
    if (this.#arriving.get(uuid)?.isOver === false)
      throw new ApplianceError('object-held', `object ${inode.fileid} (${uuid}) is on its way here`, { retryable: true });
    const owner = await registry.ownership.owner(inode.fileid);
    if (owner !== null && owner.router === this.#self.router) await this.#enterReplicas(owner);
    else if (owner !== null && owner.protection.kind !== 'clean') {
      // What only that router has would be missing, and nothing here could tell.
      throw new ApplianceError('object-recovering', `object ${inode.fileid} (${uuid}) has writes that only router ${owner.router} has`, {
        retryable: true,
      });
    }
    const loaded = await this.#loader.load(inode, uuid, names, owner);
    try {
      const end = await this.#loader.findEnd(uuid, names, owner, loaded);
      if (end.kind === 'damaged') {
        // Of what another router owns nobody else says how it is.
        if (owner !== null && owner.router === this.#self.router) {
          await registry.ownership.update(this.#mutation(), inode.fileid, owner.term, { state: { kind: 'recovering', reason: end.reason } });
        }
        throw new ApplianceError('object-damaged', `object ${inode.fileid} (${uuid}) cannot be served: ${end.reason}`);
      }
      const uploadedSegment = owner?.root.uploadedSegment ?? 0;
      // A copy of what another router had may be the only one now.
      for (const { local, number } of end.segments) if (local !== null && number > uploadedSegment) await files.keep(local);
      const durable = await this.#makeDurable(end, uploadedSegment);
      const calls = this.#components.isMemoryLost === true ? await this.#readBackCalls(end, uuid, names, uploadedSegment) : callsOf(end);
      if (calls.length > 0) this.#components.recovered?.(inode.fileid, calls);
      return await this.#start(inode, names, owner, loaded, durable, counterMin);
    } catch (error) {
      loaded.map.close();
      throw error;
    }
  }

  /** What this router received in the term that it owns the object in now is part of the object's log: it died before it could say so. */
  async #enterReplicas(owner: OwnerRecord): Promise<void> {
    const { files, disk } = this.#components;
    for (const replica of files.replicas.of(owner.uuid)) {
      if (sameTerm(replica.attempt, owner.term)) files.enter(replica, await disk.size(replica.path));
    }
    await files.settle(owner.uuid);
    // Of attempts that came to nothing.
    await files.replicas.discard(owner.uuid);
  }

  async receive(inode: Inode, offer: MoveOffer, former?: FormerOwner): Promise<Replica> {
    const { registry, files, store, logger } = this.#components;
    const { owner, from } = offer;
    const uuid = uuidOf(inode);
    const names = this.#names(inode);
    const attempt = owner.moving?.attempt;
    if (owner.uuid !== uuid || attempt === undefined || owner.moving?.to !== this.#self.router)
      throw new ApplianceError('replica-damaged', `the offer of object ${inode.fileid} is not one to this router`);
    failPoint('move.replica-before-claim');
    await clearTheWay(this.#components, offer);
    await putTermClaim({ store, names }, registry.vpool.uuid, uuid, attempt);
    failPoint('move.replica-after-claim');
    const loaded = await this.#loader.load(inode, uuid, names, owner);
    try {
      const end = await this.#loader.findEnd(uuid, names, owner, loaded, from.segment - 1);
      if (end.kind === 'damaged')
        throw new ApplianceError('replica-damaged', `object ${inode.fileid} (${uuid}) cannot be received: ${end.reason}`, { retryable: true });
      for (const leftover of end.leftovers) await files.drop(leftover);
      const basis = this.#assembly.basis(inode, names, attempt, loaded);
      basis.reader.former = former ?? null;
      touchAll(basis.writeBack, end);
      const { state, rows } = await this.#loader.apply(loaded, end);
      failPoint('move.replica-loaded');
      const replica = new ObjectReplica({ ...this.#components, assembly: this.#assembly, logger }, basis, offer, {
        lastSegment: from.segment - 1,
        lastSequence: end.lastSequence,
        loggedBytes: bytesOf(end, from.segment - 1),
        state: { ...state, unstableOpen: end.unstableOpen },
        rows,
      });
      for (const [other, { isOver }] of this.#arriving) if (isOver) this.#arriving.delete(other);
      this.#arriving.set(uuid, replica);
      return replica;
    } catch (error) {
      loaded.map.close();
      throw error;
    }
  }

  #names(inode: Inode): StorageNames {
    return this.#components.names[inode.class === 'volume' ? 'volume' : 'file'];
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
      await sealByCopy({ disk, files, random, vpoolUuid: registry.vpool.uuid }, local, scan, found.lastSequence, end.provenSequence);
      segments.push({ ...found, scan: await scanLocalSegment(disk, files, local) });
    }
    return { ...end, segments };
  }

  /** Calls of the newest records, in their order: of sealed segments, too, whose indexes do not name them. */
  async #readBackCalls(
    end: LogEnd & { kind: 'found' },
    uuid: ObjectUuid,
    names: StorageNames,
    uploadedSegment: number,
  ): Promise<readonly Uint32Array[]> {
    let calls: Uint32Array[] = [];
    for (let index = end.segments.length - 1; index >= 0 && calls.length < CALLS_READ_BACK; index -= 1) {
      const found = end.segments[index] as FoundSegment;
      const first = found.records[0]?.sequence;
      const last = found.records.at(-1)?.sequence;
      if (first === undefined || last === undefined) continue;
      let read = found.scan.verified ? found.records : await this.#recordsHere(found);
      if ((read?.at(-1)?.sequence ?? 0) < last && found.number <= uploadedSegment)
        read = await this.#loader.readEveryRecord(uuid, names, found.number, found.term);
      const older: Uint32Array[] = [];
      for (const { call, sequence } of read ?? []) if (call !== null && sequence >= first && sequence <= last) older.push(call);
      calls = [...older, ...calls];
    }
    return calls;
  }

  /** Records of a segment's file, with the calls that they name; null: it is not here. */
  async #recordsHere({ local }: FoundSegment): Promise<readonly DecodedRecord[] | null> {
    const { disk, files } = this.#components;
    if (local === null) return null;
    try {
      return (await scanEveryRecord(disk, files, local)).records;
    } catch (error) {
      // A cached copy may be evicted while we look.
      if (errorCode(error) !== 'ENOENT' || local.place !== 'cache') throw error;
      return null;
    }
  }

  async #start(
    inode: Inode,
    names: StorageNames,
    owner: OwnerRecord | null,
    loaded: Loaded,
    end: LogEnd & { kind: 'found' },
    counterMin: number,
  ): Promise<OpenObject> {
    const { files, random, logger, registry, store } = this.#components;
    const { uuid } = loaded;
    const claimed = await this.#claim(inode, owner, end, counterMin);
    failPoint('recovery.after-close');
    const { term } = claimed;
    // Nothing may be acknowledged in a term that somebody else could have won (decision 0003).
    const fromOther = this.#unclaimed.has(uuid);
    if (fromOther) {
      await putTermClaim({ store, names }, registry.vpool.uuid, uuid, term);
      this.#unclaimed.delete(uuid);
    }
    for (const leftover of end.leftovers) await files.drop(leftover);
    const { state, rows } = await this.#loader.apply(loaded, end);

    const records = this.#assembly.records(inode, term);
    const verifier = end.unstableOpen ? random.bytes(8) : claimed.verifier;
    if (end.unstableOpen) await records.update({ verifier });
    if (owner?.state.kind === 'recovering') await records.update({ state: { kind: 'running' } });

    const basis = this.#assembly.basis(inode, names, term, loaded);
    touchAll(basis.writeBack, end);
    const sealed: SealedSegment[] = [];
    const unsealed: UnsealedSegment[] = [];
    for (const segment of end.segments) {
      const { local } = segment;
      if (local === null) continue;
      if (segment.number <= claimed.root.uploadedSegment) await files.release(local);
      else if (segment.scan.sealed && (segment.scan.records.at(-1)?.sequence ?? 0) <= segment.lastSequence) {
        files.grow(local, segment.scan.endOffset);
        sealed.push({ segment: local, totalBytes: segment.scan.endOffset, lastSequence: segment.lastSequence });
      } else unsealed.push({ segment: local, lastSequence: segment.lastSequence });
    }
    // Below the checkpoint nothing local is needed for recovery any more: what is there serves reads.
    for (const local of files.segmentsOf(uuid))
      if (local.number < loaded.nextSegment && local.number <= claimed.root.uploadedSegment) await files.release(local);
    const opened = this.#assembly.open(basis, {
      owner: claimed,
      records,
      verifier,
      state: { ...state, unstableOpen: end.unstableOpen },
      lastSegment: end.lastSegment,
      lastSequence: end.lastSequence,
      rows,
      claimed: fromOther,
      loggedBytes: bytesOf(end, claimed.root.uploadedSegment),
      moved: false,
      unsealed,
      arrived: [],
    });
    for (const { segment, totalBytes, lastSequence } of sealed) opened.keeper.sealed(segment, totalBytes, lastSequence);
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

  async #claim(inode: Inode, owner: OwnerRecord | null, end: LogEnd & { kind: 'found' }, counterMin: number): Promise<OwnerRecord> {
    if (owner !== null && owner.router !== this.#self.router) this.#unclaimed.add(owner.uuid);
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
      counterMin,
    );
    failPoint('object.after-claim');
    if (outcome.kind === 'done') return outcome.owner;
    if (outcome.kind === 'gone') throw new ApplianceError('object-gone', `object ${inode.fileid} was removed`);
    if (outcome.kind === 'owner-alive')
      throw new ApplianceError('not-owner', `object ${inode.fileid} is owned by router ${outcome.owner.router}, which is alive`, { retryable: true });
    throw new ApplianceError('fenced', `object ${inode.fileid} was claimed by router ${outcome.owner.router} meanwhile`, { retryable: true });
  }

  #mutation(): Mutation {
    return { operationId: null, incarnation: this.#self.incarnation, now: timestampOf(this.#components.clock.wallMs()), notAfterMs: Infinity };
  }
}

function uuidOf(inode: Inode): ObjectUuid {
  assert(inode.uuid !== null && (inode.class === 'file' || inode.class === 'volume'), `inode ${inode.fileid} is not an object`);
  return inode.uuid;
}

/** Of the segments behind the checkpoint, up to one. */
function bytesOf(end: LogEnd & { kind: 'found' }, upToSegment: number): number {
  let bytes = 0;
  for (const { number, scan } of end.segments) if (number <= upToSegment) bytes += scan.endOffset;
  return bytes;
}

/** Blocks in the log are to be written back, whoever wrote them. */
function touchAll(writeBack: WriteBack | null, end: LogEnd & { kind: 'found' }): void {
  if (writeBack === null) return;
  for (const segment of end.segments)
    for (const record of segment.records) if (record.blockCount > 0) writeBack.touched(record.startBlock, record.blockCount);
}

/**
 * Calls of which the log says that they were done; perhaps the process ended before they were answered. Those that it answered it remembered elsewhere, and what it
 * had not answered lies behind what is proven to be durable, which is read with the heads of the records.
 */
function callsOf(end: LogEnd & { kind: 'found' }): readonly Uint32Array[] {
  const calls: Uint32Array[] = [];
  for (const segment of end.segments) for (const { call } of segment.records) if (call !== null) calls.push(call);
  return calls;
}

/** Local files that the copies to come would meet. What is below them and right stays: it serves reads. */
async function clearTheWay(components: { disk: Disk; files: SegmentFiles }, { owner, from }: MoveOffer): Promise<void> {
  const { files } = components;
  await files.replicas.discard(owner.uuid);
  await settleForeign(components, owner);
  for (const local of files.segmentsOf(owner.uuid)) if (local.number >= from.segment) await files.drop(local);
}
