/**
 * Bytes of the local outbox log (docs/formats/outbox-log.md): frames of {length, CRC-32 of the text, JSON text}. The first frame of a file is its head. A torn or flipped
 * frame ends the file; frames behind it do not count.
 */
import { crc32 } from 'node:zlib';

import type { OutboxEntry } from '../ports.ts';
import { corrupt, integerOf, jsonOf, memberOf, recordOf, textOf } from '../record-check.ts';

export const OUTBOX_LOG_VERSION = 1;
const FRAME_HEAD_BYTES = 8;
/** One verb changes a handful of records; this only bounds hostile input. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

export type LogRecord =
  /** Head of a file: entries of this router up to the sequence `dropped` were deleted with older files. */
  | {
      readonly kind: 'head';
      readonly version: number;
      readonly dropped: number;
      readonly released: number;
      readonly releasedBefore: number;
      /** Number of its first entry among all that the log ever had. */
      readonly ordinal: number;
    }
  | { readonly kind: 'entry'; readonly entry: OutboxEntry }
  /** Entries up to `sequence`, as far as they are among the first `before` of all entries that the log ever had, are on the backend. */
  | { readonly kind: 'released'; readonly sequence: number; readonly before: number };

/** A frame. */
export function encodeLogRecord(record: LogRecord): Buffer {
  const text = Buffer.from(JSON.stringify(record));
  const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + text.byteLength);
  frame.writeUInt32LE(text.byteLength, 0);
  frame.writeUInt32LE(crc32(text), 4);
  text.copy(frame, FRAME_HEAD_BYTES);
  return frame;
}

/** The record at `offset` and where the next one begins; null at the end of what is whole. @throws ApplianceError `registry-corrupt` for a whole frame of nonsense. */
export function decodeLogRecord(bytes: Buffer, offset: number, where: string): { record: LogRecord; next: number } | null {
  if (bytes.byteLength - offset < FRAME_HEAD_BYTES) return null;
  const length = bytes.readUInt32LE(offset);
  if (length > FRAME_BYTES_MAX || bytes.byteLength - offset - FRAME_HEAD_BYTES < length) return null;
  const text = bytes.subarray(offset + FRAME_HEAD_BYTES, offset + FRAME_HEAD_BYTES + length);
  if (crc32(text) !== bytes.readUInt32LE(offset + 4)) return null;
  return { record: recordFromJson(jsonOf(text.toString(), where, 'record'), where), next: offset + FRAME_HEAD_BYTES + length };
}

/** Where the frame behind a damaged one at `offset` begins, if its length is to be believed and that one is whole; else null. */
export function nextLogRecord(bytes: Buffer, offset: number): number | null {
  if (bytes.byteLength - offset < FRAME_HEAD_BYTES) return null;
  const next = offset + FRAME_HEAD_BYTES + bytes.readUInt32LE(offset);
  return next < bytes.byteLength && decodeLogRecord(bytes, next, 'outbox') !== null ? next : null;
}

function recordFromJson(value: unknown, where: string): LogRecord {
  const json = recordOf(value, where, 'record');
  const kind = memberOf(json['kind'], ['head', 'entry', 'released'], where, 'kind');
  switch (kind) {
    case 'head': {
      if (json['version'] !== OUTBOX_LOG_VERSION) return corrupt(where, `outbox log of version ${String(json['version'])}`);
      const count = (name: string): number => countOf(json[name], where, name);
      return {
        kind,
        version: OUTBOX_LOG_VERSION,
        dropped: count('dropped'),
        released: count('released'),
        releasedBefore: count('releasedBefore'),
        ordinal: count('ordinal'),
      };
    }
    case 'entry':
      return { kind, entry: entryFromJson(json['entry'], where) };
    case 'released':
      return { kind, sequence: countOf(json['sequence'], where, 'sequence'), before: countOf(json['before'], where, 'before') };
  }
}

/** Checks an outbox entry, also one that another router reported. @throws ApplianceError `registry-corrupt`. */
export function entryFromJson(value: unknown, where: string): OutboxEntry {
  const json = recordOf(value, where, 'entry');
  const nullable = (name: string): string | null => (json[name] === null ? null : textOf(json[name], FRAME_BYTES_MAX, where, name));
  return {
    generation: integerOf(json['generation'], 1, Number.MAX_SAFE_INTEGER, where, 'generation'),
    sequence: integerOf(json['sequence'], 1, Number.MAX_SAFE_INTEGER, where, 'sequence'),
    operationId: nullable('operationId'),
    verb: textOf(json['verb'], 64, where, 'verb'),
    afterImage: textOf(json['afterImage'], FRAME_BYTES_MAX, where, 'afterImage'),
    outcome: nullable('outcome'),
  };
}

function countOf(value: unknown, where: string, field: string): number {
  return integerOf(value, 0, Number.MAX_SAFE_INTEGER, where, field);
}
