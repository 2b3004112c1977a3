/** One router of a test cluster: its process, the ways it has to the others, and what a test may do to all of them. */
import { NfsClient, type NfsClientOptions } from '../../server/nfsd/nfs-client.ts';
import { connectStore } from '../datastore-client.ts';
import type { RouterProcess } from '../router-process.ts';
import type { NetworkPath } from '../services/network-path.ts';
import type { StoreClient } from '../store-client.ts';

/** Relays in the router's ways; null where it goes straight. `peers`: the way of all others to it. */
export interface Ways {
  readonly registry: NetworkPath | null;
  readonly backend: NetworkPath | null;
  readonly peers: NetworkPath | null;
}

export type Way = keyof Ways;

export class ClusterRouter {
  /** `A`, `B`, ... */
  readonly name: string;
  readonly process: RouterProcess;
  readonly #ways: Ways;
  #paused = false;

  constructor(name: string, process: RouterProcess, ways: Ways) {
    this.name = name;
    this.process = process;
    this.#ways = ways;
  }

  get address(): string {
    return this.process.listen;
  }

  /** For libnfs and QEMU, where the router is its own port mapper; without trailing slash. */
  get url(): string {
    return `nfs://${this.address}/${this.process.vpool}`;
  }

  /** A mounted client of this router. Calls fail after `timeoutMs` (default 60 s). */
  connect(timeoutMs = 240_000): Promise<StoreClient> {
    return connectStore(this.process, { timeoutMs });
  }

  /** A client for single calls, not mounted. */
  nfs(options: Partial<NfsClientOptions> = {}): Promise<NfsClient> {
    return NfsClient.connect({ host: this.address, nfsPort: this.process.nfsPort, timeoutMs: 240_000, ...options });
  }

  /** Pulls a cable: nothing arrives on this way any more, nothing is refused. @throws Error when the cluster was not started `cuttable`. */
  cut(way: Way): void {
    this.#way(way).cut();
  }

  restore(way: Way): void {
    this.#way(way).restore();
  }

  /** What is asked on this way arrives and is done, and its answer is lost; until `breakAll` ends all connections. */
  deafen(way: Way): void {
    this.#way(way).deafen();
  }

  breakAll(way: Way): void {
    this.#way(way).breakAll();
  }

  /** SIGSTOP; resolves when none of its threads moves any more. */
  async pause(): Promise<void> {
    this.#paused = true;
    await this.process.freeze();
  }

  get paused(): boolean {
    return this.#paused;
  }

  resume(): void {
    this.#paused = false;
    process.kill(this.process.pid, 'SIGCONT');
  }

  #way(way: Way): NetworkPath {
    const path = this.#ways[way];
    if (path === null) throw new Error(`the way of ${this.name} to ${way} cannot be cut`);
    return path;
  }
}
