/**
 * Composition root of a router: the only place (with the tests) that sees concrete classes. Starts from the bottom, stops from the top.
 */
import { createHmac } from 'node:crypto';
import { join } from 'node:path';

import { BlockCache } from '../cache/block-cache.ts';
import type { OwnerRecord } from '../registry/ports.ts';
import { BackendStack } from './backend-stack.ts';
import { backendUsage, trafficOf } from './backend-usage.ts';
import { VERSION } from './cli/version.ts';
import { clusterProblems } from './cluster-problems.ts';
import { errorCode } from './core/errors.ts';
import type { Incarnation, ObjectUuid } from './core/ids.ts';
import { ENDLESS_LEASE } from './core/lease.ts';
import { nodeDisk } from './core/node-disk.ts';
import { systemClock, systemRandom } from './core/node-time.ts';
import { timestampOf } from './core/time.ts';
import { hintFile, openDataDirectory } from './data-directory.ts';
import { PieceWriteBack } from './file-driver/piece-write-back.ts';
import { ExportRules } from './nfsd/export-rules.ts';
import { MountProgram } from './nfsd/mount-program.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfsd/nfs-program.ts';
import { PORTMAP_PORT } from './nfsd/portmap-program.ts';
import { SystemPortmapper } from './nfsd/register-portmap.ts';
import { settleForeign } from './object-log/foreign-segments.ts';
import { SegmentFiles } from './object-log/segment-files.ts';
import { CapacityWatch } from './object-router/capacity-watch.ts';
import { GarbageSchedule } from './object-router/garbage-schedule.ts';
import { Handles } from './object-router/handles.ts';
import { InodeWatch } from './object-router/inode-watch.ts';
import { NamespaceArchive } from './object-router/namespace-archive.ts';
import { ObjectPlaces } from './object-router/object-places.ts';
import { ObjectRouter } from './object-router/object-router.ts';
import { OpenObjects } from './object-router/open-objects.ts';
import { Reclaimer } from './object-router/reclaimer.ts';
import { RouterCore } from './object-router/router-core.ts';
import { recoverObjects, surveyObjects } from './object-router/startup-recovery.ts';
import { RpcServer } from './oncrpc/rpc-server.ts';
import type { BackendHealth, Problem, Router, RouterDependencies } from './router-port.ts';
import { listen } from './router-ports.ts';
import { joinCluster, openEmbedded } from './router-registry.ts';
import type { Settings } from './settings/settings.ts';
import { stuckThreads } from './stuck-threads.ts';
import { BLOCK_BYTES, BLOCKS_MAX } from './volume-driver/extent-map.ts';
import { PagePool } from './volume-driver/page-pool.ts';
import { countingRowIds } from './volume-driver/segment-table.ts';
import { fileNames, filesBucket, namespaceBucket, volumeNames, volumeOfBucket } from './volume-driver/storage-names.ts';
import { StoredWriter } from './volume-driver/stored-writer.ts';
import { VolumeDriver } from './volume-driver/volume-driver.ts';
import { WriteAdmission } from './volume-driver/write-admission.ts';
import { openBackend } from './vpool-backend.ts';

const MIB = 1024 * 1024;
/** Room in a preallocated segment file beside its payload: record heads of 4 KiB writes, index, footer. */
const SEGMENT_OVERHEAD_SHARE = 1 / 24;
const POOL_FILES_MAX = 64;
/** Share of the local file system that files kept ready for new segments may take. */
const POOL_SHARE_MAX = 1 / 50;
/** A write that waited this long at the dirty bound is answered JUKEBOX, so that other calls of its connection go on (esxi.md 1.3). */
const WRITE_PATIENCE_MS = 15_000;

/** What a datastore on an object store shows as its size unless the settings say more: the largest that ESXi takes. */
const OBJECT_STORE_BYTES = 64 * 2 ** 40;

/** How long listings of an object store may lag, and requests that were given up may go on. */
const LIST_SETTLE_MS = 60_000;

/** How long the loop goes on turning after a message: waking from sleep costs a client that waits for each answer 30-40 us (bench/). */
const SPIN_MS = 0.1;

/** See StartRouter (router-port.ts). */
export async function startRouter(settings: Settings, dependencies: RouterDependencies): Promise<Router> {
  const { logger, metrics } = dependencies;
  const clock = systemClock;
  const random = systemRandom;
  const disk = nodeDisk;
  await using stack = new AsyncDisposableStack();
  const data = stack.use(openDataDirectory(settings.data, random));
  const directory = join(settings.data, 'vpools', settings.vpool.name);
  for (const name of ['', 'tmp']) await disk.makeDirectory(join(directory, name));
  for (const name of await disk.list(join(directory, 'tmp'))) await disk.unlink(join(directory, 'tmp', name));

  const incarnation = random.bytes(16).toString('hex') as Incarnation;
  const self = { router: data.routerId, incarnation };
  const opening = { settings, directory, self, clock, random, logger, disk, dependencies };
  const clustered = settings.registry.kind === 'redis' ? stack.use(await joinCluster(opening)) : null;
  const registry = clustered?.registry ?? stack.use(await openEmbedded(opening));
  const cluster = clustered?.cluster ?? null;

  const opened = await openBackend(
    settings,
    { directory, uuid: registry.vpool.uuid },
    { clock, random, logger: logger.child({ part: 'backend' }), progress: (text) => logger.debug({ part: 'probe' }, `probing the backend: ${text}`) },
  );
  const abandon = new AbortController();
  stack.defer(() => abandon.abort());
  void opened.confirmed(abandon.signal).catch(dependencies.fatal);
  const names = { volume: volumeNames(settings.vpool.name), file: fileNames(filesBucket(settings.vpool.name, registry.vpool.uuid)) };
  const backend = new BackendStack(
    { clock, random, logger: logger.child({ part: 'backend' }), storeObserver: dependencies.storeObserver },
    {
      store: opened.config,
      concurrency: settings.vpool.backend.concurrency,
      prices: settings.vpool.backend.prices,
      probeBucket: names.file.bucket('' as never, ''),
      held: () => opened.problem,
    },
  );
  const { store } = backend;
  stack.defer(async () => {
    stuckThreads.count += (await backend.close()).stuckThreads;
  });

  const space = await disk.space(directory);
  const files = await SegmentFiles.open(
    { disk, clock, logger: logger.child({ part: 'segments' }) },
    {
      directory,
      segmentFileBytes: Math.ceil(settings.log.segmentBytes * (1 + SEGMENT_OVERHEAD_SHARE)),
      poolFilesMax: Math.max(2, Math.min(POOL_FILES_MAX, Math.floor((space.totalBytes * POOL_SHARE_MAX) / settings.log.segmentBytes))),
      cacheBytesMax: settings.cache.ssdBytes,
      reserveBytes: Math.min(256 * MIB, Math.floor(space.totalBytes / 20)),
      recycle: !opened.file.linked,
    },
  );
  stack.defer(() => files.close());
  const pool = await PagePool.open(
    { disk, spillPath: join(directory, 'spill.tmp'), yieldToLoop: () => new Promise((resolve) => clock.soon(resolve)) },
    { bytesMax: settings.cache.mapBytes },
  );
  stack.defer(() => pool.close());
  const cache = new BlockCache({ limitBytes: settings.cache.ramBytes });
  const admission = new WriteAdmission(
    { clock, dirtyBytes: () => files.dirtyBytes, drainedBytes: () => files.drainedBytes },
    settings.log.dirtyBytesMax,
  );
  const writer = new StoredWriter({ store, clock, random, disk }, join(directory, 'tmp'));
  const syncLatency = metrics.histogram('vferry_log_sync_seconds', 'fdatasync of a segment of the log.');
  const driver = new VolumeDriver(
    {
      disk,
      files,
      store,
      writer,
      cache,
      pool,
      rowIds: countingRowIds(),
      registry,
      clock,
      random,
      logger: logger.child({ part: 'objects' }),
      admission,
      syncLatency,
      names,
      writeBack: { volume: null, file: (object) => new PieceWriteBack(object) },
      recovered: (fileid, calls) => cluster?.repetitions.recovered(fileid, calls),
      keepCalls: (fileid, durable) => cluster?.repetitions.keep(fileid, durable) ?? Promise.resolve(),
      isMemoryLost: cluster?.isMemoryLost ?? false,
    },
    {
      segmentBytes: settings.log.segmentBytes,
      sealAfterMs: settings.log.sealAfterMs,
      checkpointAfterBytes: settings.log.checkpointAfterBytes,
      graceTimeMs: settings.vpool.graceTimeMs,
      patienceMs: WRITE_PATIENCE_MS,
      restMs: cluster === null ? 0 : settings.cluster.cleanAfterMs,
      readAheadBytesMax: Math.min(128 * MIB, settings.cache.ramBytes / 4),
    },
    self,
  );
  stack.defer(() => driver.recall.close());
  // Nobody outside the vPool's routers and its backend knows the uuid: a key made of it keeps clients from making handles up.
  const derived = (purpose: string): Buffer => createHmac('sha256', Buffer.from(registry.vpool.uuid, 'hex')).update(purpose).digest();
  const handles = new Handles(derived('vpool').subarray(0, 4), derived('file handles'));
  const fsid = derived('fsid').readBigUInt64BE(0);
  const garbage = await GarbageSchedule.open(hintFile(join(directory, 'garbage.json')), logger);
  const objects = new OpenObjects(
    {
      driver,
      namespace: registry.namespace,
      garbage,
      clock,
      logger: logger.child({ part: 'objects' }),
      cededCounter: (fileid) => cluster?.journal.cededCounter(fileid) ?? 0,
      isElsewhere: async (fileid) => ((await registry.ownership.owner(fileid))?.router ?? data.routerId) !== data.routerId,
    },
    { fsid, handleOf: (inode) => handles.encode(inode.fileid, inode.inodeGeneration) },
  );
  stack.defer(() => objects.close(clock.monotonicMs()));
  const places = new ObjectPlaces({ registry, objects, clock, lease: clustered?.registry.lease ?? ENDLESS_LEASE, cluster: cluster?.parts ?? null });
  const core = new RouterCore({ registry, objects, handles, places, clock, logger: logger.child({ part: 'router' }) }, { fsid, incarnation });
  const reclaimer = new Reclaimer(
    {
      namespace: registry.namespace,
      store,
      names: {
        locate: (inode, uuid) =>
          inode.class === 'volume'
            ? { bucket: names.volume.bucket(uuid, ''), prefix: '', ownBucket: true }
            : { bucket: names.file.bucket(uuid, ''), prefix: `${uuid}.`, ownBucket: false },
      },
      dropLocal: (uuid) => files.dropObject(uuid),
      unlink: (fileid) => objects.unlink(fileid),
      mayDelete: () => cluster === null || cluster.isFirst,
      ended: (fileid) => objects.ended(fileid),
      mutation: () => ({ operationId: null, incarnation, now: timestampOf(clock.wallMs()), notAfterMs: Infinity }),
      clock,
      logger: logger.child({ part: 'reclaimer' }),
    },
    { graceTimeMs: settings.vpool.graceTimeMs, settleMs: settings.vpool.backend.kind === 'directory' ? 0 : LIST_SETTLE_MS },
  );
  stack.defer(() => reclaimer.stop());
  // A single router makes all changes itself.
  const inodes =
    cluster === null ? null : new InodeWatch({ objects, namespace: registry.namespace, clock, logger: logger.child({ part: 'router' }) });
  stack.defer(() => inodes?.stop());
  const archive = new NamespaceArchive(
    { outbox: registry.outbox, store, writer, clock, random, logger: logger.child({ part: 'archive' }) },
    namespaceBucket(settings.vpool.name, registry.vpool.uuid),
  );
  stack.defer(() => archive.stop());
  backend.watch(() => [...objects.problems()].some(({ error }) => error.name === 'StoreError'));
  backend.state.onRecovered(() => {
    objects.backendRecovered();
    reclaimer.backendRecovered();
  });
  const capacity = new CapacityWatch({ disk, clock, registry, pendingBytes: () => reclaimer.pendingBytes }, capacityOf(settings));
  await capacity.start();
  stack.defer(() => capacity.stop());

  const fileSystem = new ObjectRouter(
    { core, capacity: () => capacity, unlinked: (inode) => reclaimer.unlinked(inode) },
    {
      volumePatterns: settings.vpool.volumePatterns,
      allWritesStable: settings.vpool.allWritesStable,
      fileSizeMaxBytes: BLOCKS_MAX * BLOCK_BYTES,
    },
  );
  const given =
    clustered === null
      ? null
      : {
          fileidOf: (uuid: ObjectUuid) => clustered.cluster.journal.fileidOf(uuid),
          settle: (owner: OwnerRecord) => settleForeign({ disk, files }, owner),
        };
  const waiting = surveyObjects({ registry, files, router: data.routerId, logger, given });
  // Nothing is received before what earlier attempts left was looked at. A single router begins to listen meanwhile.
  if (cluster !== null) await waiting;
  cluster?.serve({ core, objects, router: fileSystem, driver, records: clustered!.records });
  stack.defer(() => cluster?.quiet());
  const control =
    clustered?.cluster.control({
      generation: () => clustered.generation(),
      recovering: () => places.recovering.size,
      forgetRouter: (router) => clustered.forgetRouter(router),
    }) ?? null;
  const access = new ExportRules([
    {
      name: settings.vpool.name,
      rules: [
        {
          networks: settings.exports.clients,
          readOnly: false,
          squash: settings.exports.squash,
          anonymousUid: settings.exports.anonymousUid,
          anonymousGid: settings.exports.anonymousGid,
        },
      ],
    },
  ]);
  const server = new RpcServer({
    clock,
    logger: logger.child({ part: 'rpc' }),
    spinMs: SPIN_MS,
    limits: { connectionBytesMax: settings.nfs.inflightBytesMaxPerConnection, connectionsMax: settings.nfs.connectionsMax },
  });
  let serverClosing: Promise<void> | null = null;
  const closeServer = (deadlineMs: number): Promise<void> => (serverClosing ??= server.close(deadlineMs));
  stack.defer(() => closeServer(500));
  const nfs = new NfsProgram(
    { fileSystem, access, clock, logger: logger.child({ part: 'nfsd' }), observer: dependencies.nfsObserver },
    { ...DEFAULT_NFS_SETTINGS, exportName: settings.vpool.name },
  );
  const ports = await listen(
    {
      server,
      nfs,
      mount: new MountProgram({ fileSystem, access, logger: logger.child({ part: 'mount' }) }),
      clock,
      logger,
      foreign: new SystemPortmapper({ host: '127.0.0.1', port: PORTMAP_PORT, timeoutMs: 2000 }),
    },
    settings.nfs,
  );
  stack.defer(() => ports.close());

  const recovery = waiting
    .then((found) => recoverObjects(objects, found, logger))
    .then(
      (all) => {
        core.settled = true;
        if (all) cluster?.settled();
      },
      (error: unknown) => logger.error({ err: error }, 'the objects of the last run could not all be looked at; each is recovered when it is used'),
    );
  reclaimer.start();
  inodes?.start();
  archive.start();
  announce();

  const startedMs = clock.wallMs();
  const startedAt = new Date(startedMs).toISOString();
  const resources = stack.move();
  let closing: Promise<void> | null = null;
  let usage = { inodes: 0, usedBytes: 0 };

  function problems(): { blocking: Problem[]; other: Problem[] } {
    const blocking: Problem[] = [];
    const other: Problem[] = [];
    const registryHealth = registry.health();
    if (registryHealth !== null) blocking.push({ code: 'registry', message: registryHealth });
    if (files.problem !== null) blocking.push({ code: 'local-disk', message: files.problem });
    for (const { fileid, error, closed } of objects.problems()) {
      const code = errorCode(error) ?? 'object';
      const problem = { code, message: `object ${fileid}: ${error.message}` };
      // An open object goes on without its backend; one that could not be opened does not.
      (error.name === 'StoreError' && !closed ? other : blocking).push(problem);
      if (blocking.length + other.length > 50) break;
    }
    for (const [fileid, reason] of places.recovering) other.push({ code: 'recovering', message: `object ${fileid}: ${reason}` });
    const pressure = admission.condition;
    if (pressure !== 'open') {
      const drain = Math.round(admission.drainBytesPerSecond);
      const message = `${files.dirtyBytes} bytes are not on the backend yet, ${Math.round(admission.fill * 100)} % of log.dirtyBytesMax; it takes ${drain} bytes/s; ${admission.waiting} writes wait`;
      if (pressure === 'stopped') blocking.push({ code: 'dirty-bound', message });
      else other.push({ code: 'writes-slowed', message });
    }
    for (const [code, problem] of [
      ['backend', opened.problem?.message ?? backend.problem ?? capacity.problem?.message ?? null],
      ['backend-objects', driver.reads.problem?.message ?? null],
      ['reclaim', reclaimer.problem?.message ?? null],
      ['archive', archive.problem?.message ?? null],
      ['completed-calls', cluster?.memoryProblem ?? null],
    ] as const) {
      if (problem !== null) other.push({ code, message: problem });
    }
    if (control !== null) other.push(...clusterProblems(control.status(), clock.wallMs()));
    for (const message of clustered?.warnings() ?? []) other.push({ code: 'registry-setup', message });
    return { blocking, other };
  }

  function backendHealth(): BackendHealth {
    const { condition, sinceMs, message } = backend.state.report;
    return { condition, since: new Date(sinceMs).toISOString(), message };
  }

  function announce(): void {
    backend.announce(metrics);
    metrics.gaugeSource('vferry_dirty_bytes', 'Acknowledged bytes that are not on the backend yet.', () => files.dirtyBytes);
    metrics.gaugeSource('vferry_ssd_cache_bytes', 'Uploaded segments kept on the local disk.', () => files.cacheBytes);
    metrics.gaugeSource('vferry_local_free_bytes', 'Free space of the local disk.', () => files.freeBytes);
    metrics.gaugeSource('vferry_objects_open', 'Volumes and files that are open.', () => objects.count);
    metrics.gaugeSource('vferry_block_cache_bytes', 'Blocks in the RAM cache.', () => cache.statistics().bytes);
    metrics.counterSource('vferry_block_cache_hits_total', 'Blocks found in the RAM cache.', () => cache.statistics().hits);
    metrics.counterSource('vferry_block_cache_misses_total', 'Blocks not found in the RAM cache.', () => cache.statistics().misses);
    const reads = driver.reads;
    metrics.counterSource(
      'vferry_backend_wrong_answers_total',
      'Reads of the backend with wrong or short bytes.',
      () => reads.statistics().wrongAnswers,
    );
    metrics.counterSource(
      'vferry_backend_absent_answers_total',
      'Reads of the backend that did not find what is there.',
      () => reads.statistics().absentAnswers,
    );
    metrics.counterSource(
      'vferry_segments_recalled_total',
      'Segments that were read often from the backend and brought back to the local disk.',
      () => driver.recall.statistics().recalled,
    );
    metrics.gaugeSource('vferry_read_ahead_bytes', 'Bytes read ahead, or on their way, that nobody read yet.', () => driver.readAheadBudget.bytes);
    for (const [name, help, read] of [
      ['hit_blocks', 'Blocks that readers found read ahead.', () => driver.readAheadStatistics.hitBlocks],
      ['unread_blocks', 'Blocks read ahead for nobody.', () => driver.readAheadStatistics.unreadBlocks],
      ['requests', 'Requests to the backend for reading ahead.', () => driver.readAheadStatistics.requests],
      ['failures', 'Requests for reading ahead that failed.', () => driver.readAheadStatistics.failures],
    ] as const) {
      metrics.counterSource(`vferry_read_ahead_${name}_total`, help, read);
    }
    metrics.gaugeSource('vferry_rpc_connections', 'Client connections.', () => server.usage.connections);
    metrics.gaugeSource('vferry_rpc_inflight_bytes', 'Bytes of calls under way.', () => server.usage.inFlightBytes);
    metrics.gaugeSource('vferry_dirty_bytes_max', 'Bound of dirty bytes.', () => settings.log.dirtyBytesMax);
    metrics.gaugeSource('vferry_writes_waiting', 'Writes that wait because of the dirty bytes.', () => admission.waiting);
    metrics.gaugeSource(
      'vferry_drain_bytes_per_second',
      'What the backend takes; measured from half of the bound of dirty bytes on.',
      () => admission.drainBytesPerSecond,
    );
    metrics.counterSource('vferry_writes_delayed_total', 'Writes that waited because of the dirty bytes.', () => admission.statistics.delayed);
    metrics.counterSource('vferry_writes_delayed_seconds_total', 'How long they waited.', () => admission.statistics.delayedMs / 1000);
    metrics.counterSource('vferry_writes_refused_total', 'Writes that were asked to come back (JUKEBOX).', () => admission.statistics.refused);
  }

  return {
    addresses: ports.addresses,
    cluster: control,
    status() {
      const { blocking, other } = problems();
      usage = capacity.usage;
      return {
        vpool: settings.vpool.name,
        version: VERSION,
        routerId: data.routerId,
        incarnation,
        startedAt,
        addresses: ports.addresses,
        backend: backend.description,
        backendStorage: {
          bucket: opened.config.layout.kind === 'prefix' ? opened.config.layout.bucket : null,
          fence: opened.file.fence,
          compression: opened.config.encoding?.compression ?? 'none',
          encryptionKey: opened.config.encoding?.encryptWith ?? null,
        },
        backendHealth: backendHealth(),
        backendTraffic: {
          ...trafficOf(backend.usage.total, backend.prices, (clock.wallMs() - startedMs) / 1000),
          currency: backend.prices.currency,
        },
        volumesOpen: objects.count,
        dirtyBytes: files.dirtyBytes,
        inodes: usage.inodes,
        usedBytes: usage.usedBytes,
        freeBytes: capacity.freeBytes,
        clients: server.clients(),
        problems: [...blocking, ...other],
      };
    },
    ready() {
      const { blocking, other } = problems();
      return { ready: closing === null && blocking.length === 0, problems: [...blocking, ...other] };
    },
    backendUsage(bucketsMax: number) {
      const { description, usage: counters, prices } = backend;
      const now = clock.wallMs();
      return backendUsage(
        {
          backend: description,
          health: backendHealth(),
          usage: counters,
          prices,
          sinceMs: startedMs,
          nowMs: now,
          usedBytes: capacity.usage.usedBytes,
        },
        {
          files: filesBucket(settings.vpool.name, registry.vpool.uuid),
          namespace: namespaceBucket(settings.vpool.name, registry.vpool.uuid),
          uuidOf: (bucket) => volumeOfBucket(settings.vpool.name, bucket),
        },
        registry,
        bucketsMax,
      );
    },
    close(deadlineMs: number) {
      closing ??= (async () => {
        const deadline = clock.monotonicMs() + deadlineMs;
        await ports.close();
        // Calls first: what is acknowledged from here on would not be flushed.
        await closeServer(Math.min(500, deadlineMs / 4));
        await Promise.race([cluster?.quiet(), clock.sleep(Math.min(1000, deadlineMs / 4))]);
        await Promise.race([recovery, clock.sleep(100)]);
        await objects.close(deadline - Math.min(1500, deadlineMs / 3));
        const incarnationGone = registry.membership.leave(data.routerId, incarnation).catch((error: unknown) => {
          logger.warn({ err: error }, 'the registry could not be told that this router stops; others see it when its lease is over');
        });
        await Promise.race([incarnationGone, clock.sleep(500)]);
        // A backend that hangs must not keep the router from stopping: everything acknowledged is durable here by now.
        await Promise.race([resources.disposeAsync(), clock.sleep(Math.max(200, deadline - 200 - clock.monotonicMs()))]);
      })();
      return closing;
    },
  };
}

/** What the datastore shows of its backend's space: an object store has no size of its own. */
function capacityOf({ data, vpool }: Settings): { path: string; capacityBytes: number | null } {
  if (vpool.backend.kind === 'directory') return { path: vpool.backend.path, capacityBytes: vpool.capacityBytes };
  return { path: data, capacityBytes: vpool.capacityBytes ?? OBJECT_STORE_BYTES };
}
