/** Requests and answers of all kinds, drawn by fast-check. */
import fc from 'fast-check';

import type { OwnerRecord } from '../../../registry/ports.ts';
import { ApplianceError } from '../../core/errors.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../core/ids.ts';
import { Status } from '../../nfsd/file-system.ts';
import type { Attributes, ErrorStatus, FileType, SetAttributes, Stability, Wcc } from '../../nfsd/file-system.ts';
import type {
  FrozenEnd,
  LogPiece,
  MoveAnswer,
  MoveOutcome,
  MovePart,
  MoveReason,
  ObjectTarget,
  OwnerHint,
  PeerCaller,
} from '../../object-router/peer-port.ts';
import { FrameKind } from '../frame.ts';
import type { CallKind, PeerRequest } from '../request-codec.ts';

const plain = { noNullPrototype: true };
const hex = <T extends string>(digits: number): fc.Arbitrary<T> =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: digits, maxLength: digits }) as fc.Arbitrary<T>;
const count = fc.oneof(fc.nat({ max: Number.MAX_SAFE_INTEGER }), fc.constantFrom(0, 1, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER));
const u32 = fc.oneof(fc.nat({ max: 0xffff_ffff }), fc.constantFrom(0, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff));
const fileid = fc.integer({ min: 64, max: Number.MAX_SAFE_INTEGER }) as unknown as fc.Arbitrary<FileId>;
const router = hex<RouterId>(32);
const incarnation = hex<Incarnation>(32);
const term: fc.Arbitrary<Term> = fc.record({ generation: count, counter: count, nonce: hex(16) }, plain);
const target: fc.Arbitrary<ObjectTarget> = fc.record({ fileid, inodeGeneration: count, term }, plain);
const time = fc.record({ seconds: u32, nanoseconds: fc.nat({ max: 999_999_999 }) }, plain);
/** Without halves of surrogate pairs, which no text of ours has. */
const text = (maxLength: number): fc.Arbitrary<string> => fc.string({ unit: 'grapheme-composite', maxLength }).map((value) => value.toWellFormed());
const caller: fc.Arbitrary<PeerCaller> = fc.record(
  { uid: u32, gid: u32, gids: fc.array(u32, { maxLength: 16 }), address: fc.ipV6(), operationId: text(100) },
  plain,
);
const changer = caller.map((of) => (of.operationId === '' ? { ...of, operationId: '-' } : of));
const verifier = fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes));
const stability = fc.constantFrom<Stability>(0, 1, 2);
const reason = fc.constantFrom<MoveReason>('io', 'operator', 'drain');
const attributes: fc.Arbitrary<Attributes> = fc.record(
  {
    type: fc.integer({ min: 1, max: 7 }) as fc.Arbitrary<FileType>,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    sizeBytes: count,
    usedBytes: count,
    fsid: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fileid: count,
    atime: time,
    mtime: time,
    ctime: time,
  },
  plain,
);
const optional = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(value);
const chosenTime = fc.oneof(fc.constantFrom(null, 'server' as const), time);
const changes: fc.Arbitrary<SetAttributes> = fc.record(
  { mode: optional(u32), uid: optional(u32), gid: optional(u32), sizeBytes: optional(count), atime: chosenTime, mtime: chosenTime },
  plain,
);
const position = fc.record({ segment: count, offsetBytes: count }, plain);
const followPosition = fc.record({ segment: count, offsetBytes: count, calls: count }, plain);

const requests: Record<CallKind, fc.Arbitrary<PeerRequest>> = {
  [FrameKind.GETATTR]: fc.record({ kind: fc.constant(FrameKind.GETATTR), target }, plain),
  [FrameKind.ATTRIBUTES_OF]: fc
    .array(target, { maxLength: 20 })
    .map((targets) => ({ kind: FrameKind.ATTRIBUTES_OF, targetsCount: targets.length, targets })),
  [FrameKind.READ]: fc.record(
    { kind: fc.constant(FrameKind.READ), target, caller, offsetBytes: count, countBytes: fc.nat({ max: 4 * 1024 * 1024 }) },
    plain,
  ),
  [FrameKind.WRITE]: fc
    .record(
      {
        kind: fc.constant(FrameKind.WRITE),
        target,
        caller: changer,
        offsetBytes: count,
        stability,
        data: fc.uint8Array({ minLength: 1, maxLength: 300 }),
      },
      plain,
    )
    .map(({ data, ...request }) => ({ ...request, countBytes: data.length, chunks: [Buffer.from(data)] })),
  [FrameKind.COMMIT]: fc.record({ kind: fc.constant(FrameKind.COMMIT), target, caller }, plain),
  [FrameKind.SETATTR]: fc.record({ kind: fc.constant(FrameKind.SETATTR), target, caller: changer, changes, guardCtime: optional(time) }, plain),
  [FrameKind.INODE_CHANGED]: fc.record({ kind: fc.constant(FrameKind.INODE_CHANGED), fileid }, plain),
  [FrameKind.MOVE_ASK]: fc.record({ kind: fc.constant(FrameKind.MOVE_ASK), target, from: router, nonce: hex<string>(16), reason }, plain),
  [FrameKind.MOVE_FETCH]: fc.record(
    {
      kind: fc.constant(FrameKind.MOVE_FETCH),
      fileid,
      attempt: term,
      from: followPosition,
      bytesMax: fc.nat({ max: 8 * 1024 * 1024 }),
      waitMs: fc.nat({ max: 60_000 }),
    },
    plain,
  ),
  [FrameKind.MOVE_FREEZE]: fc.record({ kind: fc.constant(FrameKind.MOVE_FREEZE), fileid, attempt: term, from: followPosition }, plain),
  [FrameKind.MOVE_CONFIRM]: fc.record({ kind: fc.constant(FrameKind.MOVE_CONFIRM), fileid, attempt: term, lastSequence: count }, plain),
  [FrameKind.MOVE_ABORT]: fc.record({ kind: fc.constant(FrameKind.MOVE_ABORT), fileid, attempt: term, reason: text(100) }, plain),
  [FrameKind.MOVE_OFFER]: fc.record({ kind: fc.constant(FrameKind.MOVE_OFFER), target, from: router, reason }, plain),
};

export const CALL_KINDS: readonly CallKind[] = Object.keys(requests).map((kind) => Number(kind) as CallKind);

/** A request of any kind. */
export const anyRequest: fc.Arbitrary<PeerRequest> = fc.oneof(...Object.values(requests));

const errorStatus = fc.constantFrom(...Object.values(Status).filter((status): status is ErrorStatus => status !== 0));
const wcc: fc.Arbitrary<Wcc> = fc.record(
  { before: optional(fc.record({ sizeBytes: count, mtime: time, ctime: time }, plain)), after: optional(attributes) },
  plain,
);
const hint: fc.Arbitrary<OwnerHint | null> = optional(fc.record({ router, incarnation, term }, plain));
const ok = fc.constant(0 as const);
const owner: fc.Arbitrary<OwnerRecord> = fc.record(
  {
    fileid,
    uuid: hex<ObjectUuid>(32),
    router,
    incarnation,
    term,
    state: fc.oneof(
      fc.constant({ kind: 'running' as const }),
      fc.record({ kind: fc.constantFrom('recovering' as const, 'halted' as const), reason: text(50) }, plain),
    ),
    moving: optional(fc.record({ from: router, to: router, attempt: term }, plain)),
    root: fc.record(
      {
        checkpoint: optional(text(60)),
        uploadedSegment: count,
        uploadedSequence: count,
        closedEpochs: fc.array(fc.record({ term, lastSegment: count, lastSequence: count }, plain), { maxLength: 5 }),
      },
      plain,
    ),
    protection: fc.oneof(
      fc.constantFrom({ kind: 'clean' as const }, { kind: 'unprotected' as const }),
      fc.record({ kind: fc.constant('protected' as const), replicas: fc.array(router, { maxLength: 4 }) }, plain),
    ),
    verifier,
  },
  plain,
);
const piece: fc.Arbitrary<LogPiece> = fc.record(
  {
    segment: count,
    term,
    offsetBytes: count,
    bytes: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    sealedBytes: optional(count),
  },
  plain,
);
const part: fc.Arbitrary<MovePart> = fc.record(
  {
    pieces: fc.array(piece, { maxLength: 4 }),
    behindBytes: count,
    calls: fc.record({ bytes: fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)), next: count, behind: count }, plain),
  },
  plain,
);
const frozenEnd: fc.Arbitrary<FrozenEnd> = fc.record(
  {
    lastSegment: count,
    lastSequence: count,
    end: position,
    verifier,
    rest: part,
  },
  plain,
);
const moveAnswer: fc.Arbitrary<MoveAnswer> = fc.oneof(
  fc.record({ kind: fc.constant('offer' as const), offer: fc.record({ owner, from: position, behindBytes: count }, plain) }, plain),
  fc.record({ kind: fc.constant('refused' as const), reason: text(50), retryable: fc.boolean() }, plain),
);
const moveOutcome: fc.Arbitrary<MoveOutcome> = fc.oneof(
  fc.record({ kind: fc.constant('moved' as const), owner }, plain),
  fc.record({ kind: fc.constant('aborted' as const), reason: text(50) }, plain),
);

function forwarded<T>(...results: fc.Arbitrary<T>[]): fc.Arbitrary<unknown> {
  return fc.oneof(
    ...results.map((result) => fc.record({ kind: fc.constant('done' as const), result }, plain)),
    fc.record({ kind: fc.constant('not-owner' as const), hint }, plain),
  );
}

const answers: Record<CallKind, fc.Arbitrary<unknown>> = {
  [FrameKind.GETATTR]: forwarded<unknown>(fc.record({ status: ok, attributes }, plain), fc.record({ status: errorStatus }, plain)),
  [FrameKind.ATTRIBUTES_OF]: fc.array(optional(attributes), { maxLength: 10 }),
  [FrameKind.READ]: forwarded<unknown>(
    fc.record({ status: ok, bytesRead: fc.nat({ max: 500 }), eof: fc.boolean(), attributes: optional(attributes) }, plain),
    fc.record({ status: errorStatus, attributes: optional(attributes) }, plain),
  ),
  [FrameKind.WRITE]: forwarded<unknown>(
    fc.record({ status: ok, wcc, countBytes: u32, committed: stability, verifier }, plain),
    fc.record({ status: errorStatus, wcc }, plain),
  ),
  [FrameKind.COMMIT]: forwarded<unknown>(fc.record({ status: ok, wcc, verifier }, plain), fc.record({ status: errorStatus, wcc }, plain)),
  [FrameKind.SETATTR]: forwarded<unknown>(fc.record({ status: fc.oneof(ok, errorStatus), wcc }, plain)),
  [FrameKind.INODE_CHANGED]: fc.constant(undefined),
  [FrameKind.MOVE_ASK]: moveAnswer,
  [FrameKind.MOVE_FETCH]: optional(part),
  [FrameKind.MOVE_FREEZE]: optional(frozenEnd),
  [FrameKind.MOVE_CONFIRM]: moveOutcome,
  [FrameKind.MOVE_ABORT]: fc.constant(undefined),
  [FrameKind.MOVE_OFFER]: fc.boolean(),
};

/** A kind of call and an answer to it. */
export const anyAnswer: fc.Arbitrary<{ readonly kind: CallKind; readonly answer: unknown }> = fc.oneof(
  ...CALL_KINDS.map((kind) => answers[kind].map((answer) => ({ kind, answer }))),
);

/** A failure of the environment at the other end. */
export const anyFailure: fc.Arbitrary<ApplianceError> = fc
  .record({ code: fc.constantFrom('registry-unavailable', 'object-busy', 'EIO'), message: text(100), retryable: fc.boolean() })
  .map(({ code, message, retryable }) => new ApplianceError(code, message, { retryable }));
