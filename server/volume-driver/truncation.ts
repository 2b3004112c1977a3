/**
 * What is left to do of a shrink whose record is durable: dropping the blocks behind the end from the extent map, which may have to load pages of it.
 * Until it is done nothing may be written or grow, or what lies behind the end would be seen again.
 */
import type { ExtentMap } from './extent-map.ts';

export class Truncation {
  readonly #map: ExtentMap;
  /** The first block to be dropped. */
  #fromBlock: number | null = null;
  #running: Promise<void> | null = null;

  constructor(map: ExtentMap) {
    this.#map = map;
  }

  get isPending(): boolean {
    return this.#fromBlock !== null;
  }

  /** Blocks from this one on are to be dropped; the one before is done. */
  begin(fromBlock: number): void {
    this.#fromBlock = fromBlock;
  }

  /** Resolves when nothing is pending. Rejects as loading pages of the map does; then it is still pending. */
  async finish(): Promise<void> {
    while (this.#fromBlock !== null) {
      const fromBlock = this.#fromBlock;
      this.#running ??= this.#map.truncate(fromBlock).finally(() => {
        this.#running = null;
      });
      await this.#running;
      if (this.#fromBlock === fromBlock && this.#running === null) this.#fromBlock = null;
    }
  }
}
