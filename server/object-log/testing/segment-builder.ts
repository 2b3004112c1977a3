/** Makes segment files byte by byte, as a log would have written them and as it would not. */
import { crc32 } from 'node:zlib';

import type { Disk } from '../../core/disk.ts';
import type { ObjectUuid, Term } from '../../core/ids.ts';
import {
  BLOCK_BYTES,
  encodeFooter,
  encodeRecordHead,
  encodeSegmentHeader,
  RECORD_HEADER_BYTES,
  RecordFlag,
  RecordKind,
  recordHeadBytes,
  SEAL_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  SegmentIndex,
} from '../segment-codec.ts';
import type { EncodableRecord, SegmentHeader } from '../segment-codec.ts';

export const UUID = '00112233445566778899aabbccddeeff' as ObjectUuid;
export const DIRECTORY = '/vpool';

export function termOf(counter: number): Term {
  return { generation: 0, counter, nonce: counter.toString(16).padStart(16, '0') };
}

export interface BuiltSegment {
  readonly number: number;
  readonly term: Term;
  readonly base: number;
  /** One entry a record: number of blocks, 0 for a COMMIT mark. */
  readonly blocks: readonly number[];
  readonly unstable?: boolean;
  /** Every record says of which call it is. */
  readonly calls?: boolean;
  readonly sealed?: boolean;
  /** Highest sequence that every record says was durable when it was written; default none. */
  readonly durable?: number;
  readonly salt?: number;
  readonly cut?: SegmentHeader['cut'];
}

/** The bytes of a segment, and where each of its records begins. */
export function buildSegment(segment: BuiltSegment): { bytes: Buffer; offsets: number[] } {
  const salt = segment.salt ?? segment.number * 7919 + segment.term.counter;
  const parts: Buffer[] = [
    encodeSegmentHeader({
      vpoolUuid: 'ffeeddccbbaa99887766554433221100',
      objectUuid: UUID,
      term: segment.term,
      number: segment.number,
      salt,
      baseSequence: segment.base,
      createdWallMs: 1_700_000_000_000,
      cut: segment.cut ?? null,
    }),
  ];
  const index = new SegmentIndex();
  const offsets: number[] = [];
  let at = SEGMENT_HEADER_BYTES;
  let sequence = segment.base;
  for (const blocks of segment.blocks) {
    const payload = Buffer.alloc(blocks * BLOCK_BYTES, sequence & 0xff);
    const crcs = Uint32Array.from({ length: blocks }, (_, block) => crc32(payload.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)));
    const record: EncodableRecord = {
      kind: blocks === 0 ? RecordKind.COMMIT_MARK : RecordKind.DATA,
      flags: (segment.unstable === true && blocks > 0 ? RecordFlag.UNSTABLE : 0) | (segment.calls === true ? RecordFlag.CALL : 0),
      sequence,
      startBlock: 0,
      blockCount: blocks,
      newSizeBytes: 1 << 20,
      seconds: 1,
      nanoseconds: 1,
      crcs,
      payloadBytes: payload.length,
      call: segment.calls === true ? Uint32Array.of(segment.number, sequence, 3, 4) : null,
    };
    const head = Buffer.alloc(recordHeadBytes(record));
    encodeRecordHead(head, 0, record, segment.term, salt, segment.durable ?? 0, 0);
    offsets.push(at);
    index.add(record, at + head.length, null);
    parts.push(head, payload);
    at += head.length + payload.length;
    sequence += 1;
  }
  if (segment.sealed === true) {
    const payload = Buffer.from(index.payload());
    const seal: EncodableRecord = {
      kind: RecordKind.SEAL,
      flags: 0,
      sequence: sequence - 1,
      startBlock: 0,
      blockCount: index.count,
      newSizeBytes: 0,
      seconds: 0,
      nanoseconds: 0,
      crcs: new Uint32Array(0),
      payloadBytes: payload.length,
      call: null,
    };
    const head = Buffer.alloc(RECORD_HEADER_BYTES);
    encodeRecordHead(head, 0, seal, segment.term, salt, segment.durable ?? 0, crc32(payload));
    const indexOffset = at + head.length;
    const totalBytes = indexOffset + payload.length + SEAL_FOOTER_BYTES;
    const footer = encodeFooter(
      { sealOffset: at, indexOffset, indexBytes: payload.length, entryCount: index.count, lastSequence: sequence - 1, totalBytes },
      salt,
    );
    parts.push(head, payload, footer);
  }
  return { bytes: Buffer.concat(parts), offsets };
}

export function segmentName(number: number, term: Term): string {
  return `${UUID}.${String(number).padStart(10, '0')}.${term.generation}-${term.counter}-${term.nonce}.seg`;
}

/** Puts bytes into a file of the log (or another directory). Returns its path. */
export async function placeSegment(disk: Disk, number: number, term: Term, bytes: Buffer, place = 'log'): Promise<string> {
  const path = `${DIRECTORY}/${place}/${segmentName(number, term)}`;
  const file = await disk.create(path);
  await new Promise<void>((resolve, reject) => file.write(0, [bytes], (error) => (error === null ? resolve() : reject(error))));
  await file.close();
  return path;
}
