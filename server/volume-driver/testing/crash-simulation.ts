/**
 * One seeded history of an object: random writes, commits, reads and resizes, several at once, with faults of disk, store and registry, and crashes
 * at any moment, recoveries included. After every start, and whenever something is read, it is compared with the dumb model.
 */
import assert from 'node:assert/strict';

import { MODES } from '../../../backends/encoding/encoding.fixture.ts';
import type { StoreFaults } from '../../../backends/faulty-store.ts';
import { seededRandom } from '../../../backends/virtual-clock.ts';
import { errorCode } from '../../core/errors.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Logger } from '../../core/logger.ts';
import { timestampOf } from '../../core/time.ts';
import { Status } from '../../nfsd/file-system.ts';
import { FaultyDisk } from '../../object-log/testing/faulty-disk.ts';
import type { DrivenObject } from '../../object-router/driver-port.ts';
import { statusOfError } from '../../object-router/error-status.ts';
import { BlockModel, CELL_BYTES } from './block-model.ts';
import { DIRECTORY, SimulatedRouter, SimulatedWorld } from './simulated-router.ts';
import type { SimulationSettings } from './simulated-router.ts';

const BLOCK_BYTES = 4096;
const PAGE_BYTES = 1024 * BLOCK_BYTES;
/** Places that are written: one long one, and short ones on many pages of the extent map. */
const AREAS: readonly { offsetBytes: number; lengthBytes: number }[] = [
  { offsetBytes: 0, lengthBytes: 40 * BLOCK_BYTES },
  ...Array.from({ length: 24 }, (_, index) => ({ offsetBytes: (index + 1) * PAGE_BYTES - BLOCK_BYTES, lengthBytes: 2 * BLOCK_BYTES })),
];

/**
 * The store under a history. `plain`: consistent, and fails now and then. `hostile`: all the time eventually consistent in every way that the wrapper
 * knows, slow, and wrong on the way; whatever it does, the only answer that a client may get because of it is JUKEBOX.
 */
export type SimulatedBackend = 'plain' | 'hostile';

const HOSTILE: Partial<StoreFaults> = {
  visibleLagMsMax: 4000,
  listLagMsMax: 8000,
  halfVisibleMsMax: 3000,
  blindPut: 0.5,
  undeadMsMax: 20_000,
  bucketLagMsMax: 2000,
  applyLateMsMax: 30_000,
  delayMsMax: 400,
  stormMs: 3000,
};
/** Probabilities of `hostile` on top of that, with and without retries below the engine. */
const HOSTILE_RETRIED = {
  waver: 0.05,
  loseAnswer: 0.08,
  applyLate: 0.05,
  delay: 0.3,
  failBefore: 0.1,
  storm: 0.01,
  hang: 0.005,
  truncateGet: 0.03,
  flipGet: 0.03,
};
const HOSTILE_BARE = { waver: 0.03, loseAnswer: 0.03, applyLate: 0.03, delay: 0.2, failBefore: 0.03, storm: 0.003, truncateGet: 0.02, flipGet: 0.02 };

/** What a history met: a run in which nothing happens tests nothing. */
export interface SimulationOutcome {
  lives: number;
  writes: number;
  refused: number;
  crashes: number;
  verifierChanges: number;
  uploads: number;
}

class Simulation {
  readonly #random;
  readonly #world: SimulatedWorld;
  readonly #model = new BlockModel();
  readonly #settings: SimulationSettings;
  readonly #logger: Logger;
  /** Faults that the store always has. */
  readonly #baseline: Partial<StoreFaults>;
  /** Disk or registry failed in this life: errors may be anything. */
  #otherFaults = false;
  readonly outcome: SimulationOutcome = { lives: 0, writes: 0, refused: 0, crashes: 0, verifierChanges: 0, uploads: 0 };
  #verifier = '';
  #faulted = false;
  #failure: unknown = null;

  constructor(seed: number, backend: SimulatedBackend, logger: Logger) {
    this.#random = seededRandom(seed);
    this.#logger = logger;
    this.#world = new SimulatedWorld(new FaultyDisk(this.#random), this.#random, this.#chance(0.75) ? 'volume' : 'file');
    const segmentBytes = [24, 64, 200][this.#int(3)]! * 1024;
    this.#settings = {
      segmentBytes,
      segmentFileBytes: Math.ceil(segmentBytes * (this.#chance(0.5) ? 1.1 : 3)),
      checkpointAfterBytes: [1, 4][this.#int(2)]! * segmentBytes,
      dirtyBytesMax: 4 * 1024 * 1024,
      cacheBytes: this.#chance(0.5) ? 0 : 8 * segmentBytes,
      graceTimeMs: this.#chance(0.5) ? 0 : 60_000,
      recycle: this.#chance(0.7),
      retries: backend === 'hostile' && this.#chance(0.7),
      encoding: backend === 'hostile' && seed % 4 === 0 ? MODES.both : null,
    };
    this.#baseline =
      backend === 'plain'
        ? {}
        : {
            ...HOSTILE,
            ...(this.#settings.retries === true ? HOSTILE_RETRIED : HOSTILE_BARE),
            bytesPerSecond: this.#chance(0.3) ? 100_000 : 0,
          };
  }

  #int(below: number): number {
    return Math.floor(this.#random.fraction() * below);
  }

  #chance(probability: number): boolean {
    return this.#random.fraction() < probability;
  }

  async run(): Promise<void> {
    const lives = 2 + this.#int(5);
    for (let life = 0; life < lives; life += 1) await this.#live();
    await this.#last();
  }

  async #start(): Promise<SimulatedRouter | null> {
    this.outcome.lives += 1;
    this.#otherFaults = false;
    const router = await SimulatedRouter.start(this.#world, this.#settings, this.#logger);
    router.store.setFaults(this.#baseline);
    return router;
  }

  /** Opens the object; null when the router died meanwhile. */
  async #open(router: SimulatedRouter, crashAtTurn: number): Promise<DrivenObject | null> {
    for (let attempt = 0; attempt < 50; attempt += 1) {
      if (attempt === 10) this.#heal(router);
      // Without retries below the engine a long log has many chances to fail.
      if (attempt === 25) router.store.setFaults({});
      const opening = router.driver.open(this.#world.inode);
      let result: DrivenObject | Error | null = null;
      opening.then(
        (object) => (result = object),
        (error: unknown) => (result = error as Error),
      );
      for (let turn = 0; result === null; turn += 1) {
        if (turn >= crashAtTurn) return null;
        if (turn > 100_000) throw new Error('the object does not open');
        await router.clock.turn();
      }
      const opened = result as DrivenObject | Error;
      if (!(opened instanceof Error)) return opened;
      if (errorCode(opened) === 'object-damaged') throw opened;
      this.#expected(opened);
      await router.clock.run(router.clock.sleep(500));
    }
    throw new Error('the object cannot be opened');
  }

  #heal(router: SimulatedRouter): void {
    this.#world.disk.setFaults({});
    this.#world.disk.capacityBytes = Infinity;
    router.store.setFaults(this.#baseline);
    this.#world.registryFaults = 0;
  }

  #makeFaults(router: SimulatedRouter): void {
    const { disk } = this.#world;
    disk.setFaults({});
    disk.capacityBytes = Infinity;
    router.store.setFaults(this.#baseline);
    this.#world.registryFaults = 0;
    const kind = this.#int(8);
    this.#otherFaults ||= kind <= 3 || kind === 6;
    switch (kind) {
      case 0:
        disk.setFaults({ syncError: 0.3 });
        this.#faulted = true;
        break;
      case 1:
        disk.setFaults({ writeError: 0.1, shortWrite: 0.1, syncError: 0.05 });
        this.#faulted = true;
        break;
      case 2:
        disk.setFaults({ metadataError: 0.2 });
        this.#faulted = true;
        break;
      case 3:
        disk.capacityBytes = disk.usedBytes + this.#int(4) * 40_000;
        this.#faulted = true;
        break;
      case 4:
        router.store.setFaults({ ...this.#baseline, failBefore: 0.3, loseAnswer: 0.2 });
        break;
      case 5:
        router.store.setFaults({ ...this.#baseline, failBefore: 1 });
        break;
      case 6:
        this.#world.registryFaults = 0.3;
        break;
      default:
    }
  }

  async #live(): Promise<void> {
    const router = await this.#start();
    if (router === null) return;
    if (this.#chance(0.3)) this.#makeFaults(router);
    const object = await this.#open(router, this.#chance(0.25) ? this.#int(60) : Infinity);
    if (object === null) return this.#crash(router);
    this.#heal(router);
    await this.#compare(router, object);

    const running = new Set<Promise<void>>();
    const width = 1 + this.#int(8);
    const operations = this.#int(120);
    for (let done = 0; done < operations;) {
      if (this.#chance(0.05)) this.#makeFaults(router);
      if (this.#chance(0.03)) object.tick();
      if (running.size < width && this.#chance(0.6)) {
        done += 1;
        if (this.#chance(0.04)) {
          await this.#drain(router, running);
          await this.#resize(router, object);
        } else {
          const work = this.#operation(object).catch((error: unknown) => {
            this.#failure ??= error;
          });
          running.add(work);
          void work.then(() => running.delete(work));
        }
      } else await router.clock.turn();
      if (this.#failure !== null) throw this.#failure;
      this.#observeVerifier(object);
    }
    if (this.#chance(0.6)) return this.#crash(router);
    this.#heal(router);
    await this.#drain(router, running);
    if (this.#chance(0.5)) await router.clock.run(object.flush(router.clock.monotonicMs() + 5000));
    await router.clock.run(object.close());
    await this.#checkLeaks(router);
    return this.#crash(router);
  }

  async #checkLeaks(router: SimulatedRouter): Promise<void> {
    await router.clock.run(router.pool.close());
    const { stats } = router.pool;
    assert.equal(stats.unitsFree, router.pool.framesMax, 'pins are given back');
    assert.equal(stats.framesUsed, 0, 'frames are given back');
  }

  #crash(router: SimulatedRouter): void {
    router.kill();
    this.outcome.crashes += 1;
    if (this.#chance(0.6)) this.#world.disk.powerCut();
    this.#world.disk.setFaults({});
    this.#world.disk.capacityBytes = Infinity;
    this.#world.registryFaults = 0;
  }

  async #drain(router: SimulatedRouter, running: Set<Promise<void>>): Promise<void> {
    let turns = 0;
    while (running.size > 0) {
      await router.clock.turn();
      turns += 1;
      if (turns === 2000) this.#heal(router);
      if (turns > 50_000) throw new Error('operations never end');
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** After a start: everything is as the model allows; what was found is what there is from now on. */
  async #compare(router: SimulatedRouter, object: DrivenObject): Promise<void> {
    const verifier = hex(object.verifier);
    if (this.#verifier !== '' && verifier !== this.#verifier) {
      this.outcome.verifierChanges += 1;
      assert.ok(this.#model.undecided || this.#faulted, 'the verifier changed although nothing can be lost');
    }
    this.#model.crashed(verifier);
    this.#verifier = verifier;
    this.#faulted = false;
    const issued = this.#model.now();
    const { sizeBytes } = object.attributes();
    for (const area of AREAS) {
      const bytes = await this.#readAll(router, object, area.offsetBytes, area.lengthBytes);
      this.#model.check(area.offsetBytes, bytes, issued, 'after a start');
      this.#model.adopt(area.offsetBytes, bytes);
    }
    this.#model.adopted(sizeBytes);
  }

  async #readAll(router: SimulatedRouter, object: DrivenObject, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const target = Buffer.alloc(lengthBytes, 0xee);
    let bytesRead: number | null = null;
    for (let attempt = 0; bytesRead === null; attempt += 1) {
      if (attempt === 10) this.#heal(router);
      try {
        bytesRead = await router.clock.run(Promise.resolve(object.read(offsetBytes, target)));
      } catch (error) {
        // As a client that was told to come back.
        if (attempt === 50 || this.#baseline.waver === undefined) throw error;
        this.#expected(error);
        await router.clock.run(router.clock.sleep(500));
      }
    }
    assert.equal(bytesRead, Math.max(0, Math.min(lengthBytes, object.attributes().sizeBytes - offsetBytes)), 'a read ends where the object does');
    return target.subarray(0, bytesRead);
  }

  #observeVerifier(object: DrivenObject): void {
    const verifier = hex(object.verifier);
    if (verifier === this.#verifier) return;
    this.outcome.verifierChanges += 1;
    assert.ok(this.#faulted, 'the verifier changed without a fault of the disk');
    this.#verifier = verifier;
  }

  async #operation(object: DrivenObject): Promise<void> {
    const kind = this.#random.fraction();
    if (kind < 0.65) await this.#write(object);
    else if (kind < 0.8) await this.#read(object);
    else await this.#commit(object);
  }

  async #write(object: DrivenObject): Promise<void> {
    const area = AREAS[this.#chance(0.5) ? 0 : this.#int(AREAS.length)]!;
    const aligned = this.#chance(0.5);
    const unit = aligned ? BLOCK_BYTES : CELL_BYTES;
    const units = area.lengthBytes / unit;
    const from = this.#int(units);
    const most = this.#chance(0.2) ? units - from : Math.min(units - from, aligned ? 2 : 80);
    const offsetBytes = area.offsetBytes + from * unit;
    const countBytes = unit * (1 + this.#int(most));
    const value = this.#chance(0.15) ? 0 : 1 + this.#int(255);
    const stable = this.#chance(0.5);
    const write = this.#model.begin(offsetBytes, countBytes, value, !stable);
    this.outcome.writes += 1;
    const changed = await object.write(offsetBytes, countBytes, this.#chunks(countBytes, value), stable, timestampOf(1_700_000_000_000));
    if (changed.kind === 'changed') {
      this.#model.answered(write, stable, hex(object.verifier));
      return;
    }
    this.outcome.refused += 1;
    this.#expected(changed.error);
    this.#model.refused(write);
  }

  #chunks(countBytes: number, value: number): Buffer[] {
    const chunks: Buffer[] = [];
    for (let left = countBytes; left > 0;) {
      const take = this.#chance(0.5) ? left : Math.min(left, 1 + this.#int(5000));
      chunks.push(Buffer.alloc(take, value));
      left -= take;
    }
    return chunks;
  }

  async #read(object: DrivenObject): Promise<void> {
    const area = AREAS[this.#int(AREAS.length)]!;
    const issued = this.#model.now();
    const target = Buffer.alloc(area.lengthBytes, 0xee);
    let bytesRead: number;
    try {
      bytesRead = await object.read(area.offsetBytes, target);
    } catch (error) {
      this.#expected(error);
      return;
    }
    this.#model.check(area.offsetBytes, target.subarray(0, bytesRead), issued, 'read');
  }

  async #commit(object: DrivenObject): Promise<void> {
    const issued = this.#model.now();
    const refusal = await object.commit(timestampOf(1_700_000_000_000));
    if (refusal !== null) this.#expected(refusal.error);
    else this.#model.committed(issued, hex(object.verifier));
  }

  async #resize(router: SimulatedRouter, object: DrivenObject): Promise<void> {
    const area = AREAS[this.#int(AREAS.length)]!;
    const sizeBytes = area.offsetBytes + this.#int(area.lengthBytes / CELL_BYTES + 1) * CELL_BYTES;
    const work = object.setAttributes({ sizeBytes, atime: null, mtime: null }, timestampOf(1_700_000_000_000));
    let result: Awaited<typeof work> | null = null;
    work.then(
      (change) => (result = change),
      (error: unknown) => (this.#failure ??= error),
    );
    // Nothing says what happens when it is cut off.
    for (let turn = 0; result === null && this.#failure === null; turn += 1) {
      await router.clock.turn();
      if (turn === 2000) this.#heal(router);
      if (turn > 50_000) throw new Error('a resize never ends');
    }
    const change = result as Awaited<typeof work> | null;
    if (change?.kind === 'changed') {
      this.#model.resized(sizeBytes);
      assert.equal(object.attributes().sizeBytes, sizeBytes);
    } else if (change !== null) {
      this.#expected(change.error);
      this.#model.resizeUnknown(sizeBytes);
    }
  }

  /** Environment errors may be answered while faults are injected; anything else is a bug. What only the store did ends in JUKEBOX. */
  #expected(error: unknown): void {
    if (errorCode(error) === undefined && !(error instanceof Error && error.name === 'StoreError')) throw error;
    if (this.#otherFaults || statusOfError(error) === Status.JUKEBOX) return;
    throw new Error('a client would get an error because of the backend', { cause: error });
  }

  /** Faults end: the object becomes clean, and the backend alone has everything. */
  async #last(): Promise<void> {
    let router = await this.#start();
    if (router === null) return;
    let object = await this.#open(router, Infinity);
    assert.ok(object !== null);
    await this.#compare(router, object);
    for (let round = 0; !object.isClean || this.#world.owner?.protection.kind !== 'clean'; round += 1) {
      if (round > 3000) throw new Error(`the object does not become clean: ${String(object.problem)}`);
      object.tick();
      await router.clock.run(router.clock.sleep(1000));
    }
    assert.equal(router.files.dirtyBytes, 0, 'nothing is dirty any more');
    const verifier = hex(object.verifier);
    await router.clock.run(object.close());
    await this.#checkLeaks(router);
    router.kill();
    this.outcome.uploads = this.#world.store.objectCount;
    for (const path of this.#world.disk.files(DIRECTORY)) this.#world.disk.lose(path);
    router = await this.#start();
    if (router === null) return;
    object = await this.#open(router, Infinity);
    assert.ok(object !== null);
    assert.equal(hex(object.verifier), verifier, 'a clean stop keeps the verifier');
    await this.#compare(router, object);
    await router.clock.run(object.close());
    router.kill();
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Plays the history of one seed. @throws when the engine does what the model does not allow. */
export async function simulate(seed: number, backend: SimulatedBackend = 'plain', logger: Logger = silentLogger): Promise<SimulationOutcome> {
  const simulation = new Simulation(seed, backend, logger);
  await simulation.run();
  return simulation.outcome;
}
