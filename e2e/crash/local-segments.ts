/** The unreleased segments of a stopped router, as bytes: where tests look and do damage. Reads them with the project's own codec. */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

import { SEGMENT_HEADER_BYTES, decodeSegmentHeader } from '../../server/object-log/segment-codec.ts';
import { type SegmentScan, scanBytes } from '../../server/object-log/segment-scan.ts';

export interface LocalSegmentFile {
  readonly path: string;
  readonly scan: SegmentScan;
  readonly bytes: Buffer;
}

/** All segments in `log/` that have begun, the one with most records first. */
export function localSegments(dataDirectory: string, vpool: string): LocalSegmentFile[] {
  const found: LocalSegmentFile[] = [];
  for (const path of globSync(join(dataDirectory, 'vpools', vpool, 'log', '*.seg'))) {
    const bytes = readFileSync(path);
    const header = decodeSegmentHeader(bytes.subarray(0, SEGMENT_HEADER_BYTES));
    const uuid = basename(path).slice(0, 32);
    // A recycled file begins with the header of its earlier life until its own is written.
    if (header === null || header.objectUuid !== uuid) continue;
    found.push({ path, bytes, scan: scanBytes(bytes, { uuid, number: header.number, term: header.term }) });
  }
  return found.toSorted((a, b) => b.scan.records.length - a.scan.records.length);
}

/** The only segment that has records worth damaging. @throws Error when there is none. */
export function busiestSegment(dataDirectory: string, vpool: string): LocalSegmentFile {
  const [first] = localSegments(dataDirectory, vpool);
  if (first === undefined || first.scan.records.length === 0) throw new Error(`no segment with records under ${dataDirectory}`);
  return first;
}

/** Flips one bit of a file in place. */
export function flipBit(path: string, offsetBytes: number): void {
  const bytes = readFileSync(path);
  const byte = bytes[offsetBytes];
  if (byte === undefined) throw new Error(`${path} has no byte ${offsetBytes}`);
  bytes[offsetBytes] = byte ^ 0x10;
  writeFileSync(path, bytes);
}
