/** Packed form of owner and router records in Redis (docs/formats/redis.md), checked when read. */
import type { Incarnation, RouterId, Term } from '../../server/core/ids.ts';
import { jsonFromProtection, jsonFromState, OBJECT_VERIFIER_BYTES, type OwnerEntry, ownerFromJson, routerFromJson } from '../owner-record.ts';
import type { ClosedEpoch, OwnerRecord, Protection, Root, RouterRecord } from '../ports.ts';
import { base64From, corrupt, HEX_32, jsonOf, listOf, patternOf, recordOf } from '../record-check.ts';
import { integer64, PACKED_VERSION, putInteger64 } from './packed-inode.ts';

const TERM_BYTES = 32;
/** Epoch, nonce, last segment, last sequence. */
export const CLOSED_EPOCH_BYTES = TERM_BYTES + 16;
/** Uploaded segment, uploaded sequence, length of the checkpoint's name. */
export const ROOT_HEAD_BYTES = 20;
/** From, to, attempt, incarnation of the receiver. */
const MOVING_BYTES = 128;
const OWNER_HEAD_BYTES = 1 + 8 + 8 + 32 * 4 + 8 + 1 + MOVING_BYTES + OBJECT_VERIFIER_BYTES + 12;
const NO_CHECKPOINT = 0xffff_ffff;

export function packTerm(term: Term): Buffer {
  const bytes = Buffer.alloc(TERM_BYTES);
  putInteger64(bytes, 0, term.generation);
  putInteger64(bytes, 8, term.counter);
  bytes.write(term.nonce, 16, 'latin1');
  return bytes;
}

/** As JSON has it. */
function termJson(bytes: Buffer, at: number): unknown {
  return [integer64(bytes, at), integer64(bytes, at + 8), bytes.toString('latin1', at + 16, at + TERM_BYTES)];
}

export function packClosedEpoch(epoch: ClosedEpoch): Buffer {
  const bytes = Buffer.allocUnsafe(CLOSED_EPOCH_BYTES);
  packTerm(epoch.term).copy(bytes);
  putInteger64(bytes, TERM_BYTES, epoch.lastSegment);
  putInteger64(bytes, TERM_BYTES + 8, epoch.lastSequence);
  return bytes;
}

export function packRoot(root: Root): Buffer {
  const checkpoint = Buffer.from(root.checkpoint ?? '');
  const head = Buffer.allocUnsafe(ROOT_HEAD_BYTES);
  putInteger64(head, 0, root.uploadedSegment);
  putInteger64(head, 8, root.uploadedSequence);
  head.writeUInt32LE(root.checkpoint === null ? NO_CHECKPOINT : checkpoint.byteLength, 16);
  return Buffer.concat([head, checkpoint, ...root.closedEpochs.map(packClosedEpoch)]);
}

function rootJson(bytes: Buffer, where: string): unknown {
  if (bytes.byteLength < ROOT_HEAD_BYTES) return corrupt(where, `a root of ${bytes.byteLength} bytes`);
  const length = bytes.readUInt32LE(16);
  const closedAt = ROOT_HEAD_BYTES + (length === NO_CHECKPOINT ? 0 : length);
  if (closedAt > bytes.byteLength || (bytes.byteLength - closedAt) % CLOSED_EPOCH_BYTES !== 0)
    return corrupt(where, 'the parts of a root do not add up');
  const closedEpochs: unknown[] = [];
  for (let at = closedAt; at < bytes.byteLength; at += CLOSED_EPOCH_BYTES) {
    closedEpochs.push({
      term: termJson(bytes, at),
      lastSegment: integer64(bytes, at + TERM_BYTES),
      lastSequence: integer64(bytes, at + TERM_BYTES + 8),
    });
  }
  return {
    checkpoint: length === NO_CHECKPOINT ? null : bytes.toString('utf8', ROOT_HEAD_BYTES, closedAt),
    uploadedSegment: integer64(bytes, 0),
    uploadedSequence: integer64(bytes, 8),
    closedEpochs,
  };
}

/** `receiver`: see OwnerEntry; without one, zeros, and nothing can be transferred. */
export function packMoving(moving: NonNullable<OwnerRecord['moving']>, receiver?: Incarnation): Buffer {
  const incarnation = receiver === undefined ? Buffer.alloc(32) : Buffer.from(receiver, 'latin1');
  return Buffer.concat([Buffer.from(moving.from + moving.to, 'latin1'), packTerm(moving.attempt), incarnation]);
}

export function packState(state: OwnerRecord['state']): string {
  return JSON.stringify(jsonFromState(state));
}

export function packProtection(protection: Protection): string {
  return JSON.stringify(jsonFromProtection(protection));
}

/** `sequence`: change that the record is of. */
export function packOwner(entry: OwnerEntry, sequence: number): Buffer {
  const { owner } = entry;
  const state = Buffer.from(packState(owner.state));
  const protection = Buffer.from(packProtection(owner.protection));
  const root = packRoot(owner.root);
  const head = Buffer.alloc(OWNER_HEAD_BYTES);
  head[0] = PACKED_VERSION;
  putInteger64(head, 1, sequence);
  putInteger64(head, 9, owner.fileid);
  head.write(owner.uuid + owner.router + owner.incarnation, 17, 'latin1');
  packTerm(owner.term).copy(head, 113);
  putInteger64(head, 145, entry.counterMax);
  if (owner.moving !== null) {
    head[153] = 1;
    packMoving(owner.moving, entry.receiver).copy(head, 154);
  }
  head.set(owner.verifier, 282);
  head.writeUInt32LE(state.byteLength, 290);
  head.writeUInt32LE(protection.byteLength, 294);
  head.writeUInt32LE(root.byteLength, 298);
  return Buffer.concat([head, state, protection, root]);
}

/** Inverse of `packOwner`. @throws ApplianceError `registry-corrupt`. */
export function unpackOwner(bytes: Buffer, where: string): OwnerEntry {
  if (bytes.byteLength < OWNER_HEAD_BYTES || bytes[0] !== PACKED_VERSION) {
    return corrupt(where, `an owner record of ${bytes.byteLength} bytes, version ${bytes[0] ?? 'none'}`);
  }
  const place = `${where} ${integer64(bytes, 9)}`;
  const protectionAt = OWNER_HEAD_BYTES + bytes.readUInt32LE(290);
  const rootAt = protectionAt + bytes.readUInt32LE(294);
  if (rootAt + bytes.readUInt32LE(298) !== bytes.byteLength) return corrupt(place, 'the parts of an owner record do not add up');
  const moves = bytes[153] ?? 0;
  if (moves > 1) return corrupt(place, `its mark of a move is ${moves}`);
  const owner = ownerFromJson(
    {
      fileid: integer64(bytes, 9),
      uuid: bytes.toString('latin1', 17, 49),
      router: bytes.toString('latin1', 49, 81),
      incarnation: bytes.toString('latin1', 81, 113),
      term: termJson(bytes, 113),
      state: jsonOf(bytes.toString('utf8', OWNER_HEAD_BYTES, protectionAt), place, 'state'),
      moving:
        moves === 0 ? null : { from: bytes.toString('latin1', 154, 186), to: bytes.toString('latin1', 186, 218), attempt: termJson(bytes, 218) },
      root: rootJson(bytes.subarray(rootAt), place),
      protection: jsonOf(bytes.toString('utf8', protectionAt, rootAt), place, 'protection'),
      verifier: base64From(bytes.subarray(282, 290)),
    },
    place,
  );
  const counterMax = integer64(bytes, 145);
  if (!Number.isSafeInteger(counterMax) || counterMax < owner.term.counter) return corrupt(place, `its highest counter is ${counterMax}`);
  if (moves === 0 || bytes[250] === 0) return { owner, counterMax };
  return { owner, counterMax, receiver: patternOf(bytes.toString('latin1', 250, 282), HEX_32, place, 'receiver') as Incarnation };
}

const ROUTER_HEAD_BYTES = 1 + 1 + 8 + 32;

/** What of a router record the scripts pass on as it is. */
export function packRouterDetails(addresses: readonly string[], version: string): string {
  return JSON.stringify({ addresses, version });
}

/** A router record of the hash of routers. @throws ApplianceError `registry-corrupt`. */
export function unpackRouter(id: string, bytes: Buffer): RouterRecord {
  const where = `router ${HEX_32.test(id) ? (id as RouterId) : JSON.stringify(id)}`;
  if (bytes.byteLength < ROUTER_HEAD_BYTES || bytes[0] !== PACKED_VERSION) return corrupt(where, `a record of ${bytes.byteLength} bytes`);
  const details = recordOf(jsonOf(bytes.toString('utf8', ROUTER_HEAD_BYTES), where, 'details'), where, 'details');
  return routerFromJson(
    {
      id,
      incarnation: bytes.toString('latin1', 10, ROUTER_HEAD_BYTES),
      addresses: listOf(details['addresses'], Number.MAX_SAFE_INTEGER, where, 'addresses'),
      version: details['version'],
      leaseCounter: integer64(bytes, 2),
      dead: bytes[1] === 1 ? true : bytes[1] === 0 ? false : null,
    },
    where,
  );
}
