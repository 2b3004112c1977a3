/**
 * The copy of another router's log that a receiver keeps while an object is on its way here: the segment files byte for byte, and the records in them
 * as they become whole (design section 10).
 */
import type { DiskFile } from '../core/disk.ts';
import { ApplianceError } from '../core/errors.ts';
import { sameTerm } from '../core/ids.ts';
import type { FileId, ObjectUuid, Term } from '../core/ids.ts';
import type { LogPiece, LogPosition } from '../object-router/peer-port.ts';
import type { ReplicaSegment } from './replica-files.ts';
import type { DecodedRecord } from './segment-codec.ts';
import type { SegmentFiles } from './segment-files.ts';
import { SegmentStream } from './segment-stream.ts';

/**
 * Bytes of the last segment that are brought to the disk at a time, before anybody asks; as many more are taken meanwhile. What is left when somebody asks has to be waited
 * for, and what others sync on the same file system waits for all of it, too: WRITEs of other objects (decision 0039).
 */
const SYNC_AHEAD_BYTES = 2 * 1024 * 1024;

/** A segment that is here whole. */
export interface ReceivedSegment {
  readonly replica: ReplicaSegment;
  readonly totalBytes: number;
  readonly lastSequence: number;
}

/** The one that grows. */
interface Tail {
  readonly replica: ReplicaSegment;
  readonly file: DiskFile;
  readonly stream: SegmentStream;
  unsyncedBytes: number;
  /** The sync under way. */
  syncing: Promise<void> | null;
}

export interface ReplicaIdentity {
  readonly vpoolUuid: string;
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly attempt: Term;
  /** Term that a segment has to be of. */
  readonly termOf: (number: number) => Term;
}

export class ReplicaLog {
  readonly #files: SegmentFiles;
  readonly #identity: ReplicaIdentity;
  readonly #received: ReceivedSegment[] = [];
  #tail: Tail | null = null;
  #nextSegment: number;
  #lastSequence: number;
  /** Syncs of whole segments. */
  readonly #syncing = new Set<Promise<void>>();
  #failure: Error | null = null;

  /** `segment`: number of the first one that is to come; `lastSequence`: what came before it ends with. */
  constructor(files: SegmentFiles, identity: ReplicaIdentity, from: { segment: number; lastSequence: number }) {
    this.#files = files;
    this.#identity = identity;
    this.#nextSegment = from.segment;
    this.#lastSequence = from.lastSequence;
  }

  /** Where the next piece begins. Behind a whole segment that is the start of the next one. */
  get position(): LogPosition {
    return { segment: this.#nextSegment, offsetBytes: this.#tail?.stream.bytes ?? 0 };
  }
  /** Sequence of the last whole record. */
  get lastSequence(): number {
    return this.#tail?.stream.lastSequence ?? this.#lastSequence;
  }
  /** Whole segments, in order. */
  get received(): readonly ReceivedSegment[] {
    return this.#received;
  }

  /** Takes a piece and returns the records that are whole now. @throws ApplianceError `replica-damaged`, or what the disk throws; the copy is of no use then. */
  async append(piece: LogPiece): Promise<DecodedRecord[]> {
    if (this.#failure !== null) throw this.#failure;
    const { position } = this;
    if (piece.segment !== position.segment || piece.offsetBytes !== position.offsetBytes)
      throw this.#damaged(`a piece at ${piece.segment}:${piece.offsetBytes} came where ${position.segment}:${position.offsetBytes} should`);
    const tail = this.#tail ?? (await this.#begin(piece));
    const at = tail.stream.bytes;
    const records = tail.stream.take(piece.bytes);
    try {
      await this.#write(tail, piece, at);
    } catch (error) {
      // The position is behind what is not there.
      this.#failure ??= error as Error;
      throw error;
    }
    if (tail.stream.sealed) this.#end(tail);
    return records;
  }

  async #write(tail: Tail, piece: LogPiece, at: number): Promise<void> {
    if (tail.stream.sealed !== (piece.sealedBytes !== null && tail.stream.bytes >= piece.sealedBytes))
      throw this.#damaged(
        `segment ${piece.segment} is sealed at ${tail.stream.sealed ? tail.stream.bytes : 'no place'}, not at ${piece.sealedBytes}`,
      );
    for (let from = 0; from < piece.bytes.length; from += SYNC_AHEAD_BYTES) {
      const part = piece.bytes.subarray(from, from + SYNC_AHEAD_BYTES);
      await write(tail.file, at + from, part);
      tail.unsyncedBytes += part.length;
      if (tail.unsyncedBytes < SYNC_AHEAD_BYTES) continue;
      // The failure of the one before is everybody's.
      if (tail.syncing !== null) await tail.syncing;
      this.#syncTail(tail).catch(() => undefined);
    }
  }

  async #begin(piece: LogPiece): Promise<Tail> {
    const { fileid, uuid, attempt, vpoolUuid } = this.#identity;
    const term = this.#identity.termOf(piece.segment);
    if (!sameTerm(piece.term, term))
      throw this.#damaged(`segment ${piece.segment} is said to be of epoch ${piece.term.generation}.${piece.term.counter}`);
    await this.#files.requireRoom();
    const { file, segment } = await this.#files.replicas.create({ fileid, uuid, number: piece.segment, term, attempt });
    const stream = new SegmentStream({ uuid, number: piece.segment, term }, vpoolUuid, this.#lastSequence + 1);
    const tail: Tail = { replica: segment, file, stream, unsyncedBytes: 0, syncing: null };
    // From here on `close` knows the file.
    this.#tail = tail;
    await this.#files.replicas.syncDirectory();
    return tail;
  }

  /** The tail is whole: it is synced and closed while the next one comes. */
  #end(tail: Tail): void {
    this.#received.push({ replica: tail.replica, totalBytes: tail.stream.bytes, lastSequence: tail.stream.lastSequence });
    this.#lastSequence = tail.stream.lastSequence;
    this.#nextSegment += 1;
    this.#tail = null;
    const ending = (async () => {
      try {
        await this.#syncTail(tail);
      } finally {
        await tail.file.close();
      }
      // Held clients are to find it open: in the moment of the switch an open is one of twenty, behind syncs.
      this.#files.expect(tail.replica);
    })();
    this.#syncing.add(ending);
    ending.then(
      () => this.#syncing.delete(ending),
      (error: unknown) => {
        this.#failure ??= error as Error;
        this.#syncing.delete(ending);
      },
    );
  }

  async #syncTail(tail: Tail): Promise<void> {
    while (tail.syncing !== null) await tail.syncing;
    if (tail.unsyncedBytes === 0) return;
    const bytes = tail.unsyncedBytes;
    tail.syncing = new Promise<void>((resolve, reject) => tail.file.sync((error) => (error === null ? resolve() : reject(error)))).then(
      () => {
        tail.unsyncedBytes -= bytes;
        tail.syncing = null;
      },
      (error: unknown) => {
        // Nothing is known of the file any more.
        tail.syncing = null;
        this.#failure ??= error as Error;
        throw error;
      },
    );
    await tail.syncing;
  }

  /** Everything that was appended is durable when it resolves. */
  async sync(): Promise<void> {
    if (this.#tail !== null) await this.#syncTail(this.#tail);
    await Promise.allSettled(this.#syncing);
    if (this.#failure !== null) throw this.#failure;
  }

  /** Closes the files and leaves them where they are. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#syncing);
    const tail = this.#tail;
    if (tail === null) return;
    await tail.syncing?.catch(() => undefined);
    this.#tail = null;
    await tail.file.close();
  }

  #damaged(what: string): ApplianceError {
    return new ApplianceError('replica-damaged', `object ${this.#identity.uuid} on its way here: ${what}`, { retryable: true });
  }
}

function write(file: DiskFile, at: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => file.write(at, [bytes], (error) => (error === null ? resolve() : reject(error))));
}
