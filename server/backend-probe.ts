/** Probing a backend that settings name (composition of `backends/probe/`). */
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { DirectoryStore } from '../backends/directory/directory-store.ts';
import { makeStore } from '../backends/make-store.ts';
import { type ObjectStore, StoreError } from '../backends/object-store.ts';
import type { ProbeReport } from '../backends/probe/probe-report.ts';
import { type ProbeSettings, probeStore } from '../backends/probe/probe.ts';
import { clockSkewMs } from '../backends/probe/server-time.ts';
import type { BareStoreConfig, HostedStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { s3Config, swiftConfig } from './backend-config.ts';
import type { Clock, Random } from './core/time.ts';
import type { BackendSettings } from './settings/backend-settings.ts';
import { bounded } from './vpool-identity.ts';

const S3_CLOCK_SKEW_MS_MAX = 15 * 60 * 1000;

export interface ProbeEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  /** Is told what comes next, for people. */
  readonly progress?: (text: string) => void;
  /** Ends the probe early; it still cleans up. */
  readonly signal?: AbortSignal;
}

/**
 * Tries out a backend of these settings, in a bucket that it removes again; see `probeStore`. The one bucket of layout prefix is removed, too, if it was
 * made here and is not needed at once (`lasting`): some stores do not let a name be used again so soon.
 */
export async function probeBackend(
  backend: BackendSettings,
  layout: HostedStoreConfig['layout'],
  components: ProbeEnvironment,
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
      signal: components.signal,
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
