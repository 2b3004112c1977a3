/**
 * Something bad at a named step of a move, again and again: the step is reached by a fail point, where the router stops or dies by its own hand; then the bad thing
 * happens to it or around it (move-harms.ts); then the world is whole again. Two hosts that never give up read and write all the time. Afterwards the object has exactly
 * one owner, runs, and every read was one that a register can show: nothing acknowledged was lost, nothing old came back.
 *
 * A is always the one at the step: by its name the step is the giver's or the receiver's, so the object is brought to the other side first. Only then the fail point is
 * set, in a file that A reads (server/core/fail-points.ts): what A passes before does not use it up, and A need not be started anew for it.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';

import type { MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { HostileStore } from '../hostile-store/hostile-store.ts';
import { RegisterLoad } from '../register-load.ts';
import type { ClusterRouter } from './cluster-router.ts';
import type { Cluster } from './cluster.ts';
import { actionOf, doHarm, type Harm } from './move-harms.ts';
import { NoAnswer } from './operator.ts';
import { WanderingClient } from './wandering-client.ts';

export type MovePoint = (typeof MOVE_FAIL_POINTS)[number];

export interface MovePlan {
  readonly point: MovePoint;
  readonly harm: Harm;
}

export interface MoveCampaignOptions {
  /** Two routers, not started, `cuttable`. */
  readonly cluster: Cluster;
  readonly store: HostileStore | null;
  readonly seed: number;
  /** One is taken when the one before is over. */
  readonly plans: Iterable<MovePlan>;
  /** Told of every step, in one line. */
  readonly progress: (line: string) => void;
  /** Told of every plan that ended well; `reached` false: A was never at the step. */
  readonly done?: (plan: MovePlan, reached: boolean) => void;
  /** Requests under way by each of the two hosts. Default 8. */
  readonly lanes?: number;
  /** After each operation, so that several clusters find room on one machine. Default 0. */
  readonly pauseMs?: number;
}

export interface MoveCampaignResult {
  readonly operations: number;
  /** Steps that were reached, as `point harm`. */
  readonly hit: ReadonlySet<string>;
  readonly longestMs: number;
}

const NAME = 'campaign-flat.vmdk';
const PATH = `/${NAME}`;
/** Of the hosts: a stop of a minute, and a router that begins anew after it, on a machine that does other things. */
const PATIENCE_MS = 180_000;
const HIT_MS_MAX = 30_000;
const ASK_AGAIN_MS = 1000;
/** A lease, the doubt about it, and a start, on a machine that does other things. */
const SETTLED_MS_MAX = 150_000;

export class MoveCampaign {
  readonly #options: MoveCampaignOptions;
  readonly #hit = new Set<string>();
  #operations = 0;
  /** What A's fail points said that they do, since the last one was set. */
  #told = '';
  #broken: Error | null = null;

  constructor(options: MoveCampaignOptions) {
    this.#options = options;
  }

  /** @throws AssertionError when a read cannot be explained, Error when the object does not come back, or two routers own it. */
  async run(): Promise<MoveCampaignResult> {
    const { cluster, seed, plans } = this.#options;
    const [a, b] = cluster.pair;
    this.#setFailPoint('');
    a.process.onLine((line) => {
      if (line.includes('fail point ')) this.#told += `${line}\n`;
    });
    await this.#startDead();
    // Known from here on, whoever stands still.
    for (const router of cluster.pair) await cluster.operator.idOf(router);
    await using h1 = await WanderingClient.connect({ routers: [a, b], machineName: 'H1', patienceMs: PATIENCE_MS });
    await using h2 = await WanderingClient.connect({ routers: [b, a], machineName: 'H2', patienceMs: PATIENCE_MS });
    const load = await RegisterLoad.create(h1, seed, NAME, { stableOnly: true });
    let over = false;
    const running = load.runUntil(
      counted([h1, h2], this.#options.pauseMs ?? 0, () => (this.#operations += 1)),
      this.#options.lanes ?? 8,
      () => over,
    );
    running.catch((error: unknown) => (this.#broken ??= error as Error));
    try {
      for (const plan of plans) {
        await this.#step(plan);
        if (this.#broken !== null) break;
      }
    } catch (error) {
      // What the hosts saw says more than that the object did not come back.
      over = true;
      throw this.#broken === null ? error : new AggregateError([this.#broken, error], this.#broken.message);
    }
    over = true;
    await running;
    if (this.#broken !== null) throw this.#broken;
    for (const client of [h1, h2]) await load.check(client);
    return { operations: this.#operations, hit: this.#hit, longestMs: Math.max(h1.longestMs, h2.longestMs) };
  }

  async #step(plan: MovePlan): Promise<void> {
    const { cluster, store, progress, done } = this.#options;
    const [a, b] = cluster.pair;
    const began = performance.now();
    const [source, target] = /^move\.(give|source)-/.test(plan.point) ? [a, b] : [b, a];
    await this.#settled(plan, 'before');
    await cluster.operator.move(PATH, source);
    const reached = await this.#reach(plan, source, target);
    const harmed = performance.now();
    if (reached) {
      this.#hit.add(`${plan.point} ${plan.harm}`);
      await doHarm(plan.harm, cluster, store);
    }
    const owner = await this.#settled(plan, 'after');
    await this.#goesOn(plan);
    const tookMs = Math.round(performance.now() - harmed);
    const outcome = reached ? `owner then ${owner}, all well after ${tookMs} ms` : 'NOT REACHED';
    progress(`${plan.point} ${plan.harm}: ${outcome} (${Math.round(performance.now() - began)} ms in all)`);
    if (this.#broken === null) done?.(plan, reached);
  }

  /** Lets the object go from `source`, where it is, to `target`, until A is at the step. The fail point is not set any more then. */
  async #reach(plan: MovePlan, source: ClusterRouter, target: ClusterRouter): Promise<boolean> {
    const { operator, pair } = this.#options.cluster;
    const [a, b] = pair;
    const action = actionOf(plan.harm);
    const told = `fail point ${plan.point}: ${action}`;
    const there = (): boolean => {
      if (!this.#told.includes(told)) return false;
      if (action === 'kill') return !a.process.running;
      return action === 'error' || isStopped(a);
    };
    const began = performance.now();
    let asked = Number.NEGATIVE_INFINITY;
    this.#setFailPoint(`${plan.point}=${action}@1`);
    try {
      while (performance.now() - began < HIT_MS_MAX && this.#broken === null) {
        if (there()) return true;
        if (performance.now() - asked > ASK_AGAIN_MS) {
          asked = performance.now();
          // The router that is asked may die of it, or stand still: B, which does not, is asked where the object is, but it may have to ask A.
          const at = await Promise.race([this.#unlessSilent(operator.volume(PATH, b)), wait(ASK_AGAIN_MS).then(() => null)]);
          // It may have gone all the way without the step, or the attempt before was given up.
          const to = at?.router === (await operator.idOf(target)) ? source : target;
          void this.#unlessSilent(operator.beginMove(PATH, to));
        }
        await wait(10);
      }
      return false;
    } finally {
      this.#setFailPoint('');
    }
  }

  /** Null when the router that is asked is dead or stands still; anything else ends the campaign. */
  async #unlessSilent<T>(asked: Promise<T>): Promise<T | null> {
    try {
      return await asked;
    } catch (error) {
      if (!(error instanceof NoAnswer)) this.#broken ??= error as Error;
      return null;
    }
  }

  /** Waits until both routers say that the same one serves the object. Returns its name. */
  async #settled(plan: MovePlan, when: string): Promise<string> {
    const { operator, pair } = this.#options.cluster;
    const began = performance.now();
    let last = '';
    for (;;) {
      // It may have come to its step after we gave it up.
      if (isStopped(pair[0])) pair[0].resume();
      await this.#startDead();
      const agreed = await this.#unlessSilent(operator.agreed(PATH));
      if (agreed !== null && typeof agreed !== 'string') return agreed.name;
      last = agreed ?? 'no answer';
      if (this.#broken !== null) throw this.#broken;
      if (performance.now() - began > SETTLED_MS_MAX)
        throw new Error(`${when} ${plan.point} ${plan.harm}: not settled after ${SETTLED_MS_MAX} ms: ${last}`);
      await wait(50);
    }
  }

  /** Waits until the hosts got somewhere. */
  async #goesOn(plan: MovePlan): Promise<void> {
    const from = this.#operations;
    const began = performance.now();
    while (this.#operations < from + 200 && this.#broken === null) {
      if (performance.now() - began > SETTLED_MS_MAX) throw new Error(`after ${plan.point} ${plan.harm}: the hosts' operations do not go on`);
      await wait(10);
    }
  }

  /** The first router alone, since it makes the vPool; later what was killed, at once. */
  async #startDead(): Promise<void> {
    const [a, b] = this.#options.cluster.pair;
    const startA = async (): Promise<void> => {
      if (!a.process.running) await a.process.start({ VFERRY_FAIL_POINTS: `file:${this.#failPointFile}` });
    };
    const startB = async (): Promise<void> => {
      if (!b.process.running) await b.process.start();
    };
    if (this.#operations === 0) {
      await startA();
      await startB();
    } else await Promise.all([startA(), startB()]);
  }

  get #failPointFile(): string {
    return `${this.#options.cluster.router(0).process.dataDirectory}.fail-points`;
  }

  #setFailPoint(text: string): void {
    this.#told = '';
    // A never reads half of it.
    writeFileSync(`${this.#failPointFile}.new`, text);
    renameSync(`${this.#failPointFile}.new`, this.#failPointFile);
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function isStopped(router: ClusterRouter): boolean {
  if (!router.process.running) return false;
  const status = readFileSync(`/proc/${router.process.pid}/stat`, 'latin1');
  return status.slice(status.lastIndexOf(')') + 2).startsWith('T');
}

/** READ and WRITE tell `count` and end `pauseMs` later; everything else is as it was. */
function counted(clients: readonly WanderingClient[], pauseMs: number, count: () => void): WanderingClient[] {
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
            if (pauseMs > 0) await wait(pauseMs);
            return answer;
          };
        },
      }),
  );
}
