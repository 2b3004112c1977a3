/**
 * What can be done with an `ObjectBody` besides storing it. Reading a file body here goes through libuv's thread pool; the
 * directory store, which must not use that pool, has its own synchronous copy loop.
 */
import * as fs from 'node:fs';
import { crc32 } from 'node:zlib';

import { errorCode } from '../server/core/errors.ts';
import { type ObjectBody, StoreError } from './object-store.ts';

/** A file body is read in steps of this size, so that a 64 MiB segment never is in memory as a whole. */
const STEP_BYTES = 1024 * 1024;

/** Bytes that the body will have as an object. */
export function bodySizeBytes(body: ObjectBody): number {
  if (body.kind === 'file') return body.lengthBytes;
  let total = 0;
  for (const chunk of body.chunks) total += chunk.byteLength;
  return total;
}

/** The whole body in one Buffer with memory of its own, owned by the caller. @throws StoreError as `forEachStep`. */
export async function readBody(body: ObjectBody): Promise<Buffer> {
  const target = Buffer.allocUnsafeSlow(bodySizeBytes(body));
  let position = 0;
  await forEachStep(body, (bytes) => {
    target.set(bytes, position);
    position += bytes.byteLength;
  });
  return target;
}

/** CRC-32 (zlib's) of the body. @throws StoreError as `forEachStep`. */
export async function bodyCrc32(body: ObjectBody): Promise<number> {
  let crc = 0;
  await forEachStep(body, (bytes) => {
    crc = crc32(bytes, crc);
  });
  return crc;
}

/** A local file that does not hold what was to be stored: no retry will help, another copy may. */
export function fileBodyError(path: string, error: unknown): StoreError {
  const code = errorCode(error);
  const message = `cannot read ${path}, the local file to be stored: ${error instanceof Error ? error.message : String(error)}`;
  return new StoreError(code === 'ENOENT' || code === 'ENOTDIR' ? 'corrupt' : code === 'EACCES' ? 'denied' : 'retry', message, error);
}

/** The local file ends before the part that was to be stored: class `corrupt`. */
export function fileBodyShort(path: string, offsetBytes: number, lengthBytes: number, foundBytes: number): StoreError {
  return new StoreError('corrupt', `${path} ends early: ${lengthBytes} bytes at ${offsetBytes} were to be stored, only ${foundBytes} are there`);
}

/**
 * Calls `visit` with the body's bytes in order, at most 1 MiB at a time; each slice is valid until `visit` returned, and what it
 * returned, if anything, has resolved.
 * @throws StoreError `corrupt` when a file is missing or too short, `denied` or `retry` when it cannot be read.
 */
export async function forEachStep(body: ObjectBody, visit: (bytes: Uint8Array) => Promise<void> | undefined | void): Promise<void> {
  if (body.kind === 'bytes') {
    for (const chunk of body.chunks) {
      for (let offset = 0; offset < chunk.byteLength; offset += STEP_BYTES) {
        const pause = visit(chunk.subarray(offset, offset + STEP_BYTES));
        if (pause !== undefined) await pause;
      }
    }
    return;
  }
  let handle: fs.promises.FileHandle;
  try {
    handle = await fs.promises.open(body.path, 'r');
  } catch (error) {
    throw fileBodyError(body.path, error);
  }
  try {
    const step = Buffer.allocUnsafeSlow(Math.min(STEP_BYTES, Math.max(1, body.lengthBytes)));
    let done = 0;
    while (done < body.lengthBytes) {
      const want = Math.min(step.byteLength, body.lengthBytes - done);
      const { bytesRead } = await handle.read(step, 0, want, body.offsetBytes + done);
      if (bytesRead === 0) throw fileBodyShort(body.path, body.offsetBytes, body.lengthBytes, done);
      await visit(step.subarray(0, bytesRead));
      done += bytesRead;
    }
  } catch (error) {
    throw error instanceof StoreError ? error : fileBodyError(body.path, error);
  } finally {
    await handle.close();
  }
}
