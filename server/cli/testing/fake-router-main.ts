/** The `vferry` command with a router that does nothing but what FAKE_ROUTER (JSON) says: for the tests of the command. */
import type { ProbeReport } from '../../../backends/probe/probe-report.ts';
import { assert } from '../../core/assert.ts';
import { ApplianceError } from '../../core/errors.ts';
import type { FsckEvent } from '../../fsck-port.ts';
import type {
  BackendHealth,
  BackendTraffic,
  BackendUsage,
  Problem,
  Router,
  RouterAddresses,
  RouterDependencies,
  RouterStatus,
} from '../../router-port.ts';
import type { BackendSettings } from '../../settings/backend-settings.ts';
import type { Settings } from '../../settings/settings.ts';
import { runCommand } from '../command.ts';

export interface FakeRouterPlan {
  /** The start takes that long, or until the process is sent SIGUSR2. */
  readonly startDelayMs?: number | 'until-told';
  readonly startFails?: boolean;
  readonly closeDelayMs?: number;
  /** After the start. `three-signals`: SIGINT twice as from one Ctrl-C, and once more later. */
  readonly afterwards?: 'three-signals' | 'throw' | 'reject' | 'assert' | 'fatal' | 'begin-anew' | 'chatter' | 'chatter-then-throw';
  readonly ready?: boolean;
  readonly problems?: readonly Problem[];
  readonly findings?: readonly FsckEvent[];
  readonly fsckFails?: 'environment' | 'system' | 'bug';
  readonly createFails?: 'backend-unfit' | 'vpool-exists' | 'data-locked';
  readonly verdict?: ProbeReport['verdict'];
  readonly portmap?: RouterAddresses['portmap'];
}

const plan = JSON.parse(process.env['FAKE_ROUTER'] ?? '{}') as FakeRouterPlan;

/** SIGUSR2 came. Listened for before anybody can send it. */
const told = new Promise<void>((resolve) => {
  process.once('SIGUSR2', () => resolve());
});

const HEALTH: BackendHealth = { condition: 'slow', since: '2026-01-01T00:00:00.000Z', message: 'a get has had no answer for 1250 ms' };
const TRAFFIC: BackendTraffic = {
  requests: { get: 40, put: 64, head: 0 },
  failed: 2,
  writtenBytes: 256 * 1024 * 1024,
  readBytes: 4096,
  cost: 0.0123456,
  costPerMonth: 1.5,
};

function backendUsage(bucketsMax: number): BackendUsage {
  const volume = { ...TRAFFIC, bucket: 'vf-vpool1-00', content: 'volume' as const, path: '/vm1/vm1-flat.vmdk' };
  const files = { ...TRAFFIC, bucket: 'vf-vpool1-files', content: 'files' as const, path: null, cost: 0 };
  return {
    backend: 'directory:somewhere',
    health: HEALTH,
    since: '2026-01-01T00:00:00.000Z',
    seconds: 3600,
    currency: 'USD',
    total: TRAFFIC,
    buckets: [volume, files].slice(0, bucketsMax),
    others: { requests: {}, failed: 0, writtenBytes: 0, readBytes: 0, cost: 0, costPerMonth: 0, bucketCount: 5 },
    storage: { usedBytes: 2 ** 40, costPerMonth: 25.3 },
  };
}

function status(settings: Settings, addresses: RouterAddresses): RouterStatus {
  return {
    vpool: settings.vpool.name,
    version: '0.0.0',
    routerId: 'aa',
    incarnation: 'bb',
    startedAt: '2026-01-01T00:00:00.000Z',
    addresses,
    backend: `${settings.vpool.backend.kind}:somewhere`,
    backendStorage: { bucket: 'vms', fence: 'registry', compression: 'zstd', encryptionKey: '0123456789abcdef' },
    backendHealth: HEALTH,
    backendTraffic: { ...TRAFFIC, currency: 'USD' },
    volumesOpen: 3,
    dirtyBytes: 5 * 1024 * 1024,
    inodes: 17,
    usedBytes: 1024,
    freeBytes: 2048,
    clients: [{ address: '127.0.0.1', connections: 2 }],
    problems: plan.problems ?? [],
  };
}

function misbehave({ logger, fatal, beginAnew }: RouterDependencies): void {
  switch (plan.afterwards) {
    case 'three-signals':
      // From within: by `kill` the second could come late on a slow machine, or be one with the first.
      process.emit('SIGINT');
      process.emit('SIGINT');
      // Due before the deadline of the close, which is a timer of this process, too.
      setTimeout(() => {
        logger.info({}, 'alive after the same signal twice');
        process.emit('SIGINT');
      }, 700);
      return;
    case 'throw':
      throw new TypeError('a bug, thrown');
    case 'reject':
      void Promise.reject(new TypeError('a bug, rejected'));
      return;
    case 'assert':
      assert(false, 'the epoch only grows');
      return;
    case 'fatal':
      fatal(new ApplianceError('incarnation-dead', 'another router has taken over'));
      return;
    case 'begin-anew':
      // The second life is quiet.
      if (process.env['VFERRY_BEGUN_ANEW'] === undefined) beginAnew(new ApplianceError('lease-lapsed', 'the lease lapsed'));
      return;
    case 'chatter':
    case 'chatter-then-throw':
      for (let line = 0; line < 200_000; line++) logger.info({ line, text: 'x'.repeat(100) }, 'chatter');
      if (plan.afterwards === 'chatter-then-throw') throw new TypeError('a bug, thrown');
      return;
    case undefined:
  }
}

async function startRouter(settings: Settings, dependencies: RouterDependencies): Promise<Router> {
  const { startDelayMs = 0 } = plan;
  await (startDelayMs === 'until-told' ? told : new Promise((resolve) => setTimeout(resolve, startDelayMs)));
  if (plan.startFails === true) throw new ApplianceError('data-locked', `another router runs on ${settings.data}; stop it first`);
  dependencies.metrics.gaugeSource('vferry_dirty_bytes', 'Bytes not on the backend yet.', () => 42);
  dependencies.nfsObserver.started(6);
  dependencies.nfsObserver.finished(6, 0, 0.5, 4096, 0);
  setTimeout(() => misbehave(dependencies), 50);
  // Something must keep the process alive, as sockets do.
  const alive = setInterval(() => undefined, 1000);
  const addresses: RouterAddresses = {
    listen: settings.nfs.listen,
    nfsPort: settings.nfs.port,
    mountPort: settings.nfs.port,
    portmap: plan.portmap ?? 'none',
  };
  return {
    addresses,
    cluster: null,
    status: () => status(settings, addresses),
    ready: () => ({ ready: plan.ready ?? true, problems: plan.problems ?? [] }),
    backendUsage: (bucketsMax) => Promise.resolve(backendUsage(bucketsMax)),
    async close() {
      await new Promise((resolve) => setTimeout(resolve, plan.closeDelayMs ?? 0));
      clearInterval(alive);
      dependencies.logger.info({}, 'fake router closed');
    },
  };
}

/** A report whose finding is what was asked for. */
function reportOf(backend: BackendSettings): ProbeReport {
  const figures = {
    readAfterWriteMs: 0,
    listAfterWriteMs: 0,
    clockSkewMs: null,
    putMs: 7.25,
    getMs: 3,
    uploadBytesPerSecond: 1e8,
    downloadBytesPerSecond: 2e8,
  };
  const { verdict = 'fit' } = plan;
  return {
    verdict,
    findings: [{ weight: verdict === 'unfit' ? 'unfit' : 'note', text: JSON.stringify(backend) }],
    fence: 'registry',
    conditionalPut: false,
    figures,
  };
}

const exitCode = await runCommand(process.argv.slice(2), {
  startRouter,
  async createVpool(settings, { effort, progress }) {
    progress(`trying, ${effort}`);
    if (plan.createFails !== undefined) throw new ApplianceError(plan.createFails, 'it must not be');
    return { uuid: 'ab'.repeat(16), backend: `${settings.vpool.backend.kind} somewhere`, report: reportOf(settings.vpool.backend) };
  },
  async testBackend(backend, { effort, progress }) {
    progress(`trying, ${effort}`);
    return reportOf(backend);
  },
  generateKey: async () => 'a key',
  clusterCertificates: async () => (await import('../../cluster-certificates.ts')).clusterCertificates,
  async fsck(_settings, _logger, event) {
    switch (plan.fsckFails) {
      case 'environment':
        throw new ApplianceError('data-locked', 'a router runs on it');
      case 'system':
        throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES', syscall: 'open' });
      case 'bug':
        throw new TypeError('undefined is not a function');
      case undefined:
    }
    const findings = plan.findings ?? [];
    for (const finding of findings) event(finding);
    const damages = findings.filter((finding) => finding.kind === 'finding' && finding.severity === 'damage').length;
    return { damages, warnings: findings.filter((finding) => finding.kind === 'finding').length - damages, checked: { inodes: 3, segments: 2 } };
  },
});
process.exit(exitCode);
