/**
 * One seeded history of an object that moves between routers while clients write, read, commit and resize it: moves that end well, are given up at any
 * step, or lose one of the two routers at any step; faults of disks and store meanwhile. What is read is compared with the dumb model all the time.
 *
 * Clients do what the object-router does for them: what is refused because the object is held is sent again to whoever has it then.
 */
import assert from 'node:assert/strict';

import { seededRandom } from '../../../backends/virtual-clock.ts';
import type { OwnerRecord } from '../../../registry/ports.ts';
import { ApplianceError, errorCode } from '../../core/errors.ts';
import type { FileId } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Logger } from '../../core/logger.ts';
import type { Random } from '../../core/time.ts';
import { timestampOf } from '../../core/time.ts';
import { settleForeign } from '../../object-log/foreign-segments.ts';
import type { DrivenObject, ObjectChange } from '../../object-router/driver-port.ts';
import { surveyObjects } from '../../object-router/startup-recovery.ts';
import { BlockModel, CELL_BYTES } from './block-model.ts';
import type { ModelWrite } from './block-model.ts';
import { SimulatedCluster } from './simulated-cluster.ts';
import type { ClusterNode, Move } from './simulated-cluster.ts';

const BLOCK_BYTES = 4096;
const PAGE_BYTES = 1024 * BLOCK_BYTES;
const AREAS: readonly { offsetBytes: number; lengthBytes: number }[] = [
  { offsetBytes: 0, lengthBytes: 40 * BLOCK_BYTES },
  ...Array.from({ length: 20 }, (_, index) => ({ offsetBytes: (index + 1) * PAGE_BYTES - BLOCK_BYTES, lengthBytes: 2 * BLOCK_BYTES })),
];
const NOW = timestampOf(1_700_000_000_000);

/** What a history met. */
export interface MoveOutcomes {
  moves: number;
  abandoned: number;
  held: number;
  writes: number;
  reads: number;
  deadGivers: number;
  deadReceivers: number;
  faults: number;
  takeovers: number;
  uploads: number;
  /** Calls that were not answered before their router died: done, and not done. */
  foundDone: number;
  foundUndone: number;
  deadRecoveries: number;
}

type Step = 'attached' | 'following' | 'frozen' | 'transferred' | 'activated';
/** Who dies in a move. */
type Death = 'giver' | 'receiver' | 'both';
type Mishap = 'none' | 'abort' | 'giver' | 'receiver' | 'both' | 'giver-disk' | 'receiver-disk' | 'store';

/** Who serves the object, until it is held, moved or dead. */
interface Serving {
  readonly node: ClusterNode;
  readonly object: DrivenObject;
  /** Operations under way. */
  readonly running: Set<Promise<unknown>>;
  readonly died: Promise<'dead'>;
  readonly die: () => void;
}

/** A WRITE as the router knows it that remembers calls. */
interface Call {
  readonly number: number;
  write: ModelWrite;
  /** It is one record: all of it is in the log, or nothing. */
  readonly isWhole: boolean;
  /** Its router answered, though perhaps nobody heard it. */
  answered: boolean;
}

class MoveSimulation {
  readonly outcomes: MoveOutcomes = {
    moves: 0,
    abandoned: 0,
    held: 0,
    writes: 0,
    reads: 0,
    deadGivers: 0,
    deadReceivers: 0,
    faults: 0,
    takeovers: 0,
    uploads: 0,
    foundDone: 0,
    foundUndone: 0,
    deadRecoveries: 0,
  };
  /** What happened, for whoever has to find out why it went wrong. */
  readonly trail: string[] = [];
  readonly #random: Random;
  readonly #cluster: SimulatedCluster;
  readonly #logger: Logger;
  readonly #model = new BlockModel();
  #serving: Serving | null = null;
  #wakeClients: (() => void)[] = [];
  #stopping = false;
  #verifier = '';
  #calls = 0;
  /** Whose router died before they were answered. */
  #unanswered: Call[] = [];
  /** A disk failed since the verifier was seen last. */
  #faulted = false;

  constructor(random: Random, cluster: SimulatedCluster, logger: Logger) {
    this.#random = random;
    this.#cluster = cluster;
    this.#logger = logger;
  }

  #int(below: number): number {
    return Math.floor(this.#random.fraction() * below);
  }
  #chance(probability: number): boolean {
    return this.#random.fraction() < probability;
  }
  #pause(): Promise<void> {
    if (this.#chance(0.7)) return new Promise((resolve) => setImmediate(resolve));
    return this.#cluster.clock.sleep(this.#int(20));
  }

  async run(): Promise<void> {
    const rounds = 1 + this.#int(3);
    for (let round = 0; round < rounds; round += 1) {
      if (this.#serving === null) await this.#open(this.#owner() ?? this.#cluster.nodes[this.#int(this.#cluster.nodes.length)]!);
      await this.#compare('at the start of a round');
      this.#stopping = false;
      const clients = Array.from({ length: 1 + this.#int(8) }, () => this.#client());
      const ticking = this.#tick();
      const moves = 1 + this.#int(5);
      for (let move = 0; move < moves; move += 1) {
        await this.#moveOnce();
        for (let pause = this.#int(30); pause > 0; pause -= 1) await this.#pause();
        // Under load, with calls in every state.
        if (this.#chance(0.4)) {
          await this.#busy();
          await this.#kill(this.#current().node);
        }
      }
      this.#note('clients stop');
      this.#stopping = true;
      await Promise.all([...clients, ticking]);
      this.#note('the round ends');
      await this.#compare('at the end of a round');
      const end = this.#int(4);
      if (end < 2) await this.#kill(this.#current().node);
      else if (end === 2) await this.#takeOver();
      else await this.#close();
    }
    await this.#last();
  }

  #current(): Serving {
    assert.ok(this.#serving !== null, 'somebody serves the object');
    return this.#serving;
  }

  /** The node that the registry names. */
  #owner(): ClusterNode | null {
    const { owner } = this.#cluster.commons;
    return owner === null ? null : (this.#cluster.nodes.find((node) => node.id === owner.router) ?? null);
  }

  #note(what: string): void {
    const { owner } = this.#cluster.commons;
    this.trail.push(
      `${this.#cluster.clock.monotonicMs()} ${what} (${owner?.router.charAt(0)} ${owner?.term.counter}, root ${owner?.root.uploadedSegment})`,
    );
  }

  #serve(node: ClusterNode, object: DrivenObject): void {
    this.#note(`served by ${node.id.charAt(0)}`);
    let die: () => void = () => undefined;
    const died = new Promise<'dead'>((resolve) => (die = () => resolve('dead')));
    this.#serving = { node, object, running: new Set(), died, die };
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#wakeClients;
    this.#wakeClients = [];
    for (const wake of waiting) wake();
  }

  async #open(node: ClusterNode): Promise<void> {
    if (!node.lives) await this.#restart(node);
    for (let attempt = 0; ; attempt += 1) {
      try {
        const object = await node.router.driver.open(this.#cluster.commons.inode);
        this.#serve(node, object);
        return;
      } catch (error) {
        if (attempt > 30 || !isEnvironment(error)) throw error;
        if (attempt > 5) this.#cluster.commons.faultyStore.setFaults({});
        await this.#cluster.clock.sleep(300);
      }
    }
  }

  async #restart(node: ClusterNode): Promise<void> {
    await this.#cluster.restart(node);
    const { registry, files } = node.router;
    if (this.#chance(0.7)) {
      const { disk, commons } = node.world;
      const given = {
        fileidOf: (): FileId => commons.inode.fileid,
        settle: (owner: OwnerRecord): Promise<number> => settleForeign({ disk: disk.process(), files }, owner),
      };
      await surveyObjects({ registry, files, router: node.id, logger: this.#logger, given: this.#chance(0.7) ? given : null });
    }
  }

  /** Reads everything. After the death of an owner the model learns what is left. */
  async #compare(what: string): Promise<void> {
    const { object } = this.#current();
    this.#observeVerifier(object);
    const issued = this.#model.now();
    for (const area of AREAS) this.#model.check(area.offsetBytes, await this.#readAll(object, area.offsetBytes, area.lengthBytes), issued, what);
    const { sizeBytes } = object.attributes();
    assert.ok(sizeBytes >= this.#model.sizeMin && sizeBytes <= this.#model.sizeMax, `${what}: size ${sizeBytes}`);
  }

  async #readAll(object: DrivenObject, offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const target = Buffer.alloc(lengthBytes, 0xee);
    for (let attempt = 0; ; attempt += 1) {
      try {
        const bytesRead = await object.read(offsetBytes, target);
        assert.equal(bytesRead, Math.max(0, Math.min(lengthBytes, object.attributes().sizeBytes - offsetBytes)));
        return target.subarray(0, bytesRead);
      } catch (error) {
        if (attempt > 20 || !isEnvironment(error)) throw error;
        this.#cluster.commons.faultyStore.setFaults({});
        await this.#cluster.clock.sleep(300);
      }
    }
  }

  #observeVerifier(object: DrivenObject): void {
    const verifier = hex(object.verifier);
    if (verifier !== this.#verifier && this.#verifier !== '')
      assert.ok(this.#faulted || this.#model.undecided, 'the verifier changed although nothing can be lost');
    this.#verifier = verifier;
  }

  async #tick(): Promise<void> {
    while (!this.#stopping) {
      if (this.#chance(0.3)) this.#serving?.object.tick();
      await this.#cluster.clock.sleep(50);
    }
  }

  async #client(): Promise<void> {
    while (!this.#stopping) {
      const kind = this.#random.fraction();
      if (kind < 0.6) await this.#write();
      else if (kind < 0.8) await this.#read();
      else await this.#commit();
      await this.#pause();
    }
  }

  /** Runs `work` where the object is; null: its router died meanwhile, and nobody knows the outcome. */
  async #perform<T>(work: (object: DrivenObject) => Promise<T>, isHeld: (result: T) => boolean): Promise<{ result: T; object: DrivenObject } | null> {
    for (;;) {
      const serving = this.#serving;
      if (serving === null) {
        await new Promise<void>((resolve) => this.#wakeClients.push(resolve));
        continue;
      }
      const running = work(serving.object);
      serving.running.add(running);
      const ended = (): boolean => serving.running.delete(running);
      running.then(ended, ended);
      const result = await Promise.race([running, serving.died]);
      if (result === 'dead') return null;
      if (!isHeld(result)) return { result, object: serving.object };
      this.outcomes.held += 1;
      await this.#pause();
    }
  }

  async #write(): Promise<void> {
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
    let write = this.#model.begin(offsetBytes, countBytes, value, !stable);
    this.outcomes.writes += 1;
    this.#calls += 1;
    const call: Call = { number: this.#calls, write, isWhole: value !== 0, answered: false };
    let first = true;
    const done = await this.#perform(
      (object) => {
        // What was held was not executed at all.
        if (!first) write = this.#model.begin(offsetBytes, countBytes, value, !stable);
        first = false;
        call.write = write;
        const name = Uint32Array.of(call.number, 0, 0, 0);
        return object.write(offsetBytes, countBytes, [Buffer.alloc(countBytes, value)], stable, NOW, name).then((change) => {
          call.answered = change.kind === 'changed';
          return change;
        });
      },
      (change) => {
        if (!isHeldChange(change)) return false;
        this.#model.withdrawn(write);
        return true;
      },
    );
    if (done === null) {
      this.#unanswered.push(call);
      return;
    }
    if (done.result.kind === 'changed') this.#model.answered(write, stable, hex(done.object.verifier));
    else {
      this.#expected(done.result.error);
      this.#model.refused(write);
    }
  }

  async #read(): Promise<void> {
    const area = AREAS[this.#int(AREAS.length)]!;
    const issued = this.#model.now();
    const target = Buffer.alloc(area.lengthBytes, 0xee);
    try {
      const done = await this.#perform(
        async (object) => object.read(area.offsetBytes, target),
        () => false,
      );
      if (done === null) return;
      this.outcomes.reads += 1;
      this.#model.check(area.offsetBytes, target.subarray(0, done.result), issued, 'read');
    } catch (error) {
      this.#expected(error);
    }
  }

  async #commit(): Promise<void> {
    const issued = this.#model.now();
    const done = await this.#perform(
      async (object) => object.commit(NOW),
      (refusal) => refusal !== null && errorCode(refusal.error) === 'object-held',
    );
    if (done === null) return;
    if (done.result === null) this.#model.committed(issued, hex(done.object.verifier));
    else this.#expected(done.result.error);
  }

  #expected(error: unknown): void {
    if (!isEnvironment(error)) throw error;
  }

  async #moveOnce(): Promise<void> {
    const serving = this.#current();
    const { node: from, object } = serving;
    const others = this.#cluster.nodes.filter((node) => node !== from);
    const to = others[this.#int(others.length)]!;
    if (!to.lives) await this.#restart(to);
    const steps: readonly Step[] = ['attached', 'following', 'frozen', 'transferred', 'activated'];
    const mishaps: readonly Mishap[] = ['abort', 'giver', 'receiver', 'both', 'giver-disk', 'receiver-disk', 'store'];
    const mishap: Mishap = this.#chance(0.5) ? 'none' : mishaps[this.#int(mishaps.length)]!;
    const at = steps[this.#int(steps.length)]!;
    this.#note(`move to ${to.id.charAt(0)}, ${mishap} when ${at}`);
    let move: Move | null = null;
    let ended: Death | null = null;
    const step = (now: Step): boolean => {
      if (now !== at || mishap === 'none') return true;
      if (mishap === 'giver' || mishap === 'receiver' || mishap === 'both') {
        ended = mishap;
        return false;
      }
      if (mishap === 'abort') {
        if (now === 'transferred' || now === 'activated') return true;
        throw new ApplianceError('move-abandoned', 'it was given up');
      }
      this.outcomes.faults += 1;
      this.#faulted ||= mishap === 'giver-disk' || mishap === 'receiver-disk';
      if (mishap === 'giver-disk') from.disk.setFaults({ syncError: 0.3, writeError: 0.05 });
      else if (mishap === 'receiver-disk') to.disk.setFaults({ syncError: 0.3, writeError: 0.05, metadataError: 0.1 });
      else this.#cluster.commons.faultyStore.setFaults({ failBefore: 0.2, loseAnswer: 0.2 });
      return true;
    };
    try {
      move = await this.#cluster.begin(from, object, to);
      if (!step('attached')) return await this.#lose(ended!, move, serving, false);
      for (let turn = this.#int(20); turn > 0; turn -= 1) {
        await this.#cluster.fetch(move);
        if (this.#chance(0.2)) await move.replica.sync();
        await this.#pause();
      }
      if (!step('following')) return await this.#lose(ended!, move, serving, false);
      const end = await this.#cluster.freeze(move);
      if (!step('frozen')) return await this.#lose(ended!, move, serving, false);
      for (let pause = this.#int(5); pause > 0; pause -= 1) await this.#pause();
      const owner = await this.#cluster.transfer(move, end);
      this.outcomes.moves += 1;
      // From here on nobody is asked but the receiver.
      this.#serving = null;
      if (!step('transferred')) return await this.#lose(ended!, move, serving, true);
      move.source.cede();
      const closing = this.#closeWhenDone(serving);
      const moved = await move.replica.activate(owner);
      this.#serve(to, moved);
      if (this.#chance(0.5)) await closing;
      if (!step('activated')) return await this.#lose(ended!, move, serving, true);
    } catch (error) {
      if (!isEnvironment(error)) throw error;
      this.#note(String(error));
      if (this.#serving === null) {
        // The receiver owns it and could not open it from the copy: a recovery can.
        to.disk.setFaults({});
        await this.#open(to);
        this.#afterDeath();
      } else {
        this.outcomes.abandoned += 1;
        if (move !== null) {
          move.source.thaw();
          await move.replica.discard().catch((problem: unknown) => this.#expected(problem));
        }
      }
    } finally {
      for (const node of this.#cluster.nodes) node.disk.setFaults({});
      this.#cluster.commons.faultyStore.setFaults({});
    }
    if (this.#chance(0.3)) await this.#heal();
  }

  /** A router dies in a move. */
  async #lose(which: Death, move: Move, former: Serving, isMoved: boolean): Promise<void> {
    const { from, to } = move;
    if (which === 'both') {
      this.outcomes.deadGivers += 1;
      this.outcomes.deadReceivers += 1;
      to.disk.setFaults({});
      if (!isMoved) {
        to.kill(this.#chance(0.6));
        await this.#kill(from);
        return;
      }
      const serving = this.#serving;
      this.#serving = null;
      from.kill(this.#chance(0.6));
      former.die();
      to.kill(this.#chance(0.6));
      serving?.die();
      await this.#reopen(to);
      return;
    }
    if (which === 'receiver') {
      this.outcomes.deadReceivers += 1;
      to.disk.setFaults({});
      if (!isMoved) {
        to.kill(this.#chance(0.6));
        move.source.thaw();
        return;
      }
      const serving = this.#serving;
      this.#serving = null;
      serving?.die();
      // A giver that was told cedes, whatever becomes of the receiver.
      if (former !== serving && serving === null) {
        move.source.cede();
        void this.#closeWhenDone(former);
      }
      to.kill(this.#chance(0.6));
      await this.#reopen(to);
      return;
    }
    this.outcomes.deadGivers += 1;
    if (isMoved) {
      from.kill(this.#chance(0.6));
      former.die();
      if (this.#serving === null) {
        const { owner } = this.#cluster.commons;
        assert.ok(owner !== null);
        this.#serve(to, await move.replica.activate(owner));
      }
      return;
    }
    await this.#kill(from);
    await move.replica.discard();
  }

  /** The owner dies. What it did not answer may or may not have happened. */
  async #kill(node: ClusterNode): Promise<void> {
    const serving = this.#current();
    assert.equal(serving.node, node);
    this.#serving = null;
    node.kill(this.#chance(0.6));
    serving.die();
    await this.#reopen(node);
  }

  /** Until some calls are under way, or for a while. */
  async #busy(): Promise<void> {
    const { running } = this.#current();
    for (let turn = 0; turn < 100 && running.size < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    for (let turn = this.#int(5); turn > 0; turn -= 1) await new Promise((resolve) => setImmediate(resolve));
  }

  /** After a death: the first recoveries may die, too. */
  async #reopen(node: ClusterNode): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    for (let deaths = this.#chance(0.4) ? 1 + this.#int(3) : 0; deaths > 0; deaths -= 1) {
      await this.#restart(node);
      node.router.driver.open(this.#cluster.commons.inode).catch((error: unknown) => this.#expected(error));
      for (let turn = this.#int(80); turn > 0; turn -= 1) await new Promise((resolve) => setImmediate(resolve));
      node.kill(this.#chance(0.3));
      this.outcomes.deadRecoveries += 1;
    }
    await this.#open(node);
    this.#afterDeath();
  }

  #afterDeath(): void {
    const { object } = this.#current();
    const verifier = hex(object.verifier);
    this.#observeVerifier(object);
    this.#model.crashed(verifier);
    this.#faulted = false;
    // What the log names was done, and nothing else: its clients ask again, and are told so, or it is done then.
    for (const { number, write, isWhole, answered } of this.#unanswered.splice(0)) {
      const found = answered || this.#cluster.commons.recoveredCalls.has(number);
      if (found) this.#model.happened(write);
      else if (isWhole) this.#model.withdrawn(write);
      this.outcomes[found ? 'foundDone' : 'foundUndone'] += 1;
    }
  }

  async #heal(): Promise<void> {
    const { object } = this.#current();
    for (let turn = 0; turn < 200 && object.problem !== null; turn += 1) {
      object.tick();
      await this.#cluster.clock.sleep(100);
    }
    assert.equal(object.problem, null, 'it recovers from what is over');
  }

  async #close(): Promise<void> {
    const serving = this.#current();
    this.#serving = null;
    await this.#closeWhenDone(serving);
  }

  async #closeWhenDone(serving: Serving): Promise<void> {
    await Promise.race([Promise.allSettled(serving.running), serving.died]);
    await Promise.race([serving.object.close(), serving.died]);
  }

  /** It becomes clean, its router dies, and another one that has nothing of it takes over. */
  async #takeOver(): Promise<void> {
    const { node, object } = this.#current();
    await this.#becomeClean();
    await this.#close();
    node.kill(false);
    const others = this.#cluster.nodes.filter((other) => other !== node);
    await this.#open(others[this.#int(others.length)]!);
    assert.ok(hex(this.#current().object.verifier) === hex(object.verifier) || this.#model.undecided);
    this.#afterDeath();
    this.outcomes.takeovers += 1;
    await this.#compare('after a takeover');
    await this.#close();
    await this.#restart(node);
  }

  async #becomeClean(): Promise<void> {
    const { object, node } = this.#current();
    for (let turn = 0; !object.isClean || this.#cluster.commons.owner?.protection.kind !== 'clean'; turn += 1) {
      if (turn > 3000) throw new Error(`the object does not become clean: ${String(object.problem)}`);
      object.tick();
      await this.#cluster.clock.sleep(200);
    }
    // A segment that was made ready and never begun counts for nothing.
    assert.equal(node.router.files.dirtyBytes, 0, 'what is on the backend is not dirty');
  }

  /** The backend alone has everything. */
  async #last(): Promise<void> {
    if (this.#serving === null) await this.#open(this.#owner()!);
    await this.#compare('at the end');
    await this.#takeOver();
    for (const node of this.#cluster.nodes) {
      if (!node.lives) continue;
      const { pool, files } = node.router;
      await pool.close();
      assert.equal(pool.stats.framesUsed, 0, 'frames are given back');
      assert.equal(pool.stats.unitsFree, pool.framesMax, 'pins are given back');
      assert.ok(files.dirtyBytes >= 0 && files.cacheBytes >= 0);
    }
    this.outcomes.uploads = this.#cluster.commons.owner?.root.uploadedSegment ?? 0;
  }
}

function isHeldChange(change: ObjectChange): boolean {
  return change.kind === 'refused' && errorCode(change.error) === 'object-held';
}

function isEnvironment(error: unknown): boolean {
  return (errorCode(error) !== undefined && errorCode(error) !== 'ERR_ASSERTION') || (error instanceof Error && error.name === 'StoreError');
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Runs the history of a seed. @throws when anything is not as the model says. */
export async function simulateMoves(seed: number, logger: Logger = silentLogger): Promise<MoveOutcomes> {
  const random = seededRandom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.fraction() * list.length)]!;
  const segmentBytes = pick([24, 64, 200]) * 1024;
  const cluster = await SimulatedCluster.start(
    random,
    pick(['volume', 'volume', 'file'] as const),
    pick([2, 3]),
    {
      segmentBytes,
      segmentFileBytes: Math.ceil(segmentBytes * pick([1.1, 3])),
      checkpointAfterBytes: pick([1, 4, 1000]) * segmentBytes,
      dirtyBytesMax: 8 * 1024 * 1024,
      cacheBytes: pick([0, 8 * segmentBytes, 1024 * segmentBytes]),
      graceTimeMs: pick([0, 60_000]),
      recycle: random.fraction() < 0.7,
    },
    logger,
  );
  const simulation = new MoveSimulation(random, cluster, logger);
  try {
    await cluster.clock.run(simulation.run(), 300_000);
  } catch (error) {
    throw new Error(`${String(error)}\n${simulation.trail.slice(-12).join('\n')}`, { cause: error });
  }
  return simulation.outcomes;
}
