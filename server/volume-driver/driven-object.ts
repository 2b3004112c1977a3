import type { Disk } from '../core/disk.ts';
/** An open object: block device, log and keeper together, as the object-router sees them. */
import type { FileId, ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Random, Timestamp } from '../core/time.ts';
import type { LogRecord } from '../object-log/log-record.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import type { LocalSegment, SegmentFiles } from '../object-log/segment-files.ts';
import { scanLocalSegment, sealByCopy } from '../object-log/segment-scan.ts';
import type { DrivenObject, ObjectChange, OwnedSnapshot } from '../object-router/driver-port.ts';
import type { BlockObject } from './block-object.ts';
import type { ObjectKeeper } from './object-keeper.ts';
import type { ObjectRecords } from './object-records.ts';

/** A segment that has no seal yet: found so by a recovery, or left so by a fault. */
export interface UnsealedSegment {
  readonly segment: LocalSegment;
  readonly lastSequence: number;
}

export class OpenObject implements DrivenObject {
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly object: BlockObject;
  readonly log: ObjectLog;
  readonly keeper: ObjectKeeper;
  readonly #components: { disk: Disk; files: SegmentFiles; random: Random; vpoolUuid: string; logger: Logger; records: ObjectRecords };
  #verifier: Uint8Array;
  #unsealed: UnsealedSegment[];
  #repairing: Promise<void> | null = null;
  #repairProblem: Error | null = null;

  constructor(
    components: { disk: Disk; files: SegmentFiles; random: Random; vpoolUuid: string; logger: Logger; records: ObjectRecords },
    parts: { fileid: FileId; object: BlockObject; log: ObjectLog; keeper: ObjectKeeper; verifier: Uint8Array; unsealed: readonly UnsealedSegment[] },
  ) {
    this.#components = components;
    this.fileid = parts.fileid;
    this.uuid = parts.object.uuid;
    this.object = parts.object;
    this.log = parts.log;
    this.keeper = parts.keeper;
    this.#verifier = parts.verifier;
    this.#unsealed = [...parts.unsealed];
    this.#repair();
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

  write(offsetBytes: number, countBytes: number, chunks: readonly Uint8Array[], stable: boolean, now: Timestamp): Promise<ObjectChange> {
    return this.object.write(offsetBytes, countBytes, chunks, stable, now);
  }

  commit(now: Timestamp): MaybePromise<null | { readonly kind: 'refused'; readonly error: Error }> {
    return this.object.commit(now);
  }

  setAttributes(changes: { sizeBytes: number | null; atime: Timestamp | null; mtime: Timestamp | null }, now: Timestamp): Promise<ObjectChange> {
    return this.object.setAttributes(changes, now);
  }

  observeTime(time: Timestamp): void {
    this.object.observeTime(time);
  }

  /** DrivenObject. */
  backendRecovered(): void {
    this.keeper.retryNow();
  }

  tick(): void {
    if (this.#unsealed.length > 0) this.#repair();
    this.keeper.tick();
  }

  get isClean(): boolean {
    return this.keeper.isClean && this.log.idle && this.log.openSegmentBytes === 0 && this.#unsealed.length === 0;
  }

  get garbageDueMs(): number | null {
    return this.keeper.garbageDueMs;
  }

  get problem(): Error | null {
    return this.log.problem ?? this.#repairProblem ?? this.keeper.problem;
  }

  async flush(deadlineMs: number): Promise<void> {
    await this.#repairing;
    await this.keeper.flush(deadlineMs);
  }

  async close(): Promise<void> {
    await this.log.drained();
    await this.keeper.stop();
    await this.#repairing;
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
    if (this.#repairing !== null || this.#unsealed.length === 0 || this.log.moving) return;
    this.#repairing = this.#sealUnsealed()
      .then(
        () => {
          this.#repairProblem = null;
        },
        (error: unknown) => {
          this.#repairProblem = error as Error;
          this.#components.logger.warn({ err: error, object: this.uuid }, 'a segment without seal could not be sealed; it is tried again');
        },
      )
      .finally(() => {
        this.#repairing = null;
      });
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
