/**
 * What was read ahead of one object, by where it is stored: (segment id, range of bytes). A stored location never changes its bytes, so nothing
 * here can be outdated: a reader looks its block up in the extent map first, and what was overwritten since is not asked for here any more.
 * The bytes are not checked when they come; whoever takes a block checks it.
 */
import type { GetOutcome, ObjectStore } from '../../backends/object-store.ts';
import type { Term } from '../core/ids.ts';
import type { FormerAnswer, FormerOwner } from '../object-router/driver-port.ts';
import type { BudgetMember, ReadAheadBudget } from './read-ahead-budget.ts';
import type { Stream } from './read-ahead-streams.ts';

/** What is to be read, and for whom. */
export interface ChunkPlan {
  readonly stream: Stream;
  readonly segmentId: number;
  readonly bucket: string;
  readonly name: string;
  /** Which segment of the object that is read; null: it is another thing. */
  readonly segment: { readonly number: number; readonly term: Term } | null;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Blocks of it that the stream will ask for. */
  readonly blocks: number;
  /** Where in the object the last of them ends. */
  readonly objectEndBytes: number;
}

/** One range on its way, or here. */
export class Chunk {
  readonly plan: ChunkPlan;
  /** Null until it is here. The whole range, or nothing. */
  bytes: Buffer | null = null;
  /** Resolves when it is here or never will be. Null: not asked for yet. */
  arriving: Promise<void> | null = null;
  dropped = false;
  /** Blocks that nobody took yet. */
  left: number;
  /** Readers that wait for it. */
  waiting = 0;
  readonly abort = new AbortController();

  constructor(plan: ChunkPlan) {
    this.plan = plan;
    this.left = plan.blocks;
  }
}

export class ReadAheadChunks implements BudgetMember {
  readonly #store: ObjectStore;
  readonly #former: () => FormerOwner | null;
  readonly #budget: ReadAheadBudget;
  /** By segment id, ascending by offset. */
  readonly #segments = new Map<number, Chunk[]>();
  readonly #queue = new Set<Chunk>();
  #count = 0;
  readonly #streamCount: () => number;
  readonly #releaseIdle: (sinceMs: number) => void;
  readonly #failed: (chunk: Chunk) => void;

  /** `failed`: a chunk could not be read; it is gone, and whoever needs it reads it himself. */
  constructor(
    components: { store: ObjectStore; budget: ReadAheadBudget; former: () => FormerOwner | null },
    owner: { streamCount(): number; releaseIdle(sinceMs: number): void; failed(chunk: Chunk): void },
  ) {
    this.#store = components.store;
    this.#former = components.former;
    this.#budget = components.budget;
    this.#streamCount = () => owner.streamCount();
    this.#releaseIdle = (sinceMs) => owner.releaseIdle(sinceMs);
    this.#failed = (chunk) => owner.failed(chunk);
  }

  get count(): number {
    return this.#count;
  }
  /** Chunks that wait for their turn to be asked for. */
  get queued(): number {
    return this.#queue.size;
  }
  get streamCount(): number {
    return this.#streamCount();
  }

  releaseIdle(sinceMs: number): void {
    this.#releaseIdle(sinceMs);
  }

  /** The chunk with the block at `offsetBytes`, or null. */
  find(segmentId: number, offsetBytes: number, blockBytes: number): Chunk | null {
    const chunks = this.#segments.get(segmentId);
    if (chunks === undefined) return null;
    let low = 0;
    let high = chunks.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const chunk = chunks[middle] as Chunk;
      if (chunk.plan.offsetBytes > offsetBytes) high = middle - 1;
      else if (chunk.plan.offsetBytes + chunk.plan.lengthBytes < offsetBytes + blockBytes) low = middle + 1;
      else return chunk;
    }
    return null;
  }

  /** Puts a range on the way, or in the queue; its bytes were taken from the budget. Where ranges of one segment overlap, a block may not be found. */
  add(plan: ChunkPlan): void {
    const chunk = new Chunk(plan);
    let chunks = this.#segments.get(plan.segmentId);
    if (chunks === undefined) {
      chunks = [];
      this.#segments.set(plan.segmentId, chunks);
    }
    let at = chunks.length;
    while (at > 0 && (chunks[at - 1] as Chunk).plan.offsetBytes > plan.offsetBytes) at -= 1;
    chunks.splice(at, 0, chunk);
    this.#count += 1;
    this.#budget.enter(this);
    this.#queue.add(chunk);
    this.startQueued();
  }

  startQueued(): void {
    for (const chunk of this.#queue) {
      if (!this.#budget.takeRequest(this, false)) return;
      this.#start(chunk);
    }
  }

  /** Its bytes, waited for; null when they did not come. A reader that waits lets its stream read further ahead. */
  async arrived(chunk: Chunk): Promise<Buffer | null> {
    if (this.#queue.has(chunk)) {
      this.#budget.takeRequest(this, true);
      this.#start(chunk);
    }
    chunk.plan.stream.waits += 1;
    chunk.waiting += 1;
    try {
      await chunk.arriving;
      return chunk.bytes;
    } finally {
      chunk.waiting -= 1;
    }
  }

  #start(chunk: Chunk): void {
    this.#queue.delete(chunk);
    const { lengthBytes } = chunk.plan;
    const settled = (outcome: GetOutcome | null): void => {
      this.#budget.giveRequest();
      if (chunk.dropped) return;
      if (outcome?.kind === 'found' && outcome.bytes.length === lengthBytes) {
        chunk.bytes = outcome.bytes;
        return;
      }
      this.drop(chunk);
      this.#failed(chunk);
    };
    // An error, too, is nobody's here: who needs the blocks meets it, or not, when he reads them himself.
    chunk.arriving = this.#get(chunk).then(settled, () => settled(null));
  }

  #get({ plan, abort }: Chunk): Promise<GetOutcome> {
    const { bucket, name, segment, offsetBytes, lengthBytes } = plan;
    const remote = (): Promise<GetOutcome> => this.#store.get(bucket, name, { offsetBytes, lengthBytes }, abort.signal);
    const asked = segment === null ? null : (this.#former()?.read(segment.number, segment.term, offsetBytes, lengthBytes) ?? null);
    return asked === null ? remote() : fromFormer(asked, lengthBytes, remote);
  }

  /** `blocks` of it were delivered. A chunk of which nothing is left goes, and so does one whose stream ended while somebody waited for it. */
  taken(chunk: Chunk, blocks: number): void {
    chunk.left -= blocks;
    if (chunk.left <= 0 || (chunk.plan.stream.ended && chunk.waiting === 0)) this.drop(chunk);
  }

  /** Lets go of a chunk, whatever it is doing. */
  drop(chunk: Chunk): void {
    if (chunk.dropped) return;
    chunk.dropped = true;
    const chunks = this.#segments.get(chunk.plan.segmentId) as Chunk[];
    chunks.splice(chunks.indexOf(chunk), 1);
    if (chunks.length === 0) this.#segments.delete(chunk.plan.segmentId);
    this.#count -= 1;
    this.#queue.delete(chunk);
    this.#budget.giveBytes(chunk.plan.lengthBytes);
    if (this.#count === 0) this.#budget.leave(this);
    if (chunk.bytes === null && chunk.arriving !== null) chunk.abort.abort();
    chunk.bytes = null;
  }

  /** Lets go of what `isOver` says of its plan, but for what somebody waits for. Returns the blocks that nobody took. */
  dropWhere(isOver: (plan: ChunkPlan) => boolean): number {
    let unread = 0;
    for (const chunks of [...this.#segments.values()]) {
      for (const chunk of [...chunks]) {
        if (chunk.waiting > 0 || !isOver(chunk.plan)) continue;
        unread += chunk.left;
        this.drop(chunk);
      }
    }
    return unread;
  }
}

/** What the former owner has, or else `remote`; of one that is late and the other whichever is here first. */
async function fromFormer(asked: Promise<FormerAnswer>, lengthBytes: number, remote: () => Promise<GetOutcome>): Promise<GetOutcome> {
  const found = (bytes: Buffer | null): GetOutcome | null => (bytes?.length === lengthBytes ? { kind: 'found', bytes } : null);
  const answer = await asked;
  if (answer === null || Buffer.isBuffer(answer)) return found(answer) ?? (await remote());
  const getting = remote();
  return await Promise.any([getting, answer.late.then((bytes) => found(bytes) ?? getting)]);
}
