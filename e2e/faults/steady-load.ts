/** Writers that take errors and silence as they come, as a VM's disk driver does, and remember what was acknowledged. */
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { connectStore } from '../datastore-client.ts';
import { SeededRandom } from '../random.ts';
import { type RouterProcess, WAIT_MS_MAX } from '../router-process.ts';
import { StampedVolume } from '../stamped-volume.ts';

export interface LoadOutcome {
  /** Acknowledged writes. */
  readonly written: number;
  /** Answers by status, OK included. */
  readonly statuses: ReadonlyMap<number, number>;
  /** Writes without an answer in time. */
  readonly silent: number;
}

const BLOCK_BYTES = 65_536;

/**
 * One volume under a stream of stable 64 KiB writes, each block written before it is written again. A write that is not answered within `patienceMs` is given up
 * (it may still happen), and the connection with it.
 */
export class SteadyLoad {
  readonly volume: StampedVolume;
  readonly #router: RouterProcess;
  readonly #random: SeededRandom;

  private constructor(router: RouterProcess, volume: StampedVolume, seed: number) {
    this.#router = router;
    this.volume = volume;
    this.#random = new SeededRandom(seed);
  }

  static async create(router: RouterProcess, id: number, sizeBytes: number): Promise<SteadyLoad> {
    await using client = await connectStore(router);
    return new SteadyLoad(router, await StampedVolume.create(client, id, sizeBytes), id);
  }

  /** Writes until `stop` says so (it sees the outcome so far after every answer), or until nothing was answered in time. */
  async run(stop: (outcome: LoadOutcome) => boolean, patienceMs = 60_000): Promise<LoadOutcome> {
    const statuses = new Map<number, number>();
    let [written, silent] = [0, 0];
    await using client = await connectStore(this.#router, { timeoutMs: patienceMs });
    const outcome = (): LoadOutcome => ({ written, statuses, silent });
    const worker = async (): Promise<void> => {
      while (silent === 0 && !stop(outcome())) {
        const offsetBytes = this.#random.below(this.volume.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
        if (!this.volume.model.isFree(offsetBytes, BLOCK_BYTES)) {
          if (!this.#anyFree()) return;
          continue;
        }
        try {
          const status = await this.volume.write(client, offsetBytes, BLOCK_BYTES, Stability.FILE_SYNC);
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
          if (status === Status.OK) written += 1;
          // As a client does with NFS3ERR_JUKEBOX, only less patient.
          else await new Promise((resolve) => setTimeout(resolve, 50));
        } catch {
          silent += 1;
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, worker));
    return outcome();
  }

  /** Blocks whose write failed or was given up are not free: their fate is open. With few left the load must end. */
  #anyFree(): boolean {
    return this.volume.model.changes.filter((change) => change.state === 'sent').length * BLOCK_BYTES * 2 < this.volume.sizeBytes;
  }

  /** Reads everything and judges it; patient, since a READ may have to wait for what the test has just repaired. */
  async verify(): Promise<string[]> {
    await using client = await connectStore(this.#router, { timeoutMs: WAIT_MS_MAX });
    return await this.volume.verify(client);
  }

  /** Tries a write again and again until it is acknowledged. @throws Error when none is within `timeoutMs`. */
  async untilWritten(timeoutMs = WAIT_MS_MAX): Promise<void> {
    const started = performance.now();
    for (;;) {
      const outcome = await this.run(({ written, statuses }) => written > 0 || [...statuses.values()].some((count) => count > 4), 20_000);
      if (outcome.written > 0) return;
      if (performance.now() - started > timeoutMs) {
        throw new Error(
          `no write was acknowledged within ${timeoutMs} ms: statuses ${JSON.stringify([...outcome.statuses])}, ${outcome.silent} silent`,
        );
      }
    }
  }
}
