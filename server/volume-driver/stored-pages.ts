/**
 * Reads the pages of an extent map from checkpoint objects. Pages that are asked for in the same turn and lie near each other, as those of a
 * sequential reader do, are one request: a page is 12 KiB at most, and a request to an object store costs as much as a hundred of them.
 */
import { crc32 } from 'node:zlib';

import type { GetOutcome, ObjectStore } from '../../backends/object-store.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { BackendReads, Look } from './backend-reads.ts';
import type { PageSource } from './page-residence.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

/** Bytes between two pages that are read along rather than skipped. */
const GAP_BYTES_MAX = 16 * 1024;
const REQUEST_BYTES_MAX = 1024 * 1024;

/** A page that waits for the end of the turn. */
interface WantedPage {
  readonly bucket: string;
  readonly name: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly resolve: (outcome: Promise<GetOutcome>) => void;
}

export class StoredPages implements PageSource {
  readonly #store: ObjectStore;
  readonly #reads: BackendReads;
  readonly #names: StorageNames;
  readonly #uuid: ObjectUuid;
  readonly #table: SegmentTable;
  #wanted: WantedPage[] = [];

  /** For the map of the object `uuid` over `table`. */
  constructor(components: { store: ObjectStore; reads: BackendReads; names: StorageNames }, uuid: ObjectUuid, table: SegmentTable) {
    this.#store = components.store;
    this.#reads = components.reads;
    this.#names = components.names;
    this.#uuid = uuid;
    this.#table = table;
  }

  /** See PageSource. Rejects as BackendReads.ask does. */
  read(row: number, offsetBytes: number, lengthBytes: number, crc: number): Promise<Buffer> {
    const table = this.#table;
    const owner = (table.objectUuid(row) === '' ? this.#uuid : table.objectUuid(row)) as ObjectUuid;
    const bucket = this.#names.bucket(owner, table.bucket(row));
    const name = this.#names.object(owner, table.bucket(row), table.objectName(row));
    return this.#reads.ask(`map page at ${offsetBytes} of ${bucket}/${name}`, 'checkpoint-corrupt', async (attempt): Promise<Look<Buffer>> => {
      // What was wrong once is asked for by itself.
      const answer =
        attempt === 0
          ? await this.#readTogether(bucket, name, offsetBytes, lengthBytes)
          : await this.#store.get(bucket, name, { offsetBytes, lengthBytes });
      if (answer.kind === 'absent') return answer;
      if (answer.bytes.length !== lengthBytes) return { kind: 'wrong', message: `has only ${answer.bytes.length} bytes of ${lengthBytes}` };
      return crc32(answer.bytes) === crc ? { kind: 'right', value: answer.bytes } : { kind: 'wrong', message: 'does not match its CRC' };
    });
  }

  #readTogether(bucket: string, name: string, offsetBytes: number, lengthBytes: number): Promise<GetOutcome> {
    return new Promise((resolve) => {
      this.#wanted.push({ bucket, name, offsetBytes, lengthBytes, resolve });
      if (this.#wanted.length === 1) queueMicrotask(() => this.#request());
    });
  }

  #request(): void {
    const wanted = this.#wanted;
    this.#wanted = [];
    wanted.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.offsetBytes - b.offsetBytes));
    for (let from = 0; from < wanted.length;) {
      const first = wanted[from] as WantedPage;
      let end = first.offsetBytes + first.lengthBytes;
      let to = from + 1;
      for (; to < wanted.length; to += 1) {
        const page = wanted[to] as WantedPage;
        const pageEnd = page.offsetBytes + page.lengthBytes;
        if (page.name !== first.name || page.bucket !== first.bucket) break;
        if (page.offsetBytes - end > GAP_BYTES_MAX || pageEnd - first.offsetBytes > REQUEST_BYTES_MAX) break;
        end = Math.max(end, pageEnd);
      }
      const asked = this.#store.get(first.bucket, first.name, { offsetBytes: first.offsetBytes, lengthBytes: end - first.offsetBytes });
      for (const page of wanted.slice(from, to))
        page.resolve(asked.then((outcome) => cut(outcome, page.offsetBytes - first.offsetBytes, page.lengthBytes)));
      from = to;
    }
  }
}

function cut(outcome: GetOutcome, offsetBytes: number, lengthBytes: number): GetOutcome {
  return outcome.kind === 'absent' ? outcome : { kind: 'found', bytes: outcome.bytes.subarray(offsetBytes, offsetBytes + lengthBytes) };
}
