/** What callers hand to verbs, checked before it costs anything: callers' bugs are AssertionErrors on their own thread. */
import { assert } from '../server/core/assert.ts';
import type { Timestamp } from '../server/core/time.ts';
import { EXCLUSIVE_VERIFIER_BYTES, NAME_BYTES_MAX } from './inode-record.ts';
import type { Mutation, NewInode, OwnedCopy } from './ports.ts';

export type SharedAttributes = Pick<NewInode, 'mode' | 'uid' | 'gid' | 'atime' | 'mtime'>;

/** A copy in a buffer of its own: callers' names and payloads are slices of received chunks. */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** A safe integer that is not negative. */
export function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** What nfstime3 can say. */
export function isTimestamp(time: Timestamp): boolean {
  return isCount(time.seconds) && time.seconds <= 0xffff_ffff && isCount(time.nanoseconds) && time.nanoseconds < 1_000_000_000;
}

/** Only what is meant to be sent. */
export function checkedMutation(mutation: Mutation): Mutation {
  const { operationId, incarnation, now, notAfterMs } = mutation;
  assert(operationId === null || (operationId.length > 0 && operationId.length <= 1_024), 'an operation id has 1 to 1024 characters');
  assert(isTimestamp(now), 'a mutation carries a time');
  assert(!Number.isNaN(notAfterMs), 'a deadline is a number');
  return { operationId, incarnation, now, notAfterMs };
}

/** Only what is meant to be sent. */
export function checkedCopy({ sizeBytes, usedBytes, atime, mtime, ctime }: OwnedCopy): OwnedCopy {
  assert(isCount(sizeBytes) && isCount(usedBytes), 'sizes are counts of bytes');
  for (const time of [atime, mtime, ctime]) assert(isTimestamp(time), 'a time is an nfstime3');
  return { sizeBytes, usedBytes, atime, mtime, ctime };
}

/** The name, copied. */
export function checkedName(name: Uint8Array): Uint8Array {
  assert(name.byteLength > 0 && name.byteLength <= NAME_BYTES_MAX, `a name has 1 to ${NAME_BYTES_MAX} bytes`);
  for (const byte of name) assert(byte !== 0 && byte !== 0x2f, 'a name has no NUL and no slash');
  const first = name[0];
  assert(first !== 0x2e || (name.byteLength !== 1 && (name.byteLength !== 2 || name[1] !== 0x2e)), '"." and ".." are not names');
  return ownBytes(name);
}

/** Only what is meant to be sent. */
export function checkedAttributes(attributes: SharedAttributes): SharedAttributes {
  const { mode, uid, gid, atime, mtime } = attributes;
  return { mode, uid, gid, atime, mtime };
}

/** Only what is meant to be sent; the verifier copied. */
export function checkedFile(file: NewInode): NewInode {
  const { exclusiveVerifier } = file;
  assert(exclusiveVerifier === null || exclusiveVerifier.byteLength === EXCLUSIVE_VERIFIER_BYTES, 'an EXCLUSIVE verifier has 8 bytes');
  return {
    ...checkedAttributes(file),
    class: file.class,
    sizeBytes: file.sizeBytes,
    exclusiveVerifier: exclusiveVerifier === null ? null : ownBytes(exclusiveVerifier),
  };
}
