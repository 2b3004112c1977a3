/** What the command does with vPools and backends beside serving (composition of vpool-port.ts). */
import { join } from 'node:path';

import { generateKey as newKey } from '../backends/encoding/key-file.ts';
import type { ProbeReport } from '../backends/probe/probe-report.ts';
import { openSqliteRegistry, SQLITE_REGISTRY_DEFAULTS } from '../registry/sqlite/sqlite-registry.ts';
import { locationOf, locationText } from './backend-config.ts';
import { probeBackend } from './backend-probe.ts';
import { ApplianceError } from './core/errors.ts';
import { silentLogger } from './core/logger.ts';
import { nodeDisk } from './core/node-disk.ts';
import { systemClock, systemRandom } from './core/node-time.ts';
import { openDataDirectory, readVpoolFile } from './data-directory.ts';
import type { BackendSettings } from './settings/backend-settings.ts';
import type { Settings } from './settings/settings.ts';
import { createBackend, layoutOf } from './vpool-backend.ts';
import type { CreatedVpool, ProbeOptions } from './vpool-port.ts';

const COMPONENTS = { clock: systemClock, random: systemRandom, logger: silentLogger };

/** See CreateVpool (vpool-port.ts). */
export async function createVpool(settings: Settings, options: ProbeOptions): Promise<CreatedVpool> {
  const { name, backend } = settings.vpool;
  if (settings.registry.kind === 'redis') {
    throw new ApplianceError(
      'registry-shared',
      'with registry.kind redis the first router that starts makes the vPool; vferry backend test tries the backend out',
    );
  }
  await using stack = new AsyncDisposableStack();
  stack.use(openDataDirectory(settings.data, systemRandom));
  const directory = join(settings.data, 'vpools', name);
  if (readVpoolFile(directory) !== null) throw new ApplianceError('vpool-exists', `${settings.data} has a vPool ${name} already`);
  await nodeDisk.makeDirectory(directory);
  const registry = stack.use(
    await openSqliteRegistry({
      path: join(directory, 'registry.db'),
      vpoolName: name,
      ...COMPONENTS,
      settings: { ...SQLITE_REGISTRY_DEFAULTS, inlineBytesMax: settings.vpool.inlineBytesMax },
    }),
  );
  const { uuid } = registry.vpool;
  const report = await createBackend(settings, { directory, uuid }, { ...COMPONENTS, ...options }, options.effort);
  return { uuid, backend: locationText(locationOf(backend)), report };
}

/** See TestBackend (vpool-port.ts). */
export async function testBackend(backend: BackendSettings, options: ProbeOptions): Promise<ProbeReport> {
  // Without a bucket to put everything into, buckets can be tried without making one that stays.
  const layout = backend.bucket === null ? ({ kind: 'buckets' } as const) : layoutOf(backend, '', '');
  return await probeBackend(backend, layout, { ...COMPONENTS, ...options }, { effort: options.effort, lasting: false });
}

/** See GenerateKey (vpool-port.ts). */
export function generateKey(): string {
  return newKey(systemRandom);
}
