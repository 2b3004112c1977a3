/**
 * When an object follows its I/O (design section 10): a router that forwards enough of an object's READs or WRITEs asks for it; its owner agrees unless
 * it uses the object more itself. Counts decay, a moved object rests for a while, and a refusal makes the asker wait longer each time, so that two
 * busy routers do not play ping-pong.
 */
import type { InodeClass } from '../../../registry/inode.ts';
import type { FileId } from '../../core/ids.ts';
import type { Clock } from '../../core/time.ts';
import type { MoveReason, OwnerHint } from '../peer-port.ts';
import { IoCount } from './io-count.ts';
import type { MovableObject, MoveSettings } from './move-host.ts';

/** The owner compares its own I/O with that of others over so long, whatever `decayMs` is: a VM that has just left must not hold the object back. */
const RECENT_MS = 5_000;
/** Objects whose forwarded I/O is counted; beyond, those that were used longest ago are forgotten. */
const COUNTED_MAX = 16_384;
/** Counters that fell below this are nothing. */
const COUNT_MIN = 0.5;
const BACK_OFF_MS_FIRST = 1_000;
const BACK_OFF_MS_MAX = 60_000;

interface Forwarded {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
  readonly io: IoCount;
  hint: OwnerHint;
  backOffMs: number;
  notBeforeMs: number;
}

export interface Candidate {
  readonly fileid: FileId;
  readonly inodeGeneration: number;
  readonly hint: OwnerHint;
}

export class MovePolicy {
  readonly #clock: Clock;
  readonly #settings: MoveSettings;
  readonly #isPinned: (fileid: FileId) => boolean;
  readonly #forwarded = new Map<FileId, Forwarded>();
  /** Until when (monotonic) an object that came or went is left alone. */
  readonly #resting = new Map<FileId, number>();
  readonly #lowestRead: number;
  readonly #lowestWrite: number;
  #decayedMs: number;

  constructor(clock: Clock, settings: MoveSettings, isPinned: (fileid: FileId) => boolean) {
    this.#clock = clock;
    this.#settings = settings;
    this.#isPinned = isPinned;
    this.#lowestRead = lowest(settings.volumeReadThreshold, settings.fileReadThreshold);
    this.#lowestWrite = lowest(settings.volumeWriteThreshold, settings.fileWriteThreshold);
    this.#decayedMs = clock.monotonicMs();
  }

  /**
   * A forwarded READ or WRITE was answered. True: enough of them were, for some class of object: `candidate` decides, later and outside of this I/O.
   */
  count(object: { readonly fileid: FileId; readonly inodeGeneration: number }, kind: 'read' | 'write', hint: OwnerHint): boolean {
    let known = this.#forwarded.get(object.fileid);
    if (known === undefined || known.inodeGeneration !== object.inodeGeneration) {
      if (this.#forwarded.size >= COUNTED_MAX) {
        const [oldest] = this.#forwarded.keys();
        if (oldest !== undefined) this.#forwarded.delete(oldest);
      }
      known = {
        fileid: object.fileid,
        inodeGeneration: object.inodeGeneration,
        io: new IoCount(),
        hint,
        backOffMs: BACK_OFF_MS_FIRST,
        notBeforeMs: this.#resting.get(object.fileid) ?? 0,
      };
      this.#forwarded.set(object.fileid, known);
    }
    known.hint = hint;
    if (kind === 'read') {
      known.io.reads += 1;
      return known.io.reads >= this.#lowestRead && this.#clock.monotonicMs() >= known.notBeforeMs;
    }
    known.io.writes += 1;
    return known.io.writes >= this.#lowestWrite && this.#clock.monotonicMs() >= known.notBeforeMs;
  }

  /** Whether an object of this class is to be asked for; null: it is not. */
  candidate(fileid: FileId, kind: InodeClass): Candidate | null {
    const known = this.#forwarded.get(fileid);
    if (known === undefined || this.#clock.monotonicMs() < Math.max(known.notBeforeMs, this.#resting.get(fileid) ?? 0)) return null;
    const isVolume = kind === 'volume';
    const reads = isVolume ? this.#settings.volumeReadThreshold : this.#settings.fileReadThreshold;
    const writes = isVolume ? this.#settings.volumeWriteThreshold : this.#settings.fileWriteThreshold;
    const enough = (reads > 0 && known.io.reads >= reads) || (writes > 0 && known.io.writes >= writes);
    return enough ? known : null;
  }

  /** It was asked for in vain: not again for a while, twice as long each time. */
  refused(fileid: FileId): void {
    const known = this.#forwarded.get(fileid);
    if (known === undefined) return;
    known.notBeforeMs = this.#clock.monotonicMs() + known.backOffMs;
    known.backOffMs = Math.min(BACK_OFF_MS_MAX, known.backOffMs * 2);
  }

  /** It is not looked at before `ms` have passed; the back-off stays as it is. */
  postpone(fileid: FileId, ms: number): void {
    const known = this.#forwarded.get(fileid);
    if (known !== undefined) known.notBeforeMs = this.#clock.monotonicMs() + ms;
  }

  /** The object came here or left: counting begins anew after its rest. */
  moved(fileid: FileId): void {
    this.#forwarded.delete(fileid);
    if (this.#settings.cooldownMs > 0) this.#resting.set(fileid, this.#clock.monotonicMs() + this.#settings.cooldownMs);
  }

  /** The owner's part: whether it agrees. Null: it does. */
  mayGive(object: MovableObject, reason: MoveReason): { readonly reason: string; readonly retryable: boolean } | null {
    if (reason !== 'io') return null;
    const { fileid } = object.driven;
    if (this.#isPinned(fileid)) return { reason: 'it is pinned', retryable: true };
    const restsMs = (this.#resting.get(fileid) ?? 0) - this.#clock.monotonicMs();
    if (restsMs > 0) return { reason: `it moved a moment ago and rests for another ${Math.round(restsMs)} ms (cluster.cooldownMs)`, retryable: true };
    const own = Math.round(object.ownIo.total);
    const others = Math.round(object.peerIo.total);
    if (own > others) return { reason: `its owner uses it more: ${own} calls of late, against ${others} by others`, retryable: true };
    return null;
  }

  /** Once a second or so: lets counts fall. */
  decay(objects: Iterable<MovableObject>): void {
    const nowMs = this.#clock.monotonicMs();
    const passedMs = nowMs - this.#decayedMs;
    this.#decayedMs = nowMs;
    const factor = Math.exp(-passedMs / this.#settings.decayMs);
    for (const [fileid, known] of this.#forwarded) {
      known.io.decay(factor);
      if (known.io.total < COUNT_MIN && nowMs >= known.notBeforeMs) this.#forwarded.delete(fileid);
    }
    const recent = Math.exp(-passedMs / RECENT_MS);
    for (const object of objects) {
      object.ownIo.decay(recent);
      object.peerIo.decay(recent);
    }
    for (const [fileid, untilMs] of this.#resting) if (nowMs >= untilMs) this.#resting.delete(fileid);
  }

  /** Objects whose forwarded I/O is counted. */
  get counted(): number {
    return this.#forwarded.size;
  }
}

/** 0 means never. */
function lowest(...thresholds: readonly number[]): number {
  return Math.min(...thresholds.map((threshold) => (threshold > 0 ? threshold : Infinity)));
}
