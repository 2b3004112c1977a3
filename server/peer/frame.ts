/**
 * The frame: what the streams between routers consist of (docs/PEER-PROTOCOL.md, "Frames").
 *
 *   0  u32 crc      CRC-32 of bytes 4 to the end of the arguments
 *   4  u16 magic    0x7646 "vF"
 *   6  u8  kind     FrameKind
 *   7  u8  flags    bit 0: an answer
 *   8  u32 request  names the call on its stream; the answer carries the same
 *  12  u32 payload  bytes of payload behind the arguments
 *  16  u16 args     bytes of arguments behind the head
 *  18  u16 age      how old the call was when it was sent, in milliseconds; 0 in answers
 *  20  u32 sent     sender's monotonic clock when it was sent, milliseconds modulo 2^32
 *  24  u32 crc      CRC-32 of the payload (0 without)
 *  28  args, then payload
 */
import { crc32 } from 'node:zlib';

import { putU32 } from './wire-writer.ts';

export const HEAD_BYTES = 28;
export const MAGIC = 0x7646;
/** Arguments are small and fixed in kind: whatever is longer is payload. */
export const ARGS_BYTES_MAX = 4096;
/** Above every payload that a message may have. */
export const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;
export const FLAG_ANSWER = 1;

export const FrameKind = {
  HELLO: 1,
  PING: 2,
  GETATTR: 16,
  ATTRIBUTES_OF: 17,
  READ: 18,
  WRITE: 19,
  COMMIT: 20,
  SETATTR: 21,
  INODE_CHANGED: 22,
  MOVE_ASK: 32,
  MOVE_FETCH: 33,
  MOVE_FREEZE: 34,
  MOVE_CONFIRM: 35,
  MOVE_ABORT: 36,
  MOVE_OFFER: 37,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

const KINDS: ReadonlySet<number> = new Set(Object.values(FrameKind));

export function isFrameKind(value: number): value is FrameKind {
  return KINDS.has(value);
}

/** Fields of a head, as decoded. */
export interface FrameHead {
  kind: FrameKind;
  isAnswer: boolean;
  requestId: number;
  payloadBytes: number;
  argsBytes: number;
  ageMs: number;
  sentMs: number;
  payloadCrc: number;
}

/**
 * Writes the head in front of arguments that are there already: `bytes[start + HEAD_BYTES, start + HEAD_BYTES + head.argsBytes)`. `sentMs` is taken modulo 2^32.
 * `hasCrc` false: 0 in place of the head's own.
 */
export function putHead(bytes: Buffer, start: number, head: FrameHead, hasCrc: boolean): void {
  bytes[start + 4] = MAGIC >>> 8;
  bytes[start + 5] = MAGIC & 0xff;
  bytes[start + 6] = head.kind;
  bytes[start + 7] = head.isAnswer ? FLAG_ANSWER : 0;
  putU32(bytes, start + 8, head.requestId);
  putU32(bytes, start + 12, head.payloadBytes);
  bytes[start + 16] = head.argsBytes >>> 8;
  bytes[start + 17] = head.argsBytes;
  bytes[start + 18] = head.ageMs >>> 8;
  bytes[start + 19] = head.ageMs;
  putU32(bytes, start + 20, head.sentMs);
  putU32(bytes, start + 24, head.payloadCrc);
  putU32(bytes, start, hasCrc ? crc32(bytes.subarray(start + 4, start + HEAD_BYTES + head.argsBytes)) : 0);
}

/** CRC-32 of a payload in pieces; 0 for none. */
export function payloadCrc(chunks: readonly Uint8Array[]): number {
  let crc = 0;
  for (let i = 0; i < chunks.length; i++) crc = crc32(chunks[i]!, crc);
  return crc;
}
