/**
 * Turns the payload of a WRITE, whole blocks in the chunks it arrived in, into log records: one CRC per block, blocks of zeros without
 * payload, no copy.
 */
import { crc32 } from 'node:zlib';

import { assert } from '../core/assert.ts';
import { LogRecord } from '../object-log/log-record.ts';
import { BLOCK_BYTES, RECORD_BLOCKS_MAX, RecordKind } from '../object-log/segment-codec.ts';

export const ZERO_BLOCK: Buffer = Buffer.alloc(BLOCK_BYTES);

/** Parts of `chunks` that make up [from, from + length) of their concatenation; no copy. */
export function sliceChunks(chunks: readonly Uint8Array[], from: number, length: number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let skip = from;
  let left = length;
  for (const chunk of chunks) {
    if (left === 0) break;
    if (skip >= chunk.length) {
      skip -= chunk.length;
      continue;
    }
    const take = Math.min(chunk.length - skip, left);
    parts.push(skip === 0 && take === chunk.length ? chunk : chunk.subarray(skip, skip + take));
    skip = 0;
    left -= take;
  }
  return parts;
}

/** Copies [from, from + length) of the concatenation of `chunks` to `target` at `at`. */
export function copyChunks(chunks: readonly Uint8Array[], from: number, length: number, target: Uint8Array, at: number): void {
  let written = at;
  for (const part of sliceChunks(chunks, from, length)) {
    target.set(part, written);
    written += part.length;
  }
}

function isZero(bytes: Uint8Array, from: number, length: number): boolean {
  // Almost every block that is not zero shows it in its first byte or its last: one look instead of a compare.
  if (bytes[from] !== 0 || bytes[from + length - 1] !== 0 || bytes[from + (length >> 1)] !== 0) return false;
  return ZERO_BLOCK.compare(bytes, from, from + length, 0, length) === 0;
}

/**
 * Records for `blockCount` whole blocks from `startBlock` on; `chunks` together are exactly those blocks. Runs of zero blocks become ZERO
 * records, the rest DATA records.
 */
export function planBlocks(startBlock: number, blockCount: number, chunks: readonly Uint8Array[]): LogRecord[] {
  const crcs = new Uint32Array(blockCount);
  let zeros = 0;
  let zeroFlags: Uint8Array | null = null;
  let chunk = 0;
  let at = 0;
  for (let block = 0; block < blockCount; block += 1) {
    let crc = 0;
    let left = BLOCK_BYTES;
    let zero = true;
    while (left > 0) {
      const bytes = chunks[chunk] as Uint8Array;
      const take = Math.min(left, bytes.length - at);
      if (take > 0) {
        zero = zero && isZero(bytes, at, take);
        crc = crc32(take === bytes.length ? bytes : bytes.subarray(at, at + take), crc);
        at += take;
        left -= take;
      }
      if (at === bytes.length) {
        chunk += 1;
        at = 0;
      }
    }
    crcs[block] = crc;
    if (zero) {
      zeroFlags ??= new Uint8Array(blockCount);
      zeroFlags[block] = 1;
      zeros += 1;
    }
  }
  if (zeros === 0 && blockCount <= RECORD_BLOCKS_MAX) {
    return [new LogRecord(RecordKind.DATA, startBlock, blockCount, crcs, chunks, blockCount * BLOCK_BYTES, null)];
  }
  const records: LogRecord[] = [];
  let from = 0;
  while (from < blockCount) {
    const zero = zeroFlags?.[from] === 1;
    let to = from + 1;
    while (to < blockCount && (zeroFlags?.[to] === 1) === zero && (zero || to - from < RECORD_BLOCKS_MAX)) to += 1;
    if (zero) records.push(new LogRecord(RecordKind.ZERO, startBlock + from, to - from, null, [], 0, null));
    else {
      const payloadBytes = (to - from) * BLOCK_BYTES;
      const parts = sliceChunks(chunks, from * BLOCK_BYTES, payloadBytes);
      records.push(new LogRecord(RecordKind.DATA, startBlock + from, to - from, crcs.subarray(from, to), parts, payloadBytes, null));
    }
    from = to;
  }
  return records;
}

/** Whole blocks out of a payload with partial edges: `headBase` and `tailBase` are the blocks as they were, and are modified. */
export function mergeEdges(
  offsetBytes: number,
  countBytes: number,
  chunks: readonly Uint8Array[],
  first: number,
  last: number,
  headBase: Buffer | null,
  tailBase: Buffer | null,
): Uint8Array[] {
  const headSkip = offsetBytes - first * BLOCK_BYTES;
  if (first === last) {
    const base = headBase ?? tailBase;
    assert(base !== null);
    copyChunks(chunks, 0, countBytes, base, headSkip);
    return [base];
  }
  const blocks: Uint8Array[] = [];
  let from = 0;
  if (headBase !== null) {
    from = BLOCK_BYTES - headSkip;
    copyChunks(chunks, 0, from, headBase, headSkip);
    blocks.push(headBase);
  }
  const tailBytes = tailBase === null ? 0 : offsetBytes + countBytes - last * BLOCK_BYTES;
  for (const part of sliceChunks(chunks, from, countBytes - from - tailBytes)) blocks.push(part);
  if (tailBase !== null) {
    copyChunks(chunks, countBytes - tailBytes, tailBytes, tailBase, 0);
    blocks.push(tailBase);
  }
  return blocks;
}
