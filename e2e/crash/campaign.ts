/**
 * Kills a router again and again under load and judges it after every start. Every cycle: start (with the fail point of this cycle, if it has one), verify what the
 * last cycle left, load until the router is dead, note how it died. The models live in this process and survive.
 */
import { FAIL_POINTS, type FailPoint } from '../../server/core/fail-points.ts';
import { connectStore } from '../datastore-client.ts';
import { SeededRandom } from '../random.ts';
import type { RouterProcess } from '../router-process.ts';
import type { StoreClient } from '../store-client.ts';
import { DataSlot, HarnessError, type SlotOptions, type WriteMix } from './data-slot.ts';
import { NamespaceLoad } from './namespace-load.ts';

export type KillPlan = { readonly kind: 'random' } | { readonly kind: 'fail-point'; readonly name: FailPoint; readonly hit: number };

export interface CampaignOptions {
  /** Not started. */
  readonly router: RouterProcess;
  readonly seed: number;
  readonly plans: readonly KillPlan[];
  /** Told of every cycle, in one line. */
  readonly progress: (line: string) => void;
  /** How long load runs when a fail point is not hit; then the router is killed from outside. Default 30 s, for machines that do other things. */
  readonly patienceMs?: number;
}

export interface CampaignResult {
  readonly kills: number;
  readonly operations: number;
  /** How often each fail point killed the router. */
  readonly hits: ReadonlyMap<FailPoint, number>;
  readonly violations: readonly string[];
}

const MIB = 1024 * 1024;
/** Two clients, so that no order comes from the connection. */
const CLIENTS = 2;

const SLOTS: readonly SlotOptions[] = [
  { id: 1, slotClass: 'volume', lifeOperations: null, capacityBytes: 24 * MIB },
  { id: 2, slotClass: 'volume', lifeOperations: null, capacityBytes: 8 * MIB },
  { id: 3, slotClass: 'volume', lifeOperations: 60, capacityBytes: 4 * MIB },
  { id: 4, slotClass: 'file', lifeOperations: null, capacityBytes: 256 * 1024 },
  { id: 5, slotClass: 'file', lifeOperations: 40, capacityBytes: 64 * 1024 },
  { id: 6, slotClass: 'inline', lifeOperations: null, capacityBytes: 2048 },
  { id: 7, slotClass: 'inline', lifeOperations: 20, capacityBytes: 2048 },
];

const MIXES: readonly WriteMix[] = [
  { stableShare: 1, outstanding: 8 },
  { stableShare: 0, outstanding: 8 },
  { stableShare: 0.5, outstanding: 12 },
];

/** One plan for every fail point. */
export function everyFailPoint(random: SeededRandom, hitMax = 3): KillPlan[] {
  return FAIL_POINTS.map((name) => ({ kind: 'fail-point', name, hit: random.between(1, hitMax) }));
}

export class Campaign {
  readonly #options: CampaignOptions;
  readonly #random: SeededRandom;
  readonly #violations: string[] = [];
  readonly #slots: readonly DataSlot[];
  readonly #names: NamespaceLoad;
  readonly #hits = new Map<FailPoint, number>();
  #prepared = false;
  #kills = 0;

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    const violation = (text: string): void => {
      this.#violations.push(`after kill ${this.#kills}: ${text}`);
    };
    this.#slots = SLOTS.map((slot) => new DataSlot(slot, this.#random, violation));
    this.#names = new NamespaceLoad(this.#random, violation);
  }

  /** Runs all plans and a last verification; stops at the first violation. Leaves the router running when all is well. */
  async run(): Promise<CampaignResult> {
    for (const plan of this.#options.plans) {
      await this.#cycle(plan);
      if (this.#violations.length > 0) break;
    }
    if (this.#violations.length === 0) await this.#startAndVerify({});
    return { kills: this.#kills, operations: this.#operations(), hits: this.#hits, violations: this.#violations };
  }

  #operations(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.operations, this.#names.operations);
  }

  async #cycle(plan: KillPlan): Promise<void> {
    const { router, progress } = this.#options;
    const started = performance.now();
    const environment = plan.kind === 'random' ? {} : { VFERRY_FAIL_POINTS: `${plan.name}=kill@${plan.hit}` };
    const alive = await this.#startAndVerify(environment);
    if (this.#violations.length > 0) return;
    const mix = this.#random.pick(MIXES);
    let how = 'in recovery';
    if (alive) how = await this.#loadUntilDead(plan, mix);
    else await this.#startAndVerify({});
    if (plan.kind === 'fail-point' && how !== 'from outside') this.#hits.set(plan.name, (this.#hits.get(plan.name) ?? 0) + 1);
    const what = plan.kind === 'random' ? 'at random' : `at ${plan.name}, hit ${plan.hit}`;
    progress(`kill ${this.#kills} ${what} (${how}), stable share ${mix.stableShare}, ${Math.round(performance.now() - started)} ms`);
    if (router.running) await this.#killed(router.kill());
  }

  async #killed(exit: Promise<unknown>): Promise<void> {
    await exit;
    this.#kills += 1;
  }

  /** Starts the router and judges what it has. False when it died of the fail point it was started with (and then is not judged). */
  async #startAndVerify(environment: Readonly<Record<string, string>>): Promise<boolean> {
    const { router } = this.#options;
    router.launch(environment);
    const outcome = await router.waitReady();
    if (outcome !== 'ready') {
      this.#expectKilled(outcome, environment);
      this.#kills += 1;
      return false;
    }
    try {
      await using client = await connectStore(router);
      if (!this.#prepared) {
        await this.#names.prepare(client);
        this.#prepared = true;
      }
      await this.#verify(client);
    } catch (error) {
      if (error instanceof HarnessError && this.#violations.length > 0) return true;
      if (error instanceof HarnessError || !(await router.isGone(5000))) throw error;
      this.#expectKilled(await router.exited(), environment);
      this.#kills += 1;
      return false;
    }
    return true;
  }

  async #verify(client: StoreClient): Promise<void> {
    await this.#names.verify(client);
    for (const slot of this.#slots) await slot.verify(client);
  }

  #expectKilled(exit: { readonly signal: NodeJS.Signals | null }, environment: Readonly<Record<string, string>>): void {
    if (exit.signal === 'SIGKILL' && environment['VFERRY_FAIL_POINTS'] !== undefined) return;
    throw new Error(`the router ended by itself: ${JSON.stringify(exit)} with ${JSON.stringify(environment)}\n${this.#options.router.logTail()}`);
  }

  /** Load until the router is dead: of its fail point, or by our hand. */
  async #loadUntilDead(plan: KillPlan, mix: WriteMix): Promise<'by itself' | 'from outside'> {
    const { router } = this.#options;
    const clients: StoreClient[] = [];
    for (let index = 0; index < CLIENTS; index += 1) clients.push(await connectStore(router));
    let dead = false;
    const load = Promise.all([
      ...this.#slots.map((slot, index) => slot.load(clients[index % CLIENTS] as StoreClient, mix, () => dead)),
      this.#names.load(clients[0] as StoreClient, () => dead),
    ]);
    const timer = Promise.withResolvers<'from outside'>();
    const timeout = setTimeout(() => timer.resolve('from outside'), this.#options.patienceMs ?? 30_000);
    // At random means after so many operations and then at any moment: how fast the machine is today does not matter.
    const target = this.#operations() + (plan.kind === 'random' ? this.#random.between(20, 800) : Infinity);
    const delayMs = this.#random.below(15);
    const watch = setInterval(() => {
      if (this.#operations() < target) return;
      clearInterval(watch);
      setTimeout(() => timer.resolve('from outside'), delayMs);
    }, 2);
    try {
      const how = await Promise.race([router.exited().then(() => 'by itself' as const), timer.promise, load.then(() => 'by itself' as const)]);
      const byItself = !router.running || how === 'by itself';
      if (how === 'by itself' && router.running) {
        // All connections were lost: it is dying. A violation also ends the load.
        if (this.#violations.length === 0) await router.exited();
      }
      if (router.running) await router.kill();
      if (byItself && this.#violations.length === 0) this.#expectKilledBy(plan, await router.exited());
      this.#kills += 1;
      return byItself ? 'by itself' : 'from outside';
    } catch (error) {
      if (!(error instanceof HarnessError)) throw error;
      return 'from outside';
    } finally {
      clearTimeout(timeout);
      clearInterval(watch);
      dead = true;
      await router.kill();
      await load.catch((error: unknown) => {
        if (!(error instanceof HarnessError)) throw error;
      });
      for (const client of clients) await client[Symbol.asyncDispose]();
    }
  }

  #expectKilledBy(plan: KillPlan, exit: { readonly signal: NodeJS.Signals | null }): void {
    this.#expectKilled(exit, plan.kind === 'fail-point' ? { VFERRY_FAIL_POINTS: plan.name } : {});
  }
}
