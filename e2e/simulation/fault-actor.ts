/** What goes wrong in a simulated cluster, one thing after another or at once, all of it drawn from the seed. */
import type { Random } from '../../server/core/time.ts';
import type { SimulatedPeers } from './peer-network.ts';
import type { RegistryConnection } from './registry/registry-connection.ts';
import type { RegistryServer } from './registry/registry-server.ts';
import type { Schedule } from './schedule.ts';
import { LEASE_MS, type Machine, STANDSTILL_MS } from './simulated-router.ts';
import { StepFaults } from './step-faults.ts';
import type { StepTraps } from './step-traps.ts';

export interface FaultWorld {
  readonly schedule: Schedule;
  readonly random: Random;
  readonly server: RegistryServer;
  readonly peers: SimulatedPeers;
  readonly machines: readonly Machine[];
  readonly traps: StepTraps;
  connections(): Iterable<RegistryConnection>;
  trace(message: string): void;
}

/** With so much rest before an object is said to be clean nothing is known that could be executed twice (decision 0028, 4). */
export const REST_MS = 30_000;

type Fault = readonly [name: string, weight: number, happen: () => Promise<void>];

export class FaultActor {
  readonly counts: Record<string, number> = {};
  /** Some disk failed at some time: clients may have been told so. */
  disksFailed = false;
  /** Hosts do nothing until then. */
  hostsRestUntilMs = 0;
  readonly steps: StepFaults;
  readonly #world: FaultWorld;
  readonly #running = new Set<Promise<void>>();

  constructor(world: FaultWorld) {
    this.#world = world;
    this.steps = new StepFaults(world, (sinceMs) => this.#forget(sinceMs));
  }

  /** Lets faults happen as long as `goOn`. */
  async run(goOn: () => boolean): Promise<void> {
    const { schedule } = this.#world;
    const faults = this.#faults();
    const total = faults.reduce((sum, [, weight]) => sum + weight, 0);
    while (goOn()) {
      await schedule.sleep(this.#chance(0.3) ? this.#random() * 300 : this.#random() * 6000);
      if (!goOn()) break;
      let at = this.#random() * total;
      const fault = faults.find(([, weight]) => (at -= weight) < 0) as Fault;
      this.counts[fault[0]] = (this.counts[fault[0]] ?? 0) + 1;
      this.#world.trace(`fault: ${fault[0]}`);
      const happening = fault[2]();
      this.#running.add(happening);
      void happening.finally(() => this.#running.delete(happening));
    }
    await Promise.all(this.#running);
  }

  /** Everything is well again from now on. */
  heal(): void {
    const { machines, peers } = this.#world;
    for (const machine of machines) {
      for (const way of [machine.toRegistry, machine.fromRegistry, machine.toClients]) Object.assign(way, { cut: false, loss: 0, late: 0 });
      for (const other of machines) if (other !== machine) Object.assign(peers.way(machine.id, other.id), { cut: false, loss: 0 });
      machine.backendCut = false;
      machine.setStoreFaults({});
      machine.disk.setFaults({});
      machine.continue();
      machine.start();
    }
  }

  #random(): number {
    return this.#world.random.fraction();
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #machine(): Machine {
    const { machines } = this.#world;
    return machines[Math.floor(this.#random() * machines.length)] as Machine;
  }

  /** How long things last: mostly less than a lease, sometimes more. */
  #duration(): number {
    return this.#chance(0.6) ? this.#random() * 3000 : this.#random() * 2.5 * LEASE_MS;
  }

  #faults(): readonly Fault[] {
    const { schedule, peers, machines } = this.#world;
    const cut = async (way: { cut: boolean }): Promise<void> => {
      way.cut = true;
      await schedule.sleep(this.#duration());
      way.cut = false;
    };
    return [
      [
        'kill',
        3,
        async () => {
          const machine = this.#machine();
          machine.kill(this.#chance(0.2));
          await schedule.sleep(this.#chance(0.5) ? this.#random() * 1500 : this.#duration());
          machine.start();
        },
      ],
      [
        'kill all',
        0.3,
        async () => {
          for (const machine of machines) machine.kill(this.#chance(0.2));
          await schedule.sleep(this.#random() * 3000);
          for (const machine of machines) machine.start();
        },
      ],
      [
        'stop',
        3,
        async () => {
          const machine = this.#machine();
          machine.stop();
          await schedule.sleep(this.#duration());
          machine.continue();
        },
      ],
      [
        'lapse while stopped',
        1.5,
        async () => {
          // Shorter than a standstill that is noticed, and yet the lease is over when it goes on, with calls that wait.
          const machine = this.#machine();
          machine.toRegistry.cut = true;
          await schedule.sleep(1500 + this.#random() * 3000);
          await this.#stopInWrite(machine);
          await schedule.sleep(2500 + this.#random() * 2500);
          machine.continue();
          machine.toRegistry.cut = false;
        },
      ],
      ['cut from the registry', 2, () => cut(this.#machine().toRegistry)],
      [
        'registry away',
        1,
        async () => {
          await Promise.all(machines.map((machine) => cut(machine.toRegistry)));
        },
      ],
      [
        'cut between routers',
        2,
        () => {
          const one = this.#machine();
          const other = machines[(machines.indexOf(one) + 1) % machines.length] as Machine;
          return cut(peers.way(one.id, other.id));
        },
      ],
      ['cut from clients', 1, () => cut(this.#machine().toClients)],
      [
        'losses',
        2,
        async () => {
          const ways = [this.#machine().toRegistry, this.#machine().toClients];
          const one = this.#machine();
          for (const other of machines) if (other !== one) ways.push(peers.way(one.id, other.id));
          for (const way of ways) way.loss = this.#random() * 0.3;
          await schedule.sleep(this.#duration());
          for (const way of ways) way.loss = 0;
        },
      ],
      [
        'lapse in a read',
        1,
        async () => {
          const machine = this.#machine();
          machine.toRegistry.cut = true;
          await schedule.sleep(1500 + this.#random() * 3000);
          for (let waits = 0; waits < 2000 && machine.fetching === 0; waits += 1) await schedule.sleep(0.5);
          machine.stop();
          await schedule.sleep(2500 + this.#random() * 2500);
          machine.continue();
          machine.toRegistry.cut = false;
        },
      ],
      [
        'late verbs',
        1.5,
        async () => {
          const way = this.#machine().toRegistry;
          way.late = 0.1 + this.#random() * 0.5;
          await schedule.sleep(this.#duration());
          way.late = 0;
        },
      ],
      [
        'cut from the backend',
        1,
        async () => {
          const machine = this.#machine();
          machine.backendCut = true;
          await schedule.sleep(this.#duration());
          machine.backendCut = false;
        },
      ],
      [
        'bad backend',
        2,
        async () => {
          const machine = this.#machine();
          machine.setStoreFaults({ delay: 0.5, delayMsMax: 2000, failBefore: 0.2, loseAnswer: 0.2, applyLate: 0.1, applyLateMsMax: 3000 });
          await schedule.sleep(this.#duration());
          machine.setStoreFaults({});
        },
      ],
      ['forgetful registry', 1, () => this.#failOver()],
      ['operator move', 4, () => this.#move()],
      [
        'trouble in a move',
        5,
        async () => {
          const moving = this.#move();
          await schedule.sleep(this.#random() * (this.#chance(0.7) ? 12 : 100));
          const one = this.#machine();
          const other = machines[(machines.indexOf(one) + 1) % machines.length] as Machine;
          const lastsMs = this.#chance(0.5) ? this.#random() * 200 : this.#duration();
          const kind = Math.floor(this.#random() * 6);
          this.#world.trace(`trouble ${kind} at ${one.name}`);
          if (kind === 0) one.kill(this.#chance(0.15));
          else if (kind === 1) one.stop();
          else if (kind === 2) peers.way(one.id, other.id).cut = true;
          else if (kind === 3) one.toRegistry.cut = true;
          else if (kind === 4) one.toRegistry.loss = 0.7;
          else peers.way(one.id, other.id).loss = 0.7;
          await schedule.sleep(lastsMs);
          Object.assign(peers.way(one.id, other.id), { cut: false, loss: 0 });
          Object.assign(one.toRegistry, { cut: false, loss: 0 });
          one.continue();
          one.start();
          await moving;
        },
      ],
      [
        'long death',
        0.5,
        async () => {
          // Clients are told to come back meanwhile, and their calls are too old to begin when it is back.
          const machine = this.#machine();
          machine.kill(false);
          await schedule.sleep(25_000 + this.#random() * 22_000);
          machine.start();
        },
      ],
      [
        'rest and takeover',
        0.5,
        async () => {
          // Everything becomes clean; then its owner dies for longer than a lease, and others take over what their hosts want.
          this.hostsRestUntilMs = schedule.nowMs + 4000 + (this.#chance(0.5) ? REST_MS : 0) + this.#random() * 6000;
          await schedule.sleep(this.hostsRestUntilMs - schedule.nowMs);
          const machine = this.#machine();
          machine.kill(false);
          await schedule.sleep(2 * LEASE_MS + this.#random() * 5000);
          machine.start();
        },
      ],
      [
        'stranded copies',
        0.7,
        async () => {
          // Calls that a router cannot forward wait there; their hosts send them elsewhere; the owner has done them, rests, and dies: who takes over knows nothing of them.
          const { server } = this.#world;
          const owners = [...server.records.owners.values()].map(({ owner }) => owner.router);
          const owner = machines.find(({ id }) => id === owners[Math.floor(this.#random() * owners.length)]) ?? this.#machine();
          const asker = machines[(machines.indexOf(owner) + 1) % machines.length] as Machine;
          const way = peers.way(owner.id, asker.id);
          way.cut = true;
          await schedule.sleep(20 + this.#random() * 100);
          asker.breakConnections();
          await schedule.sleep(this.#random() * 1500);
          this.hostsRestUntilMs = schedule.nowMs + 4000;
          await schedule.sleep(4000);
          owner.kill(false);
          await schedule.sleep(1.5 * LEASE_MS + this.#random() * 6000);
          way.cut = false;
          owner.start();
        },
      ],
      [
        'stop and hang up',
        2,
        async () => {
          // What it has not read yet it reads when it goes on; hosts have sent it elsewhere by then.
          const machine = this.#machine();
          machine.stop();
          await schedule.sleep(this.#random() * 60);
          machine.breakConnections();
          await schedule.sleep(this.#random() * STANDSTILL_MS);
          machine.continue();
        },
      ],
      [
        'connections break',
        2,
        () => {
          this.#machine().breakConnections();
          return Promise.resolve();
        },
      ],
      ['harm at a step', 8, () => this.steps.harm(this.steps.drawn())],
      ['kill in work', 2, () => this.steps.killInWork()],
      ['killed twice', 1, () => this.steps.killTwice()],
      [
        'drain',
        1,
        async () => {
          const machine = this.#machine();
          const { life } = machine;
          if (life === null) return;
          life.time.enter(() => life.moves.drain());
          await schedule.sleep(this.#duration());
          life.time.enter(() => void life.moves.undrain());
        },
      ],
      [
        'bad disk',
        0.7,
        async () => {
          const machine = this.#machine();
          this.disksFailed = true;
          machine.disk.setFaults(
            this.#chance(0.5) ? { syncError: this.#random() * 0.5 } : { writeError: 0.1, shortWrite: 0.1, syncError: 0.05, metadataError: 0.05 },
          );
          await schedule.sleep(this.#duration());
          machine.disk.setFaults({});
        },
      ],
    ];
  }

  /** In the middle of a write, if there is one soon. */
  async #stopInWrite(machine: Machine): Promise<void> {
    const { schedule, traps } = this.#world;
    const trap = traps.arm(machine, this.#chance(0.5) ? 'log.before-write' : 'log.after-write', 1, () => machine.stop());
    for (let waits = 0; waits < 30 && !trap.sprung; waits += 1) await schedule.sleep(10);
    trap.disarm();
    machine.stop();
  }

  /** An operator moves some object somewhere. */
  async #move(): Promise<void> {
    const { server } = this.#world;
    const owners = [...server.records.owners.values()].map(({ owner }) => owner);
    const owner = owners[Math.floor(this.#random() * owners.length)];
    if (owner !== undefined) this.steps.ask(owner, this.#machine());
    await Promise.resolve();
  }

  /** A failover that loses the last seconds, and the recovery round after it. */
  async #failOver(): Promise<void> {
    const { schedule, server, machines } = this.#world;
    // What is on no living router's disk is lost for good, which the rules do not promise otherwise: only while all can take part.
    const wait = (): boolean => machines.some((machine) => machine.station === null || machine.isStopped || machine.toRegistry.cut) || server.inRound;
    for (let tries = 0; wait(); tries += 1) {
      if (tries > 50) return;
      await schedule.sleep(100);
    }
    await this.#forget(schedule.nowMs - this.#random() * (this.#chance(0.5) ? 300 : 3000));
  }

  async #forget(sinceMs: number): Promise<void> {
    const { schedule, server, machines } = this.#world;
    if (server.inRound) return;
    server.failOver(sinceMs);
    this.#world.trace(`the registry forgot down to sequence ${server.position().sequence}`);
    const endsMs = schedule.nowMs + LEASE_MS + 1000;
    for (;;) {
      let missing = false;
      for (const connection of this.#world.connections()) {
        if (!connection.takesPart || server.hasContributed(connection.router)) continue;
        missing = true;
        connection.contribute();
      }
      // What a router has on its disk counts also when it died since: it is back before the round ends, or its time is over.
      if (machines.some((machine) => machine.connection === null)) missing = true;
      if (!missing || schedule.nowMs > endsMs) break;
      await schedule.sleep(50);
    }
    server.endRound(LEASE_MS);
    this.#world.trace(`the registry works again in generation ${server.generation}, ${server.lostEntries} changes are lost for good`);
  }
}
