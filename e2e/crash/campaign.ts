/**
 * Kills a router again and again under load and judges it after every start. Every cycle: start (with the fail point of this cycle, if it has one), verify what the
 * last cycle left, load until the router is dead, note how it died. The models live in this process and survive.
 */
import { FAIL_POINTS, type FailPoint } from '../../server/core/fail-points.ts';
import { connectStore } from '../datastore-client.ts';
import { SeededRandom } from '../random.ts';
import type { RouterProcess } from '../router-process.ts';
import type { StoreClient } from '../store-client.ts';
import { DataSlot, HarnessError, type SlotOptions, type Weather, type WriteMix } from './data-slot.ts';
import { NamespaceLoad } from './namespace-load.ts';

/**
 * How a life of the router ends. `random`: kill -9 at any moment. `stop`: SIGTERM under load. `power-cut`: its disk loses what was not synced.
 * `fail-point`: kill -9 by its own hand at a named place.
 */
export type EndPlan =
  | { readonly kind: 'random' | 'stop' | 'power-cut' }
  | { readonly kind: 'fail-point'; readonly name: FailPoint; readonly hit: number };

/** The disk under the router's data directory, for `power-cut`. */
export interface CuttableDisk {
  cut(): Promise<void>;
  repair(): Promise<void>;
}

export interface CampaignOptions {
  /** Not started. */
  readonly router: RouterProcess;
  readonly seed: number;
  readonly plans: readonly EndPlan[];
  /** Told of every cycle, in one line. */
  readonly progress: (line: string) => void;
  /** How long load runs when a fail point is not hit; then the router is killed from outside. Default 30 s, for machines that do other things. */
  readonly patienceMs?: number;
  /** Needed by `power-cut` plans. */
  readonly disk?: CuttableDisk;
  /** How a client connects. Default: one for which JUKEBOX is as wrong as any other error. */
  readonly connect?: typeof connectStore;
}

export interface CampaignResult {
  readonly kills: number;
  readonly operations: number;
  /** How often each fail point killed the router. */
  readonly hits: ReadonlyMap<FailPoint, number>;
  /** How often an end took UNSTABLE data of an object along. */
  readonly losses: number;
  readonly violations: readonly string[];
}

const MIB = 1024 * 1024;
/** Two clients, so that no order comes from the connection. */
const CLIENTS = 2;

/** A router that is ready answers; one that keeps a call for longer than this hangs. */
const ANSWER_TIMEOUT_MS = 240_000;

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
export function everyFailPoint(random: SeededRandom, hitMax = 3): EndPlan[] {
  return FAIL_POINTS.map((name) => ({ kind: 'fail-point', name, hit: random.between(1, hitMax) }));
}

export class Campaign {
  readonly #options: CampaignOptions;
  readonly #random: SeededRandom;
  readonly #connect: typeof connectStore;
  readonly #violations: string[] = [];
  readonly #slots: readonly DataSlot[];
  readonly #names: NamespaceLoad;
  readonly #hits = new Map<FailPoint, number>();
  readonly #weather: Weather = { dying: false };
  #prepared = false;
  #kills = 0;

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#connect = options.connect ?? connectStore;
    this.#random = new SeededRandom(options.seed);
    const violation = (text: string): void => {
      this.#violations.push(`after kill ${this.#kills}: ${text}`);
    };
    this.#slots = SLOTS.map((slot) => new DataSlot(slot, this.#random, violation, this.#weather));
    this.#names = new NamespaceLoad(this.#random, violation, this.#weather);
  }

  /** Runs all plans and a last verification; stops at the first violation. Leaves the router running when all is well. */
  async run(): Promise<CampaignResult> {
    for (const plan of this.#options.plans) {
      await this.#cycle(plan);
      if (this.#violations.length > 0) break;
    }
    if (this.#violations.length === 0) await this.#startAndVerify({});
    return {
      kills: this.#kills,
      operations: this.#operations(),
      hits: this.#hits,
      losses: this.#slots.reduce((sum, slot) => sum + slot.losses, 0),
      violations: this.#violations,
    };
  }

  /** Judges what the router, started by the caller, has now: after something that is no end of a life. */
  async verify(): Promise<readonly string[]> {
    await using client = await this.#connect(this.#options.router, { timeoutMs: ANSWER_TIMEOUT_MS });
    await this.#verify(client);
    return this.#violations;
  }

  #operations(): number {
    return this.#slots.reduce((sum, slot) => sum + slot.operations, this.#names.operations);
  }

  async #cycle(plan: EndPlan): Promise<void> {
    const { progress } = this.#options;
    const started = performance.now();
    const environment = plan.kind === 'fail-point' ? { VFERRY_FAIL_POINTS: `${plan.name}=kill@${plan.hit}` } : {};
    let how = 'in recovery';
    const mix = this.#random.pick(MIXES);
    if (await this.#startAndVerify(environment)) {
      if (this.#violations.length > 0) return;
      how = await this.#loadUntilDead(plan, mix);
    }
    if (plan.kind === 'fail-point' && how !== 'not hit') this.#hits.set(plan.name, (this.#hits.get(plan.name) ?? 0) + 1);
    const what = plan.kind === 'fail-point' ? `${plan.name}, hit ${plan.hit}` : plan.kind;
    progress(`end ${this.#kills}: ${what} (${how}), stable share ${mix.stableShare}, ${Math.round(performance.now() - started)} ms`);
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
      await using client = await this.#connect(router, { timeoutMs: ANSWER_TIMEOUT_MS });
      if (!this.#prepared) {
        await this.#names.prepare(client);
        this.#prepared = true;
      }
      await this.#verify(client);
    } catch (error) {
      if (error instanceof HarnessError && this.#violations.length > 0) return true;
      if (error instanceof HarnessError || !(await router.isGone(60_000))) throw new Error(`verifying failed\n${router.logTail()}`, { cause: error });
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
  async #loadUntilDead(plan: EndPlan, mix: WriteMix): Promise<'under load' | 'not hit'> {
    const { router } = this.#options;
    const clients: StoreClient[] = [];
    const pointed = plan.kind === 'fail-point' ? { VFERRY_FAIL_POINTS: plan.name } : {};
    try {
      for (let index = 0; index < CLIENTS; index += 1) clients.push(await this.#connect(router));
    } catch (error) {
      // What the last life left is uploaded meanwhile: it may die of that before anybody loads it.
      for (const client of clients) await client[Symbol.asyncDispose]();
      if (!(await router.isGone(60_000))) throw error;
      this.#expectKilled(await router.exited(), pointed);
      this.#kills += 1;
      return 'under load';
    }
    let over = false;
    const load = Promise.all([
      ...this.#slots.map((slot, index) => slot.load(clients[index % CLIENTS] as StoreClient, mix, () => over)),
      this.#names.load(clients[0] as StoreClient, () => over),
    ]);
    const moment = this.#momentOf(plan);
    try {
      // A wrong answer ends the load, and with it the campaign.
      await Promise.race([router.exited(), moment.come, load.then(() => moment.come)]);
      const byItself = await router.isGone(0);
      if (byItself) this.#expectKilled(await router.exited(), pointed);
      else await this.#end(plan);
      this.#kills += 1;
      return plan.kind === 'fail-point' && !byItself ? 'not hit' : 'under load';
    } catch (error) {
      if (!(error instanceof HarnessError)) throw error;
      return 'not hit';
    } finally {
      moment.forget();
      over = true;
      await router.kill();
      await load.catch((error: unknown) => {
        if (!(error instanceof HarnessError)) throw error;
      });
      this.#weather.dying = false;
      for (const client of clients) await client[Symbol.asyncDispose]();
    }
  }

  /** When to end it: after so many operations and then at any moment (how fast the machine is today does not matter); for a fail point, when patience ends. */
  #momentOf(plan: EndPlan): { readonly come: Promise<void>; forget(): void } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timeout = setTimeout(resolve, this.#options.patienceMs ?? 30_000);
    const target = this.#operations() + (plan.kind === 'fail-point' ? Infinity : this.#random.between(20, 800));
    const delayMs = this.#random.below(15);
    const watch = setInterval(() => {
      if (this.#operations() < target) return;
      clearInterval(watch);
      setTimeout(resolve, delayMs);
    }, 2);
    return {
      come: promise,
      forget() {
        clearTimeout(timeout);
        clearInterval(watch);
      },
    };
  }

  async #end(plan: EndPlan): Promise<void> {
    const { router, disk } = this.#options;
    switch (plan.kind) {
      case 'random':
      case 'fail-point':
        await router.kill();
        return;
      case 'stop':
        this.#weather.dying = true;
        await router.stop();
        return;
      case 'power-cut':
        if (disk === undefined) throw new Error('power-cut: no disk to cut');
        // It must not see what its system calls return from now on: an fsync that ext4 aborts half way through may claim success (seen once in 30
        // with the host's 6.18 and a program of ten lines), which a machine without power cannot tell anybody.
        await router.freeze();
        await disk.cut();
        await router.kill();
        await disk.repair();
        return;
    }
  }
}
