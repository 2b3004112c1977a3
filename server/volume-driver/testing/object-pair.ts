/** For tests of what the engine does of a handover: two routers in one process, one object, and what tests do with it. */
import assert from 'node:assert/strict';

import { seededRandom } from '../../../backends/virtual-clock.ts';
import { errorCode } from '../../core/errors.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Logger } from '../../core/logger.ts';
import type { DrivenObject, ObjectChange } from '../../object-router/driver-port.ts';
import { SimulatedCluster } from './simulated-cluster.ts';
import type { ClusterNode } from './simulated-cluster.ts';
import type { SimulationSettings } from './simulated-router.ts';

export const KIB = 1024;
export const BLOCK = 4096;
export const NOW = { seconds: 1_700_000_000, nanoseconds: 0 };

/** Asserts that a change was made. */
export function accepted(change: ObjectChange): void {
  assert.equal(change.kind, 'changed', change.kind === 'refused' ? String(change.error) : '');
}

/** Writes `countBytes` of `fill`. */
export function write(object: DrivenObject, offsetBytes: number, fill: number, countBytes = BLOCK, stable = true): Promise<ObjectChange> {
  return object.write(offsetBytes, countBytes, [Buffer.alloc(countBytes, fill)], stable, NOW);
}

/** SETATTR of the size. */
export function resize(object: DrivenObject, sizeBytes: number): Promise<ObjectChange> {
  return object.setAttributes({ sizeBytes, atime: null, mtime: null }, NOW);
}

/** All bytes of an object. */
export async function contents(object: DrivenObject): Promise<Buffer> {
  const target = Buffer.alloc(object.attributes().sizeBytes, 0xee);
  assert.equal(await object.read(0, target), target.length);
  return target;
}

/** Asserts that `work` rejects with an error of that code. */
export async function refusedWith(code: string, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => errorCode(error) === code);
}

/** Two routers, and the object open at the first one. */
export class Pair {
  readonly cluster: SimulatedCluster;
  readonly a: ClusterNode;
  readonly b: ClusterNode;

  private constructor(cluster: SimulatedCluster) {
    this.cluster = cluster;
    const [a, b] = cluster.nodes;
    assert.ok(a !== undefined && b !== undefined);
    this.a = a;
    this.b = b;
  }

  static async start(
    objectClass: 'volume' | 'file' = 'volume',
    settings: Partial<SimulationSettings> = {},
    logger: Logger = silentLogger,
  ): Promise<Pair> {
    return new Pair(await SimulatedCluster.start(seededRandom(11), objectClass, 2, settings, logger));
  }

  run<T>(promise: PromiseLike<T> | T): Promise<T> {
    return this.cluster.run(promise);
  }

  open(node: ClusterNode): Promise<DrivenObject> {
    return this.cluster.open(node);
  }

  move(from: ClusterNode, object: DrivenObject, to: ClusterNode): Promise<DrivenObject> {
    return this.run(this.cluster.move(from, object, to));
  }

  /** Writes 1 to the first block, 2 to the second, and so on. */
  async fill(object: DrivenObject, blocks: number): Promise<void> {
    for (let n = 0; n < blocks; n += 1) accepted(await this.run(write(object, n * BLOCK, 1 + n)));
  }

  async assertFilled(object: DrivenObject, blocks: number): Promise<void> {
    const bytes = await this.run(contents(object));
    for (let n = 0; n < blocks; n += 1) assert.equal(bytes[n * BLOCK], 1 + n);
  }

  /** Begins to move it from the first router to the second, which has all of its log then. */
  async copy(object: DrivenObject): ReturnType<SimulatedCluster['begin']> {
    const move = await this.run(this.cluster.begin(this.a, object, this.b));
    await this.run(this.cluster.catchUp(move));
    return move;
  }

  /** All of it is on the backend. */
  async clean(object: DrivenObject): Promise<void> {
    for (let second = 0; second < 100 && !(object.isClean && this.cluster.commons.owner?.protection.kind === 'clean'); second += 1) {
      object.tick();
      await this.run(this.cluster.clock.sleep(1000));
    }
    assert.ok(object.isClean, String(object.problem));
  }

  backend(faults: Parameters<SimulatedCluster['commons']['faultyStore']['setFaults']>[0]): void {
    this.cluster.commons.faultyStore.setFaults(faults);
  }

  /** Names of what the backend has of the object. */
  async stored(): Promise<string[]> {
    const { store } = this.cluster.commons;
    const names: string[] = [];
    for (const bucket of (await store.listBuckets('', 100)).names) names.push(...(await store.list(bucket, '', '', 10_000)).names);
    return names;
  }

  replicaFiles(node: ClusterNode): string[] {
    return node.disk.files('/vpool/replica/');
  }
}
