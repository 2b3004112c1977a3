/**
 * Sends frames on a stream. Some frames leave in one write, so that the other end begins with them while the next ones are made, and what is left at the end of a
 * turn of the event loop; while a write is under way, what comes gathers for the next one. Heads, arguments and small payloads are put together in slabs, larger
 * payloads are handed over by reference.
 */
import { assert } from '../core/assert.ts';
import type { Clock } from '../core/time.ts';
import { FrameKind, HEAD_BYTES, payloadCrc, putHead } from './frame.ts';
import type { FrameHead } from './frame.ts';
import { WireWriter } from './wire-writer.ts';

/** In front of each write, for the carrier: the head of a frame of HTTP/2. */
export const CARRIER_ROOM_BYTES = 9;
const SLAB_BYTES = 256 * 1024;
/** Arguments, with what the writer wants to have ready for the longest text. */
const ARGS_ROOM_BYTES = 16 * 1024;
/** Payloads up to this size are copied behind their arguments when they are sent: one more buffer in a write costs more. */
export const COPY_BYTES_MAX = 8 * 1024;
const FREE_SLABS_MAX = 8;
/** Frames are handed to the stream at the end of the turn, or when so many or this much have come together. */
export const EARLY_FLUSH_FRAMES = 12;
const EARLY_FLUSH_BYTES = 256 * 1024;

/** Where frames go. */
export interface FrameCarrier {
  /**
   * Sends `bytes` bytes: those of `parts`, behind `CARRIER_ROOM_BYTES` in the first of them, which are the carrier's to write. They do not change until it has
   * called `sent`, which it may do before this returns. One write at a time.
   */
  write(parts: readonly { readonly bytes: Uint8Array }[], bytes: number, sent: () => void): void;
}

interface Slab {
  readonly bytes: Buffer;
  /** Parts of it that are not sent yet. */
  pins: number;
}

interface Part {
  readonly bytes: Uint8Array;
  readonly slab: Slab | null;
}

export class FrameSender {
  readonly #carrier: FrameCarrier;
  readonly #clock: Clock;
  readonly #head: FrameHead = {
    kind: FrameKind.PING,
    isAnswer: false,
    requestId: 0,
    payloadBytes: 0,
    argsBytes: 0,
    ageMs: 0,
    sentMs: 0,
    payloadCrc: 0,
  };
  readonly #free: Slab[] = [];
  #slab: Slab = { bytes: Buffer.allocUnsafeSlow(SLAB_BYTES), pins: 0 };
  readonly #writer: WireWriter;
  /** Where the part begins that is being filled, and the frame that is open. */
  #partStart = 0;
  #frameStart = -1;
  #parts: Part[] = [];
  #partsBytes = 0;
  #batch: Part[] = [];
  #batchBytes = 0;
  /** Frames in `#parts`. */
  #frames = 0;
  #isFlushDue = false;
  #isClosed = false;
  /** False: READs and their answers have no CRCs (VERSION_READS_WITHOUT_CRC). */
  readsHaveCrc = true;
  readonly #flushLater = (): void => {
    this.#isFlushDue = false;
    this.flush();
  };
  readonly #onSent = (): void => this.#sent();

  constructor(carrier: FrameCarrier, clock: Clock) {
    this.#carrier = carrier;
    this.#clock = clock;
    this.#writer = new WireWriter(this.#slab.bytes);
    this.#writer.at = CARRIER_ROOM_BYTES;
  }

  /** Bytes of frames that the stream has not taken yet. */
  get unsentBytes(): number {
    return this.#partsBytes + this.#batchBytes;
  }

  /** Opens a frame: its arguments are written to what this returns, until `send`. One at a time: one whose encoding threw is forgotten, none of it is sent. */
  open(): WireWriter {
    this.#abandon();
    const writer = this.#writer;
    if (this.#slab.bytes.length - writer.at < HEAD_BYTES + ARGS_ROOM_BYTES + COPY_BYTES_MAX) this.#changeSlab();
    this.#frameStart = writer.at;
    writer.at += HEAD_BYTES;
    return writer;
  }

  /**
   * Sends the open frame with this payload, whose chunks must not change until they are sent. `nowMs` is the monotonic clock. `crc`: of the payload, if it is known.
   */
  send(
    kind: FrameKind,
    isAnswer: boolean,
    requestId: number,
    ageMs: number,
    nowMs: number,
    payload: readonly Uint8Array[],
    crc: number | null = null,
  ): void {
    const writer = this.#writer;
    const start = this.#frameStart;
    assert(start >= 0 && writer.bytes === this.#slab.bytes, 'arguments of a frame that are too long');
    this.#frameStart = -1;
    let payloadBytes = 0;
    for (let i = 0; i < payload.length; i++) payloadBytes += payload[i]!.length;
    const head = this.#head;
    head.kind = kind;
    head.isAnswer = isAnswer;
    head.requestId = requestId;
    head.payloadBytes = payloadBytes;
    head.argsBytes = writer.at - start - HEAD_BYTES;
    head.ageMs = ageMs;
    head.sentMs = nowMs;
    const hasCrc = this.readsHaveCrc || kind !== FrameKind.READ;
    head.payloadCrc = hasCrc ? (crc ?? payloadCrc(payload)) : 0;
    putHead(writer.bytes, start, head, hasCrc);
    this.#partsBytes += writer.at - start + payloadBytes;
    if (payloadBytes <= COPY_BYTES_MAX) {
      for (let i = 0; i < payload.length; i++) {
        writer.bytes.set(payload[i]!, writer.at);
        writer.at += payload[i]!.length;
      }
    } else {
      this.#cutPart();
      for (let i = 0; i < payload.length; i++) this.#parts.push({ bytes: payload[i]!, slab: null });
    }
    this.#frames += 1;
    if (this.#frames >= EARLY_FLUSH_FRAMES || this.#partsBytes >= EARLY_FLUSH_BYTES) this.flush();
    else if (!this.#isFlushDue) {
      this.#isFlushDue = true;
      this.#clock.soon(this.#flushLater);
    }
  }

  /** Hands what has come together to the stream now, unless a write is under way. */
  flush(): void {
    if (this.#batchBytes > 0 || this.#partsBytes === 0 || this.#isClosed) return;
    this.#abandon();
    this.#cutPart();
    const batch = this.#parts;
    this.#parts = this.#batch;
    this.#batch = batch;
    this.#batchBytes = this.#partsBytes;
    this.#partsBytes = 0;
    this.#frames = 0;
    this.#carrier.write(batch, this.#batchBytes, this.#onSent);
  }

  /** The stream is gone: nothing more is sent. */
  close(): void {
    this.#isClosed = true;
    this.#parts = [];
    this.#partsBytes = 0;
  }

  #sent(): void {
    if (this.#isClosed) return;
    const batch = this.#batch;
    for (let i = 0; i < batch.length; i++) {
      const slab = batch[i]!.slab;
      if (slab !== null) this.#unpin(slab);
    }
    batch.length = 0;
    this.#batchBytes = 0;
    if (this.#partsBytes >= EARLY_FLUSH_BYTES || !this.#isFlushDue) this.flush();
  }

  #unpin(slab: Slab): void {
    slab.pins -= 1;
    if (slab.pins > 0) return;
    if (slab !== this.#slab) {
      if (this.#free.length < FREE_SLABS_MAX) this.#free.push(slab);
    } else if (this.#frameStart < 0 && this.#partStart + CARRIER_ROOM_BYTES === this.#writer.at) this.#beginPart(0);
  }

  /** Forgets the frame that is open: its encoding threw, which is a bug of one call and not to be one of all others. */
  #abandon(): void {
    if (this.#frameStart < 0) return;
    // One that did not fit was given other memory.
    this.#writer.bytes = this.#slab.bytes;
    this.#writer.at = this.#frameStart;
    this.#frameStart = -1;
  }

  /** Ends the part of the slab that is being filled. */
  #cutPart(): void {
    const end = this.#writer.at;
    const start = this.#partStart + CARRIER_ROOM_BYTES;
    if (end === start) return;
    this.#slab.pins += 1;
    this.#parts.push({ bytes: this.#slab.bytes.subarray(this.#parts.length === 0 ? this.#partStart : start, end), slab: this.#slab });
    this.#beginPart(end);
  }

  #beginPart(at: number): void {
    this.#partStart = at;
    this.#writer.at = at + CARRIER_ROOM_BYTES;
  }

  #changeSlab(): void {
    this.#cutPart();
    const old = this.#slab;
    this.#slab = this.#free.pop() ?? { bytes: Buffer.allocUnsafeSlow(SLAB_BYTES), pins: 0 };
    if (old.pins === 0 && this.#free.length < FREE_SLABS_MAX) this.#free.push(old);
    this.#writer.bytes = this.#slab.bytes;
    this.#beginPart(0);
  }
}
