/**
 * Routers that move objects between them, with everything around them made of memory: registry, disks, peers, drivers, and the object-router's part. Each
 * call over a port is a numbered event, at which a test kills a router, loses an answer or cuts a line. What clients were told is kept, to be compared with what is
 * there in the end.
 */
import type { Inode } from '../../../../registry/inode.ts';
import type { ClosedEpoch, ClusterRegistry, Mutation, OwnerOutcome, OwnerRecord, Ownership, Protection } from '../../../../registry/ports.ts';
import { assert } from '../../../core/assert.ts';
import { ApplianceError, errorCode } from '../../../core/errors.ts';
import type { FileId, Incarnation, ObjectUuid, RouterId, Term } from '../../../core/ids.ts';
import { sameTerm } from '../../../core/ids.ts';
import { silentLogger } from '../../../core/logger.ts';
import type { Clock, Random } from '../../../core/time.ts';
import { FaultyDisk } from '../../../object-log/testing/faulty-disk.ts';
import type { DrivenObject, MoveSource, ObjectDriver, Replica } from '../../driver-port.ts';
import type { CallsPart, Member, Members, MoveOffer, PeerNetwork, PeerService } from '../../peer-port.ts';
import { CededJournal } from '../ceded-journal.ts';
import { IoCount } from '../io-count.ts';
import type { ArrivingCalls, MovableObject, MoveHost, MoveSettings, ObjectHold } from '../move-host.ts';
import { Moves } from '../moves.ts';
import { Pins } from '../pins.ts';

export const RECORD_BYTES = 100;
const TIME = { seconds: 1_600_000_000, nanoseconds: 0 };

export const SETTINGS: MoveSettings = {
  volumeReadThreshold: 10,
  volumeWriteThreshold: 10,
  fileReadThreshold: 0,
  fileWriteThreshold: 5,
  movesMax: 2,
  cooldownMs: 10_000,
  decayMs: 60_000,
};

/** What happens at an event. `before`: the call has no effect; `after`: it has, but nobody hears of it. */
export type Mishap =
  | { readonly kind: 'kill'; readonly routers: readonly string[] }
  /** The call fails, and so do all of its kind (registry, peers or disk) by that router for `ms`. */
  | { readonly kind: 'lost'; readonly when: 'before' | 'after'; readonly ms: number }
  /** The call fails, and has its effect only `ms` later. */
  | { readonly kind: 'late'; readonly ms: number }
  /** The last name of the object is removed. */
  | { readonly kind: 'removed'; readonly fileid: FileId };

export class VirtualClock implements Clock {
  nowMs = 1_000;
  /** Disks answer in turns of the real event loop. */
  isBusy: () => boolean = () => false;
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();

  wallMs(): number {
    return 1_700_000_000_000 + this.nowMs;
  }
  monotonicMs(): number {
    return this.nowMs;
  }
  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.after(delayMs, resolve));
  }
  soon(callback: () => void): void {
    this.after(0, callback);
  }

  /** The next timer, when nothing else is left to do in this turn. False: there is none. */
  async turn(untilMs = Infinity, isOver: () => boolean = () => false): Promise<boolean> {
    do {
      for (let drained = 0; drained < 2; drained += 1) await new Promise((resolve) => setImmediate(resolve));
    } while (this.isBusy());
    if (isOver()) return true;
    let next: { atMs: number; callback: () => void } | null = null;
    for (const timer of this.#timers) if (next === null || timer.atMs < next.atMs) next = timer;
    if (next === null || next.atMs > untilMs) return false;
    this.#timers.delete(next);
    this.nowMs = Math.max(this.nowMs, next.atMs);
    next.callback();
    return true;
  }

  async run<T>(promise: Promise<T>, msMax = 600_000): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    promise.then(done, done);
    const endMs = this.nowMs + msMax;
    while (!settled) {
      if (!(await this.turn(endMs, () => settled)) && !settled) throw new Error(`nothing came of it in ${msMax} ms`);
    }
    return promise;
  }

  async advance(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    while (await this.turn(endMs));
    this.nowMs = endMs;
  }
}

/** One life of a router. */
export class Life {
  readonly world: MoveWorld;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly name: string;
  alive = true;
  die: () => void = () => undefined;
  readonly died: Promise<void> = new Promise((resolve) => {
    this.die = resolve;
  });
  leaseValid = true;
  leaseLeftMs = 6_000;
  confirmedAgoMs = 10;
  readonly served = new Map<FileId, FakeObject>();
  readonly opening = new Map<FileId, Promise<FakeObject | null>>();
  readonly holds = new Map<FileId, Promise<void>>();
  readonly hints = new Map<FileId, OwnerRecord>();
  readonly clock: Clock;
  readonly host: FakeHost;
  readonly driver: ObjectDriver;
  readonly disk: ReturnType<FaultyDisk['process']>;
  moves!: Moves;

  constructor(world: MoveWorld, name: string, number: number) {
    this.world = world;
    this.name = name;
    this.router = routerId(name);
    this.incarnation = `${number.toString(16).padStart(8, '0')}${name.repeat(24)}` as Incarnation;
    const { clock } = world;
    const ifAlive = (callback: () => void) => (): void => {
      if (this.alive) callback();
    };
    this.clock = {
      wallMs: () => clock.wallMs(),
      monotonicMs: () => clock.monotonicMs(),
      after: (delayMs, callback) => clock.after(delayMs, ifAlive(callback)),
      soon: (callback) => clock.soon(ifAlive(callback)),
      sleep: (delayMs) => new Promise((resolve) => clock.after(delayMs, ifAlive(resolve))),
    };
    this.disk = world.disks.get(name)?.process() as ReturnType<FaultyDisk['process']>;
    this.host = new FakeHost(this);
    this.driver = new FakeDriver(this);
  }

  /** A call over a port of this life. */
  call<T>(what: string, action: () => T | Promise<T>): Promise<T> {
    return this.world.event(this, what, action);
  }

  async start(): Promise<void> {
    const { world } = this;
    const journal = await CededJournal.open(this.disk, '/vpool', silentLogger);
    const pins = await Pins.open(this.disk, '/vpool');
    this.moves = new Moves(
      {
        host: this.host,
        registry: world.registryOf(this),
        members: world.membersOf(this),
        network: world.networkOf(this),
        driver: this.driver,
        clock: this.clock,
        random: world.random,
        logger: silentLogger,
        self: { router: this.router, incarnation: this.incarnation },
      },
      { journal, pins },
      world.settings,
    );
    this.moves.start();
  }
}

export function routerId(name: string): RouterId {
  return name.repeat(32) as RouterId;
}

interface StoredLog {
  readonly values: string[];
}

/** The segment files of a router: of objects that it owned, and copies. Survive it. */
interface LocalLogs {
  readonly owned: Map<FileId, StoredLog>;
  readonly copies: Map<FileId, StoredLog & { readonly attempt: Term }>;
  /** Objects of which it knows the calls that a giver completed. */
  readonly remembered: Set<FileId>;
  /** And of which a power cut does not lose them. */
  readonly kept: Set<FileId>;
}

/** What it takes the disk to keep the word that calls are forgotten. */
const FORGET_MS = 20;

export class MoveWorld {
  readonly clock = new VirtualClock();
  readonly settings: MoveSettings;
  readonly random: Random;
  readonly disks = new Map<string, FaultyDisk>();
  readonly logs = new Map<string, LocalLogs>();
  readonly lives = new Map<string, Life>();
  readonly owners = new Map<FileId, OwnerRecord>();
  readonly counters = new Map<FileId, number>();
  readonly inodes = new Map<FileId, Inode>();
  readonly dead = new Set<Incarnation>();
  /** By object: what clients were told is written, in order. */
  readonly told = new Map<FileId, string[]>();
  /** What the backend has: all values up to this count. */
  readonly uploaded = new Map<FileId, string[]>();
  readonly events: string[] = [];
  /** More calls ended since the last part than fit in the answer to a freeze. */
  tooManyCalls = false;
  /** A log that is frozen is said to have so many records more than it has. */
  saysMoreRecords = 0;
  /** A freeze of a log does not end before this does: its disk hangs. */
  freezing: Promise<void> | null = null;
  mishap: { readonly at: number; readonly what: Mishap } | null = null;
  /** Kinds of calls that fail until this time. */
  readonly #away = new Map<string, number>();
  readonly #cut = new Set<string>();
  #lives = 0;
  watching = false;

  constructor(names: readonly string[], settings: MoveSettings = SETTINGS) {
    this.settings = settings;
    let state = 42;
    this.random = {
      bytes: (count) => Buffer.from(Array.from({ length: count }, () => ((state = (state * 1103515245 + 12345) & 0x7fffffff) >> 16) & 0xff)),
      fraction: () => 0.5,
    };
    this.clock.isBusy = () => [...this.disks.values()].some((disk) => disk.pending > 0);
    for (const name of names) {
      this.disks.set(name, new FaultyDisk(this.random));
      this.logs.set(name, { owned: new Map(), copies: new Map(), remembered: new Set(), kept: new Set() });
    }
  }

  async boot(name: string): Promise<Life> {
    const former = this.lives.get(name);
    if (former !== undefined) this.kill(name);
    this.#lives += 1;
    await this.disks.get(name)?.process().makeDirectory('/vpool');
    const life = new Life(this, name, this.#lives);
    // Copies of logs stay until the registry says that they are nobody's: opening looks at them.
    this.lives.set(name, life);
    if (former !== undefined) this.dead.add(former.incarnation);
    await this.clock.run(life.start());
    return life;
  }

  kill(name: string): void {
    const life = this.lives.get(name);
    if (life === undefined || !life.alive) return;
    life.alive = false;
    life.disk.die();
    life.die();
  }

  life(name: string): Life {
    const life = this.lives.get(name);
    assert(life !== undefined, `router ${name} was booted`);
    return life;
  }

  nameOf(router: RouterId): string {
    return router.slice(0, 1);
  }

  addVolume(fileid: FileId, objectClass: 'volume' | 'file' = 'volume'): Inode {
    const inode: Inode = {
      fileid,
      inodeGeneration: 1,
      type: 'file',
      class: objectClass,
      state: 'live',
      mode: 0o644,
      uid: 0,
      gid: 0,
      nlink: 1,
      sizeBytes: 0,
      usedBytes: 0,
      atime: TIME,
      mtime: TIME,
      ctime: TIME,
      parent: null,
      exclusiveVerifier: null,
      symlinkTarget: null,
      inlineBytes: null,
      uuid: fileid.toString(16).padStart(32, '0') as ObjectUuid,
    };
    this.inodes.set(fileid, inode);
    this.told.set(fileid, []);
    this.uploaded.set(fileid, []);
    return inode;
  }

  /** Calls between the two fail from now on. */
  cut(a: string, b: string): void {
    this.#cut.add(`${a}${b}`).add(`${b}${a}`);
  }
  mend(): void {
    this.#cut.clear();
    this.#away.clear();
  }

  /** Registry, peers, backend or disk for one router. */
  awayFor(name: string, kind: string, ms: number): void {
    this.#away.set(`${name} ${kind}`, this.clock.nowMs + ms);
  }

  #isAway(name: string, kind: string): boolean {
    return (this.#away.get(`${name} ${kind}`) ?? 0) > this.clock.nowMs;
  }

  async event<T>(life: Life, what: string, action: () => T | Promise<T>): Promise<T> {
    if (!life.alive) return never();
    const kind = what.split(' ')[0] as string;
    let lostAfter = false;
    if (this.watching) {
      this.events.push(`${life.name} ${what}`);
      const { mishap } = this;
      if (mishap !== null && mishap.at === this.events.length - 1) {
        if (mishap.what.kind === 'kill') {
          for (const name of mishap.what.routers) this.kill(name);
          if (!life.alive) return never();
        } else if (mishap.what.kind === 'removed') {
          this.inodes.delete(mishap.what.fileid);
        } else if (mishap.what.kind === 'late') {
          this.clock.after(mishap.what.ms, () => void Promise.resolve(action()).catch(() => undefined));
          throw unavailable(kind);
        } else {
          this.awayFor(life.name, kind, mishap.what.ms);
          if (mishap.what.when === 'before') throw unavailable(kind);
          lostAfter = true;
        }
      }
    }
    if (!lostAfter && this.#isAway(life.name, kind)) throw unavailable(kind);
    await this.clock.sleep(1);
    if (!life.alive) return never();
    let result: T;
    try {
      result = await action();
    } catch (error) {
      if (!life.alive) return never();
      throw error;
    }
    await this.clock.sleep(0);
    if (!life.alive) return never();
    if (lostAfter) throw unavailable(kind);
    return result;
  }

  // ---- registry ----

  registryOf(life: Life): ClusterRegistry {
    const world = this;
    const ownership: Ownership = {
      owner: (fileid) => life.call('registry owner', () => world.owners.get(fileid) ?? null),
      ownedBy: (router, after, limit) =>
        life.call('registry ownedBy', () =>
          [...world.owners.values()]
            .filter((owner) => owner.router === router && owner.fileid > after)
            .sort((a, b) => a.fileid - b.fileid)
            .slice(0, limit),
        ),
      claim: (mutation, fileid, router, expected, closing, nonce, counterMin = 0) =>
        life.call('registry claim', () => world.#claim(mutation, fileid, router, expected, closing, nonce, counterMin)),
      beginMove: (mutation, fileid, term, to, nonce) =>
        life.call('registry beginMove', () =>
          world.#change(mutation, fileid, term, true, (owner) => {
            const counter = world.#count(fileid, 0);
            return { ...owner, moving: { from: owner.router, to, attempt: { generation: 1, counter, nonce } } };
          }),
        ),
      transfer: (mutation, fileid, term, attempt, closing, protection) =>
        life.call('registry transfer', () => world.#transfer(mutation, fileid, term, attempt, closing, protection)),
      update: (mutation, fileid, term, fields) =>
        life.call('registry update', () => world.#change(mutation, fileid, term, false, (owner) => ({ ...owner, ...fields }))),
    };
    const unused = (): never => {
      throw new Error('not part of this world');
    };
    return {
      vpool: { name: 'v', uuid: '0'.repeat(32) },
      namespace: {
        inlineBytesMax: 4096,
        inode: (fileid: FileId) => life.call('registry inode', () => world.inodes.get(fileid) ?? null),
      } as unknown as ClusterRegistry['namespace'],
      ownership,
      membership: null as unknown as ClusterRegistry['membership'],
      outbox: null as unknown as ClusterRegistry['outbox'],
      health: () => (world.#isAway(life.name, 'registry') ? 'away' : null),
      verify: unused,
      [Symbol.asyncDispose]: unused,
      lease: {
        get valid() {
          return life.leaseValid;
        },
        get leftMs() {
          return life.leaseLeftMs;
        },
      },
      get confirmedAgoMs() {
        return life.confirmedAgoMs;
      },
    };
  }

  #count(fileid: FileId, min: number): number {
    const counter = Math.max(this.counters.get(fileid) ?? 0, min) + 1;
    this.counters.set(fileid, counter);
    return counter;
  }

  #claim(
    mutation: Mutation,
    fileid: FileId,
    router: RouterId,
    expected: Term | null,
    closing: ClosedEpoch | null,
    nonce: string,
    counterMin: number,
  ): OwnerOutcome {
    if (this.dead.has(mutation.incarnation)) throw new ApplianceError('incarnation-dead', 'dead');
    const inode = this.inodes.get(fileid);
    if (inode === undefined) return { kind: 'gone' };
    const owner = this.owners.get(fileid) ?? null;
    if (owner !== null && (expected === null || !sameTerm(owner.term, expected))) return { kind: 'conflict', owner };
    if (owner !== null && owner.router !== router && !this.dead.has(owner.incarnation)) return { kind: 'owner-alive', owner };
    const root = owner?.root ?? { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs: [] };
    const next: OwnerRecord = {
      fileid,
      uuid: inode.uuid as ObjectUuid,
      router,
      incarnation: mutation.incarnation,
      term: { generation: 1, counter: this.#count(fileid, counterMin), nonce },
      state: { kind: 'running' },
      moving: null,
      root: closing === null ? root : { ...root, closedEpochs: [...root.closedEpochs, closing] },
      protection: owner?.protection ?? { kind: 'clean' },
      verifier: Buffer.alloc(8),
    };
    this.owners.set(fileid, next);
    return { kind: 'done', owner: next };
  }

  #change(mutation: Mutation, fileid: FileId, term: Term, own: boolean, change: (owner: OwnerRecord) => OwnerRecord): OwnerOutcome {
    if (this.dead.has(mutation.incarnation)) throw new ApplianceError('incarnation-dead', 'dead');
    const owner = this.owners.get(fileid);
    if (owner === undefined || !this.inodes.has(fileid)) return { kind: 'gone' };
    if (!sameTerm(owner.term, term) || (own && owner.incarnation !== mutation.incarnation)) return { kind: 'conflict', owner };
    const next = change(owner);
    this.owners.set(fileid, next);
    return { kind: 'done', owner: next };
  }

  #transfer(mutation: Mutation, fileid: FileId, term: Term, attempt: Term, closing: ClosedEpoch | null, protection: Protection): OwnerOutcome {
    const owner = this.owners.get(fileid);
    if (owner !== undefined && (owner.moving === null || !sameTerm(owner.moving.attempt, attempt))) return { kind: 'conflict', owner };
    const life = this.lives.get(this.nameOf(owner?.moving?.to ?? routerId('?')));
    if (owner !== undefined && (life === undefined || this.dead.has(life.incarnation))) return { kind: 'conflict', owner };
    return this.#change(mutation, fileid, term, true, (before) => ({
      ...before,
      router: (life as Life).router,
      incarnation: (life as Life).incarnation,
      term: attempt,
      state: { kind: 'running' },
      moving: null,
      root: closing === null ? before.root : { ...before.root, closedEpochs: [...before.root.closedEpochs, closing] },
      protection,
    }));
  }

  // ---- members, peers ----

  membersOf(life: Life): Members {
    const member = (other: Life): Member => ({
      id: other.router,
      incarnation: other.incarnation,
      addresses: [],
      dead: this.dead.has(other.incarnation),
      silentMs: 0,
    });
    return {
      self: life.router,
      get: (router) => {
        const other = this.lives.get(this.nameOf(router));
        return other === undefined ? null : member(other);
      },
      list: () => [...this.lives.values()].map(member),
      isDead: (router, incarnation) => this.dead.has(incarnation) || this.lives.get(this.nameOf(router))?.incarnation !== incarnation,
      onChange: () => undefined,
    };
  }

  networkOf(life: Life): PeerNetwork {
    return {
      peer: (router) => this.#peer(life, this.nameOf(router)),
      state: () => ({ connected: true, roundTripMs: 1, problem: null }),
    };
  }

  #peer(life: Life, to: string): PeerService {
    const call = <T>(what: string, action: (target: Life) => T | Promise<T>): Promise<T> =>
      life.call(`peer ${what}`, async () => {
        const target = this.lives.get(to);
        if (target === undefined || !target.alive || this.#cut.has(life.name + to)) throw unavailable('peer');
        return await Promise.race([action(target), this.#death(target)]);
      });
    return {
      moveAsk: (...of) => call('moveAsk', (target) => target.moves.moveAsk(...of)),
      moveFetch: (...of) => call('moveFetch', (target) => target.moves.moveFetch(...of)),
      moveFreeze: (...of) => call('moveFreeze', (target) => target.moves.moveFreeze(...of)),
      moveConfirm: (...of) => {
        assert(this.logs.get(life.name)?.kept.has(of[0]) === true, 'who asks for the object knows its calls also after a power cut');
        return call('moveConfirm', (target) => target.moves.moveConfirm(...of));
      },
      moveAbort: (...of) => call('moveAbort', (target) => target.moves.moveAbort(...of)),
      moveOffer: (...of) => call('moveOffer', (target) => target.moves.moveOffer(...of)),
    } as Partial<PeerService> as PeerService;
  }

  /** A router that dies in the middle answers never; its connections break. */
  async #death(life: Life): Promise<never> {
    await life.died;
    throw unavailable('peer');
  }

  // ---- clients ----

  /** Writes through router `name` until somebody says that it is done. */
  async write(name: string, fileid: FileId, value: string): Promise<void> {
    for (;;) {
      await this.clock.sleep(this.lives.get(name)?.alive === true ? 5 : 100);
      const life = this.lives.get(name);
      if (life === undefined || !life.alive) continue;
      const done = await Promise.race([this.#tryWrite(life, fileid, value, 0), this.#death(life).catch(() => false)]);
      if (done) {
        this.told.get(fileid)?.push(value);
        return;
      }
    }
  }

  async #tryWrite(life: Life, fileid: FileId, value: string, hops: number): Promise<boolean> {
    await life.holds.get(fileid);
    if (!life.alive || !life.leaseValid) return false;
    const served = life.served.get(fileid);
    if (served !== undefined) {
      if (hops === 0) served.ownIo.writes += 1;
      else served.peerIo.writes += 1;
      const done = await served.append(value);
      return done && life.alive;
    }
    try {
      const owner = await life.call('client owner', () => this.owners.get(fileid) ?? null);
      const isMine = owner === null || owner.router === life.router;
      if (isMine || this.dead.has(owner.incarnation)) {
        if (!isMine && owner.protection.kind !== 'clean') return false;
        await life.host.open(fileid);
        return false;
      }
      if (hops > 0) return false;
      const there = this.lives.get(this.nameOf(owner.router));
      if (there === undefined || !there.alive || this.#cut.has(life.name + there.name)) return false;
      const done = await Promise.race([this.#tryWrite(there, fileid, value, 1), this.#death(there)]);
      if (done) life.moves.forwarded({ fileid, inodeGeneration: 1 }, 'write', owner);
      return done;
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      return false;
    }
  }

  /** Reads once through router `name`, if that gets an answer: what was acknowledged before must be in it. Returns what is missing, null without an answer. */
  async read(name: string, fileid: FileId): Promise<string[] | null> {
    const told = [...(this.told.get(fileid) ?? [])];
    const life = this.lives.get(name);
    if (life === undefined || !life.alive) return null;
    const values = await Promise.race([this.#tryRead(life, fileid, 0), this.#death(life).catch(() => null)]);
    return values === null ? null : told.filter((value) => !values.includes(value));
  }

  async #tryRead(life: Life, fileid: FileId, hops: number): Promise<readonly string[] | null> {
    await life.holds.get(fileid);
    if (!life.alive || !life.leaseValid) return null;
    const served = life.served.get(fileid);
    if (served !== undefined) return [...served.log.values];
    const hint = life.hints.get(fileid) ?? this.owners.get(fileid);
    if (hint === undefined || hops > 0 || hint.router === life.router) return null;
    const there = this.lives.get(this.nameOf(hint.router));
    if (there === undefined || !there.alive || this.#cut.has(life.name + there.name)) return null;
    await this.clock.sleep(1);
    return await Promise.race([this.#tryRead(there, fileid, 1), this.#death(there).catch(() => null)]);
  }

  /** Who serves it now. */
  servers(fileid: FileId): string[] {
    return [...this.lives.values()].filter((life) => life.alive && life.served.has(fileid)).map((life) => life.name);
  }

  /** What was acknowledged and is not there, or is there twice. */
  missing(fileid: FileId): string[] {
    const [server = ''] = this.servers(fileid);
    const values = this.lives.get(server)?.served.get(fileid)?.log.values ?? [];
    return (this.told.get(fileid) ?? []).filter((value) => values.filter((one) => one === value).length !== 1);
  }
}

function unavailable(kind: string): ApplianceError {
  return new ApplianceError(`${kind}-unavailable`, `the ${kind} is away`, { retryable: true });
}

function never(): Promise<never> {
  return new Promise(() => undefined);
}

/** An object whose log is a list of values, each RECORD_BYTES in one segment; `append` is what a client's WRITE does. */
export class FakeObject implements MovableObject {
  readonly inode: Inode;
  readonly unlinked = false;
  readonly ownIo = new IoCount();
  readonly peerIo = new IoCount();
  readonly log: StoredLog;
  readonly term: Term;
  readonly driven: DrivenObject;
  readonly #life: Life;
  frozen = false;
  ceded = false;
  closed = false;
  giving = false;

  constructor(life: Life, inode: Inode, term: Term, log: StoredLog) {
    this.#life = life;
    this.inode = inode;
    this.term = term;
    this.log = log;
    this.driven = {
      fileid: inode.fileid,
      term,
      verifier: Buffer.alloc(8),
      observeTime: () => undefined,
      isClean: false,
      problem: null,
      close: async () => {
        this.closed = true;
      },
      giveAway: async () => this.#source(),
    } as Partial<DrivenObject> as DrivenObject;
  }

  async append(value: string): Promise<boolean> {
    if (this.frozen || this.ceded || this.closed) return false;
    if (!this.log.values.includes(value)) this.log.values.push(value);
    await this.#life.clock.sleep(1);
    return !this.ceded && !this.closed && this.#life.leaseValid;
  }

  #source(): MoveSource {
    if (this.giving) throw new ApplianceError('object-busy', 'it is being given away', { retryable: true });
    this.giving = true;
    const { values } = this.log;
    const from = this.#life.world.uploaded.get(this.inode.fileid)?.length ?? 0;
    return {
      offer: { from: { segment: 1, offsetBytes: from * RECORD_BYTES }, behindBytes: (values.length - from) * RECORD_BYTES },
      slowedMs: 0,
      read: (position, bytesMax) =>
        this.#life.call('disk read', () => {
          const first = position.offsetBytes / RECORD_BYTES;
          const some = values.slice(first, first + Math.max(1, Math.floor(bytesMax / RECORD_BYTES)));
          const bytes = Buffer.concat(some.map((value) => Buffer.from(value.padEnd(RECORD_BYTES))));
          const behindBytes = (values.length - first - some.length) * RECORD_BYTES;
          return {
            pieces: some.length === 0 ? [] : [{ segment: 1, term: this.term, offsetBytes: position.offsetBytes, bytes, sealedBytes: null }],
            behindBytes,
          };
        }),
      freeze: async () => {
        this.frozen = true;
        await this.#life.call('disk freeze', () => undefined);
        await this.#life.world.freezing;
        return {
          lastSegment: 1,
          lastSequence: values.length + this.#life.world.saysMoreRecords,
          end: { segment: 1, offsetBytes: values.length * RECORD_BYTES },
          verifier: Buffer.alloc(8),
          termWrote: true,
        };
      },
      thaw: () => {
        assert(!this.ceded, 'nothing that was ceded is thawed');
        this.frozen = false;
        this.giving = false;
      },
      cede: () => {
        this.ceded = true;
        return {
          read: (segment, offsetBytes, lengthBytes) =>
            Promise.resolve({ segment, term: this.term, offsetBytes, bytes: Buffer.alloc(lengthBytes, segment), sealedBytes: null }),
        };
      },
    };
  }
}

class FakeDriver implements ObjectDriver {
  readonly #life: Life;
  constructor(life: Life) {
    this.#life = life;
  }

  async open(): Promise<DrivenObject> {
    throw new Error('the fake host opens');
  }

  async receive(inode: Inode, offer: MoveOffer): Promise<Replica> {
    const life = this.#life;
    const { world } = life;
    const copies = (world.logs.get(life.name) as LocalLogs).copies;
    const attempt = offer.owner.moving?.attempt as Term;
    const first = offer.from.offsetBytes / RECORD_BYTES;
    const values = (world.uploaded.get(inode.fileid) ?? []).slice(0, first);
    await life.call('backend attach', () => copies.set(inode.fileid, { values: [...values], attempt }));
    (world.logs.get(life.name) as LocalLogs).remembered.delete(inode.fileid);
    return {
      get position() {
        return { segment: 1, offsetBytes: values.length * RECORD_BYTES };
      },
      append: async (pieces) => {
        for (const piece of pieces)
          for (let at = 0; at < piece.bytes.length; at += RECORD_BYTES) values.push(piece.bytes.toString('utf8', at, at + RECORD_BYTES).trim());
      },
      sync: () =>
        life.call('disk sync', () => {
          copies.set(inode.fileid, { values: [...values], attempt });
          return values.length;
        }),
      activate: (owner) =>
        life.call('disk activate', () => {
          const log = { values: [...values] };
          (world.logs.get(life.name) as LocalLogs).owned.set(inode.fileid, log);
          copies.delete(inode.fileid);
          return new FakeObject(life, inode, owner.term, log).driven;
        }),
      prepare: () => undefined,
      discard: async () => {
        copies.delete(inode.fileid);
      },
    };
  }
}

class FakeCalls implements ArrivingCalls {
  readonly #life: Life;
  readonly #fileid: FileId;
  #text = '';
  constructor(life: Life, fileid: FileId) {
    this.#life = life;
    this.#fileid = fileid;
  }
  add(bytes: Buffer): boolean {
    this.#text += bytes.toString();
    return true;
  }
  remember(): void {
    assert(this.#text === `${this.#fileid}!`, 'the memory of completed calls came along');
    (this.#life.world.logs.get(this.#life.name) as LocalLogs).remembered.add(this.#fileid);
  }
  sync(): Promise<void> {
    return Promise.resolve();
  }
  async keep(): Promise<void> {
    assert(this.#text === `${this.#fileid}!`, 'all that came outlives a power cut');
    await this.#life.world.clock.sleep(5);
    (this.#life.world.logs.get(this.#life.name) as LocalLogs).kept.add(this.#fileid);
  }
}

class FakeHost implements MoveHost {
  readonly #life: Life;
  constructor(life: Life) {
    this.#life = life;
  }

  served(fileid: FileId): FakeObject | undefined {
    return this.#life.served.get(fileid);
  }
  all(): Iterable<FakeObject> {
    return this.#life.served.values();
  }
  hold(fileid: FileId): ObjectHold {
    const { holds } = this.#life;
    assert(!holds.has(fileid), 'an object is held once');
    let release = (): void => undefined;
    holds.set(fileid, new Promise((resolve) => (release = resolve)));
    let released = false;
    return {
      changesEnded: async () => undefined,
      release: () => {
        assert(!released, 'a hold is released once');
        released = true;
        holds.delete(fileid);
        release();
      },
    };
  }
  calls(fileid: FileId, from: number): CallsPart {
    const { world, holds } = this.#life;
    if (world.tooManyCalls && holds.has(fileid)) return { bytes: Buffer.alloc(0), next: from, behind: 1 };
    // In two parts, and what ended last.
    const all = Buffer.from(holds.has(fileid) ? `${fileid}!` : `${fileid}`);
    const next = Math.min(all.length, from === 0 ? 1 : from + all.length);
    return { bytes: all.subarray(Math.min(from, all.length), next), next, behind: all.length - next };
  }
  arriving(fileid: FileId): ArrivingCalls {
    this.#life.world.logs.get(this.#life.name)?.kept.delete(fileid);
    return new FakeCalls(this.#life, fileid);
  }
  async settled(fileid: FileId): Promise<void> {
    await this.#life.opening.get(fileid)?.catch(() => null);
  }

  async open(fileid: FileId): Promise<FakeObject | null> {
    const life = this.#life;
    const running = life.opening.get(fileid);
    if (running !== undefined) return running;
    const opening = this.#open(fileid).finally(() => life.opening.delete(fileid));
    life.opening.set(fileid, opening);
    return opening;
  }

  /** As VolumeDriver.open: reads the record, finds the log, claims. */
  async #open(fileid: FileId): Promise<FakeObject | null> {
    const life = this.#life;
    while (life.holds.has(fileid)) await life.holds.get(fileid);
    const served = life.served.get(fileid);
    if (served !== undefined) return served;
    const { world } = life;
    const { ownership } = world.registryOf(life);
    const owner = await ownership.owner(fileid);
    const local = world.logs.get(life.name) as LocalLogs;
    const copy = local.copies.get(fileid);
    const closed = owner?.root.closedEpochs.at(-1);
    let log = local.owned.get(fileid) ?? { values: [...(world.uploaded.get(fileid) ?? [])] };
    if (owner !== null && copy !== undefined && sameTerm(copy.attempt, owner.term)) {
      assert(local.remembered.has(fileid), 'who opens what it received knows the calls that the giver completed');
      log = { values: [...copy.values] };
    }
    if (closed !== undefined && log.values.length < closed.lastSequence) {
      throw new ApplianceError('object-damaged', `${log.values.length} of ${closed.lastSequence} records are here`);
    }
    const mutation: Mutation = { operationId: null, incarnation: life.incarnation, now: TIME, notAfterMs: Infinity };
    const closing = owner === null ? null : { term: owner.term, lastSegment: 1, lastSequence: log.values.length };
    const nonce = world.random.bytes(8).toString('hex');
    const outcome = await ownership.claim(
      mutation,
      fileid,
      life.router,
      owner?.term ?? null,
      closing,
      nonce,
      life.moves.journal.cededCounter(fileid),
    );
    if (outcome.kind === 'gone') return null;
    if (outcome.kind !== 'done') throw new ApplianceError('fenced', 'it was claimed by somebody else', { retryable: true });
    await ownership.update(mutation, fileid, outcome.owner.term, { protection: { kind: 'unprotected' } });
    const kept = { values: [...log.values] };
    local.owned.set(fileid, kept);
    const object = new FakeObject(life, world.inodes.get(fileid) as Inode, outcome.owner.term, kept);
    life.served.set(fileid, object);
    return object;
  }

  moved(fileid: FileId, owner: OwnerRecord): void {
    this.#life.served.delete(fileid);
    this.#life.hints.set(fileid, owner);
  }

  async forgetCalls(fileid: FileId): Promise<void> {
    // What is remembered outlives the process: it is forgotten when the disk has the word, not when it is asked for.
    await this.#life.clock.sleep(FORGET_MS);
    this.#life.world.logs.get(this.#life.name)?.remembered.delete(fileid);
  }

  adopt(driven: DrivenObject, inode: Inode, owner: OwnerRecord): void {
    const life = this.#life;
    assert(!life.served.has(inode.fileid) && !life.opening.has(inode.fileid), 'an object is adopted where it is neither served nor being opened');
    const local = life.world.logs.get(life.name) as LocalLogs;
    assert(local.remembered.has(inode.fileid), 'who adopts an object knows the calls that the giver completed');
    const log = local.owned.get(inode.fileid) as StoredLog;
    life.served.set(inode.fileid, new FakeObject(life, inode, driven.term, log));
    life.hints.set(inode.fileid, owner);
  }

  async drop(fileid: FileId): Promise<void> {
    const object = this.#life.served.get(fileid);
    this.#life.served.delete(fileid);
    await object?.driven.close();
  }

  ownerIs(owner: OwnerRecord): void {
    this.#life.hints.set(owner.fileid, owner);
  }
}
