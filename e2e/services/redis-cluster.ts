/** Real Redis Cluster on loopback: three primaries, of which the one with the slot of interest has two replicas and another has one. */
import type { TestContext } from 'node:test';

import { freePorts } from '../free-port.ts';
import { type RedisNode, RedisService } from './redis.ts';

/** Six nodes, each of which a test may break. */
export class RedisClusterService {
  readonly nodes: readonly RedisNode[];
  /** Serves the slot that the service was made for, at the start. */
  readonly primary: RedisNode;
  /** Of `primary`. */
  readonly replicas: readonly RedisNode[];

  private constructor(nodes: readonly RedisNode[]) {
    const [primary, , , first, second] = nodes;
    if (primary === undefined || first === undefined || second === undefined) throw new Error('six nodes');
    this.nodes = nodes;
    this.primary = primary;
    this.replicas = [first, second];
  }

  /** A Cluster of its own for one test, well and in sync; about 5 s. `key`: its slot is that of `primary`. */
  static async forTest(t: TestContext, key: string, nodeTimeoutMs: number): Promise<RedisClusterService> {
    const busPorts = await freePorts(6);
    const nodes: RedisNode[] = [];
    for (const busPort of busPorts) {
      // The bus of a node listens 10,000 above its port, unless told otherwise: that may be anybody's.
      const configuration = [
        'cluster-enabled yes',
        `cluster-node-timeout ${nodeTimeoutMs}`,
        `cluster-port ${busPort}`,
        'cluster-announce-ip 127.0.0.1',
      ];
      nodes.push((await RedisService.forTest(t, { configuration })).primary);
    }
    const service = new RedisClusterService(nodes);
    const slot = Number((await service.primary.command('CLUSTER', 'KEYSLOT', key)).slice(1));
    const [low, middle, high] = nodes;
    if (low === undefined || middle === undefined || high === undefined) throw new Error('six nodes');
    await done(low.command('CLUSTER', 'ADDSLOTSRANGE', String(slot), String(slot)));
    for (const [node, first, last] of [
      [middle, 0, slot - 1],
      [high, slot + 1, 16_383],
    ] as const) {
      if (first <= last) await done(node.command('CLUSTER', 'ADDSLOTSRANGE', String(first), String(last)));
    }
    for (const [index, node] of nodes.slice(1).entries()) {
      await done(low.command('CLUSTER', 'MEET', '127.0.0.1', String(node.port), String(busPorts[index + 1])));
    }
    for (const node of nodes) await node.waitForLine(['CLUSTER', 'INFO'], 'cluster_known_nodes:6');
    for (const [index, of] of [low, low, middle].entries()) {
      const id = await of.command('CLUSTER', 'MYID');
      await done(nodes[3 + index]?.command('CLUSTER', 'REPLICATE', id));
    }
    for (const replica of nodes.slice(3)) await replica.waitForInfo('replication', 'master_link_status:up');
    for (const node of nodes) await node.waitForLine(['CLUSTER', 'INFO'], 'cluster_state:ok');
    return service;
  }
}

async function done(answer: Promise<string> | undefined): Promise<void> {
  const text = await answer;
  if (text !== '+OK') throw new Error(`Redis answers ${text}`);
}
