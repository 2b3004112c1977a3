/** Two hosts of esxi.md 10: H1 talks to router A, H2 to router B, of one datastore. */
import assert from 'node:assert/strict';

import { made, succeeded } from '../../server/nfsd/conformance/server-under-test.ts';
import type { Handle } from '../../server/nfsd/file-system.ts';
import type { NfsClient } from '../../server/nfsd/nfs-client.ts';
import { authSys } from '../../server/oncrpc/rpc-client.ts';
import type { Cluster } from './cluster.ts';

export interface TwoHosts extends AsyncDisposable {
  readonly h1: NfsClient;
  readonly h2: NfsClient;
  readonly root: Handle;
  /** A fresh directory below the root, made through A. */
  directory(): Promise<Handle>;
}

/** Both connect from the same address, as hosts on storage switches of their own do. */
export async function twoHosts(cluster: Cluster): Promise<TwoHosts> {
  const [a, b] = cluster.pair;
  const h1 = await a.nfs({ credential: authSys({ machineName: 'H1' }) });
  const h2 = await b.nfs({ credential: authSys({ machineName: 'H2' }) });
  const root = Buffer.from(succeeded(await h1.mount(`/${a.process.vpool}`)).handle);
  assert.deepEqual(Buffer.from(succeeded(await h2.mount(`/${b.process.vpool}`)).handle), root, 'the root has one handle');
  const run = process.hrtime.bigint().toString(36);
  let directories = 0;
  return {
    h1,
    h2,
    root,
    async directory() {
      directories += 1;
      return Buffer.from(made(await h1.mkdir(root, `hosts-${run}-${directories}`, { mode: 0o755 })).handle);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([h1.close(), h2.close()]);
    },
  };
}

/** `.lck-` and the fileid in 16 hex digits, little endian (KB 340515). */
export function lockName(fileid: number): string {
  const little = Buffer.alloc(8);
  little.writeBigUInt64LE(BigInt(fileid));
  return `.lck-${little.toString('hex')}`;
}

/** Times in milliseconds, judged and printed by their 99th percentile and maximum. */
export class Timings {
  readonly #all: number[] = [];

  async measure<T>(call: () => Promise<T>): Promise<T> {
    const began = performance.now();
    const result = await call();
    this.#all.push(performance.now() - began);
    return result;
  }

  get count(): number {
    return this.#all.length;
  }

  get p99(): number {
    const sorted = this.#all.toSorted((one, other) => one - other);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0;
  }

  get max(): number {
    return this.#all.reduce((most, one) => Math.max(most, one), 0);
  }

  toString(): string {
    return `${this.count} calls, p99 ${this.p99.toFixed(1)} ms, max ${this.max.toFixed(1)} ms`;
  }
}
