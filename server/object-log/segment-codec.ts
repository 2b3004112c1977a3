/**
 * Bytes of a segment: header, records, seal (docs/formats/segment.md is the specification and governs this file).
 *
 * Every CRC of a header is seeded with the segment's random salt, so that what an earlier life of a recycled or preallocated file left
 * behind never validates. Payload blocks have CRCs of their own, unsalted, listed in the record's (salted) header: a block that is not the
 * one the header was written for does not match, and the CRC can follow the block into the extent map (docs/decisions/0002).
 *
 * Little endian throughout. Numbers of 64 bits are below 2^53; larger ones are damage.
 */
import { crc32 } from 'node:zlib';

import type { Term } from '../core/ids.ts';

export const BLOCK_BYTES = 4096;
export const SEGMENT_HEADER_BYTES = 128;
export const RECORD_HEADER_BYTES = 72;
export const SEAL_FOOTER_BYTES = 64;
/** Most blocks of one record: a 4 MiB WRITE with two unaligned edges fits. */
export const RECORD_BLOCKS_MAX = 1032;
/** Blocks of the largest object, 64 TiB. */
const OBJECT_BLOCKS_MAX = 2 ** 34;
const NANOSECONDS_MAX = 999_999_999;
const ATTRIBUTES_PAYLOAD_BYTES = 24;
const TRAILER_ENTRY_BYTES = 56;

const SEGMENT_MAGIC = Buffer.from('VFSEG001');
const FOOTER_MAGIC = Buffer.from('VFSEGEND');
export const RECORD_MAGIC = Buffer.from('VFR1');
const RECORD_MAGIC_WORD = RECORD_MAGIC.readUInt32LE(0);
/** 2: records may say of which call they are. */
const VERSION = 2;
const VERSION_MIN = 1;
/** Words that name a call (RecordFlag.CALL). */
export const CALL_WORDS = 4;
const CALL_BYTES = CALL_WORDS * 4;

export const RecordKind = {
  /** Whole blocks with payload. */
  DATA: 1,
  /** Whole blocks of zeros, no payload. */
  ZERO: 2,
  /** Size and times set explicitly (SETATTR); a smaller size drops what lies behind it. */
  ATTRIBUTES: 3,
  /** COMMIT was durable here: no data answered UNSTABLE before this record is un-synced. */
  COMMIT_MARK: 4,
  SNAPSHOT_MARK: 5,
  /** First record of a term. */
  TERM_START: 6,
  /** Index of the segment; nothing follows it but the footer. */
  SEAL: 7,
} as const;
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind];

export const RecordFlag = {
  /** Answered before it was synced: until a COMMIT_MARK follows, the write verifier must change in a recovery. */
  UNSTABLE: 1,
  /**
   * The last record of a client's call: its 128-bit identity follows the CRC table. A recovery learns from it that the call was done, though it was never
   * answered (decision 0035). Only in the head of the record, not in the index.
   */
  CALL: 2,
} as const;

/** What a segment says of itself. */
export interface SegmentHeader {
  readonly vpoolUuid: string;
  readonly objectUuid: string;
  readonly term: Term;
  readonly number: number;
  readonly salt: number;
  /** Sequence of its first record: all earlier ones are in earlier segments, later ones there do not count. */
  readonly baseSequence: number;
  readonly createdWallMs: number;
  /** End of the term before this one, null for the first term of the object. */
  readonly cut: { readonly term: Term; readonly lastSegment: number; readonly lastSequence: number } | null;
}

/** A record as found in a segment or its index. `crcs` has one entry per block for DATA, none otherwise. */
export interface DecodedRecord {
  readonly kind: RecordKind;
  readonly flags: number;
  readonly sequence: number;
  readonly startBlock: number;
  readonly blockCount: number;
  readonly newSizeBytes: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly durableSequence: number;
  readonly payloadOffset: number;
  readonly payloadBytes: number;
  readonly crcs: Uint32Array;
  /** ATTRIBUTES only: atime seconds, nanoseconds, mtime seconds, nanoseconds, ctime seconds, nanoseconds. */
  readonly times: readonly number[];
  /** With RecordFlag.CALL: identity of the call, four words. Null also in what an index says. */
  readonly call: Uint32Array | null;
  /** Offset of the byte behind the record. */
  readonly endOffset: number;
}

/** Writes a number below 2^53 as 64 bits. */
export function writeUint53(target: Buffer, value: number, offset: number): void {
  target.writeUInt32LE(value % 0x1_0000_0000, offset);
  target.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

/** Reads 64 bits; NaN when the number is not below 2^53. */
export function readUint53(source: Buffer, offset: number): number {
  const high = source.readUInt32LE(offset + 4);
  return high >= 0x20_0000 ? NaN : high * 0x1_0000_0000 + source.readUInt32LE(offset);
}

function writeTerm(target: Buffer, term: Term, offset: number): void {
  target.writeUInt32LE(term.generation, offset);
  target.writeUInt32LE(term.counter, offset + 4);
  target.write(term.nonce, offset + 8, 8, 'hex');
}

function readTerm(source: Buffer, offset: number): Term {
  return {
    generation: source.readUInt32LE(offset),
    counter: source.readUInt32LE(offset + 4),
    nonce: source.toString('hex', offset + 8, offset + 16),
  };
}

/** A new buffer of SEGMENT_HEADER_BYTES. */
export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  SEGMENT_MAGIC.copy(bytes, 0);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(header.salt, 12);
  bytes.write(header.vpoolUuid, 16, 16, 'hex');
  bytes.write(header.objectUuid, 32, 16, 'hex');
  writeTerm(bytes, header.term, 48);
  writeUint53(bytes, header.number, 64);
  writeUint53(bytes, header.baseSequence, 72);
  writeUint53(bytes, Math.floor(header.createdWallMs), 80);
  if (header.cut !== null) {
    writeTerm(bytes, header.cut.term, 88);
    writeUint53(bytes, header.cut.lastSegment, 104);
    writeUint53(bytes, header.cut.lastSequence, 112);
    bytes.writeUInt32LE(1, 120);
  }
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 124)), 124);
  return bytes;
}

/** The header, or null when these bytes are none (never written, or damaged). */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | null {
  if (bytes.length < SEGMENT_HEADER_BYTES || !bytes.subarray(0, 8).equals(SEGMENT_MAGIC)) return null;
  const version = bytes.readUInt32LE(8);
  if (bytes.readUInt32LE(124) !== crc32(bytes.subarray(0, 124)) || version < VERSION_MIN || version > VERSION) return null;
  const number = readUint53(bytes, 64);
  const baseSequence = readUint53(bytes, 72);
  const createdWallMs = readUint53(bytes, 80);
  const lastSegment = readUint53(bytes, 104);
  const lastSequence = readUint53(bytes, 112);
  if (!Number.isSafeInteger(number + baseSequence + createdWallMs + lastSegment + lastSequence)) return null;
  return {
    vpoolUuid: bytes.toString('hex', 16, 32),
    objectUuid: bytes.toString('hex', 32, 48),
    term: readTerm(bytes, 48),
    number,
    salt: bytes.readUInt32LE(12),
    baseSequence,
    createdWallMs,
    cut: bytes.readUInt32LE(120) === 1 ? { term: readTerm(bytes, 88), lastSegment, lastSequence } : null,
  };
}

/** What the log asks the codec to write; the log's own record class has these fields. */
export interface EncodableRecord {
  readonly kind: RecordKind;
  readonly flags: number;
  readonly sequence: number;
  readonly startBlock: number;
  readonly blockCount: number;
  readonly newSizeBytes: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  /** CRC of each block for DATA; empty otherwise. */
  readonly crcs: Uint32Array;
  readonly payloadBytes: number;
  /** With RecordFlag.CALL only: four words. */
  readonly call: Uint32Array | null;
}

/** Bytes of header, CRC table and call, without payload. */
export function recordHeadBytes(record: { readonly kind: RecordKind; readonly flags: number; readonly blockCount: number }): number {
  const tableBytes = record.kind === RecordKind.DATA ? record.blockCount * 4 : 0;
  return RECORD_HEADER_BYTES + tableBytes + ((record.flags & RecordFlag.CALL) === 0 ? 0 : CALL_BYTES);
}

/**
 * Writes header, CRC table and call at `at`; returns the offset behind them. `payloadCrc` protects the payload of records that are not DATA.
 */
export function encodeRecordHead(
  target: Buffer,
  at: number,
  record: EncodableRecord,
  term: Term,
  salt: number,
  durableSequence: number,
  payloadCrc: number,
): number {
  target.writeUInt32LE(RECORD_MAGIC_WORD, at);
  target.writeUInt32LE(record.kind | (record.flags << 8), at + 4);
  writeUint53(target, record.sequence, at + 8);
  writeUint53(target, record.startBlock, at + 16);
  target.writeUInt32LE(record.blockCount, at + 24);
  target.writeUInt32LE(record.payloadBytes, at + 28);
  writeUint53(target, record.newSizeBytes, at + 32);
  target.writeUInt32LE(record.seconds, at + 40);
  target.writeUInt32LE(record.nanoseconds, at + 44);
  writeUint53(target, durableSequence, at + 48);
  target.writeUInt32LE(term.generation, at + 56);
  target.writeUInt32LE(term.counter, at + 60);
  target.writeUInt32LE(payloadCrc, at + 64);
  let end = at + RECORD_HEADER_BYTES;
  if (record.kind === RecordKind.DATA) {
    const crcs = record.crcs;
    for (let index = 0; index < record.blockCount; index += 1) {
      target.writeUInt32LE(crcs[index] as number, end);
      end += 4;
    }
  }
  if ((record.flags & RecordFlag.CALL) !== 0) {
    const call = record.call as Uint32Array;
    for (let word = 0; word < CALL_WORDS; word += 1) {
      target.writeUInt32LE(call[word] as number, end);
      end += 4;
    }
  }
  const crc = crc32(target.subarray(at, at + 68), salt);
  target.writeUInt32LE(end === at + RECORD_HEADER_BYTES ? crc : crc32(target.subarray(at + RECORD_HEADER_BYTES, end), crc), at + 68);
  return end;
}

const NO_CRCS = new Uint32Array(0);
const NO_TIMES: readonly number[] = [];

/**
 * The record whose head starts at `at` in `bytes` (bytes of the file from offset 0), or null when there is no valid one.
 * Only the head is checked here, and the payload of records that are not DATA; DATA payload is the caller's (`verifyPayload`).
 */
export function decodeRecord(bytes: Buffer, at: number, term: Term, salt: number): DecodedRecord | null {
  if (at + RECORD_HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== RECORD_MAGIC_WORD) return null;
  const kindAndFlags = bytes.readUInt32LE(at + 4);
  const kind = (kindAndFlags & 0xff) as RecordKind;
  if (kind < RecordKind.DATA || kind > RecordKind.SEAL || kindAndFlags >>> 16 !== 0) return null;
  const blockCount = bytes.readUInt32LE(at + 24);
  const payloadBytes = bytes.readUInt32LE(at + 28);
  const tableBytes = kind === RecordKind.DATA ? blockCount * 4 : 0;
  if (kind === RecordKind.DATA && (blockCount === 0 || blockCount > RECORD_BLOCKS_MAX || payloadBytes !== blockCount * BLOCK_BYTES)) return null;
  const flags = (kindAndFlags >>> 8) & 0xff;
  const payloadOffset = at + recordHeadBytes({ kind, flags, blockCount });
  if (payloadOffset > bytes.length) return null;
  let crc = crc32(bytes.subarray(at, at + 68), salt);
  if (payloadOffset > at + RECORD_HEADER_BYTES) crc = crc32(bytes.subarray(at + RECORD_HEADER_BYTES, payloadOffset), crc);
  if (crc !== bytes.readUInt32LE(at + 68)) return null;
  if (bytes.readUInt32LE(at + 56) !== term.generation || bytes.readUInt32LE(at + 60) !== term.counter) return null;
  const endOffset = payloadOffset + payloadBytes;
  const sequence = readUint53(bytes, at + 8);
  const startBlock = readUint53(bytes, at + 16);
  const newSizeBytes = readUint53(bytes, at + 32);
  const durableSequence = readUint53(bytes, at + 48);
  if (!Number.isSafeInteger(sequence + durableSequence) || !isPossible(kind, startBlock, blockCount, newSizeBytes)) return null;
  if (bytes.readUInt32LE(at + 44) > NANOSECONDS_MAX) return null;
  let crcs = NO_CRCS;
  let times = NO_TIMES;
  if (kind === RecordKind.DATA) {
    crcs = new Uint32Array(blockCount);
    for (let index = 0; index < blockCount; index += 1) crcs[index] = bytes.readUInt32LE(at + RECORD_HEADER_BYTES + index * 4);
  } else if (payloadBytes > 0) {
    if (endOffset > bytes.length || crc32(bytes.subarray(payloadOffset, endOffset)) !== bytes.readUInt32LE(at + 64)) return null;
    if (kind === RecordKind.ATTRIBUTES) {
      if (payloadBytes !== ATTRIBUTES_PAYLOAD_BYTES) return null;
      times = decodeTimes(bytes, payloadOffset);
      if (!areTimes(times)) return null;
    }
  } else if (kind === RecordKind.ATTRIBUTES) return null;
  let call: Uint32Array | null = null;
  if ((flags & RecordFlag.CALL) !== 0) {
    call = new Uint32Array(CALL_WORDS);
    for (let word = 0; word < CALL_WORDS; word += 1) call[word] = bytes.readUInt32LE(at + RECORD_HEADER_BYTES + tableBytes + word * 4);
  }
  return {
    kind,
    flags,
    sequence,
    startBlock,
    blockCount,
    newSizeBytes,
    seconds: bytes.readUInt32LE(at + 40),
    nanoseconds: bytes.readUInt32LE(at + 44),
    durableSequence,
    payloadOffset,
    payloadBytes,
    crcs,
    times,
    call,
    endOffset,
  };
}

/** Whether a record of this kind can say this; the numbers may be NaN. */
function isPossible(kind: RecordKind, startBlock: number, blockCount: number, newSizeBytes: number): boolean {
  if (!(newSizeBytes <= OBJECT_BLOCKS_MAX * BLOCK_BYTES) || !(startBlock >= 0)) return false;
  return (kind !== RecordKind.DATA && kind !== RecordKind.ZERO) || (blockCount > 0 && startBlock + blockCount <= OBJECT_BLOCKS_MAX);
}

function areTimes(times: readonly number[]): boolean {
  return (times[1] ?? 0) <= NANOSECONDS_MAX && (times[3] ?? 0) <= NANOSECONDS_MAX && (times[5] ?? 0) <= NANOSECONDS_MAX;
}

/** Payload of an ATTRIBUTES record: six numbers, see DecodedRecord.times. */
export function encodeTimes(times: readonly number[]): Buffer {
  const bytes = Buffer.alloc(ATTRIBUTES_PAYLOAD_BYTES);
  times.forEach((value, index) => bytes.writeUInt32LE(value, index * 4));
  return bytes;
}

function decodeTimes(bytes: Buffer, at: number): number[] {
  return [0, 4, 8, 12, 16, 20].map((offset) => bytes.readUInt32LE(at + offset));
}

/** True when every block of a DATA record's payload matches its CRC. */
export function verifyPayload(bytes: Buffer, record: DecodedRecord): boolean {
  if (record.kind !== RecordKind.DATA) return true;
  if (record.endOffset > bytes.length) return false;
  for (let index = 0; index < record.blockCount; index += 1) {
    const at = record.payloadOffset + index * BLOCK_BYTES;
    if (crc32(bytes.subarray(at, at + BLOCK_BYTES)) !== record.crcs[index]) return false;
  }
  return true;
}

/** Collects the index of a segment while records are appended; encodes it as the payload of the SEAL record. */
export class SegmentIndex {
  #bytes: Buffer = Buffer.allocUnsafeSlow(512);
  #length = 0;
  count = 0;

  /** Takes over what a later reader needs of a record, in order of sequence. `times`: payload of an ATTRIBUTES record. */
  add(record: EncodableRecord, payloadOffset: number, times: Uint8Array | null): void {
    const tableBytes = record.kind === RecordKind.DATA ? record.blockCount * 4 : 0;
    const entryBytes = TRAILER_ENTRY_BYTES + tableBytes + (times?.length ?? 0);
    while (this.#length + entryBytes > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.allocUnsafeSlow(this.#bytes.length)]);
    const bytes = this.#bytes;
    let at = this.#length;
    bytes.writeUInt32LE(record.kind | ((record.flags & ~RecordFlag.CALL) << 8), at);
    bytes.writeUInt32LE(record.blockCount, at + 4);
    writeUint53(bytes, record.startBlock, at + 8);
    writeUint53(bytes, record.newSizeBytes, at + 16);
    writeUint53(bytes, record.sequence, at + 24);
    bytes.writeUInt32LE(record.seconds, at + 32);
    bytes.writeUInt32LE(record.nanoseconds, at + 36);
    writeUint53(bytes, payloadOffset, at + 40);
    bytes.writeUInt32LE(record.payloadBytes, at + 48);
    bytes.writeUInt32LE(times?.length ?? 0, at + 52);
    at += TRAILER_ENTRY_BYTES;
    for (let index = 0; index < tableBytes / 4; index += 1) {
      bytes.writeUInt32LE(record.crcs[index] as number, at);
      at += 4;
    }
    if (times !== null) bytes.set(times, at);
    this.#length += entryBytes;
    this.count += 1;
  }

  /** Borrowed until the next `add`. */
  payload(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

export interface SealFooter {
  readonly sealOffset: number;
  readonly indexOffset: number;
  readonly indexBytes: number;
  readonly entryCount: number;
  readonly lastSequence: number;
  readonly totalBytes: number;
}

/** The last SEAL_FOOTER_BYTES of a sealed segment. */
export function encodeFooter(footer: SealFooter, salt: number): Buffer {
  const bytes = Buffer.alloc(SEAL_FOOTER_BYTES);
  FOOTER_MAGIC.copy(bytes, 0);
  writeUint53(bytes, footer.sealOffset, 8);
  writeUint53(bytes, footer.indexOffset, 16);
  bytes.writeUInt32LE(footer.indexBytes, 24);
  bytes.writeUInt32LE(footer.entryCount, 28);
  writeUint53(bytes, footer.lastSequence, 32);
  writeUint53(bytes, footer.totalBytes, 40);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60), salt), 60);
  return bytes;
}

/** The footer in the last bytes of `bytes`, or null. */
export function decodeFooter(bytes: Buffer, salt: number): SealFooter | null {
  if (bytes.length < SEAL_FOOTER_BYTES) return null;
  const at = bytes.length - SEAL_FOOTER_BYTES;
  const footer = bytes.subarray(at);
  if (!footer.subarray(0, 8).equals(FOOTER_MAGIC) || footer.readUInt32LE(60) !== crc32(footer.subarray(0, 60), salt)) return null;
  const decoded = {
    sealOffset: readUint53(footer, 8),
    indexOffset: readUint53(footer, 16),
    indexBytes: footer.readUInt32LE(24),
    entryCount: footer.readUInt32LE(28),
    lastSequence: readUint53(footer, 32),
    totalBytes: readUint53(footer, 40),
  };
  const sum = decoded.sealOffset + decoded.indexOffset + decoded.lastSequence + decoded.totalBytes;
  return Number.isSafeInteger(sum) && decoded.indexOffset + decoded.indexBytes + SEAL_FOOTER_BYTES === decoded.totalBytes ? decoded : null;
}

/** Records of a SEAL payload; null when they are not what a codec wrote. */
export function decodeIndex(payload: Buffer, entryCount: number): DecodedRecord[] | null {
  const records: DecodedRecord[] = [];
  if (payload.length < entryCount * TRAILER_ENTRY_BYTES) return null;
  // One for all: an array each, for hundred thousands of records, is what a move's receiver would stand still for.
  const words = new Uint32Array((payload.length - entryCount * TRAILER_ENTRY_BYTES) >>> 2);
  let used = 0;
  let at = 0;
  for (let entry = 0; entry < entryCount; entry += 1) {
    if (at + TRAILER_ENTRY_BYTES > payload.length) return null;
    const kindAndFlags = payload.readUInt32LE(at);
    const kind = (kindAndFlags & 0xff) as RecordKind;
    const blockCount = payload.readUInt32LE(at + 4);
    const timesBytes = payload.readUInt32LE(at + 52);
    const startBlock = readUint53(payload, at + 8);
    const newSizeBytes = readUint53(payload, at + 16);
    const sequence = readUint53(payload, at + 24);
    const payloadOffset = readUint53(payload, at + 40);
    const payloadBytes = payload.readUInt32LE(at + 48);
    if (!Number.isSafeInteger(sequence + payloadOffset)) return null;
    if (kind < RecordKind.DATA || kind > RecordKind.TERM_START || !isPossible(kind, startBlock, blockCount, newSizeBytes)) return null;
    if (payload.readUInt32LE(at + 36) > NANOSECONDS_MAX) return null;
    if (kind === RecordKind.DATA && (blockCount > RECORD_BLOCKS_MAX || payloadBytes !== blockCount * BLOCK_BYTES)) return null;
    // The extent map has 32 bits for an offset.
    if (payloadOffset + payloadBytes > 0xffff_ffff) return null;
    if (timesBytes !== (kind === RecordKind.ATTRIBUTES ? ATTRIBUTES_PAYLOAD_BYTES : 0)) return null;
    const tableBytes = kind === RecordKind.DATA ? blockCount * 4 : 0;
    const tableAt = at + TRAILER_ENTRY_BYTES;
    if (tableAt + tableBytes + timesBytes > payload.length) return null;
    if (used + tableBytes / 4 > words.length) return null;
    const crcs = tableBytes === 0 ? NO_CRCS : words.subarray(used, used + blockCount);
    for (let tableEnd = tableAt + tableBytes, word = tableAt; word < tableEnd; word += 4) words[used++] = payload.readUInt32LE(word);
    const times = timesBytes === 0 ? NO_TIMES : decodeTimes(payload, tableAt + tableBytes);
    if (!areTimes(times)) return null;
    records.push({
      kind,
      flags: (kindAndFlags >>> 8) & 0xff,
      sequence,
      startBlock,
      blockCount,
      newSizeBytes,
      seconds: payload.readUInt32LE(at + 32),
      nanoseconds: payload.readUInt32LE(at + 36),
      durableSequence: 0,
      payloadOffset,
      payloadBytes,
      crcs,
      times,
      call: null,
      endOffset: payloadOffset + payloadBytes,
    });
    at = tableAt + tableBytes + timesBytes;
  }
  return at === payload.length ? records : null;
}
