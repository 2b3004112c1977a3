/**
 * Brings blocks that are not in RAM: from the local segment when there is one, else from the backend. Every block is checked against the
 * CRC of its extent map entry; a local copy that does not match is answered from the backend, and two wrong copies are an error, never data.
 */
import { crc32 } from 'node:zlib';

import type { GetOutcome, ObjectStore } from '../../backends/object-store.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import { Crc32Join } from '../core/crc32-join.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import { BLOCK_BYTES } from '../object-log/segment-codec.ts';
import type { LocalSegment, SegmentFiles } from '../object-log/segment-files.ts';
import type { BackendReads, Look } from './backend-reads.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

/** Bytes between two wanted blocks that are read along rather than skipped: of a local file a record head, not more; of the backend what costs less than one more request. */
const LOCAL_GAP_BYTES_MAX = 1024;
const REMOTE_GAP_BYTES_MAX = 16 * 1024;
/** Most bytes of one read. */
const RUN_BYTES_MAX = 1024 * 1024;
/** An object up to this size is asked for as a whole once its parts were wrong twice. */
const WHOLE_BYTES_MAX = 64 * 1024 * 1024;

/** One block to bring: where it is, and where in the target its part goes. */
export interface MissingBlock {
  readonly row: number;
  readonly offsetBytes: number;
  readonly crc: number;
  readonly targetOffset: number;
  /** Part of the block that is wanted. */
  readonly from: number;
  readonly length: number;
}

const CRC_JOIN = new Crc32Join(BLOCK_BYTES);

/** Blocks from which on a run that is contiguous in the segment and in the target is read in place. */
const DIRECT_BLOCKS_MIN = 16;

function isDirect(blocks: readonly MissingBlock[]): boolean {
  if (blocks.length < DIRECT_BLOCKS_MIN) return false;
  const first = blocks[0] as MissingBlock;
  for (let index = 0; index < blocks.length; index += 1) {
    const block = blocks[index] as MissingBlock;
    if (block.length !== BLOCK_BYTES) return false;
    if (block.offsetBytes !== first.offsetBytes + index * BLOCK_BYTES || block.targetOffset !== first.targetOffset + index * BLOCK_BYTES)
      return false;
  }
  return true;
}

/** A request to the backend whose answer others may share. */
interface RunningGet {
  readonly segmentId: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly outcome: Promise<GetOutcome>;
}

function cut(outcome: GetOutcome, offsetBytes: number, lengthBytes: number): GetOutcome {
  return outcome.kind === 'absent' ? outcome : { kind: 'found', bytes: outcome.bytes.subarray(offsetBytes, offsetBytes + lengthBytes) };
}

export class BlockReader {
  readonly #files: SegmentFiles;
  readonly #store: ObjectStore;
  readonly #reads: BackendReads;
  readonly #cache: BlockCache;
  readonly #names: StorageNames;
  readonly #logger: Logger;
  readonly #running = new Set<RunningGet>();

  constructor(components: { files: SegmentFiles; store: ObjectStore; reads: BackendReads; cache: BlockCache; names: StorageNames; logger: Logger }) {
    this.#files = components.files;
    this.#store = components.store;
    this.#reads = components.reads;
    this.#cache = components.cache;
    this.#names = components.names;
    this.#logger = components.logger;
  }

  /**
   * Fills the parts of `target` that `missing` names and puts the blocks into the RAM cache. `uuid`: the object whose table it is.
   * @throws StoreError of class `retry` when no copy is right now; ApplianceError `block-corrupt` when that lasts; the errors of the store otherwise.
   */
  async fetch(uuid: ObjectUuid, table: SegmentTable, missing: readonly MissingBlock[], target: Buffer): Promise<void> {
    const sorted = missing.length === 1 ? missing : [...missing].sort((a, b) => a.row - b.row || a.offsetBytes - b.offsetBytes);
    const runs: Promise<void>[] = [];
    let from = 0;
    let row = 0;
    let gapBytesMax = 0;
    for (let index = 1; index <= sorted.length; index += 1) {
      const before = sorted[index - 1] as MissingBlock;
      const first = sorted[from] as MissingBlock;
      const block = sorted[index];
      if (before.row !== row) {
        row = before.row;
        gapBytesMax = this.#local(uuid, table, row) === null ? REMOTE_GAP_BYTES_MAX : LOCAL_GAP_BYTES_MAX;
      }
      if (
        block !== undefined &&
        block.row === row &&
        block.offsetBytes - before.offsetBytes - BLOCK_BYTES <= gapBytesMax &&
        block.offsetBytes + BLOCK_BYTES - first.offsetBytes <= RUN_BYTES_MAX
      ) {
        continue;
      }
      runs.push(this.#run(uuid, table, sorted.slice(from, index), target));
      from = index;
    }
    await Promise.all(runs);
  }

  #local(uuid: ObjectUuid, table: SegmentTable, row: number): LocalSegment | null {
    if (table.kind(row) !== 'segment') return null;
    const owner = table.objectUuid(row);
    return this.#files.segment(owner === '' ? uuid : (owner as ObjectUuid), table.number(row));
  }

  async #run(uuid: ObjectUuid, table: SegmentTable, blocks: readonly MissingBlock[], target: Buffer): Promise<void> {
    const first = blocks[0] as MissingBlock;
    const last = blocks.at(-1) as MissingBlock;
    const lengthBytes = last.offsetBytes + BLOCK_BYTES - first.offsetBytes;
    const row = table.row(first.row);
    const segmentId = table.globalId(first.row);
    const owner = row.objectUuid === '' ? uuid : (row.objectUuid as ObjectUuid);
    // A row may be freed, and used again, while the read is under way: all that it says is taken here, before anything waits.
    const bucket = this.#names.bucket(owner, row.bucket);
    const name = this.#names.object(owner, row.bucket, table.objectName(first.row));
    const local = row.kind === 'segment' ? this.#files.segment(owner, row.number) : null;
    const direct = isDirect(blocks);
    if (local !== null) {
      const bytes = direct ? target.subarray(first.targetOffset, first.targetOffset + lengthBytes) : Buffer.allocUnsafe(lengthBytes);
      for (let again = true; again;) {
        const { path } = local;
        let problem: unknown = null;
        try {
          const bytesRead = await this.#files.read(local, first.offsetBytes, bytes);
          if (bytesRead === lengthBytes && this.#deliver(segmentId, blocks, bytes, direct ? null : target)) return;
        } catch (error) {
          problem = error;
        }
        // The file may have been released, and so moved, while it was being opened; otherwise this copy is bad.
        again = local.path !== path && this.#files.segment(owner, row.number) === local;
        if (!again) {
          this.#logger.warn(
            { err: problem, object: owner, segment: row.number, file: path, offsetBytes: first.offsetBytes },
            'a local segment could not be read or does not match its CRC; trying another copy',
          );
        }
      }
    }
    await this.#reads.ask(`block at ${first.offsetBytes} of ${bucket}/${name}`, 'block-corrupt', async (attempt): Promise<Look<void>> => {
      // A store that keeps several copies may give the bad one for ranges for ever; a whole object it checks itself, and then gives another one.
      const whole = attempt === 2 && row.sizeBytes >= first.offsetBytes + lengthBytes && row.sizeBytes <= WHOLE_BYTES_MAX;
      const answer = await (whole
        ? this.#getWhole(bucket, name, first.offsetBytes, lengthBytes)
        : this.#get(segmentId, bucket, name, first.offsetBytes, lengthBytes));
      if (answer.kind === 'absent') {
        // Not released yet, so the backend need not have it: the local copy is the one that counts.
        return local?.place === 'log' ? { kind: 'wrong', message: `does not match its CRC in ${local.path}, and is not on the backend yet` } : answer;
      }
      if (answer.bytes.length === lengthBytes && this.#deliver(segmentId, blocks, answer.bytes, target)) return { kind: 'right', value: undefined };
      const problem = answer.bytes.length === lengthBytes ? 'does not match its CRC' : 'is cut off';
      return { kind: 'wrong', message: `${problem}${local === null ? '' : `, and neither is ${local.path} right`}` };
    });
  }

  /** The range, from a request that is under way and covers it, or a new one. The bytes may be shared: they are only read. */
  async #get(segmentId: number, bucket: string, name: string, offsetBytes: number, lengthBytes: number): Promise<GetOutcome> {
    for (const running of this.#running) {
      if (
        running.segmentId !== segmentId ||
        running.offsetBytes > offsetBytes ||
        running.offsetBytes + running.lengthBytes < offsetBytes + lengthBytes
      )
        continue;
      return cut(await running.outcome, offsetBytes - running.offsetBytes, lengthBytes);
    }
    const running: RunningGet = { segmentId, offsetBytes, lengthBytes, outcome: this.#store.get(bucket, name, { offsetBytes, lengthBytes }) };
    this.#running.add(running);
    try {
      return await running.outcome;
    } finally {
      this.#running.delete(running);
    }
  }

  async #getWhole(bucket: string, name: string, offsetBytes: number, lengthBytes: number): Promise<GetOutcome> {
    return cut(await this.#store.get(bucket, name), offsetBytes, lengthBytes);
  }

  /** False when a block does not match. Copies what is wanted and caches the blocks; `target` null: they were read in place. */
  #deliver(segmentId: number, blocks: readonly MissingBlock[], bytes: Buffer, target: Buffer | null): boolean {
    const base = (blocks[0] as MissingBlock).offsetBytes;
    if (target === null) {
      // Read in place: whole blocks, one behind the other. The RAM cache is left to blocks that come back; the page cache is cache enough.
      let expected = (blocks[0] as MissingBlock).crc;
      for (let index = 1; index < blocks.length; index += 1) expected = CRC_JOIN.join(expected, (blocks[index] as MissingBlock).crc);
      return crc32(bytes) === expected;
    }
    for (const block of blocks) {
      const at = block.offsetBytes - base;
      if (crc32(bytes.subarray(at, at + BLOCK_BYTES)) !== block.crc) return false;
    }
    for (const block of blocks) {
      const at = block.offsetBytes - base;
      if (block.length > 0) bytes.copy(target, block.targetOffset, at + block.from, at + block.from + block.length);
      this.#cache.put(segmentId, block.offsetBytes, bytes, at);
    }
    return true;
  }
}
