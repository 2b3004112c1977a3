/** Many requests at once on overlapping blocks of one volume: what each sees must be what a register can show (concurrency-model.ts). */
import assert from 'node:assert/strict';

import { Stability, Status } from '../server/nfsd/file-system.ts';
import { RegisterModel } from './concurrency-model.ts';
import { SeededRandom } from './random.ts';
import type { FileHandle, StoreClient } from './store-client.ts';

const SECTORS = 8192;
const SECTOR_BYTES = 512;
/** What is used of the volume. */
export const REGISTERS_BYTES = SECTORS * SECTOR_BYTES;
/** Of the history of a sector, how many writes a message shows around the one that was read, and how many of the last. */
const SHOWN_AROUND = 12;
const SHOWN_LAST = 40;
/** Reads that are remembered for messages. */
const READS_KEPT = 2048;

interface WriteNote {
  readonly client: number;
  readonly beganMs: number;
  /** Null: not answered. */
  endedMs: number | null;
  answeredBy: string;
}

interface ReadNote {
  readonly client: number;
  readonly beganMs: number;
  readonly endedMs: number;
  readonly sector: number;
  readonly seen: readonly number[];
  readonly answeredBy: string;
}

export class RegisterLoad {
  readonly #model = new RegisterModel(1, SECTORS);
  readonly #seed: number;
  readonly #random: SeededRandom;
  /** The volume; this writes and reads its first 4 MiB only. */
  readonly handle: FileHandle;
  readonly #stabilities: readonly Stability[];
  /** By number of the write. */
  readonly #notes: (WriteNote | null)[] = [null];
  /** A ring. */
  readonly #reads: ReadNote[] = [];
  #readsMade = 0;
  #clients: readonly StoreClient[] = [];

  private constructor(handle: FileHandle, seed: number, stableOnly: boolean) {
    this.handle = handle;
    this.#stabilities = stableOnly ? [Stability.FILE_SYNC] : [Stability.UNSTABLE, Stability.FILE_SYNC];
    this.#seed = seed;
    this.#random = new SeededRandom(seed);
  }

  /** On a new volume of 4 MiB. `stableOnly`: no UNSTABLE writes, for routers that die. */
  static async create(
    client: StoreClient,
    seed: number,
    name = 'shared-flat.vmdk',
    options: { readonly stableOnly?: boolean } = {},
  ): Promise<RegisterLoad> {
    const { handle } = await client.create(client.root, name, 'guarded', { mode: 0o600 });
    assert.equal((await client.setattr(handle, { sizeBytes: REGISTERS_BYTES })).status, Status.OK);
    return new RegisterLoad(handle, seed, options.stableOnly ?? false);
  }

  /** Runs `operations` in all, `lanes` at a time for each client. @throws AssertionError when an answer cannot be explained. */
  async run(clients: readonly StoreClient[], lanes: number, operations: number): Promise<void> {
    let left = operations;
    await this.runUntil(clients, lanes, () => left-- <= 0);
  }

  /** The same until `over` says true; it is asked before each operation. Returns how many there were. */
  async runUntil(clients: readonly StoreClient[], lanes: number, over: () => boolean): Promise<number> {
    this.#clients = clients;
    let operations = 0;
    const problems: string[] = [];
    const worker = async (client: number): Promise<void> => {
      while (problems.length === 0 && !over()) {
        const problem = await this.#operation(client);
        operations += 1;
        if (problem !== null) problems.push(problem);
      }
    };
    await Promise.all(clients.flatMap((_, client) => Array.from({ length: lanes }, () => worker(client))));
    assert.deepEqual(problems, [], `seed ${this.#seed}:\n${problems.join('\n')}`);
    return operations;
  }

  async #operation(client: number): Promise<string | null> {
    const model = this.#model;
    const random = this.#random;
    const count = random.pick([1, 3, 8, 8, 8, 8, 16, 64]);
    const hot = random.chance(0.5) ? 256 : SECTORS;
    // Blocks mostly, and some that begin in the middle of a block.
    const sector = random.chance(0.8) ? random.below((hot - count) / 8) * 8 : random.below(hot - count);
    if (!random.chance(0.5)) return await this.#read(client, sector, count);
    const write = model.beginWrite(sector, count);
    const note: WriteNote = { client, beganMs: performance.now(), endedMs: null, answeredBy: 'not answered' };
    this.#notes[write] = note;
    const data = model.payload(write, sector, count);
    const answer = await this.#client(client).write(this.handle, sector * SECTOR_BYTES, data, random.pick(this.#stabilities));
    model.endWrite(write);
    note.endedMs = performance.now();
    note.answeredBy = answer.answeredBy ?? '';
    return answer.status === Status.OK && answer.countBytes === count * SECTOR_BYTES ? null : `WRITE: ${JSON.stringify(answer)}`;
  }

  async #read(client: number, sector: number, count: number): Promise<string | null> {
    const began = this.#model.beginRead();
    const beganMs = performance.now();
    const answer = await this.#client(client).read(this.handle, sector * SECTOR_BYTES, count * SECTOR_BYTES);
    if (answer.status !== Status.OK || answer.data.length !== count * SECTOR_BYTES)
      return `READ: status ${answer.status}, ${answer.data.length} bytes`;
    const wrong = this.#model.checkRead(began, sector, answer.data);
    const seen = Array.from({ length: count }, (_, index) => answer.data.readUInt32LE(index * SECTOR_BYTES));
    const note: ReadNote = { client, beganMs, endedMs: performance.now(), sector, seen, answeredBy: answer.answeredBy ?? '' };
    this.#reads[this.#readsMade % READS_KEPT] = note;
    this.#readsMade += 1;
    if (wrong === null) return null;
    return `sector ${wrong.sector}: ${wrong.problem}\n${this.#history(wrong.sector, note)}${await this.#again(wrong.sector)}`;
  }

  /** Reads everything. @throws AssertionError when it is nothing that the writes can have left. */
  async check(client: StoreClient): Promise<void> {
    const known = this.#clients.indexOf(client);
    if (known === -1) this.#clients = [...this.#clients, client];
    const at = known === -1 ? this.#clients.length - 1 : known;
    for (let sector = 0; sector < SECTORS; sector += 512) assert.equal(await this.#read(at, sector, 512), null, `seed ${this.#seed}`);
  }

  async commit(client: StoreClient): Promise<void> {
    assert.equal((await client.commit(this.handle)).status, Status.OK);
  }

  #client(index: number): StoreClient {
    const client = this.#clients[index];
    assert.ok(client !== undefined);
    return client;
  }

  /** What a sector shows a moment later to each client: whether the wrong bytes were in one answer only, or are there to stay. */
  async #again(sector: number): Promise<string> {
    let text = '';
    for (const [index, client] of this.#clients.slice(0, 4).entries()) {
      const seen = await client
        .read(this.handle, sector * SECTOR_BYTES, SECTOR_BYTES)
        .then(
          ({ status, data, answeredBy }) => (status === Status.OK ? `write ${data.readUInt32LE(0)} ${answeredBy ?? ''}` : `status ${status}`),
          String,
        );
      text += `read again by client ${index}: ${seen}\n`;
    }
    return text;
  }

  /** Who wrote a sector, when, and who answered, and the last reads of it: times are milliseconds of this process, wall clock first. */
  #history(sector: number, read: ReadNote): string {
    const all = this.#model.history(sector);
    const seen = read.seen[sector - read.sector] ?? -1;
    const at = all.findIndex(({ write }) => write === seen);
    const wall = performance.timeOrigin;
    const time = (ms: number | null): string => (ms === null ? 'never' : new Date(wall + ms).toISOString().slice(11, 23));
    const lines = all.map(({ write, firstSector, sectors }, index) => {
      if (Math.abs(index - at) > SHOWN_AROUND && index < all.length - SHOWN_LAST) return null;
      const note = this.#notes[write];
      const mark = write === seen ? '  <- read' : '';
      if (note === null || note === undefined) return `write ${write}: the zeros of the beginning${mark}`;
      return `write ${write}: sectors ${firstSector}+${sectors}, client ${note.client}, sent ${time(note.beganMs)}, answered ${time(note.endedMs)} by ${note.answeredBy}${mark}`;
    });
    const reads = this.#reads
      .filter((one) => sector >= one.sector && sector < one.sector + one.seen.length)
      .toSorted((one, other) => one.endedMs - other.endedMs)
      .slice(-SHOWN_LAST)
      .map(
        (one) =>
          `read: write ${one.seen[sector - one.sector]}, client ${one.client}, sent ${time(one.beganMs)}, answered ${time(one.endedMs)} by ${one.answeredBy}`,
      );
    return `${[...lines.filter((line) => line !== null), ...reads].join('\n')}\n`;
  }
}
