import { crc32 } from 'node:zlib';

import type { Clock, Random } from '../server/core/time.ts';
import { pause } from './abort.ts';
import { bodyCrc32, bodySizeBytes } from './object-body.ts';
import { type ObjectBody, type ObjectStore, StoreError } from './object-store.ts';

/**
 * stored: the object is there, durable, readable, and is this body; `by` says whether this call wrote it or it was there.
 * conflict: the name holds something else (write-once: it stays). For a segment that is a broken fence or a damaged store; never go on as if stored.
 */
export type PutVerifiedOutcome =
  | { readonly kind: 'stored'; readonly by: 'this-call' | 'earlier' }
  | { readonly kind: 'conflict'; readonly reason: string };

export interface PutVerifiedSettings {
  /** What is compared after a put that said `written`: the size, or every byte. Any doubt (`exists`, a lost answer) compares every byte. */
  readonly compare: 'size' | 'content';
  /** How long an object may stay invisible after its put before it counts as failed. */
  readonly visibleWithinMs: number;
  /** Upper bound of the first pause while waiting for it; doubles, with jitter. */
  readonly firstDelayMs: number;
}

export const PUT_VERIFIED_DEFAULTS: PutVerifiedSettings = { compare: 'size', visibleWithinMs: 30_000, firstDelayMs: 20 };

/** An object is read back in ranges of this size. */
const READ_BACK_BYTES = 1024 * 1024;
const DELAY_MS_MAX = 5000;

/** The components that waiting needs. */
export interface PutVerifiedComponents {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: Random;
}

export interface PutVerifiedOptions {
  readonly settings?: PutVerifiedSettings;
  /** CRC-32 (zlib's) of the body, if the caller knows it; else it is computed when needed, for which a file body is read. */
  readonly bodyCrc?: number;
  readonly signal?: AbortSignal;
}

/**
 * Puts an object and reads it back: only then may local copies of its bytes be given up (contract of the port; design section 6).
 * `exists` is settled by comparing contents. A lost answer is settled by putting once more: then the store says `exists`, and
 * says it only when the object is durable, which being visible does not prove. May be called again at any time.
 *
 * The body, and the file of a file body, must stay as it is until the outcome is `stored`, or its name is given up for good: an
 * aborted attempt may go on in a worker for a while, and must not find other bytes there.
 * @throws StoreError of the store; class `retry` also when the object does not become visible in time.
 */
export async function putVerified(
  components: PutVerifiedComponents,
  bucket: string,
  name: string,
  body: ObjectBody,
  options: PutVerifiedOptions = {},
): Promise<PutVerifiedOutcome> {
  const settings = options.settings ?? PUT_VERIFIED_DEFAULTS;
  let outcome: 'written' | 'exists';
  try {
    outcome = await components.store.put(bucket, name, body, options.signal);
  } catch (error) {
    if (!(error instanceof StoreError) || error.class !== 'retry' || options.signal?.aborted === true) throw error;
    outcome = await components.store.put(bucket, name, body, options.signal);
  }
  const by = outcome === 'written' ? 'this-call' : 'earlier';
  const sizeBytes = bodySizeBytes(body);
  let foundBytes: number;
  try {
    foundBytes = await waitUntilVisible(components, bucket, name, settings, options.signal);
  } catch (error) {
    return notOurs(error);
  }
  if (foundBytes !== sizeBytes) return { kind: 'conflict', reason: `${bucket}/${name} has ${foundBytes} bytes instead of ${sizeBytes}` };
  if (by === 'this-call' && settings.compare === 'size') return { kind: 'stored', by };

  const expected = options.bodyCrc ?? (await bodyCrc32(body));
  let found: number;
  try {
    found = await storedCrc32(components.store, bucket, name, sizeBytes, options.signal);
    // A bit that flipped on the way here is not the object's fault: a conflict has to show twice.
    if (found !== expected) found = await storedCrc32(components.store, bucket, name, sizeBytes, options.signal);
  } catch (error) {
    return notOurs(error);
  }
  if (found === expected) return { kind: 'stored', by };
  return { kind: 'conflict', reason: `${bucket}/${name} has CRC ${hex(found)} instead of ${hex(expected)} over ${sizeBytes} bytes` };
}

/** A store that checks what it reads (encoding/) found something else than any put of this body makes. @throws every other error. */
function notOurs(error: unknown): PutVerifiedOutcome {
  if (error instanceof StoreError && error.class === 'corrupt') return { kind: 'conflict', reason: error.message };
  throw error;
}

/** Size of the object, as soon as the store shows it. */
async function waitUntilVisible(
  components: PutVerifiedComponents,
  bucket: string,
  name: string,
  settings: PutVerifiedSettings,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { store, clock, random } = components;
  const what = `read back ${bucket}/${name}`;
  const startedMs = clock.monotonicMs();
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await store.head(bucket, name, signal);
    if (outcome.kind === 'found') return outcome.sizeBytes;
    const delayMs = Math.min(DELAY_MS_MAX, settings.firstDelayMs * 2 ** attempt) * (0.5 + random.fraction() / 2);
    const elapsedMs = clock.monotonicMs() - startedMs;
    if (elapsedMs + delayMs > settings.visibleWithinMs) {
      throw new StoreError('retry', `${what}: the store took it, but does not show it after ${Math.round(elapsedMs)} ms`);
    }
    await pause(clock, delayMs, signal, what);
  }
}

async function storedCrc32(store: ObjectStore, bucket: string, name: string, sizeBytes: number, signal: AbortSignal | undefined): Promise<number> {
  let crc = 0;
  for (let offsetBytes = 0; offsetBytes < sizeBytes; offsetBytes += READ_BACK_BYTES) {
    const lengthBytes = Math.min(READ_BACK_BYTES, sizeBytes - offsetBytes);
    const part = await store.get(bucket, name, { offsetBytes, lengthBytes }, signal);
    // Shown a moment ago: an eventually consistent store may waver, so this says nothing about the object.
    if (part.kind === 'absent') throw new StoreError('retry', `read back ${bucket}/${name}: it was there, and now is not`);
    if (part.bytes.byteLength !== lengthBytes) {
      throw new StoreError('retry', `read back ${bucket}/${name}: ${part.bytes.byteLength} bytes at ${offsetBytes} instead of ${lengthBytes}`);
    }
    crc = crc32(part.bytes, crc);
  }
  return crc;
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, '0');
}
