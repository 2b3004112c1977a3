/**
 * Opens a checkpoint object: checks everything that can be checked without reading its pages, which come later, one by one, with
 * their own CRCs. The bytes are hostile: whatever they are, it ends, within memory of the order of the object, in a map or in an
 * ApplianceError `checkpoint-corrupt`.
 */
import { crc32 } from 'node:zlib';

import { errorCode } from '../core/errors.ts';
import {
  type CheckpointHeader,
  corrupt,
  decodeBuckets,
  decodeFooter,
  decodeGarbage,
  decodeHeader,
  decodeManifestHead,
  decodePageRecord,
  decodeRowRecord,
  decodeTerms,
  decodeUuids,
  type Footer,
  FOOTER_BYTES,
  type GarbageEntry,
  MANIFEST_HEAD_BYTES,
  type ManifestHead,
  PAGE_RECORD_BYTES,
  resolveRow,
  ROW_RECORD_BYTES,
  TERM_RECORD_BYTES,
  UUID_RECORD_BYTES,
} from './checkpoint-codec.ts';
import { ExtentMap } from './extent-map.ts';
import type { PagePool } from './page-pool.ts';
import { IMAGE_ALIGN_BYTES, type PageSource } from './page-residence.ts';
import { type RowIds, SegmentTable } from './segment-table.ts';

/** Reads the object that is being opened. */
export interface CheckpointReader {
  /** What it is, for messages. */
  readonly description: string;
  size(): Promise<number>;
  /** Exactly `lengthBytes` bytes. Rejects when they cannot be had. */
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
}

export interface OpenedCheckpoint {
  readonly map: ExtentMap;
  readonly table: SegmentTable;
  readonly header: CheckpointHeader;
  readonly garbage: readonly GarbageEntry[];
  /** The opened object's own row in the table. */
  readonly ownRow: number;
}

/** Records read at a time. */
const WINDOW_RECORDS = 8_192;

/**
 * Opens the checkpoint that `reader` reads. `sourceOf` gives the reader of page images for the table that was found (the own object is a
 * row of it, too). Rejects with `checkpoint-corrupt`, or with what the reader rejects with.
 */
export async function openCheckpoint(components: {
  reader: CheckpointReader;
  pool: PagePool;
  rowIds: RowIds;
  sourceOf: (table: SegmentTable) => PageSource;
}): Promise<OpenedCheckpoint> {
  const { reader } = components;
  try {
    return await open(components);
  } catch (error) {
    if (errorCode(error) !== 'checkpoint-corrupt') throw error;
    throw corrupt(`${reader.description}: ${(error as Error).message}`);
  }
}

async function open(components: Parameters<typeof openCheckpoint>[0]): Promise<OpenedCheckpoint> {
  const { reader, pool } = components;
  const objectBytes = await reader.size();
  check(objectBytes >= FOOTER_BYTES, `object has only ${objectBytes} bytes`);
  const footer = decodeFooter(await readExactly(reader, objectBytes - FOOTER_BYTES, FOOTER_BYTES), objectBytes);
  const headerBytes = await readExactly(reader, 0, footer.headerBytes);
  check(crc32(headerBytes) === footer.headerCrc, 'header is not the one of the footer');
  const header = decodeHeader(headerBytes);

  const manifest = new ManifestReader(reader, footer);
  const head = decodeManifestHead(await manifest.take(MANIFEST_HEAD_BYTES), footer.manifestBytes);
  const terms = decodeTerms(await manifest.take(head.terms * TERM_RECORD_BYTES));
  const uuids = decodeUuids(await manifest.take(head.uuids * UUID_RECORD_BYTES));
  const buckets = decodeBuckets(await manifest.take(head.bucketsBytes), head.buckets);

  const table = new SegmentTable(components.rowIds);
  await readRows(manifest, head, (record) => {
    table.restore(record.row, resolveRow(record, buckets, uuids, terms), record.live);
  });
  const ownRow = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: header.term, number: header.number, sizeBytes: objectBytes });
  const map = new ExtentMap({ pool, table, source: components.sourceOf(table) });
  await readPages(manifest, head, footer, table, map, ownRow);
  const garbage = decodeGarbage(await manifest.take(head.garbageBytes), head.garbage, buckets);
  check(manifest.crc === footer.manifestCrc, 'CRC of the manifest is wrong');
  check(map.mappedBlocks === header.mappedBlocks, `pages map ${map.mappedBlocks} blocks, the header says ${header.mappedBlocks}`);
  return { map, table, header, garbage, ownRow };
}

async function readRows(manifest: ManifestReader, head: ManifestHead, restore: (record: ReturnType<typeof decodeRowRecord>) => void): Promise<void> {
  let last = 0;
  for (let left = head.rows; left > 0;) {
    const count = Math.min(left, WINDOW_RECORDS);
    const bytes = await manifest.take(count * ROW_RECORD_BYTES);
    for (let index = 0; index < count; index += 1) {
      const record = decodeRowRecord(bytes, index * ROW_RECORD_BYTES);
      check(record.row > last && record.row < head.rowEnd, `row ${record.row} is out of order`);
      last = record.row;
      restore(record);
    }
    left -= count;
  }
  check(last + 1 === head.rowEnd, 'rows end elsewhere than the head says');
}

async function readPages(
  manifest: ManifestReader,
  head: ManifestHead,
  footer: Footer,
  table: SegmentTable,
  map: ExtentMap,
  ownRow: number,
): Promise<void> {
  const counts = new Uint32Array(table.rowEnd);
  map.reservePages(head.pages);
  for (let left = head.pages; left > 0;) {
    const count = Math.min(left, WINDOW_RECORDS);
    const bytes = await manifest.take(count * PAGE_RECORD_BYTES);
    for (let index = 0; index < count; index += 1) {
      const record = decodePageRecord(bytes, index * PAGE_RECORD_BYTES);
      const { page } = record;
      const row = record.row === 0 ? ownRow : record.row;
      check(row < table.rowEnd && table.holdsPages(row) && (row !== ownRow || record.row === 0), `page ${page} points to row ${row}`);
      const offset = record.offsetUnits * IMAGE_ALIGN_BYTES;
      const end = row === ownRow ? footer.manifestOffsetBytes : table.sizeBytes(row);
      check(offset + record.lengthBytes <= end, `page ${page} lies outside its object`);
      check(!map.hasPage(page), `page ${page} is there twice`);
      map.adopt({ ...record, row });
      counts[row] = counts[row]! + 1;
    }
    left -= count;
  }
  check(counts[ownRow] === footer.imageCount, `${counts[ownRow]} pages are in this object, the footer says ${footer.imageCount}`);
  table.adjustLive(ownRow, counts[ownRow]);
  let blocks = 0;
  for (const row of table.rows()) {
    if (!table.holdsPages(row)) blocks += table.live(row);
    else check(counts[row] === table.live(row), `row ${row} has ${counts[row]} pages, the table says ${table.live(row)}`);
  }
  check(blocks === map.mappedBlocks, `rows have ${blocks} references, pages map ${map.mappedBlocks} blocks`);
}

/** Reads the manifest from front to back and keeps its CRC. */
class ManifestReader {
  readonly #reader: CheckpointReader;
  readonly #end: number;
  #at: number;
  #crc = 0;

  constructor(reader: CheckpointReader, footer: Footer) {
    this.#reader = reader;
    this.#at = footer.manifestOffsetBytes;
    this.#end = footer.manifestOffsetBytes + footer.manifestBytes;
  }

  get crc(): number {
    return this.#crc;
  }

  async take(countBytes: number): Promise<Buffer> {
    check(this.#at + countBytes <= this.#end, 'manifest is cut');
    if (countBytes === 0) return Buffer.alloc(0);
    const bytes = await readExactly(this.#reader, this.#at, countBytes);
    this.#at += countBytes;
    this.#crc = crc32(bytes, this.#crc);
    return bytes;
  }
}

async function readExactly(reader: CheckpointReader, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
  const bytes = await reader.read(offsetBytes, lengthBytes);
  check(bytes.byteLength === lengthBytes, `${bytes.byteLength} bytes at ${offsetBytes} where ${lengthBytes} were asked for`);
  return bytes;
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw corrupt(message);
}
