/**
 * What a checkpoint keeps of an object beside its extent map (docs/formats/checkpoint.md, attributes): 32 bytes, versioned.
 *
 *   0  version 1   4  flags (1: UNSTABLE data open)   8  atime   16  mtime   24  ctime   (seconds, nanoseconds; u32 little endian)
 */
import { ApplianceError } from '../core/errors.ts';
import type { Timestamp } from '../core/time.ts';

export interface ObjectState {
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
  readonly unstableOpen: boolean;
}

const STATE_BYTES = 32;

export function encodeObjectState(state: ObjectState): Buffer {
  const bytes = Buffer.alloc(STATE_BYTES);
  bytes.writeUInt32LE(1, 0);
  bytes.writeUInt32LE(state.unstableOpen ? 1 : 0, 4);
  [state.atime, state.mtime, state.ctime].forEach((time, index) => {
    bytes.writeUInt32LE(time.seconds, 8 + index * 8);
    bytes.writeUInt32LE(time.nanoseconds, 12 + index * 8);
  });
  return bytes;
}

/** @throws ApplianceError `checkpoint-corrupt` for bytes that no version of vferry wrote. */
export function decodeObjectState(source: Uint8Array): ObjectState {
  const bytes = Buffer.from(source.buffer, source.byteOffset, source.byteLength);
  if (bytes.length !== STATE_BYTES || bytes.readUInt32LE(0) !== 1)
    throw new ApplianceError('checkpoint-corrupt', 'the attributes of a checkpoint are of no known version');
  const time = (at: number): Timestamp => {
    const nanoseconds = bytes.readUInt32LE(at + 4);
    if (nanoseconds > 999_999_999) throw new ApplianceError('checkpoint-corrupt', 'a time in the attributes of a checkpoint is impossible');
    return { seconds: bytes.readUInt32LE(at), nanoseconds };
  };
  return { unstableOpen: (bytes.readUInt32LE(4) & 1) !== 0, atime: time(8), mtime: time(16), ctime: time(24) };
}
