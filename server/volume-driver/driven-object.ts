/** An open object: block device, log and keeper together, as the object-router sees them. */
import type { Disk } from '../core/disk.ts';
import { ApplianceError } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { FileId, ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Clock, Random, Timestamp } from '../core/time.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import type { LogRecord } from '../object-log/log-record.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import { scanLocalSegment, sealByCopy } from '../object-log/segment-scan.ts';
import type { DrivenObject, MoveSource, ObjectChange, OwnedSnapshot } from '../object-router/driver-port.ts';
import type { BlockObject } from './block-object.ts';
import { ObjectMoveSource } from './move-source.ts';
import type { ObjectKeeper } from './object-keeper.ts';
import type { ObjectRecords } from './object-records.ts';

/** A segment that has no seal yet: found so by a recovery, or left so by a fault. */
export interface UnsealedSegment {
  readonly segment: LocalSegment;
  readonly lastSequence: number;
}

/** A whole segment that another router sent, in the directory of what arrives. */
export interface ArrivedSegment {
  readonly segment: LocalSegment;
  readonly totalBytes: number;
  readonly lastSequence: number;
  /** The root covers it. */
  readonly uploaded: boolean;
}

interface OpenObjectComponents {
  readonly disk: Disk;
  readonly files: SegmentFiles;
  readonly clock: Clock;
  readonly random: Random;
  readonly vpoolUuid: string;
  readonly logger: Logger;
  readonly records: ObjectRecords;
}

/** How long something that is under way, such as a checkpoint, may keep an object from being given away. */
const BUSY_PATIENCE_MS = 2000;
/**
 * What arrived is put in its place, and uploaded from there, when those who were held are answered: each rename waits for the file system's journal, in the thread pool
 * and on the disk where their reads and syncs are, and four uploads take a processor (decision 0037).
 */
const SETTLE_AFTER_MS = 100;

export class OpenObject implements DrivenObject {
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly object: BlockObject;
  readonly log: ObjectLog;
  readonly keeper: ObjectKeeper;
  readonly #components: OpenObjectComponents;
  #verifier: Uint8Array;
  #unsealed: UnsealedSegment[];
  #arrived: ArrivedSegment[];
  /** The attempt to give it away. */
  #source: ObjectMoveSource | null = null;
  #ceded = false;
  #repairing: Promise<void> | null = null;
  /** Ends the pause before what arrived is put in its place. */
  #settleNow: () => void = () => undefined;
  #repairProblem: Error | null = null;

  constructor(
    components: OpenObjectComponents,
    parts: {
      fileid: FileId;
      object: BlockObject;
      log: ObjectLog;
      keeper: ObjectKeeper;
      verifier: Uint8Array;
      unsealed: readonly UnsealedSegment[];
      arrived: readonly ArrivedSegment[];
    },
  ) {
    this.#components = components;
    this.fileid = parts.fileid;
    this.uuid = parts.object.uuid;
    this.object = parts.object;
    this.log = parts.log;
    this.keeper = parts.keeper;
    this.#verifier = parts.verifier;
    this.#unsealed = [...parts.unsealed];
    this.#arrived = [...parts.arrived];
    this.#repair();
  }

  get term(): Term {
    return this.object.term;
  }

  get verifier(): Uint8Array {
    return this.#verifier;
  }

  attributes(): OwnedSnapshot {
    const { sizeBytes, atime, mtime, ctime } = this.object.attributes;
    return { sizeBytes, usedBytes: this.object.usedBytes, atime, mtime, ctime };
  }

  read(offsetBytes: number, target: Buffer): MaybePromise<number> {
    return this.object.read(offsetBytes, target);
  }

  write(
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stable: boolean,
    now: Timestamp,
    call: Uint32Array | null = null,
  ): Promise<ObjectChange> {
    return this.object.write(offsetBytes, countBytes, chunks, stable, now, call);
  }

  commit(now: Timestamp): MaybePromise<null | { readonly kind: 'refused'; readonly error: Error }> {
    // Whether anything is un-synced its owner says.
    if (this.#ceded)
      return { kind: 'refused', error: new ApplianceError('object-held', `object ${this.fileid} has another owner`, { retryable: true }) };
    return this.object.commit(now);
  }

  setAttributes(
    changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null },
    now: Timestamp,
    call: Uint32Array | null = null,
  ): Promise<ObjectChange> {
    return this.object.setAttributes(changes, now, call);
  }

  repeated(): MaybePromise<void> {
    return this.#ceded ? undefined : this.keeper.repeated();
  }

  observeTime(time: Timestamp): void {
    this.object.observeTime(time);
  }

  /** DrivenObject. */
  backendRecovered(): void {
    this.keeper.retryNow();
  }

  tick(): void {
    if (this.#unsealed.length + this.#arrived.length > 0) this.#repair();
    this.keeper.tick();
  }

  get isClean(): boolean {
    if (this.#ceded) return true;
    const settled = this.#unsealed.length + this.#arrived.length === 0 && this.#source === null;
    return settled && this.keeper.isClean && this.log.idle && this.log.openSegmentBytes === 0;
  }

  async giveAway(): Promise<MoveSource> {
    const refuse = (why: string): ApplianceError =>
      new ApplianceError('object-busy', `object ${this.fileid} cannot move now: ${why}`, { retryable: true });
    const { files, clock, logger } = this.#components;
    // What arrived a moment ago is put in its place in a moment.
    this.#settleNow();
    if (this.#repairing !== null) await Promise.race([this.#repairing, clock.sleep(BUSY_PATIENCE_MS)]);
    if (this.log.problem !== null || this.log.moving) throw refuse('its log had a fault');
    if (this.#unsealed.length + this.#arrived.length > 0) throw refuse('segments of its log are being repaired');
    if (this.#source !== null || this.#ceded) throw refuse('it is on its way already');
    const source = new ObjectMoveSource({ files, clock, logger, object: this.object, log: this.log, keeper: this.keeper }, () => this.#verifier, {
      thawed: () => {
        this.#source = null;
      },
      ceded: () => {
        this.#ceded = true;
      },
    });
    this.#source = source;
    try {
      if (!(await this.keeper.pin(BUSY_PATIENCE_MS))) throw refuse('a checkpoint is being made');
      source.begin();
      failPoint('move.source-offered');
    } catch (error) {
      source.thaw();
      throw error;
    }
    return source;
  }

  get garbageDueMs(): number | null {
    return this.keeper.garbageDueMs;
  }

  get problem(): Error | null {
    return this.log.problem ?? this.#repairProblem ?? this.keeper.problem;
  }

  async flush(deadlineMs: number): Promise<void> {
    this.#settleNow();
    await this.#repairing;
    await this.keeper.flush(deadlineMs);
  }

  async close(): Promise<void> {
    await this.log.drained();
    if (!this.#ceded) await this.keeper.stop();
    this.#settleNow();
    await this.#repairing;
    await this.#source?.ended();
    try {
      await this.log.close();
    } finally {
      await this.object.close();
    }
  }

  /** LogEvents.fault. */
  fault(damaged: readonly LocalSegment[], durableSequence: number, kept: readonly LogRecord[]): void {
    this.object.faulted(kept);
    for (const segment of damaged) this.#unsealed.push({ segment, lastSequence: durableSequence });
  }

  /** LogEvents.renewVerifier. */
  async renewVerifier(): Promise<void> {
    const verifier = this.#components.random.bytes(8);
    await this.#components.records.update({ verifier });
    this.#verifier = verifier;
  }

  /** LogEvents.relocated: from now on only what is durable in a damaged segment is needed of it. */
  relocated(): void {
    this.#repair();
  }

  /** Seals what has no seal, in the background; a failure is a problem until it works. */
  #repair(): void {
    if (this.#repairing !== null || this.#unsealed.length + this.#arrived.length === 0 || this.log.moving) return;
    this.#repairing = this.#settleArrived()
      .then(() => this.#sealUnsealed())
      .then(
        () => {
          this.#repairProblem = null;
        },
        (error: unknown) => {
          this.#repairProblem = error as Error;
          this.#components.logger.warn({ err: error, object: this.uuid }, 'segments could not be sealed, or put in their place; it is tried again');
        },
      )
      .finally(() => {
        this.#repairing = null;
      });
  }

  /** Puts what arrived among the other segments; from then on it is uploaded and released as they are. */
  async #settleArrived(): Promise<void> {
    if (this.#arrived.length === 0) return;
    const { files, clock } = this.#components;
    await new Promise<void>((resolve) => {
      const cancel = clock.after(SETTLE_AFTER_MS, resolve);
      this.#settleNow = () => {
        cancel();
        resolve();
      };
    });
    failPoint('move.replica-before-rename');
    for (const { segment, uploaded } of this.#arrived) if (uploaded) await files.release(segment);
    await files.settle(this.uuid);
    failPoint('move.replica-renamed');
    const arrived = this.#arrived;
    this.#arrived = [];
    for (const { segment, totalBytes, lastSequence, uploaded } of arrived) if (!uploaded) this.keeper.sealed(segment, totalBytes, lastSequence);
  }

  async #sealUnsealed(): Promise<void> {
    const { disk, files } = this.#components;
    for (;;) {
      const next = this.#unsealed[0];
      if (next === undefined) return;
      const scan = await scanLocalSegment(disk, files, next.segment);
      const last = scan.records.filter((record) => record.sequence <= next.lastSequence).at(-1)?.sequence ?? next.lastSequence;
      const bytes =
        scan.sealed && (scan.records.at(-1)?.sequence ?? 0) <= next.lastSequence
          ? scan.endOffset
          : await sealByCopy(this.#components, next.segment, scan, next.lastSequence);
      files.grow(next.segment, bytes);
      this.#unsealed.shift();
      this.keeper.sealed(next.segment, bytes, last);
    }
  }
}
