/**
 * The segments that a log goes on in: their files are made while the one before is written, and their numbers have no gaps, since what could not be
 * made gives its number back. At most one is made at a time, and nothing is lost track of: it is somebody's, or closed and deleted with the log.
 */
import type { ClosedEpoch } from '../../registry/ports.ts';
import type { ObjectUuid, Term } from '../core/ids.ts';
import type { Clock, Random } from '../core/time.ts';
import { OpenSegment } from './open-segment.ts';
import { encodeSegmentHeader } from './segment-codec.ts';
import type { PreparedSegment, SegmentFiles } from './segment-files.ts';

/** Whose log it is: what its segments say in their headers. */
export interface LogIdentity {
  readonly vpoolUuid: string;
  readonly objectUuid: ObjectUuid;
  readonly term: Term;
  /** End of the term before this one. */
  readonly cut: ClosedEpoch | null;
}

export class SegmentSupply {
  readonly #files: SegmentFiles;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #identity: LogIdentity;
  readonly #preallocate: boolean;
  #nextNumber: number;
  /** Made, or being made, ahead of need. */
  #prepared: Promise<PreparedSegment> | null = null;
  /** The one that a rotation waits for. */
  #taken: Promise<PreparedSegment> | null = null;

  constructor(
    components: { files: SegmentFiles; clock: Clock; random: Random },
    identity: LogIdentity,
    settings: { preallocate: boolean },
    nextNumber: number,
  ) {
    this.#files = components.files;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#identity = identity;
    this.#preallocate = settings.preallocate;
    this.#nextNumber = nextNumber;
  }

  /** Of the next segment whose file is to be made. */
  get nextNumber(): number {
    return this.#nextNumber;
  }

  /** Whether one is made, or being made, ahead of need. */
  get hasPrepared(): boolean {
    return this.#prepared !== null;
  }

  /** Makes one ahead of need, unless there is one. `made`: it is being made already, with `nextNumber`; it belongs to the supply from here on. Rejects as SegmentFiles.prepare. */
  prepare(made: Promise<PreparedSegment> | null = null): Promise<PreparedSegment> {
    this.#prepared ??= this.#makeNext(made);
    return this.#prepared;
  }

  /** The next one, for a rotation that waits for it. The caller says `ended` when it has it, or the failure. */
  take(): Promise<PreparedSegment> {
    const taken = this.prepare();
    this.#prepared = null;
    this.#taken = taken;
    return taken;
  }

  /** What was taken, or prepared and waited for, was begun or could not be made. */
  ended(): void {
    this.#prepared = this.#taken = null;
  }

  /** Nobody waits for what was taken any more; it stays the next one. */
  putBack(): void {
    this.#prepared ??= this.#taken;
    this.#taken = null;
  }

  #makeNext(made: Promise<PreparedSegment> | null): Promise<PreparedSegment> {
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    const prepared = made ?? this.#files.prepare(this.#identity.objectUuid, number, this.#identity.term, this.#preallocate);
    // Whoever takes the segment sees the rejection.
    prepared.catch(() => {
      this.#nextNumber = number;
      if (this.#prepared === prepared) this.#prepared = null;
    });
    return prepared;
  }

  /** Begins a segment in a file: the first record in it will be `baseSequence`. */
  begin(prepared: PreparedSegment, baseSequence: number): OpenSegment {
    const { vpoolUuid, objectUuid, term, cut } = this.#identity;
    const salt = this.#random.bytes(4).readUInt32LE(0);
    const header = encodeSegmentHeader({
      vpoolUuid,
      objectUuid,
      term,
      number: prepared.segment.number,
      salt,
      baseSequence,
      createdWallMs: this.#clock.wallMs(),
      cut: cut === null ? null : { term: cut.term, lastSegment: cut.lastSegment, lastSequence: cut.lastSequence },
    });
    return new OpenSegment(prepared, salt, header, baseSequence, this.#clock.monotonicMs());
  }

  /** Deletes what was made and not begun, once it is made. */
  async close(): Promise<void> {
    const prepared = await (this.#prepared ?? this.#taken)?.catch(() => null);
    this.#prepared = this.#taken = null;
    if (prepared === undefined || prepared === null) return;
    await prepared.file.close();
    await this.#files.drop(prepared.segment);
  }
}
