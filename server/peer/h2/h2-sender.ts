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
      socket.write(parts[last]!.bytes, this.#written);
      if (last > 0) socket.uncork();
      this.#handedOver([stream]);
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
      this.#handedOver(finished);
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

  #handedOver(streams: Outgoing[]): void {
    if (this.#socket.writableLength === 0) this.#tell(streams);
    else {
      this.#isBusy = true;
      for (const stream of streams) this.#underWay.push(stream);
    }
  }

  #onWritten(): void {
    if (!this.#isBusy || this.#isClosed || this.#socket.writableLength > 0 || this.#socket.destroyed) return;
    this.#isBusy = false;
    const streams = this.#underWay;
    this.#underWay = [];
    this.#tell(streams);
    this.pump();
  }

  #tell(streams: readonly Outgoing[]): void {
    for (const stream of streams) {
      const { sent } = stream;
      stream.sent = null;
      stream.parts = [];
      if (stream.isEnding) this.#writeEnd(stream);
      sent?.();
    }
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
