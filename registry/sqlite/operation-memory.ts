/**
 * Remembered outcomes by operation id (exactly-once of verbs, design section 5). An outcome is kept for 15 minutes after it was last
 * asked for, and longer while it is among the last 1,024 of its client; a bound on all of them takes precedence over both.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';

import { allRows, firstRow, prepareArrays } from './inode-rows.ts';
import { OPERATION_COLUMNS, operationOutcomeFromRow } from './outbox-rows.ts';
import { rowChecksum } from './row-checksum.ts';
import type { Counters } from './schema.ts';

export interface OperationSettings {
  readonly keptMs: number;
  readonly keptPerClient: number;
  /** Bound on all outcomes together; beyond it the oldest go first. */
  readonly keptMax: number;
}

/** A client is pruned once in so many of its operations, so that pruning costs little per operation. */
const PRUNE_EVERY = 256;

export class OperationMemory {
  readonly #settings: OperationSettings;
  readonly #select: StatementSync;
  readonly #touch: StatementSync;
  readonly #insert: StatementSync;
  readonly #oldestKept: StatementSync;
  readonly #prunable: StatementSync;
  readonly #deleteOldest: StatementSync;
  readonly #delete: StatementSync;
  readonly #sincePruned = new Map<string, number>();

  constructor(db: DatabaseSync, settings: OperationSettings) {
    this.#settings = settings;
    this.#select = prepareArrays(db, `SELECT ordinal, ${OPERATION_COLUMNS}, crc FROM operation WHERE id = ? AND verb = ?`);
    this.#touch = db.prepare('UPDATE operation SET at_ms = ? WHERE ordinal = ?');
    this.#insert = db.prepare(`INSERT INTO operation (at_ms, ${OPERATION_COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?)`);
    this.#oldestKept = prepareArrays(db, 'SELECT ordinal FROM operation WHERE client = ? ORDER BY ordinal DESC LIMIT 1 OFFSET ?');
    this.#prunable = prepareArrays(db, 'SELECT ordinal, at_ms FROM operation WHERE client = ? AND ordinal < ? ORDER BY ordinal LIMIT 1024');
    this.#delete = db.prepare('DELETE FROM operation WHERE ordinal = ?');
    this.#deleteOldest = db.prepare('DELETE FROM operation WHERE ordinal IN (SELECT ordinal FROM operation ORDER BY ordinal LIMIT ?)');
  }

  /** The stored outcome (JSON) of this operation, and keeps it for another while; null when it is not known. */
  recall(id: string, verb: string, nowMs: number): string | null {
    const row = firstRow(this.#select, id, verb);
    if (row === undefined) return null;
    const outcome = operationOutcomeFromRow(row, 1);
    this.#touch.run(nowMs, Number(row[0]));
    return outcome;
  }

  remember(id: string, verb: string, nowMs: number, outcome: string, counters: Counters): void {
    const client = clientOf(id);
    const values = [id, verb, client, outcome];
    this.#insert.run(nowMs, ...values, rowChecksum(values, 0, values.length));
    counters.operations += 1;
    const count = (this.#sincePruned.get(client) ?? 0) + 1;
    if (count < PRUNE_EVERY) {
      // Only clients of the last while are in the map: it is small, but must not grow with every address ever seen.
      if (this.#sincePruned.size > 4_096) this.#sincePruned.clear();
      this.#sincePruned.set(client, count);
    } else {
      this.#sincePruned.delete(client);
      this.#prune(client, nowMs, counters);
    }
    if (counters.operations > this.#settings.keptMax) {
      const excess = Number(this.#deleteOldest.run(counters.operations - this.#settings.keptMax).changes);
      counters.operations -= excess;
    }
  }

  #prune(client: string, nowMs: number, counters: Counters): void {
    const oldest = firstRow(this.#oldestKept, client, this.#settings.keptPerClient - 1);
    if (oldest === undefined) return;
    for (const [ordinal, atMs] of allRows(this.#prunable, client, Number(oldest[0]))) {
      if (Number(atMs) > nowMs - this.#settings.keptMs) continue;
      this.#delete.run(Number(ordinal));
      counters.operations -= 1;
    }
  }
}

function clientOf(id: string): string {
  const end = id.indexOf('|');
  return end === -1 ? id : id.slice(0, end);
}
