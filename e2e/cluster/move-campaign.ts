/**
 * Something bad at a named step of a move, again and again: the step is reached by a fail point, where the router stops or dies by its own hand; then the bad thing
 * happens to it or around it; then the world is whole again. Two hosts that never give up read and write all the time. Afterwards the object has exactly one
 * owner, runs, and every read was one that a register can show: nothing acknowledged was lost, nothing old came back.
 */
import { readFileSync } from 'node:fs';

import type { MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { HostileStore } from '../hostile-store/hostile-store.ts';
import { RegisterLoad } from '../register-load.ts';
import type { ClusterRouter } from './cluster-router.ts';
import type { Cluster } from './cluster.ts';
import { WanderingClient } from './wandering-client.ts';

export type MovePoint = (typeof MOVE_FAIL_POINTS)[number];

/** What happens while the router stands at the step. `stop:N`: it stands there for N seconds. `cut-*`: for two seconds, and it goes on meanwhile. */
export type Harm =
  | 'kill'
  | 'kill-other'
  | 'kill-both'
  | 'error'
  | 'kill-redis'
  | 'cut-peers'
  | 'cut-redis'
  | 'cut-backend'
  | 'stop:2'
  | 'stop:9'
  | 'stop:60';

export const HARMS: readonly Harm[] = [
  'kill',
  'kill-other',
  'kill-both',
  'error',
  'kill-redis',
  'cut-peers',
  'cut-redis',
  'cut-backend',
  'stop:2',
  'stop:9',
];

export interface MovePlan {
  readonly point: MovePoint;
  readonly harm: Harm;
}

export interface MoveCampaignOptions {
  /** Two routers, not started, `cuttable`. */
  readonly cluster: Cluster;
  readonly store: HostileStore | null;
  readonly seed: number;
  readonly plans: readonly MovePlan[];
  /** Told of every step, in one line. */
  readonly progress: (line: string) => void;
  /** Requests under way by each of the two hosts. Default 8. */
  readonly lanes?: number;
}

export interface MoveCampaignResult {
  readonly operations: number;
  /** Steps that were reached, as `point harm`. */
  readonly hit: ReadonlySet<string>;
  readonly longestMs: number;
}

const NAME = 'campaign-flat.vmdk';
const PATH = `/${NAME}`;
const CUT_MS = 2000;
const HIT_MS_MAX = 30_000;
const ASK_AGAIN_MS = 2000;
/** A lease, the doubt about it, and a start, on a machine that does other things. */
const SETTLED_MS_MAX = 90_000;

export class MoveCampaign {
  readonly #options: MoveCampaignOptions;
  readonly #hit = new Set<string>();
  #operations = 0;
  /** The step that A was started for. */
  #armed: MovePlan | null = null;

  constructor(options: MoveCampaignOptions) {
    this.#options = options;
  }

  /** @throws AssertionError when a read cannot be explained, Error when the object does not come back, or two routers own it. */
  async run(): Promise<MoveCampaignResult> {
    const { cluster, seed, plans } = this.#options;
    const [a, b] = cluster.pair;
    await cluster.startRouters();
    await using h1 = await WanderingClient.connect({ routers: [a, b], machineName: 'H1' });
    await using h2 = await WanderingClient.connect({ routers: [b, a], machineName: 'H2' });
    const load = await RegisterLoad.create(h1, seed, NAME, { stableOnly: true });
    let over = false;
    const running = load.runUntil(
      counted([h1, h2], () => (this.#operations += 1)),
      this.#options.lanes ?? 8,
      () => over,
    );
    let broken: Error | null = null;
    running.catch((error: unknown) => (broken = error as Error));
    try {
      for (const [index, plan] of plans.entries()) {
        await this.#step(plan, plans[index + 1] ?? null);
        if (broken !== null) break;
      }
    } catch (error) {
      // What the hosts saw says more than that the object did not come back.
      over = true;
      throw broken === null ? error : new AggregateError([broken, error], (broken as Error).message);
    }
    over = true;
    await running;
    for (const client of [h1, h2]) await load.check(client);
    return { operations: this.#operations, hit: this.#hit, longestMs: Math.max(h1.longestMs, h2.longestMs) };
  }

  async #step(plan: MovePlan, next: MovePlan | null): Promise<void> {
    const { cluster, progress } = this.#options;
    const [a, b] = cluster.pair;
    const began = performance.now();
    // A is always the one at the step; by its name the step is the giver's or the receiver's.
    if (this.#armed !== plan) {
      await a.process.kill();
      await a.process.start(armed(plan));
    }
    const [source, target] = /^move\.(give|source)-/.test(plan.point) ? [a, b] : [b, a];
    await this.#settled(plan, 'before');
    const reached = await this.#reach(plan, source, target);
    if (reached) this.#hit.add(`${plan.point} ${plan.harm}`);
    const harmed = performance.now();
    if (reached) await this.#harm(plan.harm, a, b);
    if (!a.process.running) {
      await a.process.start(next === null ? {} : armed(next));
      this.#armed = next;
    }
    if (!b.process.running) await b.process.start();
    const owner = await this.#settled(plan, 'after');
    await this.#goesOn(plan);
    const tookMs = Math.round(performance.now() - harmed);
    const outcome = reached ? `owner then ${owner}, all well after ${tookMs} ms` : 'NOT REACHED';
    progress(`${plan.point} ${plan.harm}: ${outcome} (${Math.round(performance.now() - began)} ms in all)`);
  }

  /** Brings the object to `source` and lets it go to `target`, until A is at the step. */
  async #reach(plan: MovePlan, source: ClusterRouter, target: ClusterRouter): Promise<boolean> {
    const { operator, pair } = this.#options.cluster;
    const [a] = pair;
    const began = performance.now();
    const logged = a.process.log.length;
    const there = (): boolean => {
      if (plan.harm === 'kill') return !a.process.running;
      return plan.harm === 'error' ? a.process.log.slice(logged).includes(`fail point ${plan.point} was told`) : isStopped(a);
    };
    let asked = Number.NEGATIVE_INFINITY;
    while (performance.now() - began < HIT_MS_MAX) {
      if (there()) return true;
      if (performance.now() - asked > ASK_AGAIN_MS) {
        asked = performance.now();
        // The router that is asked may die of it, or stand still.
        const at = await Promise.race([operator.volume(PATH, pair[1]).catch(() => null), wait(1000).then(() => null)]);
        const to = at?.router === (await operator.idOf(source)) ? target : source;
        operator.beginMove(PATH, to).catch(() => undefined);
        if (to === source) asked = performance.now() - ASK_AGAIN_MS + 300;
      }
      await wait(10);
    }
    return false;
  }

  async #harm(harm: Harm, a: ClusterRouter, b: ClusterRouter): Promise<void> {
    const { cluster, store } = this.#options;
    const cut = async (begin: () => unknown, end: () => unknown): Promise<void> => {
      await begin();
      a.resume();
      await wait(CUT_MS);
      await end();
    };
    switch (harm) {
      case 'kill':
      case 'error':
        return await wait(200);
      case 'kill-other':
        await b.process.kill();
        a.resume();
        return await wait(200);
      case 'kill-both':
        await Promise.all([a.process.kill(), b.process.kill()]);
        return;
      case 'kill-redis':
        return await cut(
          () => cluster.redis.primary.kill(),
          () => cluster.redis.primary.start(),
        );
      case 'cut-peers':
        return await cut(
          () => [a, b].forEach((router) => router.cut('peers')),
          () => [a, b].forEach((router) => router.restore('peers')),
        );
      case 'cut-redis':
        return await cut(
          () => a.cut('registry'),
          () => a.restore('registry'),
        );
      case 'cut-backend':
        return await cut(
          () => store?.server.stopListening(),
          () => store?.server.listen(),
        );
      case 'stop:2':
      case 'stop:9':
      case 'stop:60':
        await wait(Number(harm.slice(5)) * 1000);
        a.resume();
    }
  }

  /** Waits until both routers say that the same one serves the object. Returns its name. */
  async #settled(plan: MovePlan, when: string): Promise<string> {
    const { operator, pair } = this.#options.cluster;
    const began = performance.now();
    let last = '';
    for (;;) {
      // It may have come to its step by itself.
      if (isStopped(pair[0])) pair[0].resume();
      if (!pair[0].process.running) await pair[0].process.start();
      try {
        const seen = await Promise.all(pair.map((router) => operator.volume(PATH, router)));
        const [first, second] = seen;
        const same = first?.router === second?.router && first?.term === second?.term;
        if (first !== null && first !== undefined && same && first.state === 'running' && first.moving === null)
          return (await operator.routerOf(first.router)).name;
        last = JSON.stringify(seen);
      } catch (error) {
        last = String(error);
      }
      if (performance.now() - began > SETTLED_MS_MAX)
        throw new Error(`${when} ${plan.point} ${plan.harm}: not settled after ${SETTLED_MS_MAX} ms: ${last}`);
      await wait(50);
    }
  }

  /** Waits until the hosts got somewhere. */
  async #goesOn(plan: MovePlan): Promise<void> {
    const from = this.#operations;
    const began = performance.now();
    while (this.#operations < from + 200) {
      if (performance.now() - began > SETTLED_MS_MAX) throw new Error(`after ${plan.point} ${plan.harm}: the hosts' operations do not go on`);
      await wait(10);
    }
  }
}

/** Settings that bring a router to the step, once. */
function armed({ point, harm }: MovePlan): Readonly<Record<string, string>> {
  return { VFERRY_FAIL_POINTS: `${point}=${harm === 'error' || harm === 'kill' ? harm : 'stop'}@1` };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function isStopped(router: ClusterRouter): boolean {
  if (!router.process.running) return false;
  const status = readFileSync(`/proc/${router.process.pid}/stat`, 'latin1');
  return status.slice(status.lastIndexOf(')') + 2).startsWith('T');
}

/** READ and WRITE tell `count`; everything else is as it was. */
function counted(clients: readonly WanderingClient[], count: () => void): WanderingClient[] {
  return clients.map(
    (client) =>
      new Proxy(client, {
        get(target, property): unknown {
          const value: unknown = Reflect.get(target, property, target);
          if (typeof value !== 'function') return value;
          const bound = value.bind(target) as (...args: unknown[]) => unknown;
          if (property !== 'read' && property !== 'write') return bound;
          return async (...args: unknown[]): Promise<unknown> => {
            const answer = await bound(...args);
            count();
            return answer;
          };
        },
      }),
  );
}
