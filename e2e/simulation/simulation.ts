/**
 * One seeded history of a whole cluster: routers with their disks, registry, backend, networks and clients in one process and virtual time. Things go
 * wrong, then everything heals, and then all that was acknowledged must be there, through every router.
 */
import type { ObjectBody } from '../../backends/object-store.ts';
import { seededRandom } from '../../backends/virtual-clock.ts';
import { sameTerm } from '../../server/core/ids.ts';
import type { Logger } from '../../server/core/logger.ts';
import { silentLogger } from '../../server/core/logger.ts';
import type { Random } from '../../server/core/time.ts';
import type { FileSystem, Handle } from '../../server/nfsd/file-system.ts';
import { Status } from '../../server/nfsd/file-system.ts';
import { Client } from './client.ts';
import { FaultActor, REST_MS } from './fault-actor.ts';
import { OwnershipObserver } from './observer.ts';
import { SimulatedPeers } from './peer-network.ts';
import { type Profile, type ProfileName, profileOf } from './profiles.ts';
import { RegistryServer } from './registry/registry-server.ts';
import { Schedule } from './schedule.ts';
import { Machine, type World } from './simulated-router.ts';
import { StepTraps } from './step-traps.ts';
import { WatchedStore } from './watched-store.ts';
import { Disk, DoomedVolume, LockDirectory, SizedFile, type WorkWorld } from './workload.ts';

const NOTHING = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };
/** Kept of a history that nobody asked to trace. */
const TRACE_LINES_MAX = 4000;
/** Longer than a removal that is sent again can look for the owner that did not hear of the first one: with less the tombstone may be gone (decision 0026). */
const GRACE_MS_MIN = 12_000;
/** Virtual time in which a healed cluster must have everything running and clean. */
const RECOVERY_MS_MAX = 180_000;

/** What a history met: one in which nothing happens proves nothing. */
export interface Outcome {
  readonly virtualMs: number;
  readonly events: number;
  readonly calls: number;
  readonly jukeboxes: number;
  readonly retransmissions: number;
  readonly lives: number;
  readonly answers: number;
  readonly ownerChanges: number;
  /** Changes that were executed again after a takeover: decision 0028, 3. */
  readonly repeated: number;
  /** Named steps of moves and of the log at which something was made to happen, each counted once. */
  readonly stepsReached: number;
  readonly faults: Readonly<Record<string, number>>;
}

export class SimulationFailure extends Error {
  readonly trace: readonly string[];

  constructor(problems: readonly string[], trace: readonly string[]) {
    super(problems.slice(0, 5).join('\n'));
    this.name = 'SimulationFailure';
    this.trace = trace;
  }
}

export interface SimulationOptions {
  readonly logger?: (router: string, trace: (line: string) => void) => Logger;
  /** Told of every line of the trace, as it comes. Default: nobody, and the last ones are kept for a failure. */
  readonly trace?: (line: string) => void;
  /** Default: `faults`. */
  readonly profile?: ProfileName;
}

interface Work {
  readonly disks: readonly Disk[];
  readonly sized: SizedFile;
  readonly locks: LockDirectory;
  readonly doomed: DoomedVolume;
}

class Simulation {
  readonly #random: Random;
  readonly #schedule = new Schedule();
  readonly #machines: Machine[] = [];
  readonly #clients: Client[] = [];
  readonly #problems: string[] = [];
  readonly #trace: string[] = [];
  readonly #server: RegistryServer;
  readonly #peers: SimulatedPeers;
  readonly #observer: OwnershipObserver;
  readonly #faults: FaultActor;
  readonly #traps: StepTraps;
  readonly #told: ((line: string) => void) | null;
  readonly #restMs: number;
  readonly #name: ProfileName;
  readonly #profile: Profile;
  /** Operations left to do, all hosts together. */
  #steps: number;

  constructor(seed: number, options: SimulationOptions) {
    this.#told = options.trace ?? null;
    this.#name = options.profile ?? 'faults';
    this.#profile = profileOf(this.#name);
    const random = seededRandom(seed);
    this.#random = random;
    const nowMs = (): number => this.#schedule.nowMs;
    const problem = (message: string): void => this.#problem(message);
    const trace = (line: string): void => this.#note(line);
    this.#server = new RegistryServer({ nowMs, random }, { vpoolName: 'vpool1', inlineBytesMax: 4096 });
    this.#peers = new SimulatedPeers(this.#schedule, random);
    this.#observer = new OwnershipObserver(nowMs, problem, trace, (fileid, term) => {
      const owner = this.#server.inRound ? null : this.#server.owner(fileid);
      return owner !== null && sameTerm(owner.term, term) && owner.protection.kind === 'clean';
    });
    const bodyBytes = (body: ObjectBody): Promise<Buffer> => {
      if (body.kind !== 'bytes') throw new Error('bodies are read from simulated disks');
      return Promise.resolve(Buffer.concat(body.chunks));
    };
    this.#restMs = this.#chance(0.3) ? REST_MS : this.#int(500);
    const segmentBytes = ([24, 64, 200][this.#int(3)] as number) * 1024;
    const world: World = {
      schedule: this.#schedule,
      random,
      server: this.#server,
      peers: this.#peers,
      store: new WatchedStore(bodyBytes, problem),
      observer: this.#observer,
      logger: (router) => options.logger?.(router, trace) ?? silentLogger,
      settings: {
        segmentBytes,
        checkpointAfterBytes: segmentBytes * (1 + 3 * this.#int(2)),
        diskMsMax: [0, 1, 5][this.#int(3)] as number,
        dirtyBytesMax: 4 * 1024 * 1024,
        sealAfterMs: [100, 500, 500, 2000][this.#int(4)] as number,
        restMs: this.#restMs,
        cacheBytes: this.#chance(0.5) ? 0 : 8 * segmentBytes,
        graceTimeMs: this.#chance(0.5) ? GRACE_MS_MIN : 60_000,
        recycle: this.#chance(0.7),
        moveThreshold: [0, 3, 12][this.#int(3)] as number,
        moveCooldownMs: this.#chance(0.5) ? 100 : 3000,
      },
      trace,
      problem,
    };
    const routers = this.#profile.routers ?? (this.#chance(0.5) ? 3 : 2);
    for (let index = 0; index < routers; index += 1) {
      this.#machines.push(new Machine(world, 'ABC'[index] as string, Math.floor(random.fraction() * 2 ** 32)));
    }
    this.#traps = new StepTraps();
    this.#faults = new FaultActor({ ...world, machines: this.#machines, traps: this.#traps, connections: () => this.#connections() });
    this.#steps = this.#name === 'calm' ? 200 : 150 + this.#int(250);
  }

  *#connections(): Iterable<NonNullable<Machine['connection']>> {
    for (const { connection } of this.#machines) if (connection !== null) yield connection;
  }

  #int(below: number): number {
    return Math.floor(this.#random.fraction() * below);
  }

  #chance(probability: number): boolean {
    return this.#random.fraction() < probability;
  }

  #note(line: string): void {
    const stamped = `${this.#schedule.nowMs.toFixed(1).padStart(10)}  ${line}`;
    if (this.#told !== null) return this.#told(stamped);
    this.#trace.push(stamped);
    if (this.#trace.length > TRACE_LINES_MAX) this.#trace.splice(0, TRACE_LINES_MAX / 2);
  }

  #problem(message: string): void {
    this.#note(`PROBLEM ${message}`);
    this.#problems.push(`at ${this.#schedule.nowMs.toFixed(1)} ms: ${message}`);
  }

  async run(): Promise<Outcome> {
    // A bug in a router ends its process; here it ends the history, with the seed that has it.
    const bug = (error: unknown): void => this.#problem(error instanceof Error ? (error.stack ?? error.message) : String(error));
    this.#traps.open();
    process.on('unhandledRejection', bug);
    process.on('uncaughtException', bug);
    try {
      await this.#schedule.run(this.#play());
    } catch (error) {
      bug(error);
    } finally {
      this.#traps.close();
      process.off('unhandledRejection', bug);
      process.off('uncaughtException', bug);
    }
    if (this.#problems.length > 0) throw new SimulationFailure(this.#problems, this.#trace);
    return {
      virtualMs: Math.round(this.#schedule.nowMs),
      events: this.#schedule.count,
      calls: this.#sum((client) => client.calls),
      jukeboxes: this.#sum((client) => client.jukeboxes),
      retransmissions: this.#sum((client) => client.retransmissions),
      lives: this.#machines.reduce((sum, machine) => sum + machine.lives, 0),
      answers: this.#observer.answers,
      ownerChanges: this.#observer.changes,
      repeated: this.#observer.repeated,
      stepsReached: this.#faults.steps.reached.size,
      faults: this.#faults.counts,
    };
  }

  #sum(of: (client: Client) => number): number {
    return this.#clients.reduce((sum, client) => sum + of(client), 0);
  }

  async #play(): Promise<void> {
    const schedule = this.#schedule;
    for (const machine of this.#machines) machine.start();
    while (this.#problems.length === 0 && this.#machines.some((machine) => machine.station === null)) {
      await schedule.sleep(100);
      if (schedule.nowMs > 60_000) throw new Error('the routers do not start');
    }
    for (let index = 0; index < 4; index += 1) {
      const world = { schedule, random: this.#random, machines: this.#machines, trace: (line: string) => this.#note(line) };
      this.#clients.push(new Client(world, `host${'abcd'[index]}`, index % this.#machines.length));
    }
    const work = await this.#prepare();
    this.#note('work begins');
    const faulting = this.#wrong(work);
    await Promise.all(this.#clients.map((client, index) => this.#work(client, index, work)));
    await faulting;
    this.#note('everything heals');
    this.#faults.heal();
    await this.#settle();
    await this.#judge(work);
  }

  /** What goes wrong while the hosts work. */
  async #wrong(work: Work): Promise<void> {
    const isBroken = (): boolean => this.#problems.length > 0;
    if (this.#name === 'faults') await this.#faults.run(() => this.#steps > 0 && !isBroken());
    if (!this.#profile.oneVolume) return;
    this.#steps = Infinity;
    await this.#faults.steps.campaign((work.disks[0] as Disk).fileid, this.#name, isBroken);
    this.#steps = 0;
  }

  async #prepare(): Promise<Work> {
    const client = this.#clients[0] as Client;
    const world: WorkWorld = {
      schedule: this.#schedule,
      random: this.#random,
      stableShare: this.#chance(0.2) ? 0.15 : 0.75,
      disksFail: () => this.#faults.disksFailed,
      move: (fileid) => this.#faults.steps.moveNow(fileid),
      wasRepeated: (fileid, change) => this.#restMs < REST_MS && this.#observer.wasRepeated(fileid, change),
      problem: (message) => this.#problem(message),
    };
    const mounted = await client.call('mount', (fs, caller) => fs.mount(caller, 'vpool1'));
    if (mounted.result.status !== Status.OK) throw new Error(`mount: status ${mounted.result.status}`);
    const root = Buffer.from(mounted.result.handle);
    const directory = await this.#made(client, 'vm', (fs, caller) => fs.mkdir(caller, root, Buffer.from('vm'), NOTHING));
    const disks: Disk[] = [];
    for (let index = 0; index < 2; index += 1) {
      const sectors = [128, 512][this.#int(2)] as number;
      const name = index === 0 ? 'vm-flat.vmdk' : this.#chance(0.5) ? 'other-flat.vmdk' : 'vm.vmx';
      const handle = await this.#made(client, name, (fs, caller) =>
        fs.create(caller, directory, Buffer.from(name), { mode: 'guarded', attributes: { ...NOTHING, sizeBytes: sectors * 512 } }),
      );
      disks.push(new Disk(world, name, handle, index + 1, sectors));
    }
    const sizedHandle = await this.#made(client, 'sized.vmsn', (fs, caller) =>
      fs.create(caller, directory, Buffer.from('sized.vmsn'), { mode: 'guarded', attributes: { ...NOTHING, sizeBytes: 8192 } }),
    );
    const locks = new LockDirectory(world, directory, ['.lck-1', '.lck-2', '.lck-3']);
    return { disks, sized: new SizedFile(world, 'sized.vmsn', sizedHandle), locks, doomed: new DoomedVolume(world, directory) };
  }

  async #made(
    client: Client,
    name: string,
    make: (fs: FileSystem, caller: Parameters<FileSystem['create']>[0]) => ReturnType<FileSystem['create']>,
  ): Promise<Handle> {
    const { result } = await client.call(`make ${name}`, (fs, caller) => make(fs, caller));
    if (result.status !== Status.OK) throw new Error(`${name} cannot be made: status ${result.status}`);
    return Buffer.from(result.handle);
  }

  /** One host: some calls at a time. Now and then it changes its router, as a VM that is migrated. */
  async #work(client: Client, index: number, work: Work): Promise<void> {
    const { oneVolume, lanesMax, thinkMs } = this.#profile;
    if (oneVolume && index > 1) return;
    const lanes = oneVolume ? lanesMax : 1 + this.#int(lanesMax);
    const one = async (): Promise<void> => {
      while (this.#steps > 0 && this.#problems.length === 0) {
        this.#steps -= 1;
        await this.#schedule.sleep(Math.max(0, this.#faults.hostsRestUntilMs - this.#schedule.nowMs));
        if (!oneVolume && this.#chance(0.02)) client.home = this.#int(this.#machines.length);
        const kind = this.#random.fraction();
        // The first two hosts have a VM each; whose disk the others look at, too.
        const disk = work.disks[index < 2 && this.#chance(0.8) ? index : this.#int(work.disks.length)] as Disk;
        if (oneVolume) await (work.disks[0] as Disk).stableStep(client);
        else if (kind < 0.7) await disk.step(client);
        else if (kind < 0.75) await work.doomed.step(client);
        else if (kind < 0.83) await work.sized.step(client);
        else await work.locks.step(client);
        await this.#schedule.sleep(!oneVolume && this.#chance(0.1) ? this.#random.fraction() * 2000 : this.#random.fraction() * thinkMs);
      }
    };
    await Promise.all(Array.from({ length: lanes }, one));
  }

  /** Waits until every object runs and nothing is only on one disk. */
  async #settle(): Promise<void> {
    const untilMs = this.#schedule.nowMs + RECOVERY_MS_MAX;
    for (;;) {
      const open: string[] = [];
      for (const machine of this.#machines) if (machine.station === null) open.push(`${machine.name} is not up`);
      for (const { owner } of this.#server.records.owners.values()) {
        if (owner.state.kind !== 'running') open.push(`${owner.fileid} is ${owner.state.kind}`);
        else if (owner.protection.kind !== 'clean') open.push(`${owner.fileid} is ${owner.protection.kind} at ${this.#nameOf(owner.router)}`);
      }
      if (open.length === 0 || this.#problems.length > 0) return;
      if (this.#schedule.nowMs > untilMs) throw new Error(`after ${RECOVERY_MS_MAX} ms: ${open.join(', ')}`);
      await this.#schedule.sleep(500);
    }
  }

  #nameOf(router: string): string {
    return this.#machines.find((machine) => machine.id === router)?.name ?? router;
  }

  /** Everything is read through every router, and once more when all of them were started anew: from what is on disks and backend. */
  async #judge(work: Work): Promise<void> {
    await this.#readAll(work);
    if (this.#problems.length === 0 && this.#chance(0.5)) {
      this.#note('all are started anew');
      for (const machine of this.#machines) machine.kill(this.#chance(0.3));
      for (const machine of this.#machines) machine.start();
      await this.#settle();
      await this.#readAll(work);
    }
    const names = work.locks.history.check();
    if (names !== null) this.#problem(names);
    for (const message of this.#server.records.problems()) this.#problem(`registry: ${message}`);
    if (this.#name === 'calm' && this.#sum((each) => each.jukeboxes) > 0) this.#problem('JUKEBOX without a fault');
  }

  async #readAll(work: Work): Promise<void> {
    const client = new Client(
      { schedule: this.#schedule, random: this.#random, machines: this.#machines, trace: (line) => this.#note(line) },
      'judge',
      0,
    );
    client.wander = 0;
    for (let index = 0; index < this.#machines.length; index += 1) {
      client.home = index;
      for (const disk of work.disks) for (let at = 0; at < disk.history.sectors; at += 128) await disk.read(client, at, 128);
      await work.sized.look(client);
      await work.locks.lookAtAll(client);
    }
  }
}

/** Plays the history of one seed. @throws SimulationFailure when something is not as it must be. */
export async function simulateCluster(seed: number, options: SimulationOptions = {}): Promise<Outcome> {
  return new Simulation(seed, options).run();
}
