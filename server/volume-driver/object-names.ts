/**
 * Names of backend objects (docs/formats/object-names.md). The one place that makes and reads them.
 *
 * `<kind>-<number>-<generation>-<counter>-<nonce>`: the number is padded, so that names of one kind list in order; the term
 * makes the name unique, so that a fenced owner can never write a name that its successor uses (invariants 2 and 6).
 */
import { assert } from '../core/assert.ts';
import type { Term } from '../core/ids.ts';

/** What a row of the segment table, and so a backend object of an owned object, is. */
export type StoredKind = 'segment' | 'piece' | 'checkpoint';

export interface ObjectName {
  readonly kind: StoredKind;
  /** Number of the segment, checkpoint or piece: 0 to NUMBER_MAX. */
  readonly number: number;
  /** The term that wrote it. */
  readonly term: Term;
}

/** Largest number that keeps names in byte order; at 4 MiB a segment that is 40 EiB written. */
export const NUMBER_MAX = 9_999_999_999;

const PREFIX: Record<StoredKind, string> = { segment: 'seg', piece: 'obj', checkpoint: 'ckp' };
const KIND: Record<string, StoredKind> = { seg: 'segment', obj: 'piece', ckp: 'checkpoint' };
const PATTERN = /^(seg|obj|ckp)-(\d{10})-(0|[1-9]\d{0,15})-(0|[1-9]\d{0,15})-([0-9a-f]{16})$/;

/** The name of an object. Number and term are ours, so a bad one is a bug: @throws AssertionError. */
export function formatObjectName(name: ObjectName): string {
  const { number, term } = name;
  assert(Number.isSafeInteger(number) && number >= 0 && number <= NUMBER_MAX, `object number ${number}`);
  assert(isTerm(term), `term ${term.generation}.${term.counter}.${term.nonce}`);
  return `${PREFIX[name.kind]}-${String(number).padStart(10, '0')}-${term.generation}-${term.counter}-${term.nonce}`;
}

/** Reads a name that came from outside; null when it is not exactly what `formatObjectName` makes. */
export function parseObjectName(text: string): ObjectName | null {
  const match = PATTERN.exec(text);
  if (match === null) return null;
  const kind = KIND[match[1] ?? ''];
  const term: Term = { generation: Number(match[3]), counter: Number(match[4]), nonce: match[5] ?? '' };
  if (kind === undefined || !isTerm(term)) return null;
  return { kind, number: Number(match[2]), term };
}

/** True when the term's numbers are exact and its nonce is 16 lower-case hex digits. */
export function isTerm(term: Term): boolean {
  return (
    Number.isSafeInteger(term.generation) &&
    term.generation >= 0 &&
    Number.isSafeInteger(term.counter) &&
    term.counter >= 0 &&
    /^[0-9a-f]{16}$/.test(term.nonce)
  );
}
