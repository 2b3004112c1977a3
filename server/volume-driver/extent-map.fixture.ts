/** What the tests of the extent map share: a disk in memory with delays and faults, a store of checkpoint objects, a dumb model. */
import type { Disk, DiskFile } from '../core/disk.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { ExtentMap } from './extent-map.ts';
import type { CheckpointDescription, FrozenCheckpoint } from './frozen-checkpoint.ts';
import type { CheckpointReader } from './open-checkpoint.ts';
import { PagePool, type PagePoolLimits } from './page-pool.ts';
import type { PageSource } from './page-residence.ts';
import type { SegmentTable, TableRow } from './segment-table.ts';

export const TERM: Term = { generation: 1, counter: 7, nonce: '0123456789abcdef' };
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** One file system of growing buffers. `delayed`: writes answer in a later turn, as large ones do on a real disk. */
export class MemoryDisk implements Disk {
  readonly files = new Map<string, Buffer>();
  delayed = false;
  /** Makes every write fail. */
  writeError: Error | null = null;
  /** Keeps writes until `letGo`. */
  held: (() => void)[] | null = null;
  writes = 0;

  open(path: string): Promise<DiskFile> {
    return this.files.has(path) ? Promise.resolve(this.#file(path)) : Promise.reject(notFound(path));
  }

  create(path: string): Promise<DiskFile> {
    if (this.files.has(path)) return Promise.reject(Object.assign(new Error(`${path} exists`), { code: 'EEXIST' }));
    this.files.set(path, Buffer.alloc(0));
    return Promise.resolve(this.#file(path));
  }

  letGo(): void {
    const held = this.held ?? [];
    this.held = null;
    for (const work of held) work();
  }

  #file(path: string): DiskFile {
    const disk = this;
    return {
      path,
      size: () => Promise.resolve(disk.files.get(path)?.byteLength ?? 0),
      write(offsetBytes, buffers, done) {
        const work = (): void => {
          disk.writes += 1;
          if (disk.writeError !== null) return done(disk.writeError);
          const bytes = Buffer.concat(buffers);
          let file = disk.files.get(path) ?? Buffer.alloc(0);
          const end = offsetBytes + bytes.byteLength;
          if (end > file.byteLength) file = Buffer.concat([file, Buffer.alloc(Math.max(end, file.byteLength * 2) - file.byteLength)]);
          file.set(bytes, offsetBytes);
          disk.files.set(path, file);
          done(null);
        };
        if (disk.held !== null) disk.held.push(work);
        else if (disk.delayed) afterTurns(1 + ((offsetBytes >> 12) % 7), work);
        else work();
      },
      sync: (done) => done(null),
      read(offsetBytes, target, done) {
        setImmediate(() => {
          const bytes = (disk.files.get(path) ?? Buffer.alloc(0)).subarray(offsetBytes, offsetBytes + target.byteLength);
          target.set(bytes);
          done(null, bytes.byteLength);
        });
      },
      truncate: () => Promise.reject(new Error('not used')),
      close: () => Promise.resolve(),
    };
  }

  size(path: string): Promise<number> {
    const file = this.files.get(path);
    return file === undefined ? Promise.reject(notFound(path)) : Promise.resolve(file.byteLength);
  }

  rename(): Promise<void> {
    return Promise.reject(new Error('not used'));
  }

  unlink(path: string): Promise<void> {
    return this.files.delete(path) ? Promise.resolve() : Promise.reject(notFound(path));
  }

  list(): Promise<string[]> {
    return Promise.resolve([...this.files.keys()]);
  }

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  syncDirectory(): Promise<void> {
    return Promise.resolve();
  }

  space(): Promise<{ freeBytes: number; totalBytes: number }> {
    return Promise.resolve({ freeBytes: 2 ** 40, totalBytes: 2 ** 40 });
  }
}

/** Writes end out of order, some of them late. */
function afterTurns(turns: number, work: () => void): void {
  setImmediate(() => (turns === 1 ? work() : afterTurns(turns - 1, work)));
}

function notFound(path: string): Error {
  return Object.assign(new Error(`${path} is not there`), { code: 'ENOENT' });
}

/** Checkpoint objects by name. */
export class CheckpointStore {
  readonly objects = new Map<string, Buffer>();
  reads = 0;
  /** Makes every read of a page image fail. */
  readError: Error | null = null;

  sourceOf = (table: SegmentTable): PageSource => ({
    read: async (row, offsetBytes, lengthBytes) => {
      this.reads += 1;
      await nextTurn();
      if (this.readError !== null) throw this.readError;
      const bytes = this.objects.get(table.objectName(row));
      if (bytes === undefined) throw new Error(`${table.objectName(row)} is not stored`);
      return Buffer.from(bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
    },
  });

  readerOf(name: string): CheckpointReader {
    return readerOf(name, this.objects.get(name) ?? Buffer.alloc(0));
  }
}

export function readerOf(description: string, bytes: Buffer): CheckpointReader {
  return {
    description,
    size: () => Promise.resolve(bytes.byteLength),
    read: (offsetBytes, lengthBytes) => Promise.resolve(bytes.subarray(offsetBytes, offsetBytes + lengthBytes)),
  };
}

export function openPool(disk: Disk, limits: PagePoolLimits): Promise<PagePool> {
  return PagePool.open({ disk, spillPath: '/spill', yieldToLoop: nextTurn }, limits);
}

export function segment(number: number, term: Term = TERM): TableRow {
  return { kind: 'segment', bucket: '', objectUuid: '', term, number, sizeBytes: 4 << 20 };
}

export function describeCheckpoint(number: number, fields: Partial<CheckpointDescription> = {}): CheckpointDescription {
  return {
    objectUuid: '00112233445566778899aabbccddeeff' as ObjectUuid,
    vpoolUuid: 'ffeeddccbbaa99887766554433221100',
    term: TERM,
    number,
    sequence: number * 1000,
    nextSegment: number + 1,
    objectSizeBytes: 62 * 2 ** 40,
    attributes: Buffer.from('attributes'),
    createdMs: 1_700_000_000_000 + number,
    garbage: [],
    ...fields,
  };
}

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

/** Encodes, stores and commits; returns the row. */
export async function storeCheckpoint(frozen: FrozenCheckpoint, table: SegmentTable, store: CheckpointStore, number: number): Promise<number> {
  const bytes = await collect(frozen.encode(describeCheckpoint(number)));
  const row = table.add({ kind: 'checkpoint', bucket: '', objectUuid: '', term: TERM, number, sizeBytes: bytes.byteLength });
  store.objects.set(table.objectName(row), bytes);
  frozen.commit(row);
  return row;
}

/** The dumb model: block -> "segment number, offset, crc". */
export type Model = Map<number, string>;

/** Everything that a map maps, in the model's words. */
export async function contentOf(map: ExtentMap): Promise<Model> {
  const content: Model = new Map();
  await map.forEachMapped((block, row, offsetBytes, crc) => {
    content.set(block, `${map.table.number(row)} ${offsetBytes} ${crc}`);
  });
  return content;
}

export function sorted(model: Model): [number, string][] {
  return [...model].sort((a, b) => a[0] - b[0]);
}
