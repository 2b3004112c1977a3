/**
 * Cuts what a stream receives into frames. A head with its arguments is handed over when it is whole and its CRC fits; the payload goes either straight into
 * a buffer that the sink names (one copy), or is collected as slices of what was received (no copy).
 */
import { crc32 } from 'node:zlib';

import { FrameError } from './frame-error.ts';
import { ARGS_BYTES_MAX, FLAG_ANSWER, FrameKind, HEAD_BYTES, isFrameKind, MAGIC, PAYLOAD_BYTES_MAX } from './frame.ts';
import type { FrameHead } from './frame.ts';
import { getU32 } from './wire-reader.ts';

const NONE: readonly Buffer[] = [];

/** Where frames go. What it throws as FrameError says that the frame is not acceptable; the reader must not be used again then. */
export interface FrameSink {
  /**
   * A head came; its arguments are `bytes[start, end)`, valid until this returns. Answers where the payload goes: a buffer of at least that size, or null
   * to get slices. `head` is reused for the next frame.
   */
  begin(head: FrameHead, bytes: Buffer, start: number, end: number): Buffer | null;
  /** The frame is whole, its payload checked. `payload`: slices in order, the sink's own from now on; empty when they went into the buffer that it named. */
  end(head: FrameHead, payload: readonly Buffer[]): void;
}

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #head: FrameHead = {
    kind: 1,
    isAnswer: false,
    requestId: 0,
    payloadBytes: 0,
    argsBytes: 0,
    ageMs: 0,
    sentMs: 0,
    payloadCrc: 0,
  };
  /** The beginning of a head or its arguments that lies in more than one chunk. */
  readonly #start = Buffer.allocUnsafe(HEAD_BYTES + ARGS_BYTES_MAX);
  #startBytes = 0;
  #isInPayload = false;
  #target: Buffer | null = null;
  #chunks: Buffer[] = [];
  #gotBytes = 0;
  #crc = 0;
  #isStopped = false;
  /** False: READs and their answers come with 0 in place of CRCs (VERSION_READS_WITHOUT_CRC). */
  readsHaveCrc = true;
  #hasCrc = true;
  /** The sink got, or will get, slices of the chunk that was pushed last. */
  isSliced = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** True between frames. */
  get isBetweenFrames(): boolean {
    return !this.#isInPayload && this.#startBytes === 0;
  }

  /** Takes nothing more, not even the rest of the chunk being pushed. */
  stop(): void {
    this.#isStopped = true;
    this.#chunks = [];
    this.#target = null;
  }

  /** Takes what was received; `chunk` belongs to the reader (slices of it to the sink). @throws FrameError when it is no frame. */
  push(chunk: Buffer): void {
    this.isSliced = false;
    let at = 0;
    while (!this.#isStopped) {
      if (this.#isInPayload) {
        at = this.#takePayload(chunk, at);
        if (this.#isInPayload) return;
        continue;
      }
      if (at === chunk.length) return;
      if (this.#startBytes === 0 && chunk.length - at >= HEAD_BYTES) {
        const end = at + HEAD_BYTES + this.#decodeHead(chunk, at);
        if (end <= chunk.length) {
          this.#begin(chunk, at, end);
          at = end;
          continue;
        }
      }
      at = this.#collect(chunk, at);
    }
  }

  /** Moves bytes of `chunk` to the beginning that is being put together; begins the frame when that is whole. */
  #collect(chunk: Buffer, from: number): number {
    const start = this.#start;
    let at = from;
    if (this.#startBytes < HEAD_BYTES) {
      const count = Math.min(HEAD_BYTES - this.#startBytes, chunk.length - at);
      chunk.copy(start, this.#startBytes, at, at + count);
      this.#startBytes += count;
      at += count;
      if (this.#startBytes < HEAD_BYTES) return at;
      this.#decodeHead(start, 0);
    }
    const end = HEAD_BYTES + this.#head.argsBytes;
    const count = Math.min(end - this.#startBytes, chunk.length - at);
    chunk.copy(start, this.#startBytes, at, at + count);
    this.#startBytes += count;
    if (this.#startBytes === end) {
      this.#startBytes = 0;
      this.#begin(start, 0, end);
    }
    return at + count;
  }

  /** Fills the head and answers the size of its arguments. Its CRC is not checked yet. */
  #decodeHead(bytes: Buffer, at: number): number {
    const head = this.#head;
    if (((bytes[at + 4]! << 8) | bytes[at + 5]!) !== MAGIC) throw new FrameError('a frame without magic');
    const kind = bytes[at + 6]!;
    const flags = bytes[at + 7]!;
    if (!isFrameKind(kind)) throw new FrameError(`a frame of the unknown kind ${kind}`);
    if ((flags & ~FLAG_ANSWER) !== 0) throw new FrameError(`a frame with unknown flags ${flags}`);
    head.kind = kind;
    head.isAnswer = flags === FLAG_ANSWER;
    head.requestId = getU32(bytes, at + 8);
    head.payloadBytes = getU32(bytes, at + 12);
    head.argsBytes = (bytes[at + 16]! << 8) | bytes[at + 17]!;
    head.ageMs = (bytes[at + 18]! << 8) | bytes[at + 19]!;
    head.sentMs = getU32(bytes, at + 20);
    head.payloadCrc = getU32(bytes, at + 24);
    if (head.argsBytes > ARGS_BYTES_MAX) throw new FrameError(`a frame with ${head.argsBytes} bytes of arguments`);
    if (head.payloadBytes > PAYLOAD_BYTES_MAX) throw new FrameError(`a frame with ${head.payloadBytes} bytes of payload`);
    return head.argsBytes;
  }

  #begin(bytes: Buffer, start: number, end: number): void {
    const head = this.#head;
    this.#hasCrc = this.readsHaveCrc || head.kind !== FrameKind.READ;
    if (getU32(bytes, start) !== (this.#hasCrc ? crc32(bytes.subarray(start + 4, end)) : 0))
      throw new FrameError('a frame whose head does not fit its CRC');
    const target = this.#sink.begin(head, bytes, start + HEAD_BYTES, end);
    this.#isInPayload = true;
    this.#target = target;
    this.#gotBytes = 0;
    this.#crc = 0;
    if (target !== null && target.length < head.payloadBytes) throw new FrameError(`${head.payloadBytes} bytes for a buffer of ${target.length}`);
  }

  #takePayload(chunk: Buffer, at: number): number {
    const head = this.#head;
    const count = Math.min(head.payloadBytes - this.#gotBytes, chunk.length - at);
    if (count > 0) {
      if (this.#target !== null && !this.#hasCrc) chunk.copy(this.#target, this.#gotBytes, at, at + count);
      else {
        const slice = chunk.subarray(at, at + count);
        if (this.#hasCrc) this.#crc = crc32(slice, this.#crc);
        if (this.#target === null) {
          this.#chunks.push(slice);
          this.isSliced = true;
        } else this.#target.set(slice, this.#gotBytes);
      }
      this.#gotBytes += count;
    }
    if (this.#gotBytes === head.payloadBytes) {
      if (this.#crc !== head.payloadCrc) throw new FrameError('a payload that does not fit its CRC');
      this.#isInPayload = false;
      this.#target = null;
      const chunks = this.#chunks;
      if (chunks.length > 0) this.#chunks = [];
      this.#sink.end(head, chunks.length > 0 ? chunks : NONE);
    }
    return at + count;
  }
}
