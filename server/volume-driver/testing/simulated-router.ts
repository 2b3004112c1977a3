/** One object and everything under it, on a simulated disk, store, registry and clock: what the crash simulation kills and starts again. */
import { EncodedStore } from '../../../backends/encoding/encoded-store.ts';
import type { EncodingConfig } from '../../../backends/encoding/encoding-config.ts';
import { FaultyStore } from '../../../backends/faulty-store.ts';
import { MemoryStore } from '../../../backends/memory/memory-store.ts';
import type { ObjectBody, ObjectStore } from '../../../backends/object-store.ts';
import { RetryingStore } from '../../../backends/retrying-store.ts';
import { BlockCache } from '../../../cache/block-cache.ts';
import type { Inode } from '../../../registry/inode.ts';
import type { OwnerRecord, Registry } from '../../../registry/ports.ts';
import { ApplianceError } from '../../core/errors.ts';
import { Histogram } from '../../core/histogram.ts';
import { sameTerm } from '../../core/ids.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId } from '../../core/ids.ts';
import type { Logger } from '../../core/logger.ts';
import type { Clock, Random } from '../../core/time.ts';
import { PieceWriteBack } from '../../file-driver/piece-write-back.ts';
import { SegmentFiles } from '../../object-log/segment-files.ts';
import type { FaultyDisk } from '../../object-log/testing/faulty-disk.ts';
import { PagePool } from '../page-pool.ts';
import { countingRowIds } from '../segment-table.ts';
import { fileNames, volumeNames } from '../storage-names.ts';
import { StoredWriter } from '../stored-writer.ts';
import { VolumeDriver } from '../volume-driver.ts';
import { WriteAdmission } from '../write-admission.ts';

export const DIRECTORY = '/vpool';
const UUID = '00112233445566778899aabbccddeeff' as ObjectUuid;
const VPOOL = 'ffeeddccbbaa99887766554433221100';
const ROUTER = 'a'.repeat(32) as RouterId;

/** Time that stands still while anything is under way, and jumps to the next timer when nothing is. */
export class SimulatedClock implements Clock {
  #nowMs: number;
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();
  readonly #isBusy: () => boolean;
  #soon = 0;

  constructor(isBusy: () => boolean, startMs = 1) {
    this.#isBusy = isBusy;
    this.#nowMs = startMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }

  soon(callback: () => void): void {
    this.#soon += 1;
    setImmediate(() => {
      this.#soon -= 1;
      callback();
    });
  }

  /** One turn of the event loop; then the next timer, if nothing else is left to do. */
  async turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#isBusy() || this.#soon > 0) return;
    let next: { atMs: number; callback: () => void } | null = null;
    for (const timer of this.#timers) if (next === null || timer.atMs < next.atMs) next = timer;
    if (next === null) return;
    this.#timers.delete(next);
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    next.callback();
  }

  /** Turns until the promise is settled. @throws when it takes more than `turnsMax`. */
  async run<T>(promise: Promise<T>, turnsMax = 200_000): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    promise.then(done, done);
    for (let turn = 0; !settled; turn += 1) {
      if (turn > turnsMax) throw new Error(`nothing came of it in ${turnsMax} turns, ${this.#nowMs} ms`);
      await this.turn();
    }
    return promise;
  }
}

/** What all routers have in common: backend, registry, and time if there are several. */
export class SimulatedCommons {
  readonly random: Random;
  readonly store: MemoryStore;
  /** The store as routers see it. What it hides, and what it has yet to do, outlives them. */
  readonly faultyStore: FaultyStore;
  /** That of the router that lives, or lived last; of all of them when `shared`. */
  clock: Clock = new SimulatedClock(() => false);
  /** One clock for several routers, null when each life has its own. */
  readonly shared: SimulatedClock | null;
  owner: OwnerRecord | null = null;
  counterMax = 0;
  inode: Inode;
  /** Incarnations that live. */
  readonly living = new Map<RouterId, Incarnation>();
  /** Calls to the store that are on their way. */
  storeCalls = 0;
  /** Calls that change something in the registry, so far. */
  registryCalls = 0;
  /** The registry fails over after each lazy copy of size and times, and has lost it. */
  forgetsCopies = false;
  /** First words of the calls that recoveries found in the log: they were done, whatever dies from then on. */
  readonly recoveredCalls = new Set<number>();
  /** Of the next life. */
  isMemoryLost = false;
  keepCalls: (durable: () => Promise<void>) => Promise<void> = (durable) => durable();

  /** `disks`: of all routers that share the clock; null when each life has a clock of its own. */
  constructor(random: Random, objectClass: 'volume' | 'file', disks: readonly FaultyDisk[] | null = null) {
    this.random = random;
    this.shared = disks === null ? null : new SimulatedClock(() => this.storeCalls > 0 || disks.some((disk) => disk.pending > 0));
    if (this.shared !== null) this.clock = this.shared;
    this.store = new MemoryStore((body: ObjectBody) => {
      if (body.kind !== 'bytes') throw new Error('the writer reads files itself');
      return Promise.resolve(Buffer.concat(body.chunks));
    });
    const clock: Clock = {
      wallMs: () => this.clock.wallMs(),
      monotonicMs: () => this.clock.monotonicMs(),
      after: (delayMs, callback) => this.clock.after(delayMs, callback),
      sleep: (delayMs) => this.clock.sleep(delayMs),
      soon: (callback) => this.clock.soon(callback),
    };
    this.faultyStore = new FaultyStore({ inner: this.store, clock, random });
    const time = { seconds: 1_600_000_000, nanoseconds: 0 };
    this.inode = {
      fileid: 100 as FileId,
      inodeGeneration: 1,
      type: 'file',
      class: objectClass,
      state: 'live',
      mode: 0o644,
      uid: 0,
      gid: 0,
      nlink: 1,
      sizeBytes: 0,
      usedBytes: 0,
      atime: time,
      mtime: time,
      ctime: time,
      parent: null,
      exclusiveVerifier: null,
      symlinkTarget: null,
      inlineBytes: null,
      uuid: UUID,
    };
  }
}

/** What survives the router: disk, backend, registry. */
export class SimulatedWorld {
  readonly disk: FaultyDisk;
  readonly random: Random;
  readonly objectClass: 'volume' | 'file';
  readonly commons: SimulatedCommons;
  readonly router: RouterId;
  /** Probability that a registry call fails, before or after its effect. */
  registryFaults = 0;

  constructor(
    disk: FaultyDisk,
    random: Random,
    objectClass: 'volume' | 'file',
    commons: SimulatedCommons = new SimulatedCommons(random, objectClass),
    router: RouterId = ROUTER,
  ) {
    this.disk = disk;
    this.random = random;
    this.objectClass = objectClass;
    this.commons = commons;
    this.router = router;
  }

  get store(): MemoryStore {
    return this.commons.store;
  }
  get faultyStore(): FaultyStore {
    return this.commons.faultyStore;
  }
  get clock(): Clock {
    return this.commons.clock;
  }
  get owner(): OwnerRecord | null {
    return this.commons.owner;
  }
  set owner(owner: OwnerRecord | null) {
    this.commons.owner = owner;
  }
  get inode(): Inode {
    return this.commons.inode;
  }
  set inode(inode: Inode) {
    this.commons.inode = inode;
  }

  registry(isAlive: () => boolean): Registry {
    const { commons } = this;
    const never = new Promise<never>(() => undefined);
    const verb = async <T>(work: () => T): Promise<T> => {
      if (!isAlive()) return never;
      commons.registryCalls += 1;
      await new Promise((resolve) => setImmediate(resolve));
      if (!isAlive()) return never;
      const lost = this.random.fraction() < this.registryFaults;
      if (lost && this.random.fraction() < 0.5) throw new ApplianceError('registry-unavailable', 'no answer', { retryable: true });
      const result = work();
      if (lost) throw new ApplianceError('registry-unavailable', 'no answer', { retryable: true });
      return result;
    };
    const same = (owner: OwnerRecord, term: OwnerRecord['term']): boolean => sameTerm(owner.term, term);
    const registry: Pick<Registry, 'vpool'> & {
      ownership: Pick<Registry['ownership'], 'owner' | 'ownedBy' | 'claim' | 'update' | 'beginMove' | 'transfer'>;
      namespace: Pick<Registry['namespace'], 'putOwnedAttributes' | 'dropInlineBase'>;
    } = {
      vpool: { name: 'vpool1', uuid: VPOOL },
      ownership: {
        owner: () => this.owner,
        ownedBy: async (router) => (this.owner !== null && this.owner.router === router ? [this.owner] : []),
        claim: (mutation, fileid, router, expected, closing, nonce, counterMin = 0) =>
          verb(() => {
            const old = this.owner;
            if (old !== null && (expected === null || !same(old, expected))) return { kind: 'conflict', owner: old } as const;
            if (old !== null && old.router !== router && commons.living.get(old.router) === old.incarnation)
              return { kind: 'owner-alive', owner: old } as const;
            commons.counterMax = Math.max(commons.counterMax, counterMin) + 1;
            const root = old?.root ?? { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };
            this.owner = {
              fileid,
              uuid: UUID,
              router,
              incarnation: mutation.incarnation,
              term: { generation: 0, counter: commons.counterMax, nonce },
              state: { kind: 'running' },
              moving: null,
              root: closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },
              protection: old?.protection ?? { kind: 'clean' },
              verifier: old?.verifier ?? this.random.bytes(8),
            };
            return { kind: 'done', owner: this.owner } as const;
          }),
        update: (_mutation, _fileid, term, fields) =>
          verb(() => {
            const owner = this.owner;
            if (owner === null) throw new Error('update of no owner');
            if (!same(owner, term)) return { kind: 'conflict', owner } as const;
            if (fields.root !== undefined && fields.root.uploadedSegment < owner.root.uploadedSegment) throw new Error('the root went backwards');
            const { attributes, ...changed } = fields;
            this.owner = { ...owner, ...changed };
            if (attributes !== undefined) this.inode = { ...this.inode, ...attributes };
            return { kind: 'done', owner: this.owner } as const;
          }),
        beginMove: (_mutation, _fileid, term, to, nonce) =>
          verb(() => {
            const { owner } = this;
            if (owner === null) return { kind: 'gone' } as const;
            if (!same(owner, term)) return { kind: 'conflict', owner } as const;
            commons.counterMax += 1;
            const moving = { from: owner.router, to, attempt: { generation: 0, counter: commons.counterMax, nonce } };
            this.owner = { ...owner, moving };
            return { kind: 'done', owner: this.owner } as const;
          }),
        transfer: (_mutation, _fileid, term, attempt, closing, protection) =>
          verb(() => {
            const { owner } = this;
            if (owner === null) return { kind: 'gone' } as const;
            const { moving, root } = owner;
            const incarnation = moving === null ? undefined : commons.living.get(moving.to);
            if (!same(owner, term) || moving === null || !sameTerm(moving.attempt, attempt) || incarnation === undefined)
              return { kind: 'conflict', owner } as const;
            this.owner = {
              ...owner,
              router: moving.to,
              incarnation,
              term: attempt,
              moving: null,
              root: closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },
              protection,
            };
            return { kind: 'done', owner: this.owner } as const;
          }),
      },
      namespace: {
        putOwnedAttributes: (_mutation, batch) =>
          verb(() => {
            for (const { term, sizeBytes, usedBytes, atime, mtime, ctime } of batch)
              if (this.owner !== null && same(this.owner, term) && !commons.forgetsCopies)
                this.inode = { ...this.inode, sizeBytes, usedBytes, atime, mtime, ctime };
          }),
        dropInlineBase: () =>
          verb(() => {
            this.inode = { ...this.inode, inlineBytes: null };
          }),
      },
    };
    return registry as unknown as Registry;
  }
}

/** Writes file bodies from the simulated disk: reading them back must not look for them on the real one. */
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

export interface SimulationSettings {
  readonly segmentBytes: number;
  readonly segmentFileBytes: number;
  readonly checkpointAfterBytes: number;
  readonly dirtyBytesMax: number;
  readonly cacheBytes: number;
  readonly graceTimeMs: number;
  readonly recycle: boolean;
  readonly restMs?: number;
  /** Failed requests to the store are repeated below the engine, as in a real router. */
  readonly retries?: boolean;
  /** Objects are compressed and encrypted on their way; null: not. */
  readonly encoding?: EncodingConfig | null;
}

function whileAlive(clock: Clock, isAlive: () => boolean): Clock {
  const guarded = (callback: () => void) => () => {
    if (isAlive()) callback();
  };
  return {
    wallMs: () => clock.wallMs(),
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, callback) => clock.after(delayMs, guarded(callback)),
    sleep: (delayMs) => new Promise((resolve) => clock.after(delayMs, guarded(resolve))),
    soon: (callback) => clock.soon(guarded(callback)),
  };
}

/** One life of the router process. */
export class SimulatedRouter {
  readonly clock: SimulatedClock;
  readonly registry: Registry;
  readonly incarnation: Incarnation;
  readonly driver: VolumeDriver;
  readonly files: SegmentFiles;
  readonly pool: PagePool;
  readonly store: FaultyStore;
  readonly admission: WriteAdmission;
  readonly #die: () => void;

  private constructor(parts: {
    clock: SimulatedClock;
    registry: Registry;
    incarnation: Incarnation;
    driver: VolumeDriver;
    files: SegmentFiles;
    pool: PagePool;
    store: FaultyStore;
    admission: WriteAdmission;
    die: () => void;
  }) {
    this.clock = parts.clock;
    this.registry = parts.registry;
    this.incarnation = parts.incarnation;
    this.driver = parts.driver;
    this.files = parts.files;
    this.pool = parts.pool;
    this.store = parts.store;
    this.admission = parts.admission;
    this.#die = parts.die;
  }

  static async start(world: SimulatedWorld, settings: SimulationSettings, logger: Logger): Promise<SimulatedRouter> {
    let alive = true;
    const { commons } = world;
    const disk = world.disk.process();
    const turns = commons.shared ?? new SimulatedClock(() => world.disk.pending > 0 || commons.storeCalls > 0, world.clock.monotonicMs());
    // The timers of a dead process do not fire, whoever else uses the clock.
    const clock = commons.shared === null ? turns : whileAlive(turns, () => alive);
    commons.clock = turns;
    const incarnation = world.random.bytes(16).toString('hex') as Incarnation;
    commons.living.set(world.router, incarnation);
    const registry = world.registry(() => alive);
    const { random, faultyStore: faulty } = world;
    const never = new Promise<never>(() => undefined);
    // A dead process's calls have no effect and no answer.
    const bare = new Proxy<ObjectStore>(faulty, {
      get(target, property) {
        const value: unknown = Reflect.get(target, property, target);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]): Promise<unknown> => {
          if (!alive) return never;
          // Time goes on while a call waits for its own delay: only the way there counts as being under way.
          commons.storeCalls += 1;
          await new Promise((resolve) => setImmediate(resolve));
          commons.storeCalls -= 1;
          if (!alive) return never;
          return value.apply(target, args) as Promise<unknown>;
        };
      },
    });
    const encoded = settings.encoding === undefined || settings.encoding === null ? bare : new EncodedStore(bare, settings.encoding);
    const store = settings.retries === true ? new RetryingStore({ inner: encoded, clock, random }) : encoded;
    const opening = (async (): Promise<SimulatedRouter> => {
      for (const name of ['', '/tmp']) await disk.makeDirectory(`${DIRECTORY}${name}`);
      for (const name of await disk.list(`${DIRECTORY}/tmp`)) await disk.unlink(`${DIRECTORY}/tmp/${name}`);
      const files = await SegmentFiles.open(
        { disk, clock, logger },
        {
          directory: DIRECTORY,
          segmentFileBytes: settings.segmentFileBytes,
          poolFilesMax: 4,
          cacheBytesMax: settings.cacheBytes,
          reserveBytes: 4096,
          recycle: settings.recycle,
        },
      );
      const pool = await PagePool.open(
        { disk, spillPath: `${DIRECTORY}/spill.tmp`, yieldToLoop: () => new Promise((resolve) => setImmediate(resolve)) },
        { bytesMax: 16 * 12_288, spillBytesMax: 2 ** 24 },
      );
      const admission = new WriteAdmission(
        { clock, dirtyBytes: () => files.dirtyBytes, drainedBytes: () => files.drainedBytes },
        settings.dirtyBytesMax,
      );
      const names = { volume: volumeNames('vpool1'), file: fileNames('vf-vpool1-files') };
      const driver = new VolumeDriver(
        {
          disk,
          files,
          store,
          writer: new SimulatedWriter({ store, clock, random, disk }, `${DIRECTORY}/tmp`, world.disk),
          cache: new BlockCache({ limitBytes: 16 * 4096, slabBytes: 4096 * 16 }),
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
          recovered: (_fileid, calls) => {
            for (const [first = 0] of calls) commons.recoveredCalls.add(first);
          },
          keepCalls: (_fileid, durable) => commons.keepCalls(durable),
          isMemoryLost: commons.isMemoryLost,
        },
        {
          segmentBytes: settings.segmentBytes,
          sealAfterMs: 500,
          checkpointAfterBytes: settings.checkpointAfterBytes,
          graceTimeMs: settings.graceTimeMs,
          patienceMs: 15_000,
          restMs: settings.restMs ?? 0,
        },
        { router: world.router, incarnation },
      );
      return new SimulatedRouter({
        clock: turns,
        registry,
        incarnation,
        driver,
        files,
        pool,
        store: faulty,
        admission,
        die: () => {
          alive = false;
          disk.die();
          if (commons.living.get(world.router) === incarnation) commons.living.delete(world.router);
        },
      });
    })();
    return turns.run(opening);
  }

  /** kill -9: nothing of it happens any more. */
  kill(): void {
    this.#die();
  }
}
