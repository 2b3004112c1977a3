/**
 * A machine with a router on it: the real object-router, drivers and log over a simulated disk, store, registry and network. A life of the process ends by a
 * kill, or when its lease lapsed; then it starts anew with another incarnation, as the real process does (server/router.ts is its model).
 */
import { createHmac } from 'node:crypto';

import { FaultyStore, type StoreFaults } from '../../backends/faulty-store.ts';
import type { ObjectBody, ObjectStore } from '../../backends/object-store.ts';
import { StoreError } from '../../backends/object-store.ts';
import { RetryingStore } from '../../backends/retrying-store.ts';
import { seededRandom } from '../../backends/virtual-clock.ts';
import { BlockCache } from '../../cache/block-cache.ts';
import type { ClusterRegistry, OwnerRecord, Ownership } from '../../registry/ports.ts';
import { Histogram } from '../../server/core/histogram.ts';
import type { Incarnation, ObjectUuid, RouterId } from '../../server/core/ids.ts';
import type { Logger } from '../../server/core/logger.ts';
import type { Random } from '../../server/core/time.ts';
import { timestampOf } from '../../server/core/time.ts';
import { PieceWriteBack } from '../../server/file-driver/piece-write-back.ts';
import type { FileSystem } from '../../server/nfsd/file-system.ts';
import { settleForeign } from '../../server/object-log/foreign-segments.ts';
import { SegmentFiles } from '../../server/object-log/segment-files.ts';
import { FaultyDisk } from '../../server/object-log/testing/faulty-disk.ts';
import { GarbageSchedule } from '../../server/object-router/garbage-schedule.ts';
import { Handles } from '../../server/object-router/handles.ts';
import { InodeWatch } from '../../server/object-router/inode-watch.ts';
import { MemberWatch } from '../../server/object-router/member-watch.ts';
import { CededJournal } from '../../server/object-router/moves/ceded-journal.ts';
import { Moves } from '../../server/object-router/moves/moves.ts';
import { Pins } from '../../server/object-router/moves/pins.ts';
import { ObjectPlaces } from '../../server/object-router/object-places.ts';
import { ObjectRouter } from '../../server/object-router/object-router.ts';
import { ObjectService } from '../../server/object-router/object-service.ts';
import { OpenObjects } from '../../server/object-router/open-objects.ts';
import { OwnedRecords } from '../../server/object-router/owned-records.ts';
import { OwnerCache } from '../../server/object-router/owner-cache.ts';
import { PeerDesk } from '../../server/object-router/peer-desk.ts';
import { type PeerService, REPETITION_WINDOW_MS } from '../../server/object-router/peer-port.ts';
import { Reclaimer } from '../../server/object-router/reclaimer.ts';
import { believedCalls } from '../../server/object-router/repetition-belief.ts';
import type { RingRecord } from '../../server/object-router/repetition-belief.ts';
import { JOURNAL_ENTRY_BYTES, Repetitions } from '../../server/object-router/repetitions.ts';
import type { CallWords, RememberedCall, RepetitionJournal } from '../../server/object-router/repetitions.ts';
import { RouterCore } from '../../server/object-router/router-core.ts';
import { RouterMoveHost } from '../../server/object-router/router-move-host.ts';
import { recoverObjects, surveyObjects } from '../../server/object-router/startup-recovery.ts';
import { BLOCK_BYTES, BLOCKS_MAX } from '../../server/volume-driver/extent-map.ts';
import { PagePool } from '../../server/volume-driver/page-pool.ts';
import { countingRowIds } from '../../server/volume-driver/segment-table.ts';
import { fileNames, filesBucket, volumeNames } from '../../server/volume-driver/storage-names.ts';
import { StoredWriter } from '../../server/volume-driver/stored-writer.ts';
import { VolumeDriver } from '../../server/volume-driver/volume-driver.ts';
import { WriteAdmission } from '../../server/volume-driver/write-admission.ts';
import type { OwnershipObserver } from './observer.ts';
import type { SimulatedPeers } from './peer-network.ts';
import { RedoLog, RegistryConnection } from './registry/registry-connection.ts';
import type { RegistryServer } from './registry/registry-server.ts';
import { type MachineClocks, ProcessTime, type Schedule } from './schedule.ts';
import { toldFileSystem } from './told-file-system.ts';
import { newWay, type Way } from './ways.ts';

const DIRECTORY = '/vpool';
export const LEASE_MS = 7000;
/** A process that stood longer closes its sockets with unread input. */
export const STANDSTILL_MS = 5000;
const RESTART_MS = 400;
/** How long a sync of the memory of completed calls may take. */
const SYNC_MS_MAX = 20;
/** A turn of an event loop, for the simulated disk. */
const TURN_MS = 0.05;

export interface RouterSettings {
  readonly segmentBytes: number;
  readonly checkpointAfterBytes: number;
  readonly dirtyBytesMax: number;
  readonly sealAfterMs: number;
  /** Nothing may have been written for so long of what is said to be clean (decision 0028, 4). */
  readonly restMs: number;
  readonly cacheBytes: number;
  /** How long a disk may take for a quarter of a call. */
  readonly diskMsMax: number;
  readonly graceTimeMs: number;
  readonly recycle: boolean;
  /** Forwarded operations after which an object moves; 0: never. */
  readonly moveThreshold: number;
  readonly moveCooldownMs: number;
}

/** What all machines share. */
export interface World {
  readonly schedule: Schedule;
  readonly random: Random;
  readonly server: RegistryServer;
  readonly peers: SimulatedPeers;
  readonly store: ObjectStore;
  readonly observer: OwnershipObserver;
  readonly logger: (router: string) => Logger;
  readonly settings: RouterSettings;
  trace(message: string): void;
  problem(message: string): void;
}

/** What clients reach of a router. */
export interface Station {
  readonly time: ProcessTime;
  readonly fileSystem: FileSystem;
  readonly incarnation: Incarnation;
}

export interface Life {
  readonly router: RouterId;
  readonly time: ProcessTime;
  readonly incarnation: Incarnation;
  readonly connection: RegistryConnection;
  readonly station: Station;
  readonly objects: OpenObjects;
  readonly moves: Moves;
}

/** RepetitionFile of a machine, with its page cache: a kill loses nothing, a power cut any of what was not synced. */
class SimulatedMemory {
  #records: RingRecord<CallWords>[] = [];
  /** So many of them are on the disk. */
  #synced = 0;
  #end = 1;
  /** Numbers since the machine was started begin with it. */
  #first = 1;

  /** The file as one life of the router sees it. */
  of(time: ProcessTime, random: Random): RepetitionJournal {
    const end = (): number => this.#end;
    return {
      load: () => {
        const calls: RememberedCall[] = [];
        for (const record of this.#records) if ('call' in record) calls.push({ fileid: record.fileid, words: record.call });
        return calls;
      },
      append: (entries) => {
        if (!time.alive) return;
        for (let at = 0; at < entries.length; at += JOURNAL_ENTRY_BYTES) {
          const words = Uint32Array.from({ length: 4 }, (_, word) => entries.readUInt32LE(at + word * 4));
          this.#records.push({ number: this.#number(), fileid: entries.readDoubleLE(at + 16), call: words });
        }
      },
      get end() {
        return end();
      },
      prove: (fileid, before) => {
        if (time.alive) this.#records.push({ number: this.#number(), fileid, proven: { from: this.#first, before } });
      },
      sync: async () => {
        const count = this.#records.length;
        const { promise, resolve } = Promise.withResolvers<void>();
        time.after(SYNC_MS_MAX * random.fraction(), resolve);
        await promise;
        this.#synced = Math.max(this.#synced, count);
      },
    };
  }

  #number(): number {
    this.#end += 1;
    return this.#end - 1;
  }

  /** What the next boot of the machine knows. */
  powerCut(random: Random): void {
    const left = this.#records.filter((_, index) => index < this.#synced || random.fraction() < 0.5);
    const believed = believedCalls(left);
    this.#first = this.#end;
    this.#records = believed.map(({ fileid, call }) => ({ number: this.#number(), fileid, call }));
    const number = this.#number();
    this.#records.push({ number, fileid: 0, proven: { from: this.#first, before: number } });
    this.#synced = this.#records.length;
  }
}

export class Machine {
  readonly name: string;
  readonly id: RouterId;
  readonly disk: FaultyDisk;
  readonly clocks: MachineClocks;
  readonly toRegistry: Way = newWay(0.1, 0.6);
  /** Its answers; a cut `toRegistry` leaves only those on their way. */
  readonly fromRegistry: Way = newWay(0.1, 0.6);
  readonly toClients: Way = newWay(0.05, 0.3);
  readonly store: FaultyStore;
  /** The backend cannot be reached from here. */
  backendCut = false;
  /** Requests of the backend that this machine waits for. */
  fetching = 0;
  /** Null: nobody listens. */
  station: Station | null = null;
  readonly #world: World;
  readonly #redo = new RedoLog();
  readonly #random: Random;
  #hints: string | null = null;
  #time: ProcessTime | null = null;
  #diskProcess: { die(): void } | null = null;
  #life: Life | null = null;
  #connection: RegistryConnection | null = null;
  #starting = false;
  #connections = Promise.withResolvers<void>();
  readonly #memory = new SimulatedMemory();
  /** The life to come, or the one that is, knows nothing of what was remembered before (RepetitionFile.isLost). */
  #isMemoryLost = false;
  /** A machine whose power was cut does not serve sooner (RepetitionFile.waitMs). */
  #notBeforeMs = 0;
  lives = 0;

  constructor(world: World, name: string, seed: number) {
    this.#world = world;
    this.name = name;
    this.#random = seededRandom(seed);
    this.id = this.#random.bytes(16).toString('hex') as RouterId;
    this.disk = new FaultyDisk(this.#random);
    this.clocks = {
      monotonicOffsetMs: Math.floor(this.#random.fraction() * 1e7),
      rate: 1 + (this.#random.fraction() - 0.5) * 2e-3,
      wallOffsetMs: (this.#random.fraction() - 0.5) * 4000,
    };
    this.store = new FaultyStore({ inner: world.store, clock: new ProcessTime(world.schedule, this.clocks), random: this.#random });
  }

  get isUp(): boolean {
    return this.#time?.alive === true;
  }

  get isStopped(): boolean {
    return this.#time?.stopped === true;
  }

  /** Whether this is the process of the machine. */
  runs(time: ProcessTime | undefined): boolean {
    return time !== undefined && time === this.#time && time.alive;
  }

  get life(): Life | null {
    return this.#life;
  }

  get connection(): RegistryConnection | null {
    return this.#connection;
  }

  setStoreFaults(faults: Partial<StoreFaults>): void {
    this.store.setFaults(faults);
  }

  /** Starts the process. */
  start(): void {
    if (this.isUp) return;
    const waitMs = this.#notBeforeMs - this.#world.schedule.nowMs;
    if (waitMs > 0) {
      this.#world.schedule.after(waitMs, () => this.start());
      return;
    }
    this.#world.trace(`${this.name} starts`);
    this.#time = new ProcessTime(this.#world.schedule, this.clocks);
    const time = this.#time;
    time.onContinued = (stoodMs) => {
      this.#world.trace(`${this.name} goes on after ${Math.round(stoodMs)} ms`);
      if (stoodMs > STANDSTILL_MS) this.#closeSockets();
    };
    time.enter(() => this.#begin(time));
  }

  /** kill -9; `powerCut`: of the machine. */
  kill(powerCut: boolean): void {
    if (!this.isUp) return;
    this.#world.trace(`${this.name} is killed${powerCut ? ', its power cut' : ''}`);
    this.#closeSockets();
    this.#time?.kill();
    this.#diskProcess?.die();
    this.#life = null;
    this.#connection?.close();
    this.#connection = null;
    this.#starting = false;
    if (powerCut) this.#isMemoryLost = true;
    if (!powerCut) return;
    this.disk.powerCut();
    this.#memory.powerCut(this.#random);
    this.#notBeforeMs = this.#world.schedule.nowMs + REPETITION_WINDOW_MS;
  }

  stop(): void {
    if (!this.isUp || this.isStopped) return;
    this.#world.trace(`${this.name} is stopped`);
    this.#time?.stop();
  }

  continue(): void {
    this.#time?.continue();
  }

  /** Resolves when the connections that clients have now are gone. */
  get connectionsEnd(): Promise<void> {
    return this.#connections.promise;
  }

  /** The connections of clients break; what came over them goes on, and nobody hears of it. */
  breakConnections(): void {
    this.#connections.resolve();
    this.#connections = Promise.withResolvers();
  }

  #closeSockets(): void {
    this.station = null;
    this.breakConnections();
    this.#world.peers.detach(this.id);
  }

  /** A new life in the process, again and again until it comes up. */
  #begin(time: ProcessTime): void {
    if (this.#starting || !time.alive) return;
    this.#starting = true;
    this.lives += 1;
    this.#open(time).then(
      (life) => {
        this.#starting = false;
        if (!time.alive) return;
        this.#life = life;
        if (!life.connection.registry.lease.valid) {
          this.#lapsed(time);
          return;
        }
        this.station = life.station;
        this.#world.trace(`${this.name} serves as ${life.incarnation.slice(0, 4)}`);
      },
      (error: unknown) => {
        this.#starting = false;
        if (!time.alive) return;
        this.#world.trace(`${this.name} does not start: ${String(error)}`);
        if (!isExpected(error)) this.#world.problem(`${this.name} does not start: ${error instanceof Error ? error.stack : String(error)}`);
        time.after(RESTART_MS, () => this.#begin(time));
      },
    );
  }

  /** The process replaces its image (decision 0028, 6): nothing of the old one goes on, the page cache stays. */
  #lapsed(time: ProcessTime): void {
    if (time !== this.#time || !time.alive) return;
    this.#world.trace(`${this.name} lost its lease`);
    this.kill(false);
    this.#world.schedule.after(RESTART_MS, () => this.start());
  }

  async #open(time: ProcessTime): Promise<Life> {
    const world = this.#world;
    const { server, settings } = world;
    const random = this.#random;
    const clock = time;
    const logger = world.logger(this.name);
    const incarnation = random.bytes(16).toString('hex') as Incarnation;
    this.#diskProcess?.die();
    const disk = this.disk.process((callback) => void time.after(TURN_MS + random.fraction() ** 3 * settings.diskMsMax, callback));
    this.#diskProcess = disk;
    for (const name of ['', '/tmp']) await disk.makeDirectory(`${DIRECTORY}${name}`);
    for (const name of await disk.list(`${DIRECTORY}/tmp`)) await disk.unlink(`${DIRECTORY}/tmp/${name}`);

    let owned = (): readonly OwnerRecord[] => [];
    const connection = new RegistryConnection({
      server,
      schedule: world.schedule,
      time,
      random,
      way: this.toRegistry,
      wayBack: this.fromRegistry,
      router: this.id,
      incarnation,
      redo: this.#redo,
      leaseMs: LEASE_MS,
      owned: () => owned(),
      lapsed: () => this.#lapsed(time),
    });
    this.#connection?.close();
    this.#connection = connection;
    const records = new OwnedRecords(connection.registry.ownership, this.id);
    owned = () => records.all();
    const registry: ClusterRegistry = withOwnership(connection.registry, records);
    const journal = await CededJournal.open(disk, DIRECTORY, logger);
    records.checkClaim = (fileid, expected) => journal.checkClaim(fileid, expected);
    await registry.membership.join(this.id, incarnation, [`peer://${this.name}`], 'simulated');

    const store = new RetryingStore({ inner: this.#storeOf(time), clock, random });
    const files = await SegmentFiles.open(
      { disk, clock, logger },
      {
        directory: DIRECTORY,
        segmentFileBytes: Math.ceil(settings.segmentBytes * 1.1),
        poolFilesMax: 2,
        cacheBytesMax: settings.cacheBytes,
        reserveBytes: 4096,
        recycle: settings.recycle,
      },
    );
    const pool = await PagePool.open(
      { disk, spillPath: `${DIRECTORY}/spill.tmp`, yieldToLoop: () => new Promise((resolve) => clock.soon(resolve)) },
      { bytesMax: 16 * 12_288, spillBytesMax: 2 ** 24 },
    );
    const names = { volume: volumeNames(server.vpool.name), file: fileNames(filesBucket(server.vpool.name, server.vpool.uuid)) };
    const admission = new WriteAdmission(
      { clock, dirtyBytes: () => files.dirtyBytes, drainedBytes: () => files.drainedBytes },
      settings.dirtyBytesMax,
    );
    const repetitions = new Repetitions(clock, 2 ** 12, this.#memory.of(time, random));
    const engine = new VolumeDriver(
      {
        disk,
        files,
        store,
        writer: new SimulatedWriter({ store, clock, random, disk }, `${DIRECTORY}/tmp`, this.disk),
        cache: new BlockCache({ limitBytes: 64 * 4096, slabBytes: 4096 * 16 }),
        pool,
        rowIds: countingRowIds(),
        registry,
        clock,
        random,
        logger,
        admission,
        syncLatency: new Histogram(),
        writeBack: { volume: null, file: (object) => new PieceWriteBack(object) },
        names,
        recovered: (fileid, calls) => repetitions.recovered(fileid, calls),
        keepCalls: (fileid, durable) => repetitions.keep(fileid, durable),
        isMemoryLost: this.#isMemoryLost,
      },
      {
        segmentBytes: settings.segmentBytes,
        sealAfterMs: settings.sealAfterMs,
        restMs: settings.restMs,
        checkpointAfterBytes: settings.checkpointAfterBytes,
        graceTimeMs: settings.graceTimeMs,
        patienceMs: 15_000,
        readAheadBytesMax: 1024 * 1024,
      },
      { router: this.id, incarnation },
    );
    const driver = world.observer.driver(this.name, engine);
    const derived = (purpose: string): Buffer => createHmac('sha256', Buffer.from(server.vpool.uuid, 'hex')).update(purpose).digest();
    const handles = new Handles(derived('vpool').subarray(0, 4), derived('file handles'));
    const fsid = derived('fsid').readBigUInt64BE(0);
    const garbage = await GarbageSchedule.open(
      {
        read: () => Promise.resolve(this.#hints),
        write: (text) => {
          if (time.alive) this.#hints = text;
          return Promise.resolve();
        },
      },
      logger,
    );
    const pins = await Pins.open(disk, DIRECTORY);
    const objects = new OpenObjects(
      { driver, namespace: registry.namespace, garbage, clock, logger, cededCounter: (fileid) => journal.cededCounter(fileid) },
      { fsid, handleOf: (inode) => handles.encode(inode.fileid, inode.inodeGeneration) },
    );
    const members = new MemberWatch({ membership: registry.membership, lease: registry.lease, clock, logger }, this.id, { leaseMs: LEASE_MS });
    await members.start();
    const network = world.peers.network(this.id, time);
    const owners = new OwnerCache();
    let moves: Moves | null = null;
    const places = new ObjectPlaces({
      registry,
      objects,
      clock,
      lease: registry.lease,
      cluster: { members, network, owners, repetitions, forwarded: (object, kind, hint) => moves?.forwarded(object, kind, hint) },
    });
    const core = new RouterCore({ registry, objects, handles, places, clock, logger }, { fsid, incarnation });
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
        mayDelete: () => members.list().every((member) => member.dead || member.id >= this.id),
        ended: (fileid) => objects.ended(fileid),
        mutation: () => ({ operationId: null, incarnation, now: timestampOf(clock.wallMs()), notAfterMs: Infinity }),
        clock,
        logger,
      },
      { graceTimeMs: settings.graceTimeMs, settleMs: 0 },
    );
    const fileSystem = new ObjectRouter(
      {
        core,
        capacity: () => ({ totalBytes: 2 ** 40, freeBytes: 2 ** 39 }),
        unlinked: (inode) => reclaimer.unlinked(inode),
      },
      { volumePatterns: ['*-flat.vmdk'], allWritesStable: false, fileSizeMaxBytes: BLOCKS_MAX * BLOCK_BYTES },
    );
    const given = {
      fileidOf: (uuid: ObjectUuid) => journal.fileidOf(uuid),
      settle: (owner: OwnerRecord) => settleForeign({ disk, files }, owner),
    };
    const waiting = await surveyObjects({ registry, files, router: this.id, logger, given });
    const self = { router: this.id, incarnation };
    const host = new RouterMoveHost({ namespace: registry.namespace, objects, owners, repetitions, records, clock, logger });
    moves = new Moves(
      { host, registry, members, network, driver, clock, random, logger, self },
      { journal, pins },
      {
        volumeReadThreshold: settings.moveThreshold,
        volumeWriteThreshold: settings.moveThreshold,
        fileReadThreshold: settings.moveThreshold,
        fileWriteThreshold: settings.moveThreshold,
        movesMax: 2,
        cooldownMs: settings.moveCooldownMs,
        decayMs: 60_000,
      },
    );
    const desk = new PeerDesk();
    desk.open(new ObjectService({ core, data: fileSystem.data, attributes: fileSystem.attributes }, self), moves);
    moves.start();
    world.peers.attach(this.id, time, this.#watchedService(desk, incarnation));
    void recoverObjects(objects, waiting, logger).then((all) => {
      core.settled = true;
      if (all && time.alive) this.#isMemoryLost = false;
    });
    reclaimer.start();
    new InodeWatch({ objects, namespace: registry.namespace, clock, logger }).start();
    return {
      router: this.id,
      time,
      incarnation,
      connection,
      objects,
      moves,
      station: { time, fileSystem: this.#watchedFileSystem(toldFileSystem(fileSystem), incarnation), incarnation },
    };
  }

  /** The store as a process sees it: dead, its calls have no effect and no answer; and its answers come as events of the process. */
  #storeOf(time: ProcessTime): ObjectStore {
    const { schedule } = this.#world;
    return new Proxy<ObjectStore>(this.store, {
      get: (target, property) => {
        const value: unknown = Reflect.get(target, property, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): Promise<unknown> =>
          new Promise((resolve, reject) => {
            const delayMs = 0.5 + this.#random.fraction() * 4;
            schedule.after(delayMs, () => {
              if (!time.alive) return;
              if (this.backendCut) {
                time.after(2000, () => reject(new StoreError('retry', 'no way to the backend')));
                return;
              }
              this.fetching += 1;
              const answer = (deliver: () => void): void =>
                void schedule.after(delayMs, () => {
                  this.fetching -= 1;
                  time.enter(deliver);
                });
              (value.apply(target, args) as Promise<unknown>).then(
                (result) => answer(() => resolve(result)),
                (error: unknown) => answer(() => reject(error)),
              );
            });
          });
      },
    });
  }

  #watchedService(service: PeerService, incarnation: Incarnation): PeerService {
    return this.#watched(service, incarnation, (result) => {
      const forwarded = result as { kind?: string; result?: { status?: number } | null } | null;
      // A refusal rests on nothing: JUKEBOX is what is said when the lease is over.
      return forwarded?.kind === 'done' && (forwarded.result?.status ?? 0) === 0;
    });
  }

  #watchedFileSystem(fileSystem: FileSystem, incarnation: Incarnation): FileSystem {
    return this.#watched(fileSystem, incarnation, (result) => (result as { status: number }).status === 0);
  }

  #watched<T extends object>(target: T, incarnation: Incarnation, isAnswer: (result: unknown) => boolean): T {
    const { observer } = this.#world;
    const reaches = (result: unknown): boolean => isAnswer(result) && this.station?.incarnation === incarnation && !this.isStopped;
    const lease = (): boolean => this.#life?.connection.registry.lease.valid === true;
    return new Proxy(target, {
      get: (object, property) => {
        const value: unknown = Reflect.get(object, property, object);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): Promise<unknown> =>
          observer.watch(this.id, incarnation, reaches, lease, () => value.apply(object, args) as unknown);
      },
    });
  }
}

function withOwnership(registry: ClusterRegistry, ownership: Ownership): ClusterRegistry {
  return new Proxy(registry, {
    get: (target, property) => (property === 'ownership' ? ownership : (Reflect.get(target, property, target) as unknown)),
  });
}

/** Writes bodies from the simulated disk: reading them back must not look for them on the real one. */
class SimulatedWriter extends StoredWriter {
  readonly #disk: FaultyDisk;

  constructor(components: ConstructorParameters<typeof StoredWriter>[0], directory: string, disk: FaultyDisk) {
    super(components, directory);
    this.#disk = disk;
  }

  override async put(bucket: string, name: string, body: ObjectBody): Promise<void> {
    const bytes =
      body.kind === 'bytes' ? body : { kind: 'bytes' as const, chunks: [this.#disk.readNow(body.path, body.offsetBytes, body.lengthBytes)] };
    return super.put(bucket, name, bytes);
  }
}

/** What the environment does; everything else is a bug. */
export function isExpected(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error.name === 'ApplianceError' || error.name === 'StoreError' || 'syscall' in error;
}
