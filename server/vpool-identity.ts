/** The identity object: what says whose backend this is (docs/formats/vpool-identity.md). */
import { pause } from '../backends/abort.ts';
import { type ObjectStore, StoreError } from '../backends/object-store.ts';
import { locationOf, locationText } from './backend-config.ts';
import { ApplianceError } from './core/errors.ts';
import type { Clock } from './core/time.ts';
import type { Settings } from './settings/settings.ts';
import { namespaceBucket } from './volume-driver/storage-names.ts';

const FORMAT = 'vferry-vpool';
const OBJECT_BYTES_MAX = 64 * 1024;
/** A store may be behind, or have parts down: for so long absence means "not yet". A directory is never behind. */
const ABSENT_MS_MAX = 10_000;
const LOOK_EVERY_MS = 500;
/** A part of an object has no checksum of the store's: bytes that are wrong on the way say nothing about the object. */
const WRONG_LOOKS_MIN = 3;
/** A single request. */
const CALL_MS_MAX = 5000;

/** The vPool that the settings name, and its uuid as its registry says. */
export interface IdentitySubject {
  readonly settings: Settings;
  readonly uuid: string;
}

/** Creates the identity object; one that is there stays. `store` without encoding. @throws StoreError */
export async function putIdentity(store: ObjectStore, subject: IdentitySubject, clock: Clock, signal?: AbortSignal): Promise<void> {
  const { uuid } = subject;
  const { name, backend } = subject.settings.vpool;
  const { bucket, object } = whereOf(subject);
  const createdAt = new Date(clock.wallMs()).toISOString();
  const text = `${JSON.stringify({ format: FORMAT, version: 1, uuid, name, layout: backend.layout, createdAt })}\n`;
  const startedMs = clock.monotonicMs();
  for (;;) {
    try {
      await bounded(clock, signal, (inner) => store.createBucket(bucket, inner));
      await bounded(clock, signal, (inner) => store.put(bucket, object, { kind: 'bytes', chunks: [Buffer.from(text)] }, inner));
      return;
    } catch (error) {
      // A bucket may be there before it is seen.
      if (!(error instanceof StoreError) || error.class !== 'absent' || clock.monotonicMs() - startedMs >= ABSENT_MS_MAX) throw error;
    }
    await pause(clock, LOOK_EVERY_MS, signal, 'look for the bucket of the identity object');
  }
}

/**
 * Looks whether the backend is this vPool's. `store` without encoding. @throws ApplianceError `backend-foreign`; StoreError when that cannot be said:
 * class `retry` when it did not answer for `unreachableMs`.
 */
export async function requireIdentity(
  store: ObjectStore,
  subject: IdentitySubject,
  clock: Clock,
  { unreachableMs, signal }: { readonly unreachableMs: number; readonly signal?: AbortSignal },
): Promise<void> {
  const { vpool } = subject.settings;
  const { bucket, object } = whereOf(subject);
  const absentMs = vpool.backend.kind === 'directory' ? 0 : ABSENT_MS_MAX;
  const startedMs = clock.monotonicMs();
  let wrongLooks = 0;
  for (;;) {
    try {
      const found = await bounded(clock, signal, (inner) => store.get(bucket, object, { offsetBytes: 0, lengthBytes: OBJECT_BYTES_MAX }, inner));
      if (found.kind === 'found') {
        if (isIdentity(found.bytes, subject.uuid)) return;
        wrongLooks += 1;
        if (wrongLooks >= WRONG_LOOKS_MIN)
          throw foreign(`${bucket}/${object} on the backend is not the identity of vPool ${subject.uuid}: it is another's, or damaged`);
      } else if (clock.monotonicMs() - startedMs >= absentMs) {
        const where = locationText(locationOf(vpool.backend));
        throw foreign(
          `${where} answers, but has no ${bucket}/${object}: it is not the backend of vPool ${vpool.name} (another account, project or bucket?), or was emptied`,
        );
      }
    } catch (error) {
      if (!(error instanceof StoreError) || error.class !== 'retry' || clock.monotonicMs() - startedMs >= unreachableMs) throw error;
    }
    await pause(clock, LOOK_EVERY_MS, signal, 'look for the identity object');
  }
}

/** A call that ends: its signal fires after some seconds, or with `outer`. */
export async function bounded<T>(clock: Clock, outer: AbortSignal | undefined, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const cancel = clock.after(CALL_MS_MAX, () => controller.abort(new Error(`no answer within ${CALL_MS_MAX / 1000} s`)));
  const signal = outer === undefined ? controller.signal : AbortSignal.any([controller.signal, outer]);
  try {
    return await call(signal);
  } finally {
    cancel();
  }
}

function whereOf({ settings, uuid }: IdentitySubject): { bucket: string; object: string } {
  return { bucket: namespaceBucket(settings.vpool.name, uuid), object: `vpool-${uuid}` };
}

function isIdentity(bytes: Buffer, uuid: string): boolean {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    // Not JSON is not ours.
    return false;
  }
  if (typeof value !== 'object' || value === null) return false;
  const identity = value as Readonly<Record<string, unknown>>;
  return identity['format'] === FORMAT && identity['version'] === 1 && identity['uuid'] === uuid;
}

function foreign(message: string): ApplianceError {
  return new ApplianceError('backend-foreign', message);
}
