/** Keys, modes and a store that tells what it was asked, for the tests of this folder. */
import assert from 'node:assert/strict';

import { MemoryStore } from '../memory/memory-store.ts';
import type { ByteRange, GetOutcome } from '../object-store.ts';
import type { EncodingConfig, EncryptionKey } from './encoding-config.ts';
import { parseKeys } from './key-file.ts';

/** The bytes 0 to 31. */
export const FIRST_KEY = onlyKey('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f');
export const SECOND_KEY = onlyKey('fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0');

/** All that an operator can choose, with `FIRST_KEY`. */
export const MODES: Readonly<Record<'nothing' | 'zstd' | 'aes' | 'both', EncodingConfig>> = {
  nothing: { compression: 'none', encryptWith: null, keys: [] },
  zstd: { compression: 'zstd', encryptWith: null, keys: [] },
  aes: { compression: 'none', encryptWith: FIRST_KEY.id, keys: [FIRST_KEY] },
  both: { compression: 'zstd', encryptWith: FIRST_KEY.id, keys: [FIRST_KEY] },
};

/** Memory, and what was read of it: `get 0+11004`, `get all`, `head`. */
export class RecordingStore extends MemoryStore {
  readonly calls: string[] = [];
  bytesRead = 0;

  override async get(bucket: string, name: string, range?: ByteRange, signal?: AbortSignal): Promise<GetOutcome> {
    this.calls.push(range === undefined ? 'get all' : `get ${range.offsetBytes}+${range.lengthBytes}`);
    const outcome = await super.get(bucket, name, range, signal);
    if (outcome.kind === 'found') this.bytesRead += outcome.bytes.byteLength;
    return outcome;
  }

  override async head(bucket: string, name: string, signal?: AbortSignal): Promise<{ kind: 'found'; sizeBytes: number } | { kind: 'absent' }> {
    this.calls.push('head');
    return super.head(bucket, name, signal);
  }

  /** The calls since the last time. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }
}

/** Text-like bytes, about a third of them left by zstd; the same for the same arguments. */
export function compressible(length: number, seed = 1): Buffer {
  const target = Buffer.alloc(length);
  let state = seed;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    target[index] = 97 + ((state >>> 16) % 6);
  }
  return target;
}

/** Bytes that do not shrink; the same for the same arguments. */
export function incompressible(length: number, seed = 1): Buffer {
  const target = Buffer.alloc(length);
  let state = seed | 1;
  for (let index = 0; index < length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    target[index] = state;
  }
  return target;
}

function onlyKey(text: string): EncryptionKey {
  const [key] = parseKeys(text);
  assert.ok(key !== undefined);
  return key;
}
