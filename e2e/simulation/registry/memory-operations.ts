/** Remembered outcomes of the simulated registry: the rules of registry/sqlite/operation-memory.ts over a Map. */
import type { OperationMemory } from '../../../registry/sqlite/operation-memory.ts';
import type { MemoryRecords } from './memory-records.ts';

const KEPT_MS = 15 * 60_000;
const KEPT_PER_CLIENT = 1024;
const PRUNE_EVERY = 256;

export class MemoryOperations implements Pick<OperationMemory, 'recall' | 'remember'> {
  readonly #records: MemoryRecords;
  #ordinal = 0;

  constructor(records: MemoryRecords) {
    this.#records = records;
  }

  recall(id: string, verb: string, nowMs: number): string | null {
    const operation = this.#records.operations.get(`${verb} ${id}`);
    if (operation === undefined) return null;
    operation.atMs = nowMs;
    return operation.outcome;
  }

  remember(id: string, verb: string, nowMs: number, outcome: string): void {
    const client = id.split('|', 1)[0] ?? id;
    this.#ordinal += 1;
    this.#records.putOperation(`${verb} ${id}`, { outcome, client, ordinal: this.#ordinal, atMs: nowMs });
    if (this.#ordinal % PRUNE_EVERY === 0) this.#prune(client, nowMs);
  }

  #prune(client: string, nowMs: number): void {
    const own = [...this.#records.operations].filter(([, operation]) => operation.client === client);
    for (const [key, operation] of own.slice(0, Math.max(0, own.length - KEPT_PER_CLIENT))) {
      if (operation.atMs <= nowMs - KEPT_MS) this.#records.putOperation(key, null);
    }
  }
}
