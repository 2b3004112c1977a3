/** Wire forms of what NFS calls and their results consist of: targets, callers, attributes, wcc (docs/PEER-PROTOCOL.md, "Fields"). */
import { assert } from '../core/assert.ts';
import type { FileId, Incarnation, RouterId, Term } from '../core/ids.ts';
import type { Timestamp } from '../core/time.ts';
import { Status } from '../nfsd/file-system.ts';
import type { Attributes, ErrorStatus, FileType, PreAttributes, SetAttributes, Stability, Wcc } from '../nfsd/file-system.ts';
import type { ObjectTarget, OwnerHint, PeerCaller } from '../object-router/peer-port.ts';
import { FrameError } from './frame-error.ts';
import { Repeated } from './repeated.ts';
import type { WireReader } from './wire-reader.ts';
import type { WireWriter } from './wire-writer.ts';

export const VERIFIER_BYTES = 8;
const FILEID_MIN = 64;
const ADDRESS_BYTES_MAX = 64;
const OPERATION_ID_BYTES_MAX = 2048;
const GIDS_MAX = 16;
const NANOSECONDS_MAX = 999_999_999;
const STATUSES: ReadonlySet<number> = new Set(Object.values(Status));

/** Bytes of an ObjectTarget. */
export const TARGET_BYTES = 8 + 8 + 24;
export const ATTRIBUTES_BYTES = 1 + 4 * 4 + 4 * 8 + 3 * 8;
/** Where the last byte of a fileid is in attributes. */
const FILEID_LOW_AT = 1 + 4 * 4 + 4 * 8 - 1;
/** Without the operation id. */
const CALLER_BYTES_MAX = 4 + 4 + 1 + 4 * GIDS_MAX + 2 + ADDRESS_BYTES_MAX;

export function putFileid(writer: WireWriter, fileid: FileId): void {
  writer.u53(fileid);
}

export function getFileid(reader: WireReader): FileId {
  const fileid = reader.u53();
  if (fileid < FILEID_MIN) throw new FrameError(`the fileid ${fileid}, which no object has`);
  return fileid as FileId;
}

/** generation, counter, nonce: 24 bytes. */
export function putTerm(writer: WireWriter, term: Term): void {
  writer.u53(term.generation);
  writer.u53(term.counter);
  writer.hex(term.nonce, 16);
}

export function getTerm(reader: WireReader): Term {
  return { generation: reader.u53(), counter: reader.u53(), nonce: reader.hex(16) };
}

export function putRouter(writer: WireWriter, router: RouterId): void {
  writer.hex(router, 32);
}

export function getRouter(reader: WireReader): RouterId {
  return reader.hex(32) as RouterId;
}

export function getIncarnation(reader: WireReader): Incarnation {
  return reader.hex(32) as Incarnation;
}

// Calls of a client on its disk repeat target and caller: the last ones are kept with their bytes, so that a repetition costs a comparison.
const sentTargets = new Repeated<ObjectTarget>(TARGET_BYTES);
const receivedTargets = new Repeated<ObjectTarget>(TARGET_BYTES);
const sentCallers = new Repeated<PeerCaller>(CALLER_BYTES_MAX);
const receivedCallers = new Repeated<PeerCaller>(CALLER_BYTES_MAX);
const receivedAttributes = new Repeated<Attributes>(ATTRIBUTES_BYTES);

export function putTarget(writer: WireWriter, target: ObjectTarget): void {
  if (sentTargets.write(writer, target, target.fileid)) return;
  const start = writer.at;
  putFileid(writer, target.fileid);
  writer.u53(target.inodeGeneration);
  putTerm(writer, target.term);
  sentTargets.keep(target, target.fileid, writer.bytes, start, writer.at);
}

export function getTarget(reader: WireReader): ObjectTarget {
  const key = reader.peek(TARGET_BYTES, 7);
  const known = receivedTargets.read(reader, key);
  if (known !== null) return known;
  const start = reader.at;
  const target = { fileid: getFileid(reader), inodeGeneration: reader.u53(), term: getTerm(reader) };
  receivedTargets.keep(target, key, reader.bytes, start, reader.at);
  return target;
}

export function putCaller(writer: WireWriter, caller: PeerCaller): void {
  if (!sentCallers.write(writer, caller, 0)) putNewCaller(writer, caller);
  writer.exactText(caller.operationId, OPERATION_ID_BYTES_MAX);
}

/** All but the operation id. */
function putNewCaller(writer: WireWriter, caller: PeerCaller): void {
  const start = writer.at;
  assert(caller.gids.length <= GIDS_MAX, 'a caller of more than 16 groups');
  writer.u32(caller.uid);
  writer.u32(caller.gid);
  writer.u8(caller.gids.length);
  for (let i = 0; i < caller.gids.length; i++) writer.u32(caller.gids[i]!);
  writer.exactText(caller.address, ADDRESS_BYTES_MAX);
  // One with an operation id is of one call.
  if (caller.operationId === '') sentCallers.keep(caller, 0, writer.bytes, start, writer.at);
}

export function getCaller(reader: WireReader): PeerCaller {
  const known = receivedCallers.read(reader, 0) ?? getNewCaller(reader);
  const operationId = reader.text(OPERATION_ID_BYTES_MAX);
  if (operationId === '') return known;
  return { uid: known.uid, gid: known.gid, gids: known.gids, address: known.address, operationId };
}

/** All but the operation id. */
function getNewCaller(reader: WireReader): PeerCaller {
  const start = reader.at;
  const uid = reader.u32();
  const gid = reader.u32();
  const gids: number[] = [];
  for (let count = reader.member(GIDS_MAX); count > 0; count--) gids.push(reader.u32());
  const caller = { uid, gid, gids, address: reader.text(ADDRESS_BYTES_MAX), operationId: '' };
  receivedCallers.keep(caller, 0, reader.bytes, start, reader.at);
  return caller;
}

export function putTime(writer: WireWriter, time: Timestamp): void {
  writer.u32(time.seconds);
  writer.u32(time.nanoseconds);
}

export function getTime(reader: WireReader): Timestamp {
  const seconds = reader.u32();
  const nanoseconds = reader.u32();
  if (nanoseconds > NANOSECONDS_MAX) throw new FrameError(`${nanoseconds} nanoseconds`);
  return { seconds, nanoseconds };
}

// A vPool has one fsid: cutting the bigint up each time costs more than the rest.
let fsidSplit = 0n;
let fsidHigh = 0;
let fsidLow = 0;

export function putAttributes(writer: WireWriter, attributes: Attributes): void {
  if (attributes.fsid !== fsidSplit) {
    fsidSplit = attributes.fsid;
    fsidHigh = Number(fsidSplit >> 32n);
    fsidLow = Number(fsidSplit & 0xffff_ffffn);
  }
  writer.u8(attributes.type);
  writer.u32(attributes.mode);
  writer.u32(attributes.nlink);
  writer.u32(attributes.uid);
  writer.u32(attributes.gid);
  writer.u53(attributes.sizeBytes);
  writer.u53(attributes.usedBytes);
  writer.u32(fsidHigh);
  writer.u32(fsidLow);
  writer.u53(attributes.fileid);
  putTime(writer, attributes.atime);
  putTime(writer, attributes.mtime);
  putTime(writer, attributes.ctime);
}

export function getAttributes(reader: WireReader): Attributes {
  const key = reader.peek(ATTRIBUTES_BYTES, FILEID_LOW_AT);
  const known = receivedAttributes.read(reader, key);
  if (known !== null) return known;
  const start = reader.at;
  const attributes = getNewAttributes(reader);
  receivedAttributes.keep(attributes, key, reader.bytes, start, reader.at);
  return attributes;
}

function getNewAttributes(reader: WireReader): Attributes {
  const type = reader.u8();
  if (type < 1 || type > 7) throw new FrameError(`an object of type ${type}`);
  return {
    type: type as FileType,
    mode: reader.u32(),
    nlink: reader.u32(),
    uid: reader.u32(),
    gid: reader.u32(),
    sizeBytes: reader.u53(),
    usedBytes: reader.u53(),
    fsid: reader.u64(),
    fileid: reader.u53(),
    atime: getTime(reader),
    mtime: getTime(reader),
    ctime: getTime(reader),
  };
}

export function putAttributesOrNull(writer: WireWriter, attributes: Attributes | null): void {
  writer.bool(attributes !== null);
  if (attributes !== null) putAttributes(writer, attributes);
}

export function getAttributesOrNull(reader: WireReader): Attributes | null {
  return reader.bool() ? getAttributes(reader) : null;
}

export function putWcc(writer: WireWriter, wcc: Wcc): void {
  writer.bool(wcc.before !== null);
  if (wcc.before !== null) {
    writer.u53(wcc.before.sizeBytes);
    putTime(writer, wcc.before.mtime);
    putTime(writer, wcc.before.ctime);
  }
  putAttributesOrNull(writer, wcc.after);
}

export function getWcc(reader: WireReader): Wcc {
  const before: PreAttributes | null = reader.bool() ? { sizeBytes: reader.u53(), mtime: getTime(reader), ctime: getTime(reader) } : null;
  return { before, after: getAttributesOrNull(reader) };
}

export function putStatus(writer: WireWriter, status: Status): void {
  writer.u16(status);
}

export function getStatus(reader: WireReader): Status {
  const status = reader.u16();
  if (!STATUSES.has(status)) throw new FrameError(`the unknown status ${status}`);
  return status as ErrorStatus | 0;
}

export function putStability(writer: WireWriter, stability: Stability): void {
  writer.u8(stability);
}

export function getStability(reader: WireReader): Stability {
  return reader.member(2) as Stability;
}

export function putVerifier(writer: WireWriter, verifier: Uint8Array): void {
  assert(verifier.length === VERIFIER_BYTES, 'a verifier has 8 bytes');
  writer.raw(verifier);
}

/** The caller's own. */
export function getVerifier(reader: WireReader): Buffer {
  return reader.copy(VERIFIER_BYTES);
}

const NO_TIME = 0;
const SERVER_TIME = 1;
const GIVEN_TIME = 2;

export function putSetAttributes(writer: WireWriter, changes: SetAttributes): void {
  putOptionalU32(writer, changes.mode);
  putOptionalU32(writer, changes.uid);
  putOptionalU32(writer, changes.gid);
  writer.bool(changes.sizeBytes !== null);
  if (changes.sizeBytes !== null) writer.u53(changes.sizeBytes);
  putChosenTime(writer, changes.atime);
  putChosenTime(writer, changes.mtime);
}

export function getSetAttributes(reader: WireReader): SetAttributes {
  return {
    mode: getOptionalU32(reader),
    uid: getOptionalU32(reader),
    gid: getOptionalU32(reader),
    sizeBytes: reader.bool() ? reader.u53() : null,
    atime: getChosenTime(reader),
    mtime: getChosenTime(reader),
  };
}

export function putTimeOrNull(writer: WireWriter, time: Timestamp | null): void {
  writer.bool(time !== null);
  if (time !== null) putTime(writer, time);
}

export function getTimeOrNull(reader: WireReader): Timestamp | null {
  return reader.bool() ? getTime(reader) : null;
}

export function putHint(writer: WireWriter, hint: OwnerHint | null): void {
  writer.bool(hint !== null);
  if (hint === null) return;
  putRouter(writer, hint.router);
  writer.hex(hint.incarnation, 32);
  putTerm(writer, hint.term);
}

export function getHint(reader: WireReader): OwnerHint | null {
  return reader.bool() ? { router: getRouter(reader), incarnation: getIncarnation(reader), term: getTerm(reader) } : null;
}

function putOptionalU32(writer: WireWriter, value: number | null): void {
  writer.bool(value !== null);
  if (value !== null) writer.u32(value);
}

function getOptionalU32(reader: WireReader): number | null {
  return reader.bool() ? reader.u32() : null;
}

function putChosenTime(writer: WireWriter, time: Timestamp | 'server' | null): void {
  writer.u8(time === null ? NO_TIME : time === 'server' ? SERVER_TIME : GIVEN_TIME);
  if (time !== null && time !== 'server') putTime(writer, time);
}

function getChosenTime(reader: WireReader): Timestamp | 'server' | null {
  const choice = reader.member(GIVEN_TIME);
  return choice === NO_TIME ? null : choice === SERVER_TIME ? 'server' : getTime(reader);
}
