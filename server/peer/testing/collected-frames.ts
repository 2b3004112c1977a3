/** Frames without a network: what a FrameSender writes, and what a FrameReader makes of bytes. */
import assert from 'node:assert/strict';

import type { Clock } from '../../core/time.ts';
import { FrameReader } from '../frame-reader.ts';
import { CARRIER_ROOM_BYTES, FrameSender } from '../frame-sender.ts';
import type { FrameCarrier } from '../frame-sender.ts';
import type { FrameHead } from '../frame.ts';

/** A stream that keeps what is written, for a FrameSender. */
export class CollectingStream implements FrameCarrier {
  readonly #written: Buffer[] = [];
  /** Ends of writes that are held back, while `isHolding`. */
  readonly #held: (() => void)[] = [];
  isHolding = false;
  writes = 0;

  /** Everything that was written since the last call. */
  take(): Buffer {
    return Buffer.concat(this.#written.splice(0));
  }

  /** Lets the writes that were held back end. */
  release(): void {
    this.isHolding = false;
    for (const end of this.#held.splice(0)) end();
  }

  write(parts: readonly { readonly bytes: Uint8Array }[], bytes: number, done: () => void): void {
    const chunks = parts.map((part, index) => part.bytes.subarray(index === 0 ? CARRIER_ROOM_BYTES : 0));
    assert.equal(
      chunks.reduce((sum, chunk) => sum + chunk.length, 0),
      bytes,
    );
    this.writes += 1;
    const end = (): void => {
      // Read as late as a socket would, and copied, because the sender may use the memory again after `done`.
      this.#written.push(Buffer.concat(chunks));
      done();
    };
    if (this.isHolding) this.#held.push(end);
    else end();
  }
}

/** Runs nothing by itself: the turn ends when `end` is called. */
export class TurnClock implements Clock {
  nowMs = 0;
  readonly #soon: (() => void)[] = [];

  wallMs(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  after(): () => void {
    return () => {};
  }

  soon(callback: () => void): void {
    this.#soon.push(callback);
  }

  sleep(): Promise<void> {
    return Promise.resolve();
  }

  end(): void {
    for (const callback of this.#soon.splice(0)) callback();
  }
}

export interface CollectedFrame {
  readonly head: FrameHead;
  readonly args: Buffer;
  readonly payload: Buffer;
}

/** Bytes of one frame as FrameSender makes them. */
export function frameBytes(
  head: Pick<FrameHead, 'kind' | 'isAnswer' | 'requestId' | 'ageMs' | 'sentMs'>,
  args: Uint8Array,
  payload: readonly Uint8Array[],
  readsHaveCrc = true,
): Buffer {
  const stream = new CollectingStream();
  const sender = new FrameSender(stream, new TurnClock());
  sender.readsHaveCrc = readsHaveCrc;
  sender.open().raw(args);
  sender.send(head.kind, head.isAnswer, head.requestId, head.ageMs, head.sentMs, payload);
  sender.flush();
  return stream.take();
}

/** Frames of bytes that come in the given pieces. `into`: for payloads, as a READ has one; null: slices. @throws FrameError. */
export function framesOf(pieces: readonly Buffer[], into: Buffer | null = null): { frames: CollectedFrame[]; isBetweenFrames: boolean } {
  const frames: CollectedFrame[] = [];
  let args = Buffer.alloc(0);
  const reader = new FrameReader({
    begin(_head, bytes, start, end) {
      args = Buffer.from(bytes.subarray(start, end));
      return into;
    },
    end(head, payload) {
      frames.push({ head: { ...head }, args, payload: into === null ? Buffer.concat(payload) : Buffer.from(into.subarray(0, head.payloadBytes)) });
    },
  });
  for (const piece of pieces) reader.push(piece);
  return { frames, isBetweenFrames: reader.isBetweenFrames };
}
