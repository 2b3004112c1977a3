/** Contents of test files: written, kept in mind, read back. */
import assert from 'node:assert/strict';

import type { Handle } from '../file-system.ts';
import type { NfsClient } from '../nfs-client.ts';
import { GUARDED, succeeded } from './server-under-test.ts';
import type { Suite } from './server-under-test.ts';

/** Deterministic bytes that are different everywhere. */
export function pattern(lengthBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let i = 0; i < lengthBytes; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Reads a range in as many calls as it takes; shorter at the end of the file. */
export async function readAll(client: NfsClient, file: Handle, offsetBytes: number, countBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let done = 0;
  while (done < countBytes) {
    const { data, eof } = succeeded(await client.read(file, offsetBytes + done, Math.min(countBytes - done, 1024 * 1024)));
    parts.push(data);
    done += data.length;
    if (eof) break;
    assert.ok(data.length > 0);
  }
  return Buffer.concat(parts);
}

/** Makes many files, a window of calls at a time. */
export async function fill(suite: Suite, directory: Handle, count: number, prefix: string): Promise<void> {
  for (let start = 0; start < count; start += 256) {
    const batch = Array.from({ length: Math.min(256, count - start) }, (_, i) => suite.client.create(directory, `${prefix}${start + i}`, GUARDED));
    for (const result of await Promise.all(batch)) succeeded(result);
  }
}

/** 84 bytes: opaque owner and liveness, 1, host name (KB 340515). */
export function lockContents(host: string, alive: number): Buffer {
  const bytes = Buffer.alloc(84);
  bytes.writeUInt32LE(alive, 0);
  bytes.writeUInt32LE(0xdead_beef, 8);
  bytes.writeUInt32LE(1, 16);
  bytes.write(host, 20);
  return bytes;
}
