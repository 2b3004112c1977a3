/**
 * The backend of a vPool: made once, after a probe, and opened at every start (docs/formats/data-directory.md, docs/formats/vpool-identity.md). What is
 * recorded in `vpool.json` decides, the settings only say how to get there: another kind, layout or bucket is refused, another address is taken when
 * the vPool's identity object is found there.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';

import { pause } from '../backends/abort.ts';
import { DirectoryStore } from '../backends/directory/directory-store.ts';
import type { EncodingConfig } from '../backends/encoding/encoding-config.ts';
import { makeStore } from '../backends/make-store.ts';
import { StoreError } from '../backends/object-store.ts';
import { type ProbeReport, probeText } from '../backends/probe/probe-report.ts';
import type { ProbeSettings } from '../backends/probe/probe.ts';
import type { BareStoreConfig, HostedStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { encryptionKeys, locationOf, locationText, s3Config, swiftConfig } from './backend-config.ts';
import { probeBackend, type ProbeEnvironment } from './backend-probe.ts';
import { ApplianceError } from './core/errors.ts';
import type { Logger } from './core/logger.ts';
import { readVpoolFile, type VpoolFile, writeVpoolFile } from './data-directory.ts';
import { MountCheck } from './mount-check.ts';
import type { BackendSettings } from './settings/backend-settings.ts';
import type { Settings } from './settings/settings.ts';
import { namespaceBucket } from './volume-driver/storage-names.ts';
import { putIdentity, requireIdentity } from './vpool-identity.ts';

/** How long a start waits for a backend that does not answer. */
const UNREACHABLE_MS_MAX = 2000;
/** What a file system is given to answer a stat. */
const MOUNT_MS_MAX = 5000;
/** While it serves without having seen the backend. */
const CONFIRM_EVERY_MS = 2000;

export interface BackendComponents extends ProbeEnvironment {
  readonly logger: Logger;
  /** Looks at a path without blocking the main thread. Default: stat. */
  readonly stat?: (path: string) => Promise<unknown>;
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
  await putIdentity(made.store, { settings, uuid: vpool.uuid }, components.clock);
  writeVpoolFile(vpool.directory, file);
  return report;
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
  readonly #mount: MountCheck | null;
  #config: HostedStoreConfig;
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
    this.#config = recordedStoreConfig(settings, file);
    this.#mount = backend.kind === 'directory' ? new MountCheck(backend.path, components.clock, components.stat) : null;
  }

  get config(): HostedStoreConfig {
    return this.#config;
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
      this.#linkIfPossible();
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

  /** Whole segments become objects by hard links where they can; not while the backend is away, since nothing can be said then. */
  #linkIfPossible(): void {
    const { store, encoding } = this.#config;
    const { backend } = this.#settings.vpool;
    if (store.kind !== 'directory' || backend.kind !== 'directory') return;
    const linkFiles = encoding === null && backend.hardLinks && sameFileSystem(backend.path, this.#vpool.directory);
    this.#config = { ...this.#config, store: { ...store, linkFiles } };
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
    if (this.#mount !== null && !(await this.#mount.responds(MOUNT_MS_MAX))) {
      throw new StoreError(
        'retry',
        `the file system of ${locationText(locationOf(this.#settings.vpool.backend))} does not answer: is its server there?`,
      );
    }
    // Plain: the identity object is not encoded. It is read here and not in a thread, before there are any.
    await using made = await makeStore({ ...this.config, encoding: null });
    const subject = { settings: this.#settings, uuid: this.#vpool.uuid };
    // A vPool of vferry 0.1 has none, but is on a directory, whose marker says whether it is the right one.
    if (!this.#file.identity) await putIdentity(made.store, subject, clock, signal);
    else await requireIdentity(made.store, subject, clock, { unreachableMs: patienceMs, ...(signal === undefined ? {} : { signal }) });
    this.#write({ ...this.#file, identity: true, backend: locationOf(this.#settings.vpool.backend) });
  }
}

/** A directory denies when its marker names another vPool. Of a service it is a matter of credentials, which somebody may repair while the router serves. */
function isAnothers(store: BareStoreConfig, error: StoreError): boolean {
  return store.kind === 'directory' && (error.class === 'denied' || error.class === 'corrupt');
}

function sameFileSystem(first: string, second: string): boolean {
  try {
    return statSync(first).dev === statSync(second).dev;
  } catch {
    // Not mounted: whatever it is, a hard link across it cannot be made now.
    return false;
  }
}
