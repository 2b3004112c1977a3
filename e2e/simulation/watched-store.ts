/** The backend of a simulated world, with an eye on invariant 6: no name is ever used for other bytes than the first. */
import { createHash } from 'node:crypto';

import { MemoryStore } from '../../backends/memory/memory-store.ts';
import type { ObjectBody } from '../../backends/object-store.ts';

export class WatchedStore extends MemoryStore {
  readonly #written = new Map<string, string>();
  readonly #problem: (message: string) => void;

  constructor(readObjectBody: (body: ObjectBody) => Promise<Buffer>, problem: (message: string) => void) {
    super(readObjectBody);
    this.#problem = problem;
  }

  override async put(bucket: string, name: string, body: ObjectBody, signal?: AbortSignal): Promise<'written' | 'exists'> {
    const outcome = await super.put(bucket, name, body, signal);
    if (outcome !== 'written') return outcome;
    const stored = await this.get(bucket, name);
    const hash = createHash('sha1')
      .update(stored.kind === 'found' ? stored.bytes : Buffer.alloc(0))
      .digest('hex');
    const key = `${bucket}/${name}`;
    const before = this.#written.get(key);
    if (before !== undefined && before !== hash) this.#problem(`backend object ${key} was used twice for different bytes`);
    this.#written.set(key, hash);
    return outcome;
  }
}
