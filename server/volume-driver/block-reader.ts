/**
 * Brings blocks that are not in RAM: from the local segment when there is one, else from the backend. Every block is checked against the
 * CRC of its extent map entry; a local copy that does not match is answered from the backend, and two wrong copies are an error, never data.
 */
import { crc32 } from 'node:zlib';

import type { ObjectStore } from '../../backends/object-store.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import { Crc32Join } from '../core/crc32-join.ts';
import { ApplianceError } from '../core/errors.ts';
import type { ObjectUuid } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import { BLOCK_BYTES } from '../object-log/segment-codec.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

/** Bytes between two wanted blocks that are read along rather than skipped: a record head, not more. */
const GAP_BYTES_MAX = 1024;
/** Most bytes of one read. */
const RUN_BYTES_MAX = 1024 * 1024;

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

export class BlockReader {
  readonly #files: SegmentFiles;
  readonly #store: ObjectStore;
  readonly #cache: BlockCache;
  readonly #names: StorageNames;
  readonly #logger: Logger;

  constructor(components: { files: SegmentFiles; store: ObjectStore; cache: BlockCache; names: StorageNames; logger: Logger }) {
    this.#files = components.files;
    this.#store = components.store;
    this.#cache = components.cache;
    this.#names = components.names;
    this.#logger = components.logger;
  }

  /**
   * Fills the parts of `target` that `missing` names and puts the blocks into the RAM cache. `uuid`: the object whose table it is.
   * @throws ApplianceError `block-corrupt` when no copy matches; the errors of disk and store otherwise.
   */
  async fetch(uuid: ObjectUuid, table: SegmentTable, missing: readonly MissingBlock[], target: Buffer): Promise<void> {
    const sorted = missing.length === 1 ? missing : [...missing].sort((a, b) => a.row - b.row || a.offsetBytes - b.offsetBytes);
    const runs: Promise<void>[] = [];
    let from = 0;
    for (let index = 1; index <= sorted.length; index += 1) {
      const before = sorted[index - 1] as MissingBlock;
      const first = sorted[from] as MissingBlock;
      const block = sorted[index];
      if (
        block !== undefined &&
        block.row === before.row &&
        block.offsetBytes - before.offsetBytes - BLOCK_BYTES <= GAP_BYTES_MAX &&
        block.offsetBytes + BLOCK_BYTES - first.offsetBytes <= RUN_BYTES_MAX
      ) {
        continue;
      }
      runs.push(this.#run(uuid, table, sorted.slice(from, index), target));
      from = index;
    }
    await Promise.all(runs);
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
    const answer = await this.#store.get(bucket, name, { offsetBytes: first.offsetBytes, lengthBytes });
    if (answer.kind === 'found' && answer.bytes.length === lengthBytes && this.#deliver(segmentId, blocks, answer.bytes, target)) return;
    throw new ApplianceError(
      answer.kind === 'absent' ? 'block-absent' : 'block-corrupt',
      `block at ${first.offsetBytes} of ${bucket}/${name} ${answer.kind === 'absent' ? 'is not on the backend' : 'does not match its CRC'}${local === null ? '' : `, and neither does ${local.path}`}; run vferry fsck`,
    );
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
