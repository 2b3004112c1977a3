/** The giver's side of a move: an open object whose log another router copies while it is written, until it is frozen and let go (design section 10). */
import { ApplianceError, isEnvironmentError } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import type { ObjectLog } from '../object-log/object-log.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { CededSegments, FrozenLog, MoveSource } from '../object-router/driver-port.ts';
import type { LogPiece, LogPieces, LogPosition } from '../object-router/peer-port.ts';
import type { BlockObject } from './block-object.ts';
import { CopyPace } from './copy-pace.ts';
import type { ObjectKeeper } from './object-keeper.ts';
import { WritePace } from './write-pace.ts';

interface SourceComponents {
  readonly files: SegmentFiles;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly object: BlockObject;
  readonly log: ObjectLog;
  readonly keeper: ObjectKeeper;
}

export class ObjectMoveSource implements MoveSource {
  offer: MoveSource['offer'] = { from: { segment: 0, offsetBytes: 0 }, behindBytes: 0 };
  readonly #components: SourceComponents;
  readonly #verifier: () => Uint8Array;
  readonly #events: { thawed(): void; ceded(): void };
  #faults = 0;
  #state: 'open' | 'frozen' | 'over' = 'open';
  /** Readers of the log that wait for more. */
  readonly #waiting = new Set<() => void>();
  #ceding: Promise<void> | null = null;
  readonly #writePace: WritePace;
  readonly #copyPace: CopyPace;

  constructor(components: SourceComponents, verifier: () => Uint8Array, events: { thawed(): void; ceded(): void }) {
    this.#components = components;
    this.#verifier = verifier;
    this.#events = events;
    this.#writePace = new WritePace(components.clock);
    this.#copyPace = new CopyPace(this.#writePace);
  }

  get slowedMs(): number {
    return this.#writePace.slowedMs;
  }

  /** The keeper is pinned: what the offer says stays true. */
  begin(): void {
    const { log, keeper, object } = this.#components;
    this.#faults = log.faults;
    this.#check();
    log.watch(() => this.#wake());
    object.paceWrites(this.#writePace);
    const from: LogPosition = { segment: keeper.root.uploadedSegment + 1, offsetBytes: 0 };
    this.offer = { from, behindBytes: this.#behind(from) };
  }

  async read(from: LogPosition, bytesMax: number, waitMs: number): Promise<LogPieces> {
    const { clock } = this.#components;
    const deadlineMs = clock.monotonicMs() + waitMs;
    this.#check();
    if (this.#state === 'open') this.#copyPace.asked(clock.monotonicMs(), from, this.#behind(from));
    for (;;) {
      this.#check();
      const { pieces, next } = await this.#collect(from, bytesMax);
      // What was read while a fault happened may never have been part of the log.
      this.#check();
      failPoint('move.source-fetched');
      const leftMs = deadlineMs - clock.monotonicMs();
      if (pieces.length > 0 || leftMs <= 0 || this.#state === 'frozen') {
        let bytes = 0;
        for (const piece of pieces) bytes += piece.bytes.length;
        this.#copyPace.sent(next, bytes);
        return { pieces, behindBytes: this.#behind(next) };
      }
      await new Promise<void>((resolve) => {
        const cancel = clock.after(leftMs, () => {
          this.#waiting.delete(wake);
          resolve();
        });
        const wake = (): void => {
          cancel();
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }

  async #collect(from: LogPosition, bytesMax: number): Promise<{ pieces: LogPiece[]; next: LogPosition }> {
    const { files, object, log } = this.#components;
    const pieces: LogPiece[] = [];
    let { segment: number, offsetBytes } = from;
    let left = bytesMax;
    while (left > 0) {
      const local = files.segment(object.uuid, number);
      if (local === null) {
        if (number <= log.lastBegunSegment) throw this.#over(`segment ${number} is not here any more`);
        break;
      }
      if (number > log.lastBegunSegment && local.bytes === 0) break;
      const growing = log.isGrowing(number);
      const end = local.bytes;
      const length = Math.min(left, end - offsetBytes);
      if (length > 0) pieces.push(await this.#piece(local, offsetBytes, length, growing ? null : end));
      else if (length < 0) throw this.#over(`${offsetBytes} bytes of segment ${number} were asked for, which has ${end}`);
      left -= Math.max(length, 0);
      offsetBytes += Math.max(length, 0);
      if (growing || offsetBytes < end) break;
      number += 1;
      offsetBytes = 0;
    }
    return { pieces, next: { segment: number, offsetBytes } };
  }

  async #piece(local: LocalSegment, offsetBytes: number, lengthBytes: number, sealedBytes: number | null): Promise<LogPiece> {
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    const { files } = this.#components;
    for (;;) {
      const { path } = local;
      try {
        const bytesRead = await files.read(local, offsetBytes, bytes);
        if (bytesRead === lengthBytes) return { segment: local.number, term: local.term, offsetBytes, bytes, sealedBytes };
        throw this.#over(`${local.path} ends before what was written to it`);
      } catch (error) {
        // A release that began before the attempt moves the file.
        if (local.path === path) throw error;
      }
    }
  }

  /** Bytes that were written from `from` on. */
  #behind(from: LogPosition): number {
    const { files, object } = this.#components;
    let bytes = -from.offsetBytes;
    for (let number = from.segment, local = files.segment(object.uuid, number); local !== null; local = files.segment(object.uuid, number)) {
      bytes += local.bytes;
      number += 1;
    }
    return Math.max(bytes, 0);
  }

  async freeze(): Promise<FrozenLog> {
    const { log, object } = this.#components;
    this.#check();
    failPoint('move.source-before-seal');
    log.hold(new ApplianceError('object-held', `object ${object.uuid} is on its way to another router`, { retryable: true }));
    // Who waits is told at once that it is held.
    this.#writePace.end();
    object.held();
    do {
      await log.seal();
      await log.drained();
      this.#check();
    } while (log.openSegmentBytes > 0);
    if (log.openSegmentBytes > 0 || object.appliedSequence !== log.lastSequence) throw this.#over('its log did not come to rest');
    this.#state = 'frozen';
    this.#wake();
    failPoint('move.source-sealed');
    const lastSegment = Math.max(log.lastBegunSegment, this.offer.from.segment - 1);
    return {
      lastSegment,
      lastSequence: log.lastSequence,
      end: { segment: lastSegment + 1, offsetBytes: 0 },
      verifier: this.#verifier(),
      termWrote: log.hasBegun,
    };
  }

  thaw(): void {
    if (this.#state === 'over') return;
    this.#end();
    this.#components.log.hold(null);
    this.#components.keeper.unpin();
    this.#events.thawed();
  }

  cede(): CededSegments {
    const { files, log, keeper, object, logger } = this.#components;
    const left = cachedSegments(files, object.uuid);
    if (this.#state === 'over') return left;
    this.#end();
    keeper.cede();
    this.#events.ceded();
    // The one that was made ready and never begun goes with the log.
    const segments = files.segmentsOf(object.uuid).filter((segment) => segment.place === 'log' && segment.number <= log.lastBegunSegment);
    this.#ceding = (async () => {
      for (const segment of segments) {
        try {
          await files.cede(segment);
        } catch (error) {
          logger.warn({ err: error, file: segment.path }, 'a segment of an object that was given away could not be moved to the cache');
        }
      }
      failPoint('move.source-ceded');
    })().catch((error: unknown) => logger.warn({ err: error, object: object.uuid }, 'giving up the segments of an object failed'));
    return left;
  }

  /** Nothing of the attempt is under way any more. */
  async ended(): Promise<void> {
    await this.#ceding;
  }

  #end(): void {
    this.#state = 'over';
    const { log, object } = this.#components;
    log.watch(null);
    object.paceWrites(null);
    this.#writePace.end();
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  #check(): void {
    const { log } = this.#components;
    if (this.#state === 'over') throw this.#over('it ended');
    if (log.faults !== this.#faults || log.problem !== null) throw this.#over('the log had a fault');
  }

  #over(why: string): ApplianceError {
    return new ApplianceError('object-busy', `the attempt to move object ${this.#components.object.uuid} is over: ${why}`, { retryable: true });
  }
}

/** Kept for much longer than the object: made where there is no log, object or map, since all closures of a function keep what any of them names. */
function cachedSegments(files: SegmentFiles, uuid: ObjectUuid): CededSegments {
  return { read: (segment, offsetBytes, lengthBytes) => readCached(files, uuid, segment, offsetBytes, lengthBytes) };
}

/** As CededSegments.read. */
async function readCached(files: SegmentFiles, uuid: ObjectUuid, number: number, offsetBytes: number, lengthBytes: number): Promise<LogPiece | null> {
  for (let local = files.segment(uuid, number); local !== null && offsetBytes + lengthBytes <= local.bytes; local = files.segment(uuid, number)) {
    const { path, term } = local;
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    try {
      if ((await files.read(local, offsetBytes, bytes)) === lengthBytes) return { segment: number, term, offsetBytes, bytes, sealedBytes: null };
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
    }
    // It was moved to the cache, or evicted, under the read.
    if (local.path === path) return null;
  }
  return null;
}
