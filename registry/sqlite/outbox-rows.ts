/** Rows of the tables outbox and operation. */
import type { OutboxEntry } from '../ports.ts';
import { integerOf, textOf } from '../record-check.ts';
import { checkRow } from './row-checksum.ts';

/** What is stored of a verb is bounded by its few records; this bounds hostile input. */
const TEXT_MAX = 64 * 1024 * 1024;

export const OUTBOX_COLUMNS = 'sequence, generation, operation_id, verb, after_image';
const OUTBOX_COLUMN_COUNT = 5;

/** An outbox entry from the columns OUTBOX_COLUMNS and crc; its outcome is in another table. @throws ApplianceError `registry-corrupt`. */
export function outboxEntryFromRow(row: readonly unknown[]): Omit<OutboxEntry, 'outcome'> {
  const sequence = integerOf(row[0], 1, Number.MAX_SAFE_INTEGER, 'table outbox', 'sequence');
  const where = `table outbox ${sequence}`;
  const entry = {
    sequence,
    generation: integerOf(row[1], 1, Number.MAX_SAFE_INTEGER, where, 'generation'),
    operationId: row[2] === null ? null : textOf(row[2], TEXT_MAX, where, 'operation_id'),
    verb: textOf(row[3], 64, where, 'verb'),
    afterImage: textOf(row[4], TEXT_MAX, where, 'after_image'),
  };
  checkRow(row, 0, OUTBOX_COLUMN_COUNT, where);
  return entry;
}

export const OPERATION_COLUMNS = 'id, verb, client, outcome';
const OPERATION_COLUMN_COUNT = 4;

/** The outcome (JSON) from the columns OPERATION_COLUMNS and crc, which begin at `row[at]`. @throws ApplianceError `registry-corrupt`. */
export function operationOutcomeFromRow(row: readonly unknown[], at: number): string {
  const id = textOf(row[at], TEXT_MAX, 'table operation', 'id');
  const outcome = textOf(row[at + 3], TEXT_MAX, `table operation "${id}"`, 'outcome');
  checkRow(row, at, at + OPERATION_COLUMN_COUNT, `table operation "${id}"`);
  return outcome;
}
