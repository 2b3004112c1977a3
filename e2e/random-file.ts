/**
 * What one file must contain, in the dumbest way there is: whole 4 KiB blocks in a map, copied at every change, so that a state that was
 * acknowledged long ago can still be compared with what a restarted router shows.
 */

const BLOCK_BYTES = 4096;
const SECTOR_BYTES = 512;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

/** Contents of a file at one moment. Blocks that are absent are zeros; those that are there are never changed in place. */
export class FileContents {
  static readonly EMPTY = new FileContents(0, new Map());
  readonly sizeBytes: number;
  readonly blocks: ReadonlyMap<number, Buffer>;

  constructor(sizeBytes: number, blocks: ReadonlyMap<number, Buffer>) {
    this.sizeBytes = sizeBytes;
    this.blocks = blocks;
  }

  written(offsetBytes: number, data: Uint8Array): FileContents {
    if (data.length === 0) return this;
    const blocks = new Map(this.blocks);
    for (let done = 0; done < data.length;) {
      const at = offsetBytes + done;
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const part = data.subarray(done, done + BLOCK_BYTES - within);
      const contents = Buffer.from(blocks.get(block) ?? ZEROS);
      contents.set(part, within);
      blocks.set(block, contents);
      done += part.length;
    }
    return new FileContents(Math.max(this.sizeBytes, offsetBytes + data.length), blocks);
  }

  resized(sizeBytes: number): FileContents {
    if (sizeBytes >= this.sizeBytes) return new FileContents(sizeBytes, this.blocks);
    const blocks = new Map<number, Buffer>();
    for (const [block, contents] of this.blocks) {
      const kept = sizeBytes - block * BLOCK_BYTES;
      if (kept <= 0) continue;
      if (kept >= BLOCK_BYTES) {
        blocks.set(block, contents);
        continue;
      }
      const cut = Buffer.from(contents);
      cut.fill(0, kept);
      blocks.set(block, cut);
    }
    return new FileContents(sizeBytes, blocks);
  }

  /** What READ must return: cut off at the end of the file. */
  read(offsetBytes: number, countBytes: number): Buffer {
    const data = Buffer.alloc(Math.max(0, Math.min(countBytes, this.sizeBytes - offsetBytes)));
    for (let done = 0; done < data.length;) {
      const at = offsetBytes + done;
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const length = Math.min(data.length - done, BLOCK_BYTES - within);
      this.blocks.get(block)?.copy(data, done, within, within + length);
      done += length;
    }
    return data;
  }

  /** Bytes of the blocks that are not all zeros: the most that `used` may be. */
  usedBytes(): number {
    let used = 0;
    for (const contents of this.blocks.values()) if (!contents.equals(ZEROS)) used += BLOCK_BYTES;
    return used;
  }
}

/** null when `seen` is `state`, else the first difference. */
export function difference(state: FileContents, seen: FileContents): string | null {
  return mixDifference(state, state, seen);
}

/**
 * null when every 512-byte sector of `seen` is as in `before` or as in `after`, and its size lies between theirs: what a change without a
 * reply may leave. Else the first difference.
 */
export function mixDifference(before: FileContents, after: FileContents, seen: FileContents): string | null {
  const [low, high] = [Math.min(before.sizeBytes, after.sizeBytes), Math.max(before.sizeBytes, after.sizeBytes)];
  if (seen.sizeBytes < low || seen.sizeBytes > high) return `size ${seen.sizeBytes}, not ${low}${low === high ? '' : ` to ${high}`}`;
  for (const block of new Set([...before.blocks.keys(), ...after.blocks.keys(), ...seen.blocks.keys()])) {
    const contents = seen.blocks.get(block) ?? ZEROS;
    for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
      const end = Math.min(at + SECTOR_BYTES, Math.max(at, seen.sizeBytes - block * BLOCK_BYTES));
      const sector = contents.subarray(at, end);
      if (sector.equals((before.blocks.get(block) ?? ZEROS).subarray(at, end))) continue;
      if (sector.equals((after.blocks.get(block) ?? ZEROS).subarray(at, end))) continue;
      return `bytes at ${block * BLOCK_BYTES + at}: ${sector.subarray(0, 16).toString('hex')}`;
    }
  }
  return null;
}

/** Runs of adjacent blocks, each of at most `runBlocksMax`, over all `states`: what has to be read to see everything that can be there. */
export function blockRuns(states: readonly FileContents[], runBlocksMax: number): { readonly block: number; readonly count: number }[] {
  const blocks = [...new Set(states.flatMap((state) => [...state.blocks.keys()]))].sort((a, b) => a - b);
  const runs: { block: number; count: number }[] = [];
  for (const block of blocks) {
    const last = runs.at(-1);
    if (last !== undefined && last.block + last.count === block && last.count < runBlocksMax) last.count += 1;
    else runs.push({ block, count: 1 });
  }
  return runs;
}
