/**
 * A whole hostile Storage Backend for tests: Swift's API over HTTP, over a FaultyStore, over a store that keeps everything. It lives in the test's
 * process and so survives every kill of a router. Faults are drawn from one seed and switched at run time.
 */
import { FaultyStore, type StoreFaults } from '../../backends/faulty-store.ts';
import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { ObjectStore } from '../../backends/object-store.ts';
import { systemClock } from '../../server/core/node-time.ts';
import type { Random } from '../../server/core/time.ts';
import { SeededRandom } from '../random.ts';
import { HostileServer, type HttpFaults } from './hostile-server.ts';
import { SwiftAnswers } from './swift-answers.ts';

export interface HostileFaults {
  readonly store?: Partial<StoreFaults>;
  readonly http?: Partial<HttpFaults>;
}

interface Listen {
  readonly host: string;
  readonly port: number;
}

const USER = 'test:tester';
const KEY = 'hostile-testing';

export class HostileStore implements AsyncDisposable {
  /** What is really there, past all faults. */
  readonly inner: ObjectStore;
  readonly server: HostileServer;
  readonly #answers: SwiftAnswers;
  readonly #faulty: FaultyStore;

  private constructor(inner: ObjectStore, seed: number, listen?: Listen) {
    this.inner = inner;
    const random = new SeededRandom(seed);
    this.#faulty = new FaultyStore({ inner, clock: systemClock, random: randomPort(random) });
    this.#answers = new SwiftAnswers(this.#faulty, { user: USER, key: KEY, path: '/v1/AUTH_test' });
    this.server = new HostileServer(this.#answers, seed + 1, listen);
  }

  /** Listens when it resolves, without faults. `inner`: default is memory; `listen`: a free port of loopback. */
  static async start(seed: number, inner: ObjectStore = new MemoryStore(), listen?: Listen): Promise<HostileStore> {
    const store = new HostileStore(inner, seed, listen);
    await store.server.listen();
    return store;
  }

  /** Settings of a router that has this as its backend. */
  get environment(): Readonly<Record<string, string>> {
    return {
      VFERRY_VPOOL_BACKEND_KIND: 'swift',
      VFERRY_VPOOL_BACKEND_SWIFT_AUTH_URL: `${this.server.origin}/auth/v1.0`,
      VFERRY_VPOOL_BACKEND_SWIFT_USER: USER,
      VFERRY_VPOOL_BACKEND_SWIFT_KEY: KEY,
    };
  }

  get authentications(): number {
    return this.#answers.authentications;
  }

  /** Replaces all faults from the next request on; nothing named: it is well, but for what lags already. */
  setFaults(faults: HostileFaults): void {
    this.#faulty.setFaults(faults.store ?? {});
    this.server.setFaults(faults.http ?? {});
  }

  revokeTokens(): void {
    this.#answers.revokeTokens();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

function randomPort(random: SeededRandom): Random {
  return {
    bytes: (count) => Buffer.from(Uint8Array.from({ length: count }, () => random.below(256))),
    fraction: () => random.uint32() / 0x1_0000_0000,
  };
}
