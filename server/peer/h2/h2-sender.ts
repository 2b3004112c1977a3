/**
 * What one end of an HTTP/2 connection sends: DATA within the windows that the peer gave, streams by turns, each frame whole.
 *
 * While the system takes everything, a write of a stream is one frame and one system call. Once a write is under way, the writes of all streams wait, and leave
 * in pieces by turns, so that a long one of one stream does not hold up the others.
 */
import type { Duplex } from 'node:stream';

import { assert } from '../../core/assert.ts';
import { H2Code, H2Error } from './h2-error.ts';
import { Flag, FRAME_BYTES_MIN, FRAME_HEAD_BYTES, FrameType, putFrameHead, WINDOW_BYTES_DEFAULT, WINDOW_BYTES_MAX } from './h2-frame.ts';

/** Of one stream at a time, while others wait; and what is written at once when none does. */
const PIECE_BYTES_MAX = 256 * 1024;
/** Answers to frames of the peer that it does not take. */
const ANSWERS_MAX = 1024;
const NOTHING = Buffer.alloc(0);
const NO_PARTS: readonly DataPart[] = [];

/** A part of what is written: the first of a write begins with `FRAME_HEAD_BYTES` of room, which is the sender's. */
export interface DataPart {
  readonly bytes: Uint8Array;
}

/** What a stream has to send. */
export class Outgoing {
  readonly id: number;
  /** What the peer takes of this stream. */
  windowBytes: number;
  parts: readonly DataPart[] = [];
  part = 0;
  offset = 0;
  leftBytes = 0;
  sent: (() => void) | null = null;
  isEnding = false;

  constructor(id: number, windowBytes: number) {
    this.id = id;
    this.windowBytes = windowBytes;
  }
}

export class H2Sender {
  readonly #socket: Duplex;
  /** Streams that have something to send, in the order of their turns. */
  #waiting: Outgoing[] = [];
  /** Streams whose write was handed to the system, which has not taken it all. */
  #underWay: Outgoing[] = [];
  #windowBytes = WINDOW_BYTES_DEFAULT;
  #initialWindowBytes = WINDOW_BYTES_DEFAULT;
  #frameBytesMax = FRAME_BYTES_MIN;
  #answers = 0;
  #isBusy = false;
  #isClosed = false;
  /** The last write was in the kernel when it returned. */
  #takesAtOnce = true;
  readonly #written = (): void => this.#onWritten();

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** A stream, with the window that the peer gives to each. */
  open(id: number): Outgoing {
    return new Outgoing(id, this.#initialWindowBytes);
  }

  /**
   * Sends `bytes` bytes of a stream, those of `parts` behind the room in the first. They must not change until `sent`, which may be called before this returns.
   * One write of a stream at a time.
   */
  write(stream: Outgoing, parts: readonly DataPart[], bytes: number, sent: () => void): void {
    if (this.#isClosed) return;
    assert(stream.sent === null, 'h2: a write of a stream that has one under way');
    stream.sent = sent;
    if (
      !this.#isBusy &&
      this.#waiting.length === 0 &&
      bytes <= PIECE_BYTES_MAX &&
      bytes <= this.#frameBytesMax &&
      bytes <= this.#windowBytes &&
      bytes <= stream.windowBytes
    ) {
      this.#windowBytes -= bytes;
      stream.windowBytes -= bytes;
      putFrameHead(parts[0]!.bytes, 0, bytes, FrameType.DATA, 0, stream.id);
      const socket = this.#socket;
      const last = parts.length - 1;
      if (last > 0) {
        socket.cork();
        for (let i = 0; i < last; i++) socket.write(parts[i]!.bytes);
      }
      const isHeard = this.#writeLast(parts[last]!.bytes);
      if (last > 0) socket.uncork();
      if (this.#isTaken()) this.#tell(stream);
      else this.#isUnderWay([stream], isHeard);
      return;
    }
    stream.parts = parts;
    stream.part = 0;
    stream.offset = FRAME_HEAD_BYTES;
    stream.leftBytes = bytes;
    this.#waiting.push(stream);
    this.pump();
  }

  /** Ends this direction of a stream, behind what it has to send. */
  end(stream: Outgoing): void {
    if (this.#isClosed || stream.isEnding) return;
    stream.isEnding = true;
    // Otherwise behind the write that waits or is under way, once it is over.
    if (stream.sent === null) this.#writeEnd(stream);
  }

  /** The stream is gone: what it has not sent is not sent any more. */
  forget(stream: Outgoing): void {
    this.#waiting = this.#waiting.filter((one) => one !== stream);
    this.#underWay = this.#underWay.filter((one) => one !== stream);
    stream.sent = null;
  }

  /** Writes a frame of another kind. */
  control(frame: Uint8Array): void {
    if (!this.#isClosed) this.#socket.write(frame, this.#written);
  }

  /** Writes a frame that the peer asked for. @throws H2Error when it does not take them. */
  answer(frame: Uint8Array): void {
    if (this.#socket.writableLength === 0) this.#answers = 0;
    this.#answers += 1;
    if (this.#answers > ANSWERS_MAX) throw new H2Error(H2Code.ENHANCE_YOUR_CALM, 'more requests than answers are taken');
    this.control(frame);
  }

  /** Settings of the peer; `streams`: those that are open. */
  initialWindow(bytes: number, streams: Iterable<Outgoing>): void {
    const change = bytes - this.#initialWindowBytes;
    this.#initialWindowBytes = bytes;
    for (const stream of streams) stream.windowBytes = checkedWindow(stream.windowBytes + change);
  }

  frameSize(bytesMax: number): void {
    this.#frameBytesMax = bytesMax;
  }

  /** The peer takes more: of a stream, or of the whole connection (null). */
  grant(stream: Outgoing | null, bytes: number): void {
    if (stream === null) this.#windowBytes = checkedWindow(this.#windowBytes + bytes);
    else stream.windowBytes = checkedWindow(stream.windowBytes + bytes);
  }

  close(): void {
    this.#isClosed = true;
    this.#waiting = [];
    this.#underWay = [];
  }

  /** Sends what waits, as far as the windows and the system take it. */
  pump(): void {
    while (!this.#isBusy && !this.#isClosed && this.#waiting.length > 0) {
      const streams = this.#waiting;
      this.#waiting = [];
      const finished: Outgoing[] = [];
      let bytes = 0;
      this.#socket.cork();
      for (const stream of streams) {
        bytes += this.#writePiece(stream);
        if (stream.leftBytes > 0) this.#waiting.push(stream);
        else finished.push(stream);
      }
      this.#socket.uncork();
      if (bytes === 0) return;
      if (!this.#isTaken()) this.#isUnderWay(finished, true);
      else for (const stream of finished) this.#tell(stream);
    }
  }

  #writePiece(stream: Outgoing): number {
    const bytes = Math.min(stream.leftBytes, stream.windowBytes, this.#windowBytes, this.#frameBytesMax, PIECE_BYTES_MAX);
    if (bytes <= 0) return 0;
    this.#windowBytes -= bytes;
    stream.windowBytes -= bytes;
    stream.leftBytes -= bytes;
    const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
    putFrameHead(head, 0, bytes, FrameType.DATA, 0, stream.id);
    this.#socket.write(head);
    let left = bytes;
    while (left > 0) {
      const part = stream.parts[stream.part]!.bytes;
      const count = Math.min(left, part.length - stream.offset);
      if (count > 0) this.#socket.write(part.subarray(stream.offset, stream.offset + count), this.#written);
      left -= count;
      stream.offset += count;
      if (stream.offset === part.length) {
        stream.part += 1;
        stream.offset = 0;
      }
    }
    return bytes;
  }

  /**
   * The last part of a write. A callback costs a turn of its own, so it is left out while the system takes everything at once, as TLS never does. True: `#written`
   * will be called.
   */
  #writeLast(bytes: Uint8Array): boolean {
    if (this.#takesAtOnce) this.#socket.write(bytes);
    else this.#socket.write(bytes, this.#written);
    return !this.#takesAtOnce;
  }

  #isTaken(): boolean {
    this.#takesAtOnce = this.#socket.writableLength === 0;
    return this.#takesAtOnce;
  }

  #isUnderWay(streams: readonly Outgoing[], isHeard: boolean): void {
    this.#isBusy = true;
    for (const stream of streams) this.#underWay.push(stream);
    // Nothing, behind what is under way, says when it was taken.
    if (!isHeard) this.#socket.write(NOTHING, this.#written);
  }

  #onWritten(): void {
    if (!this.#isBusy || this.#isClosed || this.#socket.writableLength > 0 || this.#socket.destroyed) return;
    this.#isBusy = false;
    const streams = this.#underWay;
    this.#underWay = [];
    for (const stream of streams) this.#tell(stream);
    this.pump();
  }

  #tell(stream: Outgoing): void {
    const { sent } = stream;
    stream.sent = null;
    stream.parts = NO_PARTS;
    if (stream.isEnding) this.#writeEnd(stream);
    sent?.();
  }

  #writeEnd(stream: Outgoing): void {
    const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
    putFrameHead(frame, 0, 0, FrameType.DATA, Flag.END_STREAM, stream.id);
    this.#socket.write(frame, this.#written);
  }
}

function checkedWindow(bytes: number): number {
  if (bytes > WINDOW_BYTES_MAX) throw new H2Error(H2Code.FLOW_CONTROL_ERROR, 'a window that is too large');
  return bytes;
}
