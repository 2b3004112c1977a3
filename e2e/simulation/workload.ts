/** What the clients of a simulated cluster do all day, each kind with the history that judges it. */
import type { FileId } from '../../server/core/ids.ts';
import type { Random } from '../../server/core/time.ts';
import type { Attributes, Handle } from '../../server/nfsd/file-system.ts';
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import { BlockHistory, SECTOR_BYTES } from './block-history.ts';
import type { Client } from './client.ts';
import { NameHistory } from './name-history.ts';
import { RegisterHistory } from './register-history.ts';
import type { Schedule } from './schedule.ts';

export interface WorkWorld {
  readonly schedule: Schedule;
  readonly random: Random;
  /** Of the writes of a VM. */
  readonly stableShare: number;
  /** An operator moves it somewhere. */
  readonly move: (fileid: FileId) => void;
  /** Disks fail: errors that say so are no bugs. */
  readonly disksFail: () => boolean;
  /** A change that was executed again where that is known not to be excluded. */
  readonly wasRepeated: (fileid: number, change: number) => boolean;
  problem(message: string): void;
}

const NOTHING = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

function int(random: Random, below: number): number {
  return Math.floor(random.fraction() * below);
}

/** What must be the same from every router, for ever. */
class Identity {
  readonly #world: WorkWorld;
  readonly #what: string;
  #fileid = 0;
  #fsid = 0n;
  #ctime = 0;

  constructor(world: WorkWorld, what: string) {
    this.#world = world;
    this.#what = what;
  }

  /** Before a call: the latest ctime that somebody was told. */
  get ctime(): number {
    return this.#ctime;
  }

  check(attributes: Attributes | null, ctimeBefore: number): void {
    if (attributes === null) return;
    if (this.#fileid === 0) {
      this.#fileid = attributes.fileid;
      this.#fsid = attributes.fsid;
    }
    if (attributes.fileid !== this.#fileid || attributes.fsid !== this.#fsid) {
      this.#world.problem(`${this.#what} is now fileid ${attributes.fileid} of ${attributes.fsid}, it was ${this.#fileid} of ${this.#fsid}`);
    }
    const ctime = attributes.ctime.seconds + attributes.ctime.nanoseconds / 1e9;
    if (ctime < ctimeBefore - 1e-6) this.#world.problem(`${this.#what}: ctime ran back from ${ctimeBefore} to ${ctime}`);
    this.#ctime = Math.max(this.#ctime, ctime);
  }
}

/** A VM disk: reads, writes of both kinds, commits. */
export class Disk {
  readonly history: BlockHistory;
  readonly handle: Handle;
  readonly #world: WorkWorld;
  readonly #identity: Identity;
  readonly #name: string;
  refused = 0;

  constructor(world: WorkWorld, name: string, handle: Handle, object: number, sectors: number) {
    this.#world = world;
    this.#name = name;
    this.handle = handle;
    this.history = new BlockHistory(object, sectors);
    this.history.excused = (write) => world.wasRepeated(fileidOf(handle), write);
    this.#identity = new Identity(world, name);
  }

  async step(client: Client): Promise<void> {
    const { random } = this.#world;
    const kind = random.fraction();
    if (kind < 0.5) await this.#write(client, random.fraction() < this.#world.stableShare);
    else if (kind < 0.85) await this.read(client, ...this.#range());
    else if (kind < 0.95) await this.#commit(client);
    else await this.#getattr(client);
  }

  /** What two hosts do without pause: stable writes, mostly of whole blocks, and reads. */
  async stableStep(client: Client): Promise<void> {
    const { random } = this.#world;
    const wanted = [1, 3, 8, 8, 8, 16, 24, 64][int(random, 8)] as number;
    const below = random.fraction() < 0.6 ? 32 : this.history.sectors;
    const count = Math.min(wanted, below);
    const first = random.fraction() < 0.7 ? int(random, (below - count) / 8 + 1) * 8 : int(random, below - count + 1);
    if (random.fraction() < 0.5) await this.#write(client, true, [first, Math.min(count, this.history.sectors - first)]);
    else await this.read(client, first, Math.min(count, this.history.sectors - first));
  }

  get fileid(): FileId {
    return fileidOf(this.handle) as FileId;
  }

  #range(): [number, number] {
    const { random } = this.#world;
    // Most of it goes to a few places: histories of one sector are what says something.
    const few = random.fraction() < 0.7;
    const first = int(random, few ? 16 : this.history.sectors);
    const most = Math.min(this.history.sectors - first, random.fraction() < 0.1 ? 64 : 12);
    return [first, 1 + int(random, most)];
  }

  async #write(client: Client, stable: boolean, [first, count] = this.#range()): Promise<void> {
    const { schedule } = this.#world;
    const write = this.history.begin(schedule.nowMs, first, count, stable);
    const payload = this.history.payload(write, first, count);
    const ctime = this.#identity.ctime;
    const { result, endedMs } = await client.call(
      `write ${write} of ${this.#name}`,
      (fs, caller) =>
        fs.write(
          caller,
          this.handle,
          first * SECTOR_BYTES,
          payload.length,
          [Buffer.from(payload)],
          stable ? Stability.FILE_SYNC : Stability.UNSTABLE,
        ),
      () => this.history.unclear(write, first, count),
    );
    if (result.status !== Status.OK) return this.#failed(`write ${write}`, result.status);
    if (result.countBytes !== payload.length) this.#world.problem(`${this.#name}: a write of ${payload.length} bytes wrote ${result.countBytes}`);
    if (result.committed === Stability.UNSTABLE) {
      if (stable) this.#world.problem(`${this.#name}: a stable write was answered as unstable`);
      this.history.answeredUnstable(endedMs, write, first, count, hex(result.verifier));
    } else this.history.answeredStable(endedMs, write, first, count);
    if (stable) this.#identity.check(result.wcc.after, ctime);
  }

  /** Reads sectors and judges them. */
  async read(client: Client, first: number, count: number): Promise<void> {
    const { schedule } = this.#world;
    const { result, beganMs } = await client.call(`read of ${this.#name}`, async (fs, caller) => {
      const target = Buffer.alloc(count * SECTOR_BYTES, 0xee);
      const answer = await fs.read(caller, this.handle, first * SECTOR_BYTES, target);
      return { ...answer, target };
    });
    if (result.status !== Status.OK) return this.#failed('read', result.status);
    if (result.bytesRead !== count * SECTOR_BYTES) {
      this.#world.problem(`${this.#name}: a read of ${count * SECTOR_BYTES} bytes gave ${result.bytesRead}`);
      return;
    }
    const problem = this.history.check(beganMs, schedule.nowMs, first, result.target);
    if (problem !== null) this.#world.problem(`${this.#name}: ${problem}`);
  }

  async #commit(client: Client): Promise<void> {
    const { result, beganMs, endedMs } = await client.call(`commit of ${this.#name}`, (fs, caller) => fs.commit(caller, this.handle, 0, 0));
    if (result.status !== Status.OK) return this.#failed('commit', result.status);
    this.history.committed(beganMs, endedMs, hex(result.verifier));
  }

  async #getattr(client: Client): Promise<void> {
    const ctime = 0;
    const { result } = await client.call(`getattr of ${this.#name}`, (fs, caller) => fs.getattr(caller, this.handle));
    if (result.status !== Status.OK) return this.#failed('getattr', result.status);
    this.#identity.check(result.attributes, ctime);
    if (result.attributes.sizeBytes !== this.history.sectors * SECTOR_BYTES) {
      this.#world.problem(`${this.#name} has ${result.attributes.sizeBytes} bytes, it should have ${this.history.sectors * SECTOR_BYTES}`);
    }
  }

  #failed(what: string, status: Status): void {
    this.refused += 1;
    if (!this.#world.disksFail()) this.#world.problem(`${this.#name}: ${what} failed with status ${status}`);
  }
}

/** A file whose size is set by one and read by another. */
export class SizedFile {
  readonly #history = new RegisterHistory();
  readonly #handle: Handle;
  readonly #world: WorkWorld;
  readonly #name: string;
  readonly #identity: Identity;
  #writes = 0;

  constructor(world: WorkWorld, name: string, handle: Handle) {
    this.#world = world;
    this.#name = name;
    this.#handle = handle;
    this.#identity = new Identity(world, name);
  }

  async step(client: Client): Promise<void> {
    if (this.#world.random.fraction() < 0.5) await this.#resize(client);
    else await this.look(client);
  }

  async #resize(client: Client): Promise<void> {
    const { schedule } = this.#world;
    this.#writes += 1;
    const write = this.#writes;
    this.#history.begin(schedule.nowMs, write);
    const sizeBytes = 8192 + write * 512;
    const { result, endedMs } = await client.call(
      `resize ${write} of ${this.#name}`,
      (fs, caller) => fs.setattr(caller, this.#handle, { ...NOTHING, sizeBytes }, null),
      () => this.#history.unclear(write),
    );
    if (result.status === Status.OK) this.#history.durable(endedMs, write);
    else if (!this.#world.disksFail()) this.#world.problem(`${this.#name}: a resize failed with status ${result.status}`);
  }

  async look(client: Client): Promise<void> {
    const { schedule } = this.#world;
    const ctime = this.#identity.ctime;
    const { result, beganMs } = await client.call(`size of ${this.#name}`, (fs, caller) => fs.getattr(caller, this.#handle));
    if (result.status !== Status.OK) {
      if (!this.#world.disksFail()) this.#world.problem(`${this.#name}: getattr failed with status ${result.status}`);
      return;
    }
    this.#identity.check(result.attributes, ctime);
    const write = (result.attributes.sizeBytes - 8192) / 512;
    const problem = this.#history.seen(beganMs, schedule.nowMs, write, true);
    if (problem !== null && !this.#world.wasRepeated(fileidOf(this.#handle), write)) this.#world.problem(`size of ${this.#name}: ${problem}`);
  }
}

/** A few names that everybody fights for, and inline contents behind them. */
export class LockDirectory {
  readonly history = new NameHistory();
  readonly #world: WorkWorld;
  readonly #directory: Handle;
  readonly #names: readonly string[];
  /** Contents by fileid. */
  readonly #contents = new Map<number, { history: BlockHistory; handle: Handle }>();

  constructor(world: WorkWorld, directory: Handle, names: readonly string[]) {
    this.#world = world;
    this.#directory = directory;
    this.#names = names;
  }

  async step(client: Client): Promise<void> {
    const { random } = this.#world;
    const name = this.#names[int(random, this.#names.length)] as string;
    const kind = random.fraction();
    if (kind < 0.25) await this.#create(client, name);
    else if (kind < 0.4) await this.#remove(client, name);
    else if (kind < 0.5) await this.#rename(client, name, this.#names[int(random, this.#names.length)] as string);
    else if (kind < 0.7) await this.lookup(client, name);
    else await this.#content(client);
  }

  async #create(client: Client, name: string): Promise<void> {
    const { schedule } = this.#world;
    const end = this.history.begin(schedule.nowMs, { kind: 'create', name });
    const { result, endedMs } = await client.call(
      `create ${name}`,
      (fs, caller) => fs.create(caller, this.#directory, Buffer.from(name), { mode: 'guarded', attributes: NOTHING }),
      (sentMs) => this.history.begin(sentMs, { kind: 'create', name }),
    );
    if (result.status === Status.OK) {
      const { fileid } = result.attributes;
      this.#contents.set(fileid, { history: new BlockHistory(fileid & 0xff, 1), handle: result.handle });
      end(endedMs, { kind: 'done', fileid });
    } else if (result.status === Status.EXIST) end(endedMs, { kind: 'refused' });
    else this.#failed(`create ${name}`, result.status);
  }

  async #remove(client: Client, name: string): Promise<void> {
    const { schedule } = this.#world;
    const end = this.history.begin(schedule.nowMs, { kind: 'remove', name });
    const { result, endedMs } = await client.call(
      `remove ${name}`,
      (fs, caller) => fs.remove(caller, this.#directory, Buffer.from(name)),
      (sentMs) => this.history.begin(sentMs, { kind: 'remove', name }),
    );
    if (result.status === Status.OK) end(endedMs, { kind: 'done', fileid: 0 });
    else if (result.status === Status.NOENT) end(endedMs, { kind: 'refused' });
    else this.#failed(`remove ${name}`, result.status);
  }

  async #rename(client: Client, name: string, to: string): Promise<void> {
    const { schedule } = this.#world;
    const end = this.history.begin(schedule.nowMs, { kind: 'rename', name, to });
    const { result, endedMs } = await client.call(
      `rename ${name}`,
      (fs, caller) => fs.rename(caller, this.#directory, Buffer.from(name), this.#directory, Buffer.from(to)),
      (sentMs) => this.history.begin(sentMs, { kind: 'rename', name, to }),
    );
    if (result.status === Status.OK) end(endedMs, { kind: 'done', fileid: 0 });
    else if (result.status === Status.NOENT) end(endedMs, { kind: 'refused' });
    else this.#failed(`rename ${name}`, result.status);
  }

  async lookup(client: Client, name: string): Promise<void> {
    const end = this.history.begin(this.#world.schedule.nowMs, { kind: 'lookup', name });
    const { result, endedMs } = await client.call(`lookup ${name}`, (fs, caller) => fs.lookup(caller, this.#directory, Buffer.from(name)));
    if (result.status === Status.OK) end(endedMs, { kind: 'done', fileid: result.attributes?.fileid ?? 0 });
    else if (result.status === Status.NOENT) end(endedMs, { kind: 'done', fileid: 0 });
    else this.#failed(`lookup ${name}`, result.status);
  }

  async #content(client: Client): Promise<void> {
    const { random, schedule } = this.#world;
    const all = [...this.#contents.values()];
    const file = all[int(random, all.length)];
    if (file === undefined) return;
    const { history, handle } = file;
    if (random.fraction() < 0.5) {
      const write = history.begin(schedule.nowMs, 0, 1, true);
      const payload = history.payload(write, 0, 1);
      const { result, endedMs } = await client.call(
        'write of a lock',
        (fs, caller) => fs.write(caller, handle, 0, payload.length, [Buffer.from(payload)], Stability.FILE_SYNC),
        () => history.unclear(write, 0, 1),
      );
      if (result.status === Status.OK) history.answeredStable(endedMs, write, 0, 1);
      else if (result.status !== Status.STALE) this.#failed('write of a lock', result.status);
      return;
    }
    const { result, beganMs } = await client.call('read of a lock', async (fs, caller) => {
      const target = Buffer.alloc(SECTOR_BYTES);
      return { ...(await fs.read(caller, handle, 0, target)), target };
    });
    if (result.status !== Status.OK) {
      if (result.status !== Status.STALE) this.#failed('read of a lock', result.status);
      return;
    }
    const problem = history.check(beganMs, schedule.nowMs, 0, result.target);
    if (problem !== null) this.#world.problem(`contents of a lock: ${problem}`);
  }

  async lookAtAll(client: Client): Promise<void> {
    for (const name of this.#names) await this.lookup(client, name);
  }

  #failed(what: string, status: Status): void {
    if (!this.#world.disksFail()) this.#world.problem(`${what} failed with status ${status}`);
  }
}

/** A volume that is made, used and removed through different routers: once a removal was answered, everybody says STALE. */
export class DoomedVolume {
  readonly #world: WorkWorld;
  readonly #directory: Handle;
  #count = 0;
  #handle: Handle | null = null;
  /** When the removal of the present one was sent first, and answered. */
  #removal: { beganMs: number; endedMs: number } | null = null;
  #busy = false;

  constructor(world: WorkWorld, directory: Handle) {
    this.#world = world;
    this.#directory = directory;
  }

  async step(client: Client): Promise<void> {
    const handle = this.#handle;
    const { random } = this.#world;
    if (handle === null) {
      if (!this.#busy) await this.#alone(() => this.#make(client));
    } else if (this.#removal === null && random.fraction() < 0.2) await this.#alone(() => this.#remove(client));
    else if (this.#removal !== null && this.#removal.endedMs < Infinity && random.fraction() < 0.2) {
      this.#handle = null;
      this.#removal = null;
    } else await this.#use(client, handle);
  }

  async #alone(work: () => Promise<void>): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    await work();
    this.#busy = false;
  }

  get #name(): string {
    return `doomed-${this.#count}-flat.vmdk`;
  }

  async #make(client: Client): Promise<void> {
    this.#count += 1;
    const { result } = await client.call(`create ${this.#name}`, (fs, caller) =>
      fs.create(caller, this.#directory, Buffer.from(this.#name), { mode: 'unchecked', attributes: { ...NOTHING, sizeBytes: 65_536 } }),
    );
    if (result.status === Status.OK) this.#handle = Buffer.from(result.handle);
    else if (!this.#world.disksFail()) this.#world.problem(`${this.#name} cannot be made: status ${result.status}`);
  }

  async #remove(client: Client): Promise<void> {
    const { schedule, random } = this.#world;
    const removal = { beganMs: schedule.nowMs, endedMs: Infinity };
    this.#removal = removal;
    const name = Buffer.from(this.#name);
    if (this.#handle !== null && random.fraction() < 0.5) {
      // Who has it is told that it went; and who has it then?
      this.#world.move(fileidOf(this.#handle) as FileId);
      await schedule.sleep(random.fraction() * 30);
      removal.beganMs = schedule.nowMs;
    }
    // Removed, or replaced by something else under its name.
    if (random.fraction() < 0.5) {
      const { result } = await client.call(`remove ${this.#name}`, (fs, caller) => fs.remove(caller, this.#directory, name));
      if (result.status !== Status.OK && result.status !== Status.NOENT)
        this.#world.problem(`${this.#name} cannot be removed: status ${result.status}`);
    } else {
      const other = Buffer.from(`other-${this.#count}`);
      await client.call('create a replacement', (fs, caller) =>
        fs.create(caller, this.#directory, other, { mode: 'unchecked', attributes: NOTHING }),
      );
      const { result } = await client.call(`rename over ${this.#name}`, (fs, caller) =>
        fs.rename(caller, this.#directory, other, this.#directory, name),
      );
      if (result.status !== Status.OK && result.status !== Status.NOENT)
        this.#world.problem(`${this.#name} cannot be replaced: status ${result.status}`);
    }
    removal.endedMs = schedule.nowMs;
  }

  async #use(client: Client, handle: Handle): Promise<void> {
    const { random, schedule } = this.#world;
    const beganMs = schedule.nowMs;
    const removal = this.#removal;
    const kind = random.fraction();
    const call = async (): Promise<Status> => {
      if (kind < 0.4) {
        const payload = Buffer.alloc(4096, 7);
        const { result } = await client.call('write of a doomed volume', (fs, caller) =>
          fs.write(caller, handle, 0, 4096, [Buffer.from(payload)], Stability.FILE_SYNC),
        );
        return result.status;
      }
      if (kind < 0.7) {
        const { result } = await client.call('read of a doomed volume', async (fs, caller) => fs.read(caller, handle, 0, Buffer.alloc(4096)));
        return result.status;
      }
      const { result } = await client.call('getattr of a doomed volume', (fs, caller) => fs.getattr(caller, handle));
      return result.status;
    };
    const status = await call();
    const removed = removal ?? this.#removal;
    if (status === Status.OK && removal !== null && beganMs > removal.endedMs) this.#world.problem(`${this.#name} was removed, and yet it answers`);
    else if (status === Status.STALE && removed === null && this.#handle === handle)
      this.#world.problem(`${this.#name} is STALE, and nobody removed it`);
    else if (status !== Status.OK && status !== Status.STALE && !this.#world.disksFail()) this.#world.problem(`${this.#name}: status ${status}`);
  }
}

/** As it stands in a handle (server/object-router/handles.ts). */
function fileidOf(handle: Handle): number {
  return Number(Buffer.from(handle).readBigUInt64BE(8));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
