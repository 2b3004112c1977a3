/**
 * A network of our own: a switch, and hosts that hang on it, each a network namespace with an address. What is cut here is cut as a cable is: packets vanish, nobody is told, connections stay until
 * somebody's patience is over, and TCP goes on by itself when the cable is back. Needs root. Nothing of this machine's own network is touched.
 *
 * Who wants to reach the hosts must be in the namespace of the switch (`prefix`), as the clients' host.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';

import { run } from '../command.ts';

const NETWORK = '10.77.0';
const BRIDGE = 'switch';
const HOME = '/run/netns';
const NAME = /^vfn-(\d+)-[0-9a-f]{4}(-\w+)?$/;

export interface PrivateHost {
  readonly name: string;
  readonly address: string;
  /** To put in front of a command, which keeps its pid; works from any namespace. */
  readonly prefix: readonly string[];
}

/** What another process needs to know of it. */
export interface PrivateNetworkPlan {
  readonly id: string;
  readonly hosts: readonly string[];
}

export class PrivateNetwork implements AsyncDisposable {
  readonly plan: PrivateNetworkPlan;

  private constructor(plan: PrivateNetworkPlan) {
    this.plan = plan;
  }

  /** Made anew, with what was left by processes that died without removing theirs taken away. `hosts`: at most 9 letters each. */
  static async create(hosts: readonly string[]): Promise<PrivateNetwork> {
    await removeAbandoned();
    const network = new PrivateNetwork({ id: `vfn-${process.pid}-${randomBytes(2).toString('hex')}`, hosts });
    try {
      await network.#make();
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
    return network;
  }

  /** One that another process made and will remove; to be used by who is inside the namespace of the switch. */
  static of(plan: PrivateNetworkPlan): PrivateNetwork {
    return new PrivateNetwork(plan);
  }

  /** To put in front of a command that is to run where the switch is. */
  get prefix(): readonly string[] {
    return ['ip', 'netns', 'exec', this.plan.id];
  }

  host(name: string): PrivateHost {
    const index = this.plan.hosts.indexOf(name);
    if (index === -1) throw new Error(`the private network has no host ${name}`);
    return { name, address: `${NETWORK}.${index + 1}`, prefix: ['ip', 'netns', 'exec', `${this.plan.id}-${name}`] };
  }

  /** Nothing goes between these hosts any more; each still reaches all others. Until `restore`. */
  async cut(...hosts: readonly string[]): Promise<void> {
    for (const name of hosts) await this.#inside('bridge', 'link', 'set', 'dev', `to-${name}`, 'isolated', 'on');
  }

  /** A host's cable is pulled. Until `restore`. */
  async pull(name: string): Promise<void> {
    await this.#inside('ip', 'link', 'set', 'dev', `to-${name}`, 'nomaster');
  }

  async restore(): Promise<void> {
    for (const name of this.plan.hosts) {
      await this.#inside('ip', 'link', 'set', 'dev', `to-${name}`, 'master', BRIDGE);
      await this.#inside('bridge', 'link', 'set', 'dev', `to-${name}`, 'isolated', 'off');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ours = namespaces().filter((name) => name === this.plan.id || name.startsWith(`${this.plan.id}-`));
    for (const name of ours) await run(['ip', 'netns', 'del', name]);
  }

  async #make(): Promise<void> {
    const { id, hosts } = this.plan;
    await run(['ip', 'netns', 'add', id]);
    await this.#inside('ip', 'link', 'set', 'lo', 'up');
    // No spanning tree, no waiting: a port forwards as soon as it is there.
    await this.#inside('ip', 'link', 'add', BRIDGE, 'address', macOf(0), 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0');
    await this.#inside('ip', 'address', 'add', `${NETWORK}.254/24`, 'dev', BRIDGE);
    await this.#inside('ip', 'link', 'set', BRIDGE, 'up');
    for (const [index, name] of hosts.entries()) {
      const host = `${id}-${name}`;
      await run(['ip', 'netns', 'add', host]);
      await this.#inside('ip', 'link', 'add', `to-${name}`, 'type', 'veth', 'peer', 'name', 'eth0', 'address', macOf(index + 1), 'netns', host);
      await this.#inside('ip', 'link', 'set', `to-${name}`, 'master', BRIDGE, 'up');
      await run(['ip', '-n', host, 'link', 'set', 'lo', 'up']);
      await run(['ip', '-n', host, 'address', 'add', `${NETWORK}.${index + 1}/24`, 'dev', 'eth0']);
      await run(['ip', '-n', host, 'link', 'set', 'eth0', 'up']);
    }
    // Everybody knows everybody: a cut must not be told by ARP (EHOSTUNREACH).
    for (const [index, name] of hosts.entries()) {
      await this.#inside('ip', 'neigh', 'replace', `${NETWORK}.${index + 1}`, 'lladdr', macOf(index + 1), 'dev', BRIDGE, 'nud', 'permanent');
      const others: readonly (readonly [number, number])[] = [[254, 0], ...hosts.map((_, other) => [other + 1, other + 1] as const)];
      for (const [last, mac] of others) {
        if (last === index + 1) continue;
        const entry = ['neigh', 'replace', `${NETWORK}.${last}`, 'lladdr', macOf(mac), 'dev', 'eth0', 'nud', 'permanent'];
        await run(['ip', '-n', `${id}-${name}`, ...entry]);
      }
    }
  }

  async #inside(...command: readonly string[]): Promise<void> {
    await run([...this.prefix, ...command]);
  }
}

function macOf(index: number): string {
  return `02:76:66:00:00:${(index + 1).toString(16).padStart(2, '0')}`;
}

function namespaces(): string[] {
  return existsSync(HOME) ? readdirSync(HOME) : [];
}

/** A test that is killed cannot remove its namespaces: the next one does. */
async function removeAbandoned(): Promise<void> {
  for (const name of namespaces()) {
    const pid = NAME.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    await run(['ip', 'netns', 'del', name], { allowedCodes: [0, 1] });
  }
}
