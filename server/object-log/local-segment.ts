/** A segment of the local disk, and the name of its file. */
import type { ObjectUuid, Term } from '../core/ids.ts';

export interface LocalSegment {
  readonly uuid: ObjectUuid;
  readonly number: number;
  readonly term: Term;
  path: string;
  /** Bytes that count: what was appended so far, or the sealed size. */
  bytes: number;
  place: 'log' | 'cache';
  lastUse: number;
}

const NAME = /^([0-9a-f]{32})\.(\d{10,16})\.(\d+)-(\d+)-([0-9a-f]{16})\.seg$/;

/** Name of a segment's file, in whatever directory it lies. */
export function segmentFileName(uuid: ObjectUuid, number: number, term: Term): string {
  return `${uuid}.${String(number).padStart(10, '0')}.${term.generation}-${term.counter}-${term.nonce}.seg`;
}

/** What the name of a file says; null when it is no segment's. */
export function parseSegmentFileName(name: string): Pick<LocalSegment, 'uuid' | 'number' | 'term'> | null {
  const match = NAME.exec(name);
  if (match === null) return null;
  const [, uuid = '', number = '', generation = '', counter = '', nonce = ''] = match;
  return {
    uuid: uuid as ObjectUuid,
    number: Number(number),
    term: { generation: Number(generation), counter: Number(counter), nonce },
  };
}
