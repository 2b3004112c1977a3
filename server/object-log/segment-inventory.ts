/**
 * Which segments are on the local disk, and how many bytes they are: in `log/`, what would be lost with this machine, and in `cache/`. It touches no
 * file; whoever does tells it before or after, as that is safe.
 *
 * One segment of a number counts. Others of that number, the doubles, are in no sum and are found only by `segmentsOf`, until they are dropped.
 */
import { assert } from '../core/assert.ts';
import { compareEpoch, sameTerm } from '../core/ids.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { LocalSegment } from './local-segment.ts';

function keyOf(uuid: ObjectUuid, number: number): string {
  return `${uuid}.${number}`;
}

export class SegmentInventory {
  readonly #segments = new Map<string, LocalSegment>();
  readonly #byObject = new Map<ObjectUuid, Map<number, LocalSegment>>();
  /** Files of segments that are there twice and do not count. */
  readonly #doubles = new Map<ObjectUuid, LocalSegment[]>();
  #dirtyBytes = 0;
  #drainedBytes = 0;
  #cacheBytes = 0;
  #useCounter = 0;

  /** Bytes in segments that are not released: what would be lost with this machine. */
  get dirtyBytes(): number {
    return this.#dirtyBytes;
  }

  /** Bytes that ceased to be dirty since the start: released, or dropped because nobody needs them. */
  get drainedBytes(): number {
    return this.#drainedBytes;
  }

  get cacheBytes(): number {
    return this.#cacheBytes;
  }

  /** Uuids that have unreleased segments. */
  *dirtyObjects(): Iterable<ObjectUuid> {
    for (const [uuid, segments] of this.#byObject) {
      for (const segment of segments.values()) {
        if (segment.place === 'log') {
          yield uuid;
          break;
        }
      }
    }
  }

  /** Every uuid with a segment. */
  objects(): Iterable<ObjectUuid> {
    return this.#byObject.keys();
  }

  /** Segments of an object in order of number; a number that is there twice comes twice. */
  segmentsOf(uuid: ObjectUuid): LocalSegment[] {
    return [...(this.#byObject.get(uuid)?.values() ?? []), ...(this.#doubles.get(uuid) ?? [])].sort((a, b) => a.number - b.number);
  }

  /** The segment of that number, and of that term if one is given: what other routers wrote meanwhile has other terms. */
  segment(uuid: ObjectUuid, number: number, term: Term | null = null): LocalSegment | null {
    const segment = this.#segments.get(keyOf(uuid, number));
    return segment === undefined || (term !== null && !sameTerm(segment.term, term)) ? null : segment;
  }

  has(uuid: ObjectUuid, number: number): boolean {
    return this.#segments.has(keyOf(uuid, number));
  }

  /** Whether it is here and counts. */
  isKnown(segment: LocalSegment): boolean {
    return this.#segments.get(keyOf(segment.uuid, segment.number)) === segment;
  }

  /** Those in `cache/`, the least recently used first. */
  cached(): LocalSegment[] {
    return [...this.#segments.values()].filter((segment) => segment.place === 'cache').sort((a, b) => a.lastUse - b.lastUse);
  }

  /** Somebody uses it. */
  touch(segment: LocalSegment): void {
    segment.lastUse = ++this.#useCounter;
  }

  /** A segment of a number of which there is none. */
  add(segment: LocalSegment): void {
    const key = keyOf(segment.uuid, segment.number);
    assert(!this.#segments.has(key), `segment ${key} exists twice`);
    this.#segments.set(key, segment);
    let siblings = this.#byObject.get(segment.uuid);
    if (siblings === undefined) {
      siblings = new Map();
      this.#byObject.set(segment.uuid, siblings);
    }
    siblings.set(segment.number, segment);
    if (segment.place === 'log') this.#dirtyBytes += segment.bytes;
    else this.#cacheBytes += segment.bytes;
  }

  /**
   * A number may be there twice: a change of a directory that was not synced was undone by a power cut, so a file that was moved or deleted is back
   * under its former name. The younger term counts, or else the first that is added, which shall be the one in `log/`; the other one is left to the
   * object's recovery. Returns the pair when there is one, what counts first.
   */
  addFound(segment: LocalSegment): readonly [LocalSegment, LocalSegment] | null {
    const there = this.#segments.get(keyOf(segment.uuid, segment.number));
    if (there === undefined) {
      this.add(segment);
      return null;
    }
    if (compareEpoch(there.term, segment.term) >= 0) {
      this.#addDouble(segment);
      return [there, segment];
    }
    this.supersede(segment);
    return [segment, there];
  }

  /** As `add`; one of that number that is here does not count any more. */
  supersede(segment: LocalSegment): void {
    const there = this.#segments.get(keyOf(segment.uuid, segment.number));
    if (there !== undefined) {
      this.#remove(there);
      this.#addDouble(there);
    }
    this.add(segment);
  }

  /** Of the segments with one number this is the one that counts. */
  prefer(segment: LocalSegment): void {
    const there = this.#segments.get(keyOf(segment.uuid, segment.number));
    const doubles = this.#doubles.get(segment.uuid);
    if (there === segment || there === undefined || doubles === undefined) return;
    this.#remove(there);
    this.add(segment);
    doubles[doubles.indexOf(segment)] = there;
  }

  #addDouble(segment: LocalSegment): void {
    const doubles = this.#doubles.get(segment.uuid) ?? [];
    doubles.push(segment);
    this.#doubles.set(segment.uuid, doubles);
  }

  /** Forgets a segment, or a double. False: it was not here. */
  forget(segment: LocalSegment): boolean {
    if (this.isKnown(segment)) {
      this.#remove(segment);
      return true;
    }
    const doubles = this.#doubles.get(segment.uuid);
    const at = doubles?.indexOf(segment) ?? -1;
    if (doubles === undefined || at < 0) return false;
    doubles.splice(at, 1);
    if (doubles.length === 0) this.#doubles.delete(segment.uuid);
    return true;
  }

  #remove(segment: LocalSegment): void {
    this.#segments.delete(keyOf(segment.uuid, segment.number));
    const siblings = this.#byObject.get(segment.uuid);
    siblings?.delete(segment.number);
    if (siblings?.size === 0) this.#byObject.delete(segment.uuid);
    if (segment.place === 'log') {
      this.#dirtyBytes -= segment.bytes;
      this.#drainedBytes += segment.bytes;
    } else this.#cacheBytes -= segment.bytes;
  }

  /** So many bytes of it count from now on. Only of one that is known. */
  resize(segment: LocalSegment, bytes: number): void {
    if (segment.place === 'log') this.#dirtyBytes += bytes - segment.bytes;
    else this.#cacheBytes += bytes - segment.bytes;
    segment.bytes = bytes;
  }

  /** It is cache no more. Only of one that is known. */
  toLog(segment: LocalSegment): void {
    segment.place = 'log';
    this.#cacheBytes -= segment.bytes;
    this.#dirtyBytes += segment.bytes;
  }

  /** It is elsewhere, too, and may be evicted. Only of one that is known. */
  toCache(segment: LocalSegment): void {
    segment.place = 'cache';
    this.touch(segment);
    this.#dirtyBytes -= segment.bytes;
    this.#drainedBytes += segment.bytes;
    this.#cacheBytes += segment.bytes;
  }
}
