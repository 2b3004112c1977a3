/** Takes parts of an object out of its frames. Every byte that comes from the store is hostile until its frame was opened. */
import { constants, zstdDecompressSync } from 'node:zlib';

import { throwIfAborted } from '../abort.ts';
import { StoreError } from '../object-store.ts';
import { frameStart, type ObjectLayout, plainBytesOf } from './object-header.ts';
import { nextTurn, STEP_BYTES } from './turn.ts';

/** Frames and the bytes of them that are asked for. `frames`: first, and behind the last. */
export interface FrameSpan {
  readonly plainStart: number;
  readonly plainEnd: number;
  readonly firstFrame: number;
  readonly endFrame: number;
  /** Where the frames are in the object as stored. */
  readonly storedStart: number;
  readonly storedEnd: number;
}

/** The frames that hold the bytes from `plainStart` to `plainEnd`, which is not before it and not behind the object's end. */
export function spanOf(layout: ObjectLayout, plainStart: number, plainEnd: number): FrameSpan {
  const { frameBytes } = layout.parameters;
  const firstFrame = Math.floor(plainStart / frameBytes);
  const endFrame = plainEnd === plainStart ? firstFrame : Math.ceil(plainEnd / frameBytes);
  return { plainStart, plainEnd, firstFrame, endFrame, storedStart: frameStart(layout, firstFrame), storedEnd: frameStart(layout, endFrame) };
}

/**
 * The bytes of a span, in memory of their own, from `stored`, its frames as stored. Other calls of the thread get their turn after each MiB.
 * @throws StoreError `corrupt` when a frame is not what was written under this name at this place, `retry` when aborted.
 */
export async function decodeSpan(
  layout: ObjectLayout,
  span: FrameSpan,
  stored: Buffer,
  where: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const target = Buffer.allocUnsafeSlow(span.plainEnd - span.plainStart);
  if (stored.byteLength !== span.storedEnd - span.storedStart) {
    throw new StoreError('corrupt', `${where} has ${stored.byteLength} bytes at ${span.storedStart} instead of ${span.storedEnd - span.storedStart}`);
  }
  const { parameters, seal } = layout;
  let sincePause = 0;
  for (let frame = span.firstFrame; frame < span.endFrame; frame += 1) {
    const start = frameStart(layout, frame) - span.storedStart;
    const end = frameStart(layout, frame + 1) - span.storedStart;
    const content = seal.openFrame(frame, stored.subarray(start, end - seal.tagBytes), stored.subarray(end - seal.tagBytes, end));
    if (content === null) throw new StoreError('corrupt', `${where} has a frame ${frame} that is damaged, or of another object or place`);
    const plainBytes = plainBytesOf(parameters, frame);
    const plain = content.byteLength === plainBytes ? content : decompress(content, plainBytes, where, frame);
    const frameStartsAt = frame * parameters.frameBytes;
    const from = Math.max(0, span.plainStart - frameStartsAt);
    const to = Math.min(plainBytes, span.plainEnd - frameStartsAt);
    target.set(from === 0 && to === plainBytes ? plain : plain.subarray(from, to), frameStartsAt + from - span.plainStart);
    sincePause += plainBytes;
    if (sincePause >= STEP_BYTES && frame + 1 < span.endFrame) {
      sincePause = 0;
      await nextTurn();
      throwIfAborted(signal, `decode ${where}`);
    }
  }
  return target;
}

/** A hostile frame can make this allocate neither more than a frame nor a larger window than ours. */
function decompress(content: Buffer, plainBytes: number, where: string, frame: number): Buffer {
  let plain: Buffer;
  try {
    plain = zstdDecompressSync(content, { maxOutputLength: plainBytes, params: { [constants.ZSTD_d_windowLogMax]: 17 } });
  } catch (error) {
    throw new StoreError('corrupt', `${where} has a frame ${frame} that cannot be decompressed`, error);
  }
  if (plain.byteLength !== plainBytes) {
    throw new StoreError('corrupt', `${where} has ${plain.byteLength} bytes in frame ${frame} instead of ${plainBytes}`);
  }
  return plain;
}
