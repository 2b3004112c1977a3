/**
 * The backend of a vPool: made once, after a probe, and opened at every start (docs/formats/data-directory.md, docs/formats/vpool-identity.md). What is
 * recorded in `vpool.json` decides, the settings only say how to get there: another kind, layout or bucket is refused, another address is taken when
 * the vPool's identity object is found there.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { pause } from '../backends/abort.ts';
import { DirectoryStore } from '../backends/directory/directory-store.ts';
import type { EncodingConfig } from '../backends/encoding/encoding-config.ts';
import { makeStore } from '../backends/make-store.ts';
import { type ObjectStore, StoreError } from '../backends/object-store.ts';
import { type ProbeReport, probeText } from '../backends/probe/probe-report.ts';
import { type ProbeSettings, probeStore } from '../backends/probe/probe.ts';
import { clockSkewMs } from '../backends/probe/server-time.ts';
import type { BareStoreConfig, HostedStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { encryptionKeys, locationOf, locationText, s3Config, swiftConfig } from './backend-config.ts';
import { ApplianceError } from './core/errors.ts';
import type { Logger } from './core/logger.ts';
import type { Clock, Random } from './core/time.ts';
import { readVpoolFile, type VpoolFile, writeVpoolFile } from './data-directory.ts';
import type { BackendSettings } from './settings/backend-settings.ts';
import type { Settings } from './settings/settings.ts';
import { namespaceBucket } from './volume-driver/storage-names.ts';

const IDENTITY_FORMAT = 'vferry-vpool';
/** How long a start waits for a backend that does not answer, and for an identity object that is not visible. */
const UNREACHABLE_MS_MAX = 2000;
/** A single request of an opening. */
const CALL_MS_MAX = 5000;
const ABSENT_MS_MAX = 10_000;
const LOOK_EVERY_MS = 500;
/** While it serves without having seen the backend. */
const CONFIRM_EVERY_MS = 2000;
const IDENTITY_BYTES_MAX = 64 * 1024;
const S3_CLOCK_SKEW_MS_MAX = 15 * 60 * 1000;

export interface BackendComponents {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Is told what a probe does, for people. */
  readonly progress?: (text: string) => void;
}

/** Which vPool, and its directory below the data directory. */
export interface VpoolIdentity {
  readonly directory: string;
  readonly uuid: string;
}

/** A vPool's backend as it is to be hosted, and what is known of it. */
export interface OpenedBackend {
  readonly config: HostedStoreConfig;
  readonly file: VpoolFile;
  /** Why the backend was not seen at the start; null: it was, or has been since. */
  readonly problem: Error | null;
  /** Goes on looking until the backend was seen. Rejects with ApplianceError `backend-foreign` when it is another's: then nothing may be served. */
  confirmed(signal: AbortSignal): Promise<void>;
}

/**
 * Opens the backend of a vPool, or makes it when the vPool has none yet. A backend that does not answer is no reason to fail for a vPool that exists.
 * @throws ApplianceError `registry-foreign`, `backend-changed`, `backend-foreign`, `backend-unfit`, `encryption-key-missing`, `secret-unreadable`;
 * StoreError while it is made.
 */
export async function openBackend(settings: Settings, vpool: VpoolIdentity, components: BackendComponents): Promise<OpenedBackend> {
  const known = readVpoolFile(vpool.directory);
  if (known === null) {
    const { verdict, fence, findings } = await createBackend(
      settings,
      vpool,
      components,
      settings.vpool.backend.kind === 'directory' ? 'none' : 'quick',
    );
    components.logger[verdict === 'fit' ? 'info' : 'warn'](
      { verdict, fence, findings },
      `a new vPool on ${locationText(locationOf(settings.vpool.backend))}`,
    );
  }
  const file = known ?? readVpoolFile(vpool.directory);
  if (file === null) throw new ApplianceError('data-unusable', `${join(vpool.directory, 'vpool.json')} vanished`);
  if (file.uuid !== vpool.uuid) {
    throw new ApplianceError(
      'registry-foreign',
      `${vpool.directory} belongs to vPool ${file.uuid}, but its registry says ${vpool.uuid}; restore the directory as a whole`,
    );
  }
  return await new Opening(settings, file, vpool, components).open();
}

/**
 * What an existing vPool's objects are read with, by tools: the recorded facts, and the secrets of the settings.
 * @throws ApplianceError as `openBackend`.
 */
export function recordedStoreConfig(settings: Settings, file: VpoolFile): HostedStoreConfig {
  refuseOther(settings, file);
  return hostedConfig(settings.vpool.backend, file, encodingOf(settings.vpool.backend, file));
}

/**
 * Probes a backend, and makes it that of the vPool: identity object first, `vpool.json` last. Done again after a crash it is success.
 * @throws ApplianceError `backend-unfit` with the report's words, and as `openBackend`; StoreError.
 */
export async function createBackend(
  settings: Settings,
  vpool: VpoolIdentity,
  components: BackendComponents,
  effort: ProbeSettings['effort'],
): Promise<ProbeReport> {
  const { backend, name } = settings.vpool;
  const layout = layoutOf(backend, name, vpool.uuid);
  // A key that cannot be read should not be found out after the probe.
  encodingOf(backend, { encoded: false, keys: [], unencrypted: false });
  const report = await probeBackend(backend, layout, components, { effort, lasting: true });
  if (report.verdict === 'unfit') {
    throw new ApplianceError('backend-unfit', `no vPool can be made on ${locationText(locationOf(backend))}: ${probeText(report).trimEnd()}`);
  }
  const file: VpoolFile = {
    version: 2,
    uuid: vpool.uuid,
    backend: locationOf(backend),
    layout,
    fence: report.fence,
    identity: true,
    probe: {
      at: new Date(components.clock.wallMs()).toISOString(),
      verdict: report.verdict,
      findings: report.findings.map((finding) => `${finding.weight}: ${finding.text}`),
      figures: { ...report.figures },
    },
    encoded: false,
    keys: [],
    unencrypted: false,
    linked: false,
  };
  if (backend.kind === 'directory') {
    await new DirectoryStore({ kind: 'directory', path: backend.path, vpoolUuid: vpool.uuid, initialize: true }).listBuckets('', 1);
  }
  await using made = await makeStore(hostedConfig(backend, file, null));
  await putIdentity(made.store, settings, vpool.uuid, layout, components);
  writeVpoolFile(vpool.directory, file);
  return report;
}

/**
 * Tries out a backend of these settings, in a bucket that it removes again; see `probeStore`. The one bucket of layout prefix is removed, too, if it was
 * made here and is not needed at once (`lasting`): some stores do not let a name be used again so soon.
 */
export async function probeBackend(
  backend: BackendSettings,
  layout: VpoolFile['layout'],
  components: BackendComponents,
  { effort, lasting }: { readonly effort: ProbeSettings['effort']; readonly lasting: boolean },
): Promise<ProbeReport> {
  const nonce = randomBytes(6).toString('hex');
  await using stack = new AsyncDisposableStack();
  let bare: (conditionalPut: boolean) => BareStoreConfig;
  switch (backend.kind) {
    case 'directory': {
      // A root of its own inside: the directory may already be some vPool's backend, or not be one yet.
      const root = join(backend.path, `.vferry-probe-${nonce}`);
      const uuid = randomBytes(16).toString('hex');
      let firstMade = root;
      stack.defer(() => {
        rmSync(root, { recursive: true, force: true });
        // What was made for the probe only: the backend's directory, perhaps with parents.
        for (let path = dirname(root); path.length >= firstMade.length; path = dirname(path)) rmdirSync(path);
      });
      const initial = { kind: 'directory', path: root, vpoolUuid: uuid, initialize: true } as const;
      try {
        firstMade = mkdirSync(root, { recursive: true, mode: 0o700 }) ?? root;
        await new DirectoryStore(initial).listBuckets('', 1);
      } catch (error) {
        const finding = { weight: 'unfit', text: `${backend.path} cannot be written: ${(error as Error).message}` } as const;
        return { verdict: 'unfit', findings: [finding], fence: 'registry', conditionalPut: false, figures: NO_FIGURES };
      }
      bare = () => ({ ...initial, initialize: false });
      break;
    }
    case 'swift': {
      const config = swiftConfig(backend.swift);
      bare = () => config;
      break;
    }
    case 's3':
      s3Config(backend.s3, true);
      bare = (conditionalPut) => s3Config(backend.s3, conditionalPut);
      break;
  }
  const time = timeSource(backend);
  if (layout.kind === 'prefix' && !lasting) {
    const real = stack.use(await makeStore({ store: bare(false), layout: { kind: 'buckets' }, encoding: null }));
    const { bucket } = layout;
    if (await isMissing(real.store, bucket, components.clock)) {
      stack.defer(() => bounded(components.clock, undefined, (signal) => real.store.deleteBucket(bucket, signal)).catch(ignoreStoreError));
    }
  }
  return await probeStore(
    {
      open: (conditionalPut) => makeStore({ store: bare(conditionalPut), layout, encoding: null }),
      hasConditionalPut: backend.kind === 's3',
      clockSkewMs: time === null ? null : (signal) => clockSkewMs(components.clock, time.url, time.caFile, signal),
      clock: components.clock,
      random: components.random,
      progress: components.progress ?? (() => undefined),
    },
    { bucket: `vf-probe-${nonce}`, effort, clockSkewMsMax: backend.kind === 's3' ? S3_CLOCK_SKEW_MS_MAX : null },
  );
}

/** False also when that cannot be said: then the probe says why. */
async function isMissing(store: ObjectStore, bucket: string, clock: Clock): Promise<boolean> {
  try {
    await bounded(clock, undefined, (signal) => store.list(bucket, '', '', 1, signal));
    return false;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    return error.class === 'absent';
  }
}

/** Somebody else may have put something into it meanwhile, or the store is away: an empty bucket that stays harms nobody. */
function ignoreStoreError(error: unknown): void {
  if (!(error instanceof StoreError)) throw error;
}

const NO_FIGURES: ProbeReport['figures'] = {
  readAfterWriteMs: null,
  listAfterWriteMs: null,
  clockSkewMs: null,
  putMs: null,
  getMs: null,
  uploadBytesPerSecond: null,
  downloadBytesPerSecond: null,
};

function timeSource(backend: BackendSettings): { url: string; caFile: string | null } | null {
  switch (backend.kind) {
    case 'directory':
      return null;
    case 'swift':
      return { url: backend.swift.authUrl, caFile: backend.swift.caFile };
    case 's3':
      return { url: backend.s3.endpoint ?? `https://s3.${backend.s3.region}.amazonaws.com`, caFile: backend.s3.caFile };
  }
}

/** Where a new vPool's buckets go. */
export function layoutOf(backend: BackendSettings, vpoolName: string, vpoolUuid: string): VpoolFile['layout'] {
  if (backend.layout === 'buckets') return { kind: 'buckets' };
  return { kind: 'prefix', bucket: backend.bucket ?? namespaceBucket(vpoolName, vpoolUuid).replace(/-ns$/, '') };
}

/** Refuses what would make another backend of it, or read objects that are elsewhere. @throws ApplianceError `backend-changed` */
function refuseOther(settings: Settings, file: VpoolFile): void {
  const { backend, name } = settings.vpool;
  const refuse = (had: string, has: string): never => {
    throw new ApplianceError(
      'backend-changed',
      `vPool ${name} was made with ${had}, but the settings say ${has}; its objects cannot be found that way`,
    );
  };
  if (file.backend.kind !== backend.kind) refuse(`a backend of kind ${file.backend.kind}`, backend.kind);
  if (file.layout.kind !== backend.layout) refuse(`layout ${file.layout.kind}`, backend.layout);
  if (file.layout.kind === 'prefix' && backend.bucket !== null && backend.bucket !== file.layout.bucket) {
    refuse(`bucket ${file.layout.bucket}`, backend.bucket);
  }
}

/**
 * What objects go through: null as long as none was ever encoded and none shall be. @throws ApplianceError `encryption-key-missing` when a key is not
 * there that objects may need.
 */
function encodingOf(backend: BackendSettings, recorded: Pick<VpoolFile, 'encoded' | 'keys' | 'unencrypted'>): EncodingConfig | null {
  const wanted = backend.compression !== 'none' || backend.encryption !== 'none';
  if (!recorded.encoded && !wanted) return null;
  const keys = encryptionKeys(backend);
  const missing = recorded.keys.filter((id) => !keys.some((key) => key.id === id));
  const given = backend.key !== null ? 'vpool.backend.key' : (backend.keyFile ?? 'nothing (set vpool.backend.keyFile)');
  if (missing.length > 0) {
    throw new ApplianceError(
      'encryption-key-missing',
      `objects of this vPool are encrypted with key ${missing.join(', ')}, which is not in ${given}: a wrong key file, or a key was removed that is still needed for reading`,
    );
  }
  const encryptWith = backend.encryption === 'none' ? null : (keys[0]?.id ?? null);
  // In a vPool that was always encrypted, a plain object was put there by somebody else.
  return { compression: backend.compression, encryptWith, keys, refuseUnencrypted: encryptWith !== null && !recorded.unencrypted };
}

function hostedConfig(backend: BackendSettings, file: VpoolFile, encoding: EncodingConfig | null): HostedStoreConfig {
  const common = { layout: file.layout, encoding };
  switch (backend.kind) {
    case 'directory':
      return { store: { kind: 'directory', path: backend.path, vpoolUuid: file.uuid, initialize: false }, ...common };
    case 'swift':
      return { store: swiftConfig(backend.swift), ...common };
    case 's3':
      return { store: s3Config(backend.s3, file.fence === 'backend'), ...common };
  }
}

/** One opening of a vPool that has a backend. */
class Opening implements OpenedBackend {
  readonly config: HostedStoreConfig;
  readonly #settings: Settings;
  readonly #vpool: VpoolIdentity;
  readonly #components: BackendComponents;
  #file: VpoolFile;
  #problem: Error | null = null;

  constructor(settings: Settings, file: VpoolFile, vpool: VpoolIdentity, components: BackendComponents) {
    this.#settings = settings;
    this.#vpool = vpool;
    this.#components = components;
    this.#file = file;
    const { backend } = settings.vpool;
    const config = recordedStoreConfig(settings, file);
    const { store, encoding } = config;
    const linkFiles = encoding === null && backend.kind === 'directory' && backend.hardLinks && sameFileSystem(backend.path, vpool.directory);
    this.config = store.kind === 'directory' ? { ...config, store: { ...store, linkFiles } } : config;
  }

  get file(): VpoolFile {
    return this.#file;
  }

  get problem(): Error | null {
    return this.#problem;
  }

  async open(): Promise<this> {
    const moved = JSON.stringify(this.#file.backend) !== JSON.stringify(locationOf(this.#settings.vpool.backend));
    try {
      await this.#recognise(UNREACHABLE_MS_MAX);
    } catch (error) {
      if (!(error instanceof StoreError) || isAnothers(this.config.store, error)) throw error;
      if (moved) {
        const from = locationText(this.#file.backend);
        const to = locationText(locationOf(this.#settings.vpool.backend));
        throw new ApplianceError(
          'backend-changed',
          `vPool ${this.#settings.vpool.name} has its objects in ${from}, but the settings name ${to}, where they cannot be found: ${error.message}`,
          { cause: error },
        );
      }
      this.#problem = error;
      this.#components.logger.warn({ err: error }, `the backend is not there: serving what is local, and waiting for it: ${error.message}`);
    }
    this.#recordBeforeUse();
    return this;
  }

  async confirmed(signal: AbortSignal): Promise<void> {
    while (this.#problem !== null && !signal.aborted) {
      try {
        await pause(this.#components.clock, CONFIRM_EVERY_MS, signal, 'wait for the backend');
        await this.#recognise(0, signal);
        this.#problem = null;
      } catch (error) {
        if (!(error instanceof StoreError) || isAnothers(this.config.store, error)) throw error;
        if (!signal.aborted) this.#problem = error;
      }
    }
  }

  /** What the next object may go through is durable before there is one. */
  #recordBeforeUse(): void {
    const { store, encoding } = this.config;
    const key = encoding?.encryptWith ?? null;
    const next: VpoolFile = {
      ...this.#file,
      encoded: this.#file.encoded || encoding !== null,
      keys: key === null || this.#file.keys.includes(key) ? this.#file.keys : [...this.#file.keys, key],
      unencrypted: this.#file.unencrypted || key === null,
      linked: this.#file.linked || (store.kind === 'directory' && store.linkFiles === true),
    };
    this.#write(next);
  }

  #write(next: VpoolFile): void {
    if (JSON.stringify(next) === JSON.stringify(this.#file)) return;
    writeVpoolFile(this.#vpool.directory, next);
    this.#file = next;
  }

  /**
   * Looks whether the backend is this vPool's; then remembers where it is. @throws ApplianceError `backend-foreign`; StoreError when that cannot be said
   * after `patienceMs`.
   */
  async #recognise(patienceMs: number, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#components;
    // Plain: the identity object is not encoded. It is read here and not in a thread, before there are any.
    await using made = await makeStore({ ...this.config, encoding: null });
    const name = identityName(this.#vpool.uuid);
    const bucket = namespaceBucket(this.#settings.vpool.name, this.#vpool.uuid);
    const startedMs = clock.monotonicMs();
    for (;;) {
      try {
        if (!this.#file.identity) {
          // A vPool of vferry 0.1, on a directory whose marker says that it is the right one.
          await putIdentity(made.store, this.#settings, this.#vpool.uuid, this.#file.layout, this.#components);
          break;
        }
        const found = await bounded(clock, signal, (inner) =>
          made.store.get(bucket, name, { offsetBytes: 0, lengthBytes: IDENTITY_BYTES_MAX }, inner),
        );
        if (found.kind === 'found') {
          checkIdentity(found.bytes, this.#vpool.uuid, `${bucket}/${name}`);
          break;
        }
        // A store may be behind, or have parts down: not at once a reason to call it another's.
        if (clock.monotonicMs() - startedMs > ABSENT_MS_MAX) {
          throw new ApplianceError(
            'backend-foreign',
            `${locationText(locationOf(this.#settings.vpool.backend))} answers, but has no ${bucket}/${name}: it is not the backend of vPool ${this.#settings.vpool.name} (another account, project or bucket?), or was emptied`,
          );
        }
      } catch (error) {
        if (!(error instanceof StoreError) || error.class !== 'retry' || clock.monotonicMs() - startedMs > patienceMs) throw error;
      }
      await pause(clock, LOOK_EVERY_MS, signal, 'look for the identity object');
    }
    this.#write({ ...this.#file, identity: true, backend: locationOf(this.#settings.vpool.backend) });
  }
}

/** A directory denies when its marker names another vPool. Of a service it is a matter of credentials, which somebody may repair while the router serves. */
function isAnothers(store: BareStoreConfig, error: StoreError): boolean {
  return store.kind === 'directory' && (error.class === 'denied' || error.class === 'corrupt');
}

function identityName(vpoolUuid: string): string {
  return `vpool-${vpoolUuid}`;
}

async function putIdentity(
  store: ObjectStore,
  settings: Settings,
  uuid: string,
  layout: VpoolFile['layout'],
  components: BackendComponents,
): Promise<void> {
  const { name } = settings.vpool;
  const bucket = namespaceBucket(name, uuid);
  const createdAt = new Date(components.clock.wallMs()).toISOString();
  const text = `${JSON.stringify({ format: IDENTITY_FORMAT, version: 1, uuid, name, layout: layout.kind, createdAt })}\n`;
  await bounded(components.clock, undefined, (signal) => store.createBucket(bucket, signal));
  await bounded(components.clock, undefined, (signal) =>
    store.put(bucket, identityName(uuid), { kind: 'bytes', chunks: [Buffer.from(text)] }, signal),
  );
}

/** @throws ApplianceError `backend-foreign` */
function checkIdentity(bytes: Buffer, vpoolUuid: string, where: string): void {
  let value: unknown = null;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    // Not JSON is not ours.
  }
  const identity = (typeof value === 'object' && value !== null ? value : {}) as Readonly<Record<string, unknown>>;
  if (identity['format'] === IDENTITY_FORMAT && identity['version'] === 1 && identity['uuid'] === vpoolUuid) return;
  throw new ApplianceError('backend-foreign', `${where} on the backend is not the identity of vPool ${vpoolUuid}: it is another's, or damaged`);
}

/** A call that ends. */
async function bounded<T>(clock: Clock, outer: AbortSignal | undefined, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const cancel = clock.after(CALL_MS_MAX, () => controller.abort(new Error(`no answer within ${CALL_MS_MAX / 1000} s`)));
  const signal = outer === undefined ? controller.signal : AbortSignal.any([controller.signal, outer]);
  try {
    return await call(signal);
  } finally {
    cancel();
  }
}

function sameFileSystem(first: string, second: string): boolean {
  try {
    return statSync(first).dev === statSync(second).dev;
  } catch {
    // Not mounted: whatever it is, a hard link across it cannot be made now.
    return false;
  }
}
