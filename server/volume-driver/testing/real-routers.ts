/** Drivers of two routers on real directories, with one SQLite registry and one store in memory: for tests and measurements of moves that a simulated disk cannot judge. */
import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { MemoryStore } from '../../../backends/memory/memory-store.ts';
import type { ObjectStore } from '../../../backends/object-store.ts';
import { BlockCache } from '../../../cache/block-cache.ts';
import type { Inode } from '../../../registry/inode.ts';
import type { Mutation, OwnerRecord } from '../../../registry/ports.ts';
import { openSqliteRegistry } from '../../../registry/sqlite/sqlite-registry.ts';
import type { SqliteRegistry } from '../../../registry/sqlite/sqlite-registry.ts';
import { Histogram } from '../../core/histogram.ts';
import type { FileId, Incarnation, RouterId } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import { nodeDisk } from '../../core/node-disk.ts';
import { systemClock, systemRandom } from '../../core/node-time.ts';
import { timestampOf } from '../../core/time.ts';
import { PieceWriteBack } from '../../file-driver/piece-write-back.ts';
import { SegmentFiles } from '../../object-log/segment-files.ts';
import type { DrivenObject, FrozenLog, MoveSource, Replica } from '../../object-router/driver-port.ts';
import { PagePool } from '../page-pool.ts';
import { countingRowIds } from '../segment-table.ts';
import { fileNames, volumeNames } from '../storage-names.ts';
import { StoredWriter } from '../stored-writer.ts';
import { VolumeDriver } from '../volume-driver.ts';
import { WriteAdmission } from '../write-admission.ts';

const MIB = 1024 * 1024;
const RESERVE_BYTES = 16 * MIB;

export interface RealRouterSettings {
  readonly segmentBytes: number;
  readonly dirtyBytesMax: number;
  readonly checkpointAfterBytes: number;
}

/** What a move took, by its steps, in milliseconds. */
export interface MoveTimes {
  /** Claim, checkpoint and what is behind it on the backend. */
  readonly attachMs: number;
  /** Copying what only the giver has. */
  readonly copyMs: number;
  /** From the hold to the first answered write at the receiver, and its parts. */
  readonly stallMs: number;
  readonly freezeMs: number;
  readonly tailMs: number;
  readonly transferMs: number;
  readonly activateMs: number;
  readonly copiedBytes: number;
}

export class RealRouter {
  readonly driver: VolumeDriver;
  readonly files: SegmentFiles;
  readonly pool: PagePool;
  readonly router: RouterId;
  readonly incarnation: Incarnation;

  private constructor(parts: { driver: VolumeDriver; files: SegmentFiles; pool: PagePool; router: RouterId; incarnation: Incarnation }) {
    this.driver = parts.driver;
    this.files = parts.files;
    this.pool = parts.pool;
    this.router = parts.router;
    this.incarnation = parts.incarnation;
  }

  static async start(
    directory: string,
    letter: string,
    store: ObjectStore,
    registry: SqliteRegistry,
    settings: RealRouterSettings,
  ): Promise<RealRouter> {
    const router = letter.repeat(32) as RouterId;
    const incarnation = systemRandom.bytes(16).toString('hex') as Incarnation;
    await registry.membership.join(router, incarnation, [], 'test');
    for (const name of ['', 'tmp']) await mkdir(join(directory, name), { recursive: true });
    const components = { disk: nodeDisk, clock: systemClock, random: systemRandom, logger: silentLogger };
    const files = await SegmentFiles.open(components, {
      directory,
      segmentFileBytes: Math.ceil(settings.segmentBytes * 1.05),
      poolFilesMax: 8,
      cacheBytesMax: 2048 * MIB,
      reserveBytes: RESERVE_BYTES,
      recycle: true,
    });
    const pool = await PagePool.open(
      { disk: nodeDisk, spillPath: join(directory, 'spill.tmp'), yieldToLoop: () => new Promise((resolve) => setImmediate(resolve)) },
      { bytesMax: 256 * MIB },
    );
    const driver = new VolumeDriver(
      {
        ...components,
        files,
        store,
        writer: new StoredWriter({ ...components, store }, join(directory, 'tmp')),
        cache: new BlockCache({ limitBytes: 64 * MIB }),
        pool,
        rowIds: countingRowIds(),
        registry,
        admission: new WriteAdmission(
          { clock: systemClock, dirtyBytes: () => files.dirtyBytes, drainedBytes: () => files.drainedBytes },
          settings.dirtyBytesMax,
        ),
        syncLatency: new Histogram(),
        writeBack: { volume: null, file: (object) => new PieceWriteBack(object) },
        names: { volume: volumeNames('vpool1'), file: fileNames('vf-vpool1-files') },
      },
      {
        segmentBytes: settings.segmentBytes,
        sealAfterMs: 30_000,
        checkpointAfterBytes: settings.checkpointAfterBytes,
        graceTimeMs: 60_000,
        patienceMs: 15_000,
      },
      { router, incarnation },
    );
    return new RealRouter({ driver, files, pool, router, incarnation });
  }

  mutation(): Mutation {
    return { operationId: null, incarnation: this.incarnation, now: timestampOf(systemClock.wallMs()), notAfterMs: Infinity };
  }

  async close(): Promise<void> {
    await this.driver.recall.close();
    await this.pool.close();
    await this.files.close();
  }
}

export class RealRouters implements AsyncDisposable {
  readonly store = new MemoryStore();
  readonly registry: SqliteRegistry;
  readonly #directory: string;
  readonly #settings: RealRouterSettings;
  readonly #routers = new Map<string, RealRouter>();

  private constructor(directory: string, registry: SqliteRegistry, settings: RealRouterSettings) {
    this.#directory = directory;
    this.registry = registry;
    this.#settings = settings;
  }

  /** `directory` exists and is the caller's to delete. */
  static async open(directory: string, settings: RealRouterSettings): Promise<RealRouters> {
    const registry = await openSqliteRegistry({
      path: join(directory, 'registry.db'),
      vpoolName: 'vpool1',
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    return new RealRouters(directory, registry, settings);
  }

  /** Starts the router of that letter, or starts it again as a new incarnation. */
  async start(letter: string): Promise<RealRouter> {
    const router = await RealRouter.start(join(this.#directory, letter), letter, this.store, this.registry, this.#settings);
    this.#routers.set(letter, router);
    return router;
  }

  async create(router: RealRouter, name: string, objectClass: 'volume' | 'file', sizeBytes = 0): Promise<Inode> {
    const created = await this.registry.namespace.createFile(router.mutation(), this.registry.namespace.root, Buffer.from(name), {
      class: objectClass,
      mode: 0o644,
      uid: 0,
      gid: 0,
      sizeBytes,
      atime: null,
      mtime: null,
      exclusiveVerifier: null,
    });
    assert.ok(created.kind === 'created', created.kind);
    return created.inode;
  }

  inode(fileid: FileId): Inode {
    const inode = this.registry.namespace.inode(fileid, null);
    assert.ok(inode !== null);
    return inode;
  }

  /** Moves an object; `firstWrite` is made at the receiver as soon as it can be. `during`: called between the steps of the copy. */
  async move(
    from: RealRouter,
    object: DrivenObject,
    to: RealRouter,
    firstWrite: (object: DrivenObject) => Promise<unknown>,
    during: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<{ readonly object: DrivenObject; readonly times: MoveTimes }> {
    const { ownership } = this.registry;
    const t0 = performance.now();
    const source = await object.giveAway();
    const begun = await ownership.beginMove(from.mutation(), object.fileid, object.term, to.router, systemRandom.bytes(8).toString('hex'));
    assert.ok(begun.kind === 'done' && begun.owner.moving !== null);
    const replica = await to.driver.receive(this.inode(object.fileid), { ...source.offer, owner: begun.owner });
    const t1 = performance.now();
    let copiedBytes = 0;
    for (let behind = Infinity; behind > 0;) {
      const got = await source.read(replica.position, MIB, 0);
      await replica.append(got.pieces);
      for (const piece of got.pieces) copiedBytes += piece.bytes.length;
      behind = got.behindBytes;
      await during();
    }
    await replica.sync();
    const t2 = performance.now();
    const frozen = await source.freeze();
    const t3 = performance.now();
    await copyTail(source, replica, frozen);
    const t4 = performance.now();
    const closing = frozen.termWrote ? { term: object.term, lastSegment: frozen.lastSegment, lastSequence: frozen.lastSequence } : null;
    const moved = await ownership.transfer(from.mutation(), object.fileid, object.term, begun.owner.moving.attempt, closing, { kind: 'unprotected' });
    assert.ok(moved.kind === 'done');
    const owner: OwnerRecord = moved.owner;
    const t5 = performance.now();
    source.cede();
    const arrived = await replica.activate(owner);
    const t6 = performance.now();
    await firstWrite(arrived);
    const t7 = performance.now();
    await object.close();
    return {
      object: arrived,
      times: {
        attachMs: t1 - t0,
        copyMs: t2 - t1,
        stallMs: t7 - t2,
        freezeMs: t3 - t2,
        tailMs: t4 - t3,
        transferMs: t5 - t4,
        activateMs: t6 - t5,
        copiedBytes,
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const router of this.#routers.values()) await router.close();
    await this.registry[Symbol.asyncDispose]();
    await rm(this.#directory, { recursive: true });
  }
}

async function copyTail(source: MoveSource, replica: Replica, { end, lastSegment, lastSequence }: FrozenLog): Promise<void> {
  replica.prepare(lastSegment);
  while (replica.position.segment < end.segment) {
    const got = await source.read(replica.position, MIB, 0);
    await replica.append(got.pieces);
  }
  assert.equal(await replica.sync(), lastSequence);
}
