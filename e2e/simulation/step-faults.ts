/** Harm at a named step of a move, and what people and policies do right after it: the object goes back at once, while everybody writes to it. */
import type { OwnerRecord } from '../../registry/ports.ts';
import { FAIL_POINTS, type FailPoint, failPointError, MOVE_FAIL_POINTS } from '../../server/core/fail-points.ts';
import type { FileId } from '../../server/core/ids.ts';
import type { FaultWorld } from './fault-actor.ts';
import type { ProfileName } from './profiles.ts';
import { isExpected, LEASE_MS, type Machine } from './simulated-router.ts';

/** At the step: to the router that is there, to the other one of the move, or between them and others. */
const HARMS = [
  'kill',
  'power cut',
  'kill other',
  'power cut other',
  'kill both',
  'error',
  'stop',
  'stop other',
  'cut peers',
  'cut registry',
  'answers lost',
  'cut backend',
  'clients leave',
  'forget',
  'late verbs',
] as const;
type Harm = (typeof HARMS)[number];

interface Step {
  readonly point: FailPoint;
  readonly harm: Harm;
}

/** Points of the log, the keeper and recoveries, where a process is killed. */
const QUIET_POINTS = FAIL_POINTS.filter((point) => !/^(registry|flip|remove|reclaim)\./.test(point));
const KNOWN_STEPS: readonly Step[] = [
  { point: 'move.give-before-ceded', harm: 'kill other' },
  { point: 'move.give-after-ceded', harm: 'kill other' },
  { point: 'move.take-caught-up', harm: 'kill both' },
  { point: 'move.take-caught-up', harm: 'kill both' },
  { point: 'move.take-before-confirm', harm: 'kill both' },
  { point: 'move.source-before-seal', harm: 'error' },
  { point: 'move.source-sealed', harm: 'error' },
  { point: 'move.give-frozen', harm: 'error' },
  { point: 'move.give-frozen', harm: 'clients leave' },
  { point: 'move.give-after-cede', harm: 'clients leave' },
];
/** Between the question to the registry and the first answer of the new owner. */
const SWITCH_STEPS: readonly Step[] = [
  { point: 'move.give-before-ceded', harm: 'stop' },
  { point: 'move.give-after-ceded', harm: 'stop' },
  { point: 'move.give-after-ceded', harm: 'late verbs' },
  { point: 'move.give-after-ceded', harm: 'late verbs' },
  { point: 'move.give-after-ceded', harm: 'answers lost' },
  { point: 'move.give-after-ceded', harm: 'cut registry' },
  { point: 'move.give-after-ceded', harm: 'kill' },
  { point: 'move.give-after-transfer', harm: 'kill other' },
  { point: 'move.give-after-transfer', harm: 'kill both' },
  { point: 'move.give-after-transfer', harm: 'forget' },
  { point: 'move.give-after-cede', harm: 'kill other' },
  { point: 'move.give-after-cede', harm: 'power cut other' },
  { point: 'move.give-after-cede', harm: 'cut peers' },
  { point: 'move.take-before-confirm', harm: 'cut peers' },
  { point: 'move.take-before-confirm', harm: 'stop' },
  { point: 'move.take-confirmed', harm: 'kill' },
  { point: 'move.take-confirmed', harm: 'power cut' },
  { point: 'move.take-activated', harm: 'power cut' },
  { point: 'move.take-activated', harm: 'forget' },
  { point: 'log.after-write', harm: 'kill' },
];
/** How long a move may take to its step. */
const REACH_MS_MAX = 3000;
const SETTLE_MS_MAX = 2.5 * LEASE_MS;

export class StepFaults {
  /** Steps that were reached, with what happened there. */
  readonly reached = new Set<string>();
  readonly #world: FaultWorld;
  /** A registry that fails over and has forgotten what happened since then. */
  readonly #forget: (sinceMs: number) => Promise<void>;

  constructor(world: FaultWorld, forget: (sinceMs: number) => Promise<void>) {
    this.#world = world;
    this.#forget = forget;
  }

  #int(below: number): number {
    return Math.floor(this.#world.random.fraction() * below);
  }

  #chance(probability: number): boolean {
    return this.#world.random.fraction() < probability;
  }

  /** Any harm at any step. */
  drawn(): Step {
    return { point: MOVE_FAIL_POINTS[this.#int(MOVE_FAIL_POINTS.length)] as FailPoint, harm: HARMS[this.#int(HARMS.length)] as Harm };
  }

  /**
   * Harm after harm to one volume, until `isBroken` or a few have been. `both-killed-then-move`: mostly the ones after which a write was once missing (a receiver
   * that dies before the change of owner, both killed before the switch, an error that ends a move in the giver). `switch`: mostly those around the change of owner.
   */
  async campaign(object: FileId, profile: ProfileName, isBroken: () => boolean): Promise<void> {
    const known = profile === 'switch' ? SWITCH_STEPS : profile === 'both-killed-then-move' ? KNOWN_STEPS : [];
    for (let left = 4 + this.#int(4); left > 0 && !isBroken(); left -= 1) {
      await this.settled(object);
      const step = known.length > 0 && this.#chance(0.75) ? (known[this.#int(known.length)] as Step) : this.drawn();
      if (profile === 'switch' && this.#chance(0.1)) await this.killTwice();
      await this.harm(step, object);
      if (this.#chance(0.3)) await this.moveOn(object);
    }
  }

  /** A kill at a step of the log, of an upload, of a recovery. */
  async killInWork(): Promise<void> {
    const { machines, schedule, traps } = this.#world;
    const machine = machines[this.#int(machines.length)] as Machine;
    const point = QUIET_POINTS[this.#int(QUIET_POINTS.length)] as FailPoint;
    const trap = traps.arm(machine, point, 1 + this.#int(4), () => this.#die(machine, point));
    await this.#until(() => trap.sprung, REACH_MS_MAX);
    trap.disarm();
    if (trap.sprung) this.reached.add(`${point} kill`);
    await schedule.sleep(this.#world.random.fraction() * 1000);
    machine.start();
  }

  /** One harm at a step of a move of a volume; whoever died is back soon. Then, mostly, a move back as soon as somebody has the object. */
  async harm(step: Step, object?: FileId): Promise<void> {
    const move = this.#drawnMove(object);
    if (move === null) return;
    const { schedule, traps, random } = this.#world;
    const { owner, giver, receiver } = move;
    const isGivers = /^move\.(give|source)-/.test(step.point);
    const [one, other] = isGivers ? [giver, receiver] : [receiver, giver];
    let mended: Promise<void> = Promise.resolve();
    const trap = traps.arm(one, step.point, this.#chance(0.7) ? 1 : 1 + this.#int(4), () => {
      this.#world.trace(`${step.harm} at ${step.point} of ${one.name}`);
      mended = this.#mend(step.harm, one, other);
      this.#happen(step, one, other);
    });
    this.ask(owner, receiver);
    await this.#until(() => trap.sprung, REACH_MS_MAX);
    trap.disarm();
    if (!trap.sprung) return;
    this.reached.add(`${step.point} ${step.harm}`);
    await schedule.sleep(random.fraction() * (this.#chance(0.5) ? 20 : 400));
    one.start();
    other.start();
    if (this.#chance(0.7)) await this.moveOn(owner.fileid);
    await mended;
  }

  /** An object goes to some other router, if it has an owner. */
  moveNow(object: FileId): void {
    const move = this.#drawnMove(object);
    if (move !== null) this.ask(move.owner, move.receiver);
  }

  /** A kill before a sync; then, as soon as what was written is found and served again, the power is cut. */
  async killTwice(): Promise<void> {
    const { machines, schedule, traps, random } = this.#world;
    const machine = machines[this.#int(machines.length)] as Machine;
    const trap = traps.arm(machine, 'log.after-write', 1 + this.#int(3), () => this.#die(machine, 'log.after-write'));
    await this.#until(() => trap.sprung, REACH_MS_MAX);
    trap.disarm();
    if (!trap.sprung) return;
    this.reached.add('log.after-write kill, power cut');
    await schedule.sleep(5);
    machine.start();
    await this.#until(() => machine.station !== null, SETTLE_MS_MAX);
    await schedule.sleep(random.fraction() ** 2 * 800);
    machine.kill(true);
    await schedule.sleep(random.fraction() * 400);
    machine.start();
  }

  /** The object goes to another router than the one that has it, as soon as it is served by somebody. */
  async moveOn(object: FileId): Promise<void> {
    const { server, machines } = this.#world;
    const isServed = (): boolean => {
      const owner = server.owner(object);
      return owner !== null && owner.state.kind === 'running' && machines.some((machine) => machine.life?.objects.get(object)?.ready === true);
    };
    await this.#until(isServed, SETTLE_MS_MAX);
    const move = this.#drawnMove(object);
    if (move !== null) this.ask(move.owner, move.receiver);
  }

  /** Waits until the object is served by its owner and nothing of a move is left. */
  async settled(object: FileId): Promise<void> {
    const { server, machines } = this.#world;
    await this.#until(() => {
      const owner = server.owner(object);
      const machine = machines.find(({ id }) => id === owner?.router);
      return owner !== null && owner.moving === null && machine?.life?.objects.get(object)?.ready === true;
    }, SETTLE_MS_MAX);
  }

  /** An operator wants the object there. */
  ask(owner: OwnerRecord, to: Machine): void {
    const { server } = this.#world;
    const { life } = to;
    const inode = server.records.inode(owner.fileid)?.inode;
    if (life === null || inode === undefined || owner.router === life.router) return;
    const { fileid, term } = owner;
    this.#world.trace(`an operator moves ${fileid} to ${to.name}`);
    life.time.enter(() => {
      if (!life.moves.willReceive) return;
      life.moves
        .receive({ fileid, inodeGeneration: inode.inodeGeneration, term, owner: owner.router, reason: 'operator' })
        .catch((error: unknown) => {
          if (!isExpected(error) && life.time.alive) throw error;
        });
    });
  }

  #drawnMove(object?: FileId): { readonly owner: OwnerRecord; readonly giver: Machine; readonly receiver: Machine } | null {
    const { server, machines } = this.#world;
    const owners = [...server.records.owners.values()].map(({ owner }) => owner).filter(({ fileid }) => object === undefined || fileid === object);
    const owner = owners[this.#int(owners.length)];
    const giver = machines.find(({ id }) => id === owner?.router);
    const others = machines.filter((machine) => machine !== giver && machine.station !== null);
    const receiver = others[this.#int(others.length)];
    return owner === undefined || giver === undefined || receiver === undefined ? null : { owner, giver, receiver };
  }

  /** What the process does of its turn from here on has no effect: it may just as well have been an error. */
  #die(machine: Machine, point: FailPoint, powerCut = false): never {
    machine.kill(powerCut);
    throw failPointError(point);
  }

  /** In the middle of a turn of `one`. */
  #happen({ point, harm }: Step, one: Machine, other: Machine): void {
    const { peers, random } = this.#world;
    switch (harm) {
      case 'kill':
      case 'power cut':
        return this.#die(one, point, harm === 'power cut');
      case 'kill other':
      case 'power cut other':
        return other.kill(harm === 'power cut other');
      case 'kill both':
        other.kill(false);
        return this.#die(one, point);
      case 'error':
        throw failPointError(point);
      case 'stop':
        return one.stop();
      case 'stop other':
        return other.stop();
      case 'cut peers':
        peers.way(one.id, other.id).cut = true;
        return;
      case 'cut registry':
        one.toRegistry.cut = true;
        return;
      case 'answers lost':
        one.fromRegistry.cut = true;
        return;
      case 'late verbs':
        one.toRegistry.late = 1;
        return;
      case 'cut backend':
        one.backendCut = true;
        return;
      case 'clients leave':
        (this.#chance(0.5) ? one : other).breakConnections();
        return;
      case 'forget':
        // One of them dies with it, and is back before the others have put together what they know.
        void this.#forget(this.#world.schedule.nowMs - random.fraction() * 20);
        if (this.#chance(0.5)) other.kill(false);
    }
  }

  /** Ends what a harm has begun. */
  async #mend(harm: Harm, one: Machine, other: Machine): Promise<void> {
    const { schedule, peers, random } = this.#world;
    if (!/^(stop|cut|answers|late)/.test(harm)) return;
    await schedule.sleep(random.fraction() * (this.#chance(0.6) ? 1500 : 1.5 * LEASE_MS));
    peers.way(one.id, other.id).cut = false;
    one.toRegistry.cut = one.fromRegistry.cut = false;
    one.toRegistry.late = 0;
    one.backendCut = false;
    one.continue();
    other.continue();
  }

  async #until(isSo: () => boolean, waitMs: number): Promise<void> {
    const { schedule } = this.#world;
    const endMs = schedule.nowMs + waitMs;
    while (!isSo() && schedule.nowMs < endMs) await schedule.sleep(1 + this.#world.random.fraction() * 4);
  }
}
