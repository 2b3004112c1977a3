/**
 * Brings blocks that are not in RAM: from the local segment when there is one, else from the router that gave the object away, else from the backend. Every block is checked against the
 * CRC of its extent map entry; a local copy that does not match is answered from the backend, and two wrong copies are an error, never data.
 */
import { crc32 } from 'node:zlib';

import type { GetOutcome, ObjectStore } from '../../backends/object-store.ts';
import type { BlockCache } from '../../cache/block-cache.ts';
import { Crc32Join } from '../core/crc32-join.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { LocalSegment } from '../object-log/local-segment.ts';
import { BLOCK_BYTES } from '../object-log/segment-codec.ts';
import type { SegmentFiles } from '../object-log/segment-files.ts';
import type { FormerOwner } from '../object-router/driver-port.ts';
import type { BackendReads, Look } from './backend-reads.ts';
import type { Chunk } from './read-ahead-chunks.ts';
import type { ReadAhead } from './read-ahead.ts';
import type { SegmentRecall } from './segment-recall.ts';
import type { SegmentTable } from './segment-table.ts';
import type { StorageNames } from './storage-names.ts';

/** Bytes between two wanted blocks that are read along rather than skipped: of a local file a record head, not more; of the backend what costs less than one more request. */
const LOCAL_GAP_BYTES_MAX = 1024;
const REMOTE_GAP_BYTES_MAX = 16 * 1024;
/** Most bytes of one read. */
const RUN_BYTES_MAX = 1024 * 1024;
/** An object up to this size is asked for as a whole once its parts were wrong twice. */
const WHOLE_BYTES_MAX = 64 * 1024 * 1024;

/** What reading needs of the local segments. */
export type LocalSegments = Pick<SegmentFiles, 'segment' | 'read'>;

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

/** Blocks from which on a run that is contiguous in the segment and in the target is read in place, checked and copied as one. */
const DIRECT_BLOCKS_MIN = 16;

/** End of the blocks from `from` on that are whole and lie one behind the other in the segment as in the target. */
function directEnd(blocks: readonly MissingBlock[], from: number): number {
  const first = blocks[from] as MissingBlock;
  let end = from;
  while (end < blocks.length) {
    const block = blocks[end] as MissingBlock;
    const distance = (end - from) * BLOCK_BYTES;
    if (block.length !== BLOCK_BYTES || block.offsetBytes !== first.offsetBytes + distance || block.targetOffset !== first.targetOffset + distance)
      break;
    end += 1;
  }
  return Math.max(end, from + 1);
}

function joinedCrc(blocks: readonly MissingBlock[], from: number, end: number): number {
  let crc = (blocks[from] as MissingBlock).crc;
  for (let index = from + 1; index < end; index += 1) crc = CRC_JOIN.join(crc, (blocks[index] as MissingBlock).crc);
  return crc;
}

/** All that a row says of its object. `number`: of a segment, which may be here; null for what never is. */
interface Place {
  readonly segmentId: number;
  readonly bucket: string;
  readonly name: string;
  readonly owner: ObjectUuid;
  /** `owner` is the object that is read. */
  readonly isOwn: boolean;
  readonly number: number | null;
  readonly term: Term;
  readonly sizeBytes: number;
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
  readonly #files: LocalSegments;
  readonly #store: ObjectStore;
  readonly reads: BackendReads;
  readonly #recall: SegmentRecall | null;
  readonly #cache: BlockCache;
  readonly #names: StorageNames;
  readonly #logger: Logger;
  readonly #running = new Set<RunningGet>();
  /** Who had the object before this router, and gave it away. */
  former: FormerOwner | null = null;

  constructor(components: {
    files: LocalSegments;
    store: ObjectStore;
    reads: BackendReads;
    recall: SegmentRecall | null;
    cache: BlockCache;
    names: StorageNames;
    logger: Logger;
  }) {
    this.#files = components.files;
    this.#store = components.store;
    this.reads = components.reads;
    this.#recall = components.recall;
    this.#cache = components.cache;
    this.#names = components.names;
    this.#logger = components.logger;
  }

  /**
   * Fills the parts of `target` that `missing` names and puts the blocks into the RAM cache. `uuid`: the object whose table it is.
   * @throws StoreError of class `retry` when no copy is right now; ApplianceError `block-corrupt` when that lasts; the errors of the store otherwise.
   */
  async fetch(
    uuid: ObjectUuid,
    table: SegmentTable,
    missing: readonly MissingBlock[],
    target: Buffer,
    readAhead: ReadAhead | null = null,
  ): Promise<void> {
    const ahead = readAhead !== null && readAhead.chunks.count > 0 ? readAhead : null;
    const sorted = missing.length === 1 ? missing : [...missing].sort((a, b) => a.row - b.row || a.offsetBytes - b.offsetBytes);
    const runs: Promise<void>[] = [];
    let from = 0;
    let row = 0;
    let gapBytesMax = 0;
    let chunk = ahead === null ? null : this.#chunkOf(ahead, table, sorted[0] as MissingBlock);
    for (let index = 1; index <= sorted.length; index += 1) {
      const before = sorted[index - 1] as MissingBlock;
      const first = sorted[from] as MissingBlock;
      const block = sorted[index];
      if (before.row !== row) {
        row = before.row;
        gapBytesMax = this.#local(uuid, table, row) === null ? REMOTE_GAP_BYTES_MAX : LOCAL_GAP_BYTES_MAX;
      }
      const nextChunk = ahead === null || block === undefined ? null : this.#chunkOf(ahead, table, block);
      if (
        block !== undefined &&
        block.row === row &&
        nextChunk === chunk &&
        block.offsetBytes - before.offsetBytes - BLOCK_BYTES <= gapBytesMax &&
        block.offsetBytes + BLOCK_BYTES - first.offsetBytes <= RUN_BYTES_MAX
      ) {
        continue;
      }
      const blocks = sorted.slice(from, index);
      const place = this.#place(uuid, table, row);
      if (gapBytesMax === REMOTE_GAP_BYTES_MAX && chunk === null)
        this.#recall?.fetched(uuid, this.#names, table, row, before.offsetBytes + BLOCK_BYTES - first.offsetBytes);
      const run = ahead === null || chunk === null ? this.#run(place, blocks, target) : this.#take(place, ahead, chunk, blocks, target);
      if (run !== null) runs.push(run);
      from = index;
      chunk = nextChunk;
    }
    if (runs.length === 1) await runs[0];
    if (runs.length < 2) return;
    // All of them, also when one failed: the target is the caller's again when this settles.
    for (const result of await Promise.allSettled(runs)) if (result.status === 'rejected') throw result.reason;
  }

  #chunkOf(ahead: ReadAhead, table: SegmentTable, block: MissingBlock): Chunk | null {
    return ahead.chunks.find(table.globalId(block.row), block.offsetBytes, BLOCK_BYTES);
  }

  /** Delivers from what was read ahead, null: at once. What did not come, or came wrong, is read as if it had not been read ahead. */
  #take(place: Place, ahead: ReadAhead, chunk: Chunk, blocks: readonly MissingBlock[], target: Buffer): Promise<void> | null {
    if (chunk.bytes === null) {
      const arrived = this.reads.patiently(`what is read ahead of ${place.bucket}/${place.name}`, () => ahead.chunks.arrived(chunk));
      return arrived.then((bytes) => {
        const delivered = bytes !== null && this.#takeFrom(ahead, chunk, bytes, blocks, target);
        return delivered ? undefined : this.#run(place, blocks, target);
      });
    }
    return this.#takeFrom(ahead, chunk, chunk.bytes, blocks, target) ? null : this.#run(place, blocks, target);
  }

  #takeFrom(ahead: ReadAhead, chunk: Chunk, bytes: Buffer, blocks: readonly MissingBlock[], target: Buffer): boolean {
    const at = (blocks[0] as MissingBlock).offsetBytes - chunk.plan.offsetBytes;
    if (this.#deliver(chunk.plan.segmentId, blocks, bytes, at, target)) {
      ahead.taken(chunk, blocks.length);
      return true;
    }
    ahead.chunks.drop(chunk);
    return false;
  }

  #local(uuid: ObjectUuid, table: SegmentTable, row: number): LocalSegment | null {
    if (table.kind(row) !== 'segment') return null;
    const owner = table.objectUuid(row);
    return this.#files.segment(owner === '' ? uuid : (owner as ObjectUuid), table.number(row), table.term(row));
  }

  /** Where a run is. A row may be freed, and used again, while the read is under way: all that it says is taken before anything waits. */
  #place(uuid: ObjectUuid, table: SegmentTable, rowIndex: number): Place {
    const row = table.row(rowIndex);
    const owner = row.objectUuid === '' ? uuid : (row.objectUuid as ObjectUuid);
    return {
      segmentId: table.globalId(rowIndex),
      bucket: this.#names.bucket(owner, row.bucket),
      name: this.#names.object(owner, row.bucket, table.objectName(rowIndex)),
      owner,
      isOwn: owner === uuid,
      number: row.kind === 'segment' ? row.number : null,
      term: row.term,
      sizeBytes: row.sizeBytes,
    };
  }

  async #run(place: Place, blocks: readonly MissingBlock[], target: Buffer): Promise<void> {
    const first = blocks[0] as MissingBlock;
    const last = blocks.at(-1) as MissingBlock;
    const lengthBytes = last.offsetBytes + BLOCK_BYTES - first.offsetBytes;
    const { segmentId, owner, number } = place;
    const local = number === null ? null : this.#files.segment(owner, number, place.term);
    const direct = blocks.length >= DIRECT_BLOCKS_MIN && directEnd(blocks, 0) === blocks.length;
    if (local !== null) {
      const bytes = direct ? target.subarray(first.targetOffset, first.targetOffset + lengthBytes) : Buffer.allocUnsafe(lengthBytes);
      for (let again = true; again;) {
        const { path } = local;
        let problem: unknown = null;
        try {
          const bytesRead = await this.#files.read(local, first.offsetBytes, bytes);
          if (
            bytesRead === lengthBytes &&
            (direct ? crc32(bytes) === joinedCrc(blocks, 0, blocks.length) : this.#deliver(segmentId, blocks, bytes, 0, target))
          )
            return;
        } catch (error) {
          problem = error;
        }
        // The file may have been released, and so moved, while it was being opened; otherwise this copy is bad.
        again = local.path !== path && number !== null && this.#files.segment(owner, number) === local;
        if (!again) {
          this.#logger.warn(
            { err: problem, object: owner, segment: number, file: path, offsetBytes: first.offsetBytes },
            'a local segment could not be read or does not match its CRC; trying another copy',
          );
        }
      }
    }
    const asked = number === null || !place.isOwn ? null : (this.former?.read(number, place.term, first.offsetBytes, lengthBytes) ?? null);
    if (asked === null) return await this.#runRemote(place, blocks, lengthBytes, local, target, { isOver: false });
    const answer = await asked;
    const take = (bytes: Buffer | null, into: Buffer | null): boolean =>
      bytes?.length === lengthBytes && this.#deliver(segmentId, blocks, bytes, 0, into);
    if (answer === null || Buffer.isBuffer(answer)) {
      if (!take(answer, target)) await this.#runRemote(place, blocks, lengthBytes, local, target, { isOver: false });
      return;
    }
    // Whoever has it first. The other one must not touch the target any more.
    const race = { isOver: false };
    const late = answer.late.then((bytes) => take(bytes, race.isOver ? null : target));
    const remote = this.#runRemote(place, blocks, lengthBytes, local, target, race);
    try {
      await Promise.any([remote, late.then((taken) => (taken ? undefined : remote))]);
    } catch {
      await remote;
    } finally {
      race.isOver = true;
    }
  }

  /** From the backend. With the race over, nobody waits for it any more. */
  async #runRemote(
    { segmentId, bucket, name, sizeBytes }: Place,
    blocks: readonly MissingBlock[],
    lengthBytes: number,
    local: LocalSegment | null,
    target: Buffer,
    race: { readonly isOver: boolean },
  ): Promise<void> {
    const first = blocks[0] as MissingBlock;
    const what = `block at ${first.offsetBytes} of ${bucket}/${name}`;
    await this.reads.patiently(what, (patience) =>
      this.reads.ask(what, 'block-corrupt', async (attempt): Promise<Look<void>> => {
        // A store that keeps several copies may give the bad one for ranges for ever; a whole object it checks itself, and then gives another one.
        const whole = attempt === 2 && sizeBytes >= first.offsetBytes + lengthBytes && sizeBytes <= WHOLE_BYTES_MAX;
        const answer = await (whole
          ? this.#getWhole(bucket, name, first.offsetBytes, lengthBytes)
          : this.#get(segmentId, bucket, name, first.offsetBytes, lengthBytes));
        if (answer.kind === 'absent') {
          // Not released yet, so the backend need not have it: the local copy is the one that counts.
          return local?.place === 'log'
            ? { kind: 'wrong', message: `does not match its CRC in ${local.path}, and is not on the backend yet` }
            : answer;
        }
        if (answer.bytes.length === lengthBytes && this.#deliver(segmentId, blocks, answer.bytes, 0, patience.isOver || race.isOver ? null : target))
          return { kind: 'right', value: undefined };
        const problem = answer.bytes.length === lengthBytes ? 'does not match its CRC' : 'is cut off';
        return { kind: 'wrong', message: `${problem}${local === null ? '' : `, and neither is ${local.path} right`}` };
      }),
    );
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

  /**
   * False, and nothing happened, when a block does not match. Else copies what is wanted and caches the blocks, but for long runs: they are
   * sequential, and their next reader finds them where this one did. `bytes` has the first block at `at`;
   * `target` null: nobody waits for it any more.
   */
  #deliver(segmentId: number, blocks: readonly MissingBlock[], bytes: Buffer, at: number, target: Buffer | null): boolean {
    const base = (blocks[0] as MissingBlock).offsetBytes - at;
    for (let from = 0, end = 0; from < blocks.length; from = end) {
      end = directEnd(blocks, from);
      if (end - from < DIRECT_BLOCKS_MIN) end = from + 1;
      const start = (blocks[from] as MissingBlock).offsetBytes - base;
      if (crc32(bytes.subarray(start, start + (end - from) * BLOCK_BYTES)) !== joinedCrc(blocks, from, end)) return false;
    }
    for (let from = 0, end = 0; from < blocks.length; from = end) {
      end = directEnd(blocks, from);
      const block = blocks[from] as MissingBlock;
      const start = block.offsetBytes - base;
      if (end - from >= DIRECT_BLOCKS_MIN) {
        if (target !== null) bytes.copy(target, block.targetOffset, start, start + (end - from) * BLOCK_BYTES);
        continue;
      }
      end = from + 1;
      if (block.length > 0 && target !== null) bytes.copy(target, block.targetOffset, start + block.from, start + block.from + block.length);
      this.#cache.put(segmentId, block.offsetBytes, bytes, start);
    }
    return true;
  }
}
