/**
 * Segment files of objects that are on their way to this router: `replica/` beside `log/`. They are copies, byte for byte, of what the owner has, and
 * count for nothing until the object is owned here: nothing that looks for segments sees them before `SegmentFiles.enter`.
 *
 * The name says the attempt that made the file, so files of different attempts never meet, and after a crash the owner record tells which of them are
 * part of an object's log: those of the attempt that it names as its term.
 */
import { join } from 'node:path';

import type { Disk, DiskFile } from '../core/disk.ts';
import { errorCode } from '../core/errors.ts';
import { sameTerm } from '../core/ids.ts';
import type { FileId, ObjectUuid, Term } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';

export interface ReplicaSegment {
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly number: number;
  /** Term of the segment, not of the attempt. */
  readonly term: Term;
  readonly attempt: Term;
  readonly path: string;
}

const NAME = /^([0-9a-f]{32})\.(\d{10,16})\.(\d+)-(\d+)-([0-9a-f]{16})\.for-(\d+)-(\d+)-([0-9a-f]{16})\.of-(\d{1,16})\.seg$/;

export class ReplicaFiles {
  readonly #disk: Disk;
  readonly #logger: Logger;
  readonly directory: string;
  readonly #byObject = new Map<ObjectUuid, ReplicaSegment[]>();
  readonly #forget: (path: string) => void;

  /** `forget`: told of what is deleted. */
  constructor(components: { disk: Disk; logger: Logger }, directory: string, forget: (path: string) => void) {
    this.#forget = forget;
    this.#disk = components.disk;
    this.#logger = components.logger;
    this.directory = directory;
  }

  /** Learns what earlier lives left. */
  async learn(): Promise<void> {
    let names: string[];
    try {
      names = await this.#disk.list(this.directory);
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return;
      throw error;
    }
    for (const name of names) {
      const match = NAME.exec(name);
      if (match === null) {
        this.#logger.warn({ file: join(this.directory, name) }, 'a file that is no segment lies among the replicas; it is left alone');
        continue;
      }
      const [, uuid = '', number = '', ...terms] = match;
      const term = (at: number): Term => ({ generation: Number(terms[at]), counter: Number(terms[at + 1]), nonce: terms[at + 2] ?? '' });
      this.#add({
        fileid: Number(terms[6]) as FileId,
        uuid: uuid as ObjectUuid,
        number: Number(number),
        term: term(0),
        attempt: term(3),
        path: join(this.directory, name),
      });
    }
  }

  /** The attempts that have files here; one file of each. */
  attempts(): ReplicaSegment[] {
    const attempts: ReplicaSegment[] = [];
    for (const segments of this.#byObject.values())
      for (const segment of segments)
        if (!attempts.some((other) => other.uuid === segment.uuid && sameTerm(other.attempt, segment.attempt))) attempts.push(segment);
    return attempts;
  }

  /** Files of one object, of all attempts. */
  of(uuid: ObjectUuid): readonly ReplicaSegment[] {
    return this.#byObject.get(uuid) ?? [];
  }

  /** It was neither given nor deleted. */
  has(segment: ReplicaSegment): boolean {
    return this.of(segment.uuid).includes(segment);
  }

  /** A new file. Its name is durable after `syncDirectory`. */
  async create(identity: Omit<ReplicaSegment, 'path'>): Promise<{ file: DiskFile; segment: ReplicaSegment }> {
    const { fileid, uuid, number, term, attempt } = identity;
    const name = `${uuid}.${String(number).padStart(10, '0')}.${termName(term)}.for-${termName(attempt)}.of-${fileid}.seg`;
    const segment: ReplicaSegment = { fileid, uuid, number, term, attempt, path: join(this.directory, name) };
    const file = await this.#disk.create(segment.path);
    this.#add(segment);
    return { file, segment };
  }

  syncDirectory(): Promise<void> {
    return this.#disk.syncDirectory(this.directory);
  }

  /** Forgets a file, which somebody else looks after from now on. */
  give(segment: ReplicaSegment): void {
    const segments = this.#byObject.get(segment.uuid) ?? [];
    const left = segments.filter((other) => other !== segment);
    if (left.length === 0) this.#byObject.delete(segment.uuid);
    else this.#byObject.set(segment.uuid, left);
  }

  /** Deletes the files of an object; of one attempt if given. Only when that attempt cannot become, and never became, the owner's term. */
  async discard(uuid: ObjectUuid, attempt: Term | null = null): Promise<void> {
    for (const segment of this.of(uuid)) {
      if (attempt !== null && !sameTerm(segment.attempt, attempt)) continue;
      this.give(segment);
      this.#forget(segment.path);
      try {
        await this.#disk.unlink(segment.path);
      } catch (error) {
        if (errorCode(error) !== 'ENOENT') throw error;
      }
    }
  }

  #add(segment: ReplicaSegment): void {
    const segments = this.#byObject.get(segment.uuid);
    if (segments === undefined) this.#byObject.set(segment.uuid, [segment]);
    else segments.push(segment);
  }
}

function termName(term: Term): string {
  return `${term.generation}-${term.counter}-${term.nonce}`;
}
