/** A PeerService over one array of bytes per object, for tests and measurements of the way to it. */
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../core/ids.ts';
import type { Timestamp } from '../../core/time.ts';
import type { Attributes, ReadAnswer, SetAttributes, Stability, WriteAnswer } from '../../nfsd/file-system.ts';
import type {
  Forwarded,
  FrozenEnd,
  MovePart,
  FollowPosition,
  MoveAnswer,
  MoveOutcome,
  MoveReason,
  ObjectTarget,
  PeerCaller,
  PeerService,
} from '../../object-router/peer-port.ts';

export const VERIFIER: Buffer = Buffer.from('0123456789abcdef', 'hex');
const TIME: Timestamp = { seconds: 1_700_000_000, nanoseconds: 123_456_789 };

export class MemoryPeerService implements PeerService {
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  /** Names of the methods called, in order. */
  readonly calls: string[] = [];
  /** A call waits for this before it is executed, when it is set. */
  gate: Promise<void> | null = null;
  readonly #bytes: Buffer;
  #sizeBytes = 0;

  constructor(router: RouterId, incarnation: Incarnation, sizeBytesMax = 4 * 1024 * 1024) {
    this.router = router;
    this.incarnation = incarnation;
    this.#bytes = Buffer.alloc(sizeBytesMax);
  }

  attributes(fileid: number): Attributes {
    return {
      type: 1,
      mode: 0o644,
      nlink: 1,
      uid: 1000,
      gid: 1000,
      sizeBytes: this.#sizeBytes,
      usedBytes: this.#sizeBytes,
      fsid: 0xfedc_ba98_7654_3210n,
      fileid,
      atime: TIME,
      mtime: TIME,
      ctime: TIME,
    };
  }

  async getattr(target: ObjectTarget): Promise<Forwarded<{ status: 0; attributes: Attributes }>> {
    this.calls.push('getattr');
    if (this.gate !== null) await this.gate;
    if (target.term.counter === 0) return { kind: 'not-owner', hint: { router: this.router, incarnation: this.incarnation, term: target.term } };
    return { kind: 'done', result: { status: 0, attributes: this.attributes(target.fileid) } };
  }

  attributesOf(targets: readonly ObjectTarget[]): (Attributes | null)[] {
    this.calls.push('attributesOf');
    return targets.map((target) => (target.term.counter === 0 ? null : this.attributes(target.fileid)));
  }

  read(target: ObjectTarget, _caller: PeerCaller, offsetBytes: number, into: Buffer): Forwarded<ReadAnswer> {
    const end = Math.min(offsetBytes + into.length, this.#sizeBytes);
    const bytesRead = Math.max(end - offsetBytes, 0);
    this.#bytes.copy(into, 0, offsetBytes, offsetBytes + bytesRead);
    const result = { status: 0, bytesRead, eof: offsetBytes + bytesRead >= this.#sizeBytes, attributes: this.attributes(target.fileid) } as const;
    return { kind: 'done', result };
  }

  write(
    target: ObjectTarget,
    _caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): Forwarded<WriteAnswer> {
    const before = { sizeBytes: this.#sizeBytes, mtime: TIME, ctime: TIME };
    let at = offsetBytes;
    for (const chunk of chunks) {
      this.#bytes.set(chunk, at);
      at += chunk.length;
    }
    this.#sizeBytes = Math.max(this.#sizeBytes, offsetBytes + countBytes);
    const wcc = { before, after: this.attributes(target.fileid) };
    return { kind: 'done', result: { status: 0, wcc, countBytes, committed: stability, verifier: VERIFIER } };
  }

  commit(target: ObjectTarget): Forwarded<{ status: 0; wcc: { before: null; after: Attributes }; verifier: Uint8Array }> {
    this.calls.push('commit');
    return { kind: 'done', result: { status: 0, wcc: { before: null, after: this.attributes(target.fileid) }, verifier: VERIFIER } };
  }

  setattr(
    target: ObjectTarget,
    _caller: PeerCaller,
    changes: SetAttributes,
    guardCtime: Timestamp | null,
  ): Forwarded<{ status: 0 | 10002; wcc: { before: null; after: Attributes } }> {
    this.calls.push('setattr');
    if (guardCtime !== null && guardCtime.seconds !== TIME.seconds)
      return { kind: 'done', result: { status: 10002, wcc: { before: null, after: this.attributes(target.fileid) } } };
    if (changes.sizeBytes !== null) this.#sizeBytes = changes.sizeBytes;
    return { kind: 'done', result: { status: 0, wcc: { before: null, after: this.attributes(target.fileid) } } };
  }

  async inodeChanged(fileid: FileId): Promise<void> {
    this.calls.push(`inodeChanged ${fileid}`);
  }

  async moveAsk(target: ObjectTarget, from: RouterId, nonce: string, reason: MoveReason): Promise<MoveAnswer> {
    this.calls.push(`moveAsk ${reason}`);
    if (reason === 'operator') return { kind: 'refused', reason: 'the object is pinned', retryable: false };
    const attempt: Term = { generation: target.term.generation, counter: Math.min(target.term.counter + 1, Number.MAX_SAFE_INTEGER), nonce };
    return {
      kind: 'offer',
      offer: {
        owner: {
          fileid: target.fileid,
          uuid: 'ab'.repeat(16) as ObjectUuid,
          router: this.router,
          incarnation: this.incarnation,
          term: target.term,
          state: { kind: 'running' },
          moving: { from: this.router, to: from, attempt },
          root: {
            checkpoint: 'checkpoint-7',
            uploadedSegment: 7,
            uploadedSequence: 70,
            closedEpochs: [{ term: target.term, lastSegment: 3, lastSequence: 30 }],
          },
          protection: { kind: 'unprotected' },
          verifier: VERIFIER,
        },
        from: { segment: 8, offsetBytes: 0 },
        behindBytes: 4096,
      },
    };
  }

  async moveFetch(_fileid: FileId, attempt: Term, from: FollowPosition, bytesMax: number): Promise<MovePart | null> {
    if (attempt.counter === 0) return null;
    const bytes = this.#bytes.subarray(from.offsetBytes, Math.min(from.offsetBytes + bytesMax, this.#sizeBytes));
    return {
      pieces: [
        { segment: from.segment, term: attempt, offsetBytes: from.offsetBytes, bytes, sealedBytes: this.#sizeBytes },
        { segment: Math.min(from.segment + 1, Number.MAX_SAFE_INTEGER), term: attempt, offsetBytes: 0, bytes: Buffer.alloc(0), sealedBytes: null },
      ],
      behindBytes: 0,
      calls: { bytes: Buffer.from('calls'), next: Math.min(from.calls + 1, Number.MAX_SAFE_INTEGER), behind: 7 },
    };
  }

  async moveFreeze(fileid: FileId, attempt: Term, from: FollowPosition): Promise<FrozenEnd | null> {
    const rest = await this.moveFetch(fileid, attempt, from, 1000);
    return rest === null ? null : { lastSegment: 9, lastSequence: 90, end: { segment: 9, offsetBytes: 512 }, verifier: VERIFIER, rest };
  }

  async moveConfirm(_fileid: FileId, _attempt: Term, lastSequence: number): Promise<MoveOutcome> {
    return { kind: 'aborted', reason: `sequence ${lastSequence} is not the last` };
  }

  async moveAbort(_fileid: FileId, _attempt: Term, reason: string): Promise<void> {
    this.calls.push(`moveAbort ${reason}`);
  }

  async moveOffer(_target: ObjectTarget, _from: RouterId, reason: MoveReason): Promise<boolean> {
    return reason === 'drain';
  }
}
