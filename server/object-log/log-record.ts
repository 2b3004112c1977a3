import type { EncodableRecord, RecordKind } from './segment-codec.ts';

const NO_CHUNKS: readonly Uint8Array[] = [];
const NO_CRCS = new Uint32Array(0);

/**
 * A record on its way into the log, and its waiter. One object per record, not per block; the payload stays the list of chunks it arrived in.
 */
export class LogRecord implements EncodableRecord {
  readonly kind: RecordKind;
  flags = 0;
  sequence = 0;
  readonly startBlock: number;
  readonly blockCount: number;
  /** Size of the object after this record. */
  newSizeBytes = 0;
  seconds = 0;
  nanoseconds = 0;
  readonly crcs: Uint32Array;
  readonly payloadBytes: number;
  /** Owned by the log until the record is durable; nobody modifies them. */
  chunks: readonly Uint8Array[];
  /** ATTRIBUTES: the encoded times. */
  readonly times: Uint8Array | null;
  /** The call whose last record this is (RecordFlag.CALL); four words, not modified any more. */
  call: Uint32Array | null = null;
  /** Answered only when durable. */
  stable = true;
  /** Number of the segment it was put in, and where its payload is there. */
  segmentNumber = 0;
  payloadOffset = 0;
  /** Smallest size of the object that this record alone asks for: the end of a WRITE. */
  endBytes = 0;
  /** It was applied, and a fault moves it to another segment; `formerSegment` and `formerOffset` are where it was when it was applied. */
  moved = false;
  formerSegment = 0;
  formerOffset = 0;
  /** Called once, after the record was applied (null) or could not be made durable. */
  done: ((error: Error | null) => void) | null = null;

  constructor(
    kind: RecordKind,
    startBlock: number,
    blockCount: number,
    crcs: Uint32Array | null,
    chunks: readonly Uint8Array[],
    payloadBytes: number,
    times: Uint8Array | null,
  ) {
    this.kind = kind;
    this.startBlock = startBlock;
    this.blockCount = blockCount;
    this.crcs = crcs ?? NO_CRCS;
    this.chunks = chunks;
    this.payloadBytes = payloadBytes;
    this.times = times;
  }

  /** Tells who waits for it, once: it was applied (null), or could not be made durable. */
  answer(error: Error | null): void {
    const { done } = this;
    this.done = null;
    if (done !== null) done(error);
  }

  /** Marks it as moved from where it is now. */
  move(): void {
    this.moved = true;
    this.formerSegment = this.segmentNumber;
    this.formerOffset = this.payloadOffset;
  }

  /** Lets go of the payload: it is durable and applied. The record itself may stay in a list for a while, and 512 of 1 MiB would be a lot. */
  release(): void {
    this.chunks = NO_CHUNKS;
  }
}
