/** Several routers over one store and one registry, each with a disk of its own, between which one object moves: without the network, and without the object-router. */
import assert from 'node:assert/strict';

import type { OwnerRecord } from '../../../registry/ports.ts';
import type { RouterId, Term } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Logger } from '../../core/logger.ts';
import type { Random, Timestamp } from '../../core/time.ts';
import { FaultyDisk } from '../../object-log/testing/faulty-disk.ts';
import type { DrivenObject, FormerOwner, FrozenLog, MoveSource, Replica } from '../../object-router/driver-port.ts';
import type { LogPiece } from '../../object-router/peer-port.ts';
import { SimulatedCommons, SimulatedRouter, SimulatedWorld } from './simulated-router.ts';
import type { SimulatedClock, SimulationSettings } from './simulated-router.ts';

const KIB = 1024;
const NOW: Timestamp = { seconds: 1_700_000_000, nanoseconds: 0 };

export const CLUSTER_SETTINGS: SimulationSettings = {
  segmentBytes: 64 * KIB,
  segmentFileBytes: 80 * KIB,
  checkpointAfterBytes: 1024 * KIB,
  dirtyBytesMax: 64 * 1024 * KIB,
  cacheBytes: 1024 * KIB,
  graceTimeMs: 0,
  recycle: true,
};

/** One router: its disk stays, its lives come and go. */
export class ClusterNode {
  readonly world: SimulatedWorld;
  readonly disk: FaultyDisk;
  #router: SimulatedRouter | null = null;

  constructor(world: SimulatedWorld) {
    this.world = world;
    this.disk = world.disk;
  }

  get router(): SimulatedRouter {
    assert.ok(this.#router !== null, 'the router lives');
    return this.#router;
  }
  get id(): RouterId {
    return this.world.router;
  }

  async start(settings: SimulationSettings, logger: Logger): Promise<void> {
    this.#router = await SimulatedRouter.start(this.world, settings, logger);
  }

  /** kill -9; `powerCut`: of the machine too. */
  kill(powerCut: boolean): void {
    this.router.kill();
    this.#router = null;
    this.disk.setFaults({});
    if (powerCut) this.disk.powerCut();
  }

  get lives(): boolean {
    return this.#router !== null;
  }
}

/** What a move has come to; each step may be made by hand. */
export interface Move {
  readonly from: ClusterNode;
  readonly to: ClusterNode;
  readonly source: MoveSource;
  readonly replica: Replica;
  readonly attempt: Term;
  readonly owner: OwnerRecord;
}

export class SimulatedCluster {
  readonly random: Random;
  readonly commons: SimulatedCommons;
  readonly nodes: readonly ClusterNode[];
  readonly #settings: SimulationSettings;
  readonly #logger: Logger;

  private constructor(random: Random, objectClass: 'volume' | 'file', count: number, settings: SimulationSettings, logger: Logger) {
    this.random = random;
    const disks = Array.from({ length: count }, () => new FaultyDisk(random));
    this.commons = new SimulatedCommons(random, objectClass, disks);
    this.nodes = disks.map(
      (disk, index) => new ClusterNode(new SimulatedWorld(disk, random, objectClass, this.commons, 'abcdef'.charAt(index).repeat(32) as RouterId)),
    );
    this.#settings = settings;
    this.#logger = logger;
  }

  static async start(
    random: Random,
    objectClass: 'volume' | 'file',
    count = 2,
    settings: Partial<SimulationSettings> = {},
    logger: Logger = silentLogger,
  ): Promise<SimulatedCluster> {
    const cluster = new SimulatedCluster(random, objectClass, count, { ...CLUSTER_SETTINGS, ...settings }, logger);
    for (const node of cluster.nodes) await cluster.restart(node);
    return cluster;
  }

  async restart(node: ClusterNode): Promise<void> {
    await node.start(this.#settings, this.#logger);
  }

  get clock(): SimulatedClock {
    assert.ok(this.commons.shared !== null);
    return this.commons.shared;
  }

  run<T>(promise: PromiseLike<T> | T): Promise<T> {
    return this.clock.run(Promise.resolve(promise));
  }

  async turns(count: number): Promise<void> {
    for (let turn = 0; turn < count; turn += 1) await this.clock.turn();
  }

  open(node: ClusterNode): Promise<DrivenObject> {
    return this.run(node.router.driver.open(this.commons.inode));
  }

  /** Until the offer is accepted and the receiver has what the backend has. */
  async begin(from: ClusterNode, object: DrivenObject, to: ClusterNode, former?: FormerOwner): Promise<Move> {
    const source = await object.giveAway();
    try {
      const begun = await from.router.registry.ownership.beginMove(
        this.#mutation(from),
        object.fileid,
        object.term,
        to.id,
        this.random.bytes(8).toString('hex'),
      );
      assert.ok(begun.kind === 'done' && begun.owner.moving !== null, `beginMove: ${begun.kind}`);
      const replica = await to.router.driver.receive(this.commons.inode, { ...source.offer, owner: begun.owner }, former);
      return { from, to, source, replica, attempt: begun.owner.moving.attempt, owner: begun.owner };
    } catch (error) {
      source.thaw();
      throw error;
    }
  }

  /** Fetches what there is now, in pieces of random size. Returns the bytes behind them. */
  async fetch({ source, replica }: Move): Promise<number> {
    const got = await source.read(replica.position, 1 + Math.floor(this.random.fraction() * 100_000), 0);
    await replica.append(got.pieces.flatMap((piece) => this.#cut(piece)));
    return got.behindBytes;
  }

  /** The network may deliver a piece in parts. */
  #cut(piece: LogPiece): LogPiece[] {
    if (piece.bytes.length < 2 || this.random.fraction() < 0.5) return [piece];
    const at = 1 + Math.floor(this.random.fraction() * (piece.bytes.length - 1));
    return [
      { ...piece, bytes: piece.bytes.subarray(0, at) },
      { ...piece, offsetBytes: piece.offsetBytes + at, bytes: piece.bytes.subarray(at) },
    ];
  }

  /** Fetches until nothing is behind. */
  async catchUp(move: Move): Promise<void> {
    while ((await this.fetch(move)) > 0);
  }

  /** Freezes, copies the rest, and makes it durable. */
  async freeze(move: Move): Promise<FrozenLog> {
    const end = await move.source.freeze();
    move.replica.prepare(end.lastSegment);
    const isBehind = (): boolean => {
      const { position } = move.replica;
      return position.segment < end.end.segment || (position.segment === end.end.segment && position.offsetBytes < end.end.offsetBytes);
    };
    while (isBehind()) await this.fetch(move);
    assert.deepEqual(move.replica.position, end.end);
    assert.equal(await move.replica.sync(), end.lastSequence);
    return end;
  }

  /** The change of owner in the registry. */
  async transfer({ from, owner, attempt }: Move, end: FrozenLog): Promise<OwnerRecord> {
    const closing = end.termWrote ? { term: owner.term, lastSegment: end.lastSegment, lastSequence: end.lastSequence } : null;
    const outcome = await from.router.registry.ownership.transfer(this.#mutation(from), owner.fileid, owner.term, attempt, closing, {
      kind: 'unprotected',
    });
    assert.ok(outcome.kind === 'done', `transfer: ${outcome.kind}`);
    return outcome.owner;
  }

  /** All of it. `object` is of no use afterwards. */
  async move(from: ClusterNode, object: DrivenObject, to: ClusterNode): Promise<DrivenObject> {
    const move = await this.begin(from, object, to);
    await this.catchUp(move);
    const end = await this.freeze(move);
    const owner = await this.transfer(move, end);
    move.source.cede();
    const [moved] = await Promise.all([move.replica.activate(owner), object.close()]);
    return moved;
  }

  #mutation(node: ClusterNode): { operationId: null; incarnation: SimulatedRouter['incarnation']; now: Timestamp; notAfterMs: number } {
    return { operationId: null, incarnation: node.router.incarnation, now: NOW, notAfterMs: Infinity };
  }
}
