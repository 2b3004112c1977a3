/** Many requests at once on overlapping blocks of one volume: what each sees must be what a register can show (concurrency-model.ts). */
import assert from 'node:assert/strict';

import { Stability, Status } from '../server/nfsd/file-system.ts';
import { RegisterModel } from './concurrency-model.ts';
import { SeededRandom } from './random.ts';
import type { FileHandle, StoreClient } from './store-client.ts';

const SECTORS = 8192;
const SECTOR_BYTES = 512;

export class RegisterLoad {
  readonly #model = new RegisterModel(1, SECTORS);
  readonly #seed: number;
  readonly #random: SeededRandom;
  readonly #handle: FileHandle;
  readonly #stabilities: readonly Stability[];

  private constructor(handle: FileHandle, seed: number, stableOnly: boolean) {
    this.#handle = handle;
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
    assert.equal((await client.setattr(handle, { sizeBytes: SECTORS * SECTOR_BYTES })).status, Status.OK);
    return new RegisterLoad(handle, seed, options.stableOnly ?? false);
  }

  /** Runs `operations` in all, `lanes` at a time for each client. @throws AssertionError when an answer cannot be explained. */
  async run(clients: readonly StoreClient[], lanes: number, operations: number): Promise<void> {
    let left = operations;
    await this.runUntil(clients, lanes, () => left-- <= 0);
  }

  /** The same until `over` says true; it is asked before each operation. Returns how many there were. */
  async runUntil(clients: readonly StoreClient[], lanes: number, over: () => boolean): Promise<number> {
    let operations = 0;
    const problems: string[] = [];
    const worker = async (client: StoreClient): Promise<void> => {
      while (problems.length === 0 && !over()) {
        const problem = await this.#operation(client);
        operations += 1;
        if (problem !== null) problems.push(problem);
      }
    };
    await Promise.all(clients.flatMap((client) => Array.from({ length: lanes }, () => worker(client))));
    assert.deepEqual(problems, [], `seed ${this.#seed}`);
    return operations;
  }

  async #operation(client: StoreClient): Promise<string | null> {
    const model = this.#model;
    const random = this.#random;
    const count = random.pick([1, 3, 8, 8, 8, 8, 16, 64]);
    const hot = random.chance(0.5) ? 256 : SECTORS;
    // Blocks mostly, and some that begin in the middle of a block.
    const sector = random.chance(0.8) ? random.below((hot - count) / 8) * 8 : random.below(hot - count);
    if (random.chance(0.5)) {
      const write = model.beginWrite(sector, count);
      const stability = random.pick(this.#stabilities);
      const answer = await client.write(this.#handle, sector * SECTOR_BYTES, model.payload(write, sector, count), stability);
      model.endWrite(write);
      return answer.status === Status.OK && answer.countBytes === count * SECTOR_BYTES ? null : `WRITE: ${JSON.stringify(answer)}`;
    }
    const began = model.now();
    const answer = await client.read(this.#handle, sector * SECTOR_BYTES, count * SECTOR_BYTES);
    if (answer.status !== Status.OK || answer.data.length !== count * SECTOR_BYTES)
      return `READ: status ${answer.status}, ${answer.data.length} bytes`;
    return model.checkRead(began, sector, answer.data);
  }

  /** Reads everything. @throws AssertionError when it is nothing that the writes can have left. */
  async check(client: StoreClient): Promise<void> {
    for (let sector = 0; sector < SECTORS; sector += 512) {
      const began = this.#model.now();
      const answer = await client.read(this.#handle, sector * SECTOR_BYTES, 512 * SECTOR_BYTES);
      assert.equal(answer.status, Status.OK);
      assert.equal(this.#model.checkRead(began, sector, answer.data), null, `seed ${this.#seed}`);
    }
  }

  async commit(client: StoreClient): Promise<void> {
    assert.equal((await client.commit(this.#handle)).status, Status.OK);
  }
}
