/**
 * One actor of the random-operation test: it owns a directory with one file in it, does one random thing after the other to that file, and
 * knows what the file must contain. What had no reply when the router went away, and what was written UNSTABLE and not committed, may be
 * there or not; `meet` looks what a restarted router shows, judges it, and goes on from there.
 */
import assert from 'node:assert/strict';
import { inspect } from 'node:util';

import { compareTimestamp } from '../server/core/time.ts';
import { type Attributes, Stability, Status } from '../server/nfsd/file-system.ts';
import { blockRuns, difference, FileContents, mixDifference } from './random-file.ts';
import type { SeededRandom } from './random.ts';
import type { FileHandle, StoreClient } from './store-client.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES_MAX = 62 * 1024 ** 4;
const INLINE_BYTES_MAX = 4096;

/** One name of each class of object; RENAME moves between them. */
export const CLASS_NAMES = ['.lck-0001', 'vm.vmx', 'vmware.log', 'vm-flat.vmdk', 'vm-delta.vmdk', 'vm.nvram'] as const;

/** The router has gone: the answer to the last call is not known. */
class NoAnswer extends Error {}

/** A change of names under way: what the directory lists before and after. */
interface NameChange {
  readonly names: ReadonlySet<string>;
}

export class RandomActor {
  readonly id: string;
  readonly #random: SeededRandom;
  #client: StoreClient | null = null;
  #directory: FileHandle = new Uint8Array(0);
  #handle: FileHandle | null = null;
  #fileid = 0;
  #names: ReadonlySet<string> = new Set();
  /** From the last state that must survive a kill to what READ shows. */
  #states: FileContents[] = [FileContents.EMPTY];
  #pending: FileContents | null = null;
  #pendingNames: NameChange | null = null;
  #verifier: string | null = null;
  /** UNSTABLE writes were answered as such since the last COMMIT, the only thing that closes the window in which a kill changes the verifier. */
  #uncommitted = false;
  #attributes: Attributes | null = null;
  #staleHandle: FileHandle | null = null;
  /** The last operations, for the message of a failure. */
  readonly #trace: string[] = [];
  operations = 0;

  constructor(id: string, random: SeededRandom) {
    this.id = id;
    this.#random = random;
  }

  /** Makes the actor's directory. */
  async begin(client: StoreClient): Promise<void> {
    this.#client = client;
    const made = await client.mkdir(client.root, this.id);
    assert.equal(made.status, Status.OK, `${this.id}: MKDIR`);
    this.#directory = made.handle;
  }

  /** From now on it calls through `client`. */
  attach(client: StoreClient): void {
    this.#client = client;
  }

  /** One random operation. Returns false when the router has gone. @throws AssertionError with the trace when an answer is wrong. */
  async step(): Promise<boolean> {
    try {
      this.operations += 1;
      await this.#step();
      return true;
    } catch (error) {
      if (error instanceof NoAnswer) return false;
      throw this.#explained(error);
    }
  }

  /** After a restart: compares everything with the model. `clean`: the router was stopped with SIGTERM, so nothing may be lost. */
  async meet(client: StoreClient, clean: boolean): Promise<void> {
    this.#client = client;
    this.#note(clean ? '--- clean restart' : '--- restart after kill');
    try {
      await this.#meet(clean);
    } catch (error) {
      throw this.#explained(error);
    }
  }

  /** Removes the file and the directory. */
  async end(client: StoreClient): Promise<void> {
    this.#client = client;
    for (const name of this.#names) assert.equal((await this.#nfs().remove(this.#directory, name)).status, Status.OK);
    assert.equal((await this.#nfs().rmdir(this.#nfs().root, this.id)).status, Status.OK);
  }

  #nfs(): StoreClient {
    assert.ok(this.#client !== null);
    return this.#client;
  }

  /** Puts a lost connection apart from wrong answers. */
  async #answer<T>(call: Promise<T>): Promise<T> {
    return await call.catch((error: unknown) => {
      if (String(error).includes('rpc-timeout') || String(error).includes('not answered')) throw error;
      this.#note(`no answer: ${String(error)}`);
      throw new NoAnswer();
    });
  }

  #note(text: string): void {
    this.#trace.push(text);
    if (this.#trace.length > 60) this.#trace.shift();
  }

  #explained(error: unknown): Error {
    return new Error(`${this.id}: ${error instanceof Error ? error.message : String(error)}\nlast operations:\n  ${this.#trace.join('\n  ')}`, {
      cause: error,
    });
  }

  get #contents(): FileContents {
    const last = this.#states.at(-1);
    assert.ok(last !== undefined);
    return last;
  }

  #file(): FileHandle {
    assert.ok(this.#handle !== null);
    return this.#handle;
  }

  async #step(): Promise<void> {
    if (this.#handle === null) return await this.#create();
    const dice = this.#random.below(1000);
    if (dice < 430) return await this.#write();
    if (dice < 700) return await this.#read();
    if (dice < 760) return await this.#commit();
    if (dice < 850) return await this.#resize();
    if (dice < 900) return await this.#getattr();
    if (dice < 940) return await this.#rename();
    if (dice < 960) return await this.#link();
    if (dice < 980) return await this.#removeOneName();
    if (dice < 995) return await this.#check();
    return await this.#renameOver();
  }

  async #create(): Promise<void> {
    const name = this.#random.pick(CLASS_NAMES);
    this.#note(`CREATE ${name}`);
    this.#pendingNames = { names: new Set([name]) };
    const made = await this.#answer(this.#nfs().create(this.#directory, name, 'guarded', { mode: 0o600 }));
    assert.equal(made.status, Status.OK, 'CREATE');
    this.#pendingNames = null;
    this.#names = new Set([name]);
    this.#fresh(made.handle, made.attributes);
  }

  #fresh(handle: FileHandle, attributes: Attributes | null): void {
    assert.ok(attributes !== null);
    this.#handle = handle;
    this.#fileid = attributes.fileid;
    this.#attributes = attributes;
    this.#states = [FileContents.EMPTY];
    this.#pending = null;
    this.#verifier = null;
    this.#uncommitted = false;
  }

  /** Mostly near the beginning, sometimes at the end, sometimes far out. */
  #offset(): number {
    const random = this.#random;
    const { sizeBytes } = this.#contents;
    const dice = random.below(100);
    if (dice < 25) return random.below(4500);
    if (dice < 50) return random.below(64) * 4096;
    if (dice < 70) return random.below(MIB);
    if (dice < 85) return Math.max(0, Math.min(sizeBytes, SIZE_BYTES_MAX) - random.below(10_000));
    if (dice < 92) return random.below(64 * MIB);
    if (dice < 96) return 2 ** 32 - 8192 + random.below(16_384);
    if (dice < 98) return 2 ** 42 + random.below(MIB);
    return SIZE_BYTES_MAX - random.below(MIB) - MIB;
  }

  #length(): number {
    const dice = this.#random.below(100);
    if (dice < 30) return this.#random.between(0, 600);
    if (dice < 60) return this.#random.between(1, 4) * 4096;
    if (dice < 85) return this.#random.between(1, 70_000);
    return this.#random.between(1, 300_000);
  }

  /** In the small classes mostly small, so that they stay inline for a while. */
  #range(): { readonly offset: number; readonly length: number } {
    const small = this.#contents.sizeBytes <= INLINE_BYTES_MAX && this.#random.chance(0.8);
    if (!small) return { offset: this.#offset(), length: this.#length() };
    const offset = this.#random.below(INLINE_BYTES_MAX);
    return { offset, length: this.#random.between(0, INLINE_BYTES_MAX - offset + (this.#random.chance(0.1) ? 2 : 0)) };
  }

  #data(length: number): Buffer {
    const data = Buffer.alloc(length);
    const dice = this.#random.below(10);
    if (dice < 2) return data;
    for (let at = 0; at < length; at += 64) {
      // Every line differs; some blocks stay zeros.
      if (dice < 4 && (at >>> 12) % 2 === 0) continue;
      data.fill((this.#random.uint32() & 0xff) | 1, at, Math.min(length, at + 60));
      if (at + 64 <= length) data.writeUInt32LE(this.#random.uint32(), at + 60);
    }
    return data;
  }

  async #write(): Promise<void> {
    const count = this.#random.chance(0.2) ? this.#random.between(2, 8) : 1;
    const stability = this.#random.chance(0.5) ? Stability.UNSTABLE : this.#random.pick([Stability.DATA_SYNC, Stability.FILE_SYNC]);
    const ranges: { readonly offset: number; readonly data: Buffer }[] = [];
    for (let index = 0; index < count; index += 1) {
      const { offset, length } = this.#range();
      if (ranges.some((range) => offset < range.offset + range.data.length && range.offset < offset + length)) continue;
      ranges.push({ offset, data: this.#data(length) });
    }
    let after = this.#contents;
    for (const { offset, data } of ranges) after = after.written(offset, data);
    this.#note(`WRITE ${stability} ${ranges.map(({ offset, data }) => `${offset}+${data.length}`).join(', ')}`);
    this.#pending = after;
    const file = this.#file();
    const answers = await Promise.allSettled(ranges.map(({ offset, data }) => this.#answer(this.#nfs().write(file, offset, data, stability))));
    const unstable = answers.some((answer) => answer.status === 'fulfilled' && answer.value.committed === Stability.UNSTABLE);
    if (unstable) this.#uncommitted = true;
    for (const [index, answer] of answers.entries()) {
      if (answer.status === 'rejected') throw answer.reason;
      assert.deepEqual([answer.value.status, answer.value.countBytes], [Status.OK, ranges[index]?.data.length], `WRITE ${index}`);
      if (stability !== Stability.UNSTABLE) assert.equal(answer.value.committed, Stability.FILE_SYNC);
      this.#sameVerifier(answer.value.verifier);
    }
    this.#pending = null;
    this.#attributes = null;
    // Records are recovered as a prefix: what is durable makes everything before it durable.
    if (unstable) this.#states.push(after);
    else this.#states = [after];
    if (this.#states.length > 40) await this.#commit();
  }

  #sameVerifier(verifier: string): void {
    if (this.#verifier !== null) assert.equal(verifier, this.#verifier, 'the verifier changed although the router ran on');
    this.#verifier = verifier;
  }

  async #read(): Promise<void> {
    const { offset, length } = this.#random.chance(0.5) ? { offset: this.#offset(), length: this.#length() } : this.#range();
    this.#note(`READ ${offset}+${length}`);
    const answer = await this.#answer(this.#nfs().read(this.#file(), offset, length));
    assert.equal(answer.status, Status.OK, 'READ');
    this.#compareRead(offset, length, answer);
  }

  #compareRead(offset: number, length: number, answer: { readonly data: Buffer; readonly eof: boolean }): void {
    const expected = this.#contents.read(offset, length);
    assert.equal(answer.data.length, expected.length, `READ ${offset}+${length} of ${this.#contents.sizeBytes}: length`);
    if (!answer.data.equals(expected)) {
      const at = answer.data.findIndex((byte, index) => byte !== expected[index]);
      const [got, wanted] = [answer.data, expected].map((data) => data.subarray(at, at + 16).toString('hex'));
      assert.fail(`READ ${offset}+${length}: byte ${offset + at} is ${got}, not ${wanted}`);
    }
    assert.equal(answer.eof, offset + expected.length >= this.#contents.sizeBytes, `READ ${offset}+${length} of ${this.#contents.sizeBytes}: eof`);
  }

  async #commit(): Promise<void> {
    this.#note('COMMIT');
    const answer = await this.#answer(this.#nfs().commit(this.#file()));
    assert.equal(answer.status, Status.OK, 'COMMIT');
    this.#sameVerifier(answer.verifier);
    this.#states = [this.#contents];
    this.#uncommitted = false;
  }

  async #resize(): Promise<void> {
    const dice = this.#random.below(10);
    const { sizeBytes } = this.#contents;
    let size = this.#random.below(Math.min(sizeBytes, MIB) + 1);
    if (dice < 2) size = 0;
    else if (dice < 4) size = this.#random.below(5000);
    else if (dice < 6) size = this.#offset() + this.#random.below(5000);
    this.#note(`SETATTR size ${size}`);
    const after = this.#contents.resized(size);
    this.#pending = after;
    const answer = await this.#answer(this.#nfs().setattr(this.#file(), { sizeBytes: size }));
    assert.equal(answer.status, Status.OK, 'SETATTR');
    this.#pending = null;
    this.#attributes = null;
    this.#states = [after];
  }

  async #getattr(): Promise<void> {
    this.#note('GETATTR');
    const answer = await this.#answer(this.#nfs().getattr(this.#file()));
    assert.equal(answer.status, Status.OK, 'GETATTR');
    this.#compareAttributes(answer.attributes);
    const stale = this.#staleHandle;
    if (stale === null) return;
    assert.equal((await this.#answer(this.#nfs().getattr(stale))).status, Status.STALE, 'GETATTR of what was removed');
  }

  #compareAttributes(seen: Attributes | null): void {
    assert.ok(seen !== null);
    const last = this.#attributes;
    assert.equal(seen.fileid, this.#fileid);
    assert.equal(seen.nlink, this.#names.size, 'nlink');
    assert.equal(seen.mode & 0o777, 0o600, 'mode');
    assert.equal(seen.sizeBytes, this.#contents.sizeBytes, 'size');
    // An inline file counts as one block, whatever is in it.
    const usedMax = this.#contents.usedBytes() + (this.#contents.sizeBytes === 0 ? 0 : INLINE_BYTES_MAX);
    assert.ok(seen.usedBytes <= usedMax, `used ${seen.usedBytes} of at most ${usedMax}`);
    assert.ok(this.#contents.usedBytes() === 0 || seen.usedBytes > 0, 'used 0, with data');
    if (last !== null) {
      assert.equal(compareTimestamp(seen.mtime, last.mtime), 0, `mtime moved, nothing was written: ${inspect([last.mtime, seen.mtime])}`);
      assert.ok(compareTimestamp(seen.ctime, last.ctime) >= 0, 'ctime ran backwards');
      assert.equal(seen.usedBytes, last.usedBytes, 'used moved, nothing was written');
    }
    this.#attributes = seen;
  }

  async #rename(): Promise<void> {
    const from = this.#random.pick([...this.#names]);
    const to = this.#random.pick(CLASS_NAMES);
    this.#note(`RENAME ${from} ${to}`);
    const names = new Set(this.#names);
    // Two names of one file: nothing happens.
    if (!names.has(to)) {
      names.delete(from);
      names.add(to);
    }
    this.#pendingNames = { names };
    const answer = await this.#answer(this.#nfs().rename(this.#directory, from, this.#directory, to));
    assert.equal(answer.status, Status.OK, 'RENAME');
    this.#pendingNames = null;
    this.#names = names;
  }

  async #link(): Promise<void> {
    const name = this.#random.pick(CLASS_NAMES);
    this.#note(`LINK ${name}`);
    const exists = this.#names.has(name);
    const names = new Set(this.#names).add(name);
    this.#pendingNames = { names };
    const answer = await this.#answer(this.#nfs().link(this.#file(), this.#directory, name));
    assert.equal(answer.status, exists ? Status.EXIST : Status.OK, 'LINK');
    this.#pendingNames = null;
    this.#names = names;
  }

  async #removeOneName(): Promise<void> {
    const name = this.#random.pick([...this.#names]);
    this.#note(`REMOVE ${name}`);
    const names = new Set(this.#names);
    names.delete(name);
    this.#pendingNames = { names };
    const answer = await this.#answer(this.#nfs().remove(this.#directory, name));
    assert.equal(answer.status, Status.OK, 'REMOVE');
    this.#pendingNames = null;
    this.#names = names;
    if (names.size === 0) this.#gone();
  }

  #gone(): void {
    this.#staleHandle = this.#handle;
    this.#handle = null;
  }

  /** A new file takes the only name of the old one, as editors save. */
  async #renameOver(): Promise<void> {
    if (this.#names.size !== 1) return;
    const [target = ''] = this.#names;
    this.#note(`RENAME over ${target}`);
    const made = await this.#answer(this.#nfs().create(this.#nfs().root, `${this.id}-new.vmx`, 'unchecked', { mode: 0o600, sizeBytes: 0 }));
    assert.equal(made.status, Status.OK, 'CREATE');
    // A kill in here leaves the old or the new file: told apart by the fileid.
    this.#pendingNames = { names: new Set([target]) };
    const answer = await this.#answer(this.#nfs().rename(this.#nfs().root, `${this.id}-new.vmx`, this.#directory, target));
    assert.equal(answer.status, Status.OK, 'RENAME over');
    this.#gone();
    const found = await this.#answer(this.#nfs().lookup(this.#directory, target));
    assert.equal(found.status, Status.OK);
    this.#pendingNames = null;
    this.#fresh(found.handle, found.attributes);
  }

  /** Everything of the file, and its attributes. */
  async #check(): Promise<void> {
    this.#note('check');
    await this.#getattr();
    for (const { block, count } of blockRuns([this.#contents], 64)) {
      this.#compareRead(block * 4096, count * 4096, await this.#answer(this.#nfs().read(this.#file(), block * 4096, count * 4096)));
    }
  }

  async #meet(clean: boolean): Promise<void> {
    const client = this.#nfs();
    const listed = await client.list(this.#directory);
    const names = new Set(listed.map((entry) => entry.name));
    const same = (wanted: ReadonlySet<string>): boolean => names.symmetricDifference(wanted).size === 0;
    const change = this.#pendingNames;
    this.#pendingNames = null;
    if (clean) assert.equal(change, null);
    assert.ok(same(this.#names) || (change !== null && same(change.names)), `names: ${[...names].join()} instead of ${[...this.#names].join()}`);
    this.#names = names;
    const [entry] = listed;
    if (entry === undefined) return this.#gone();
    for (const other of listed) assert.equal(other.fileid, entry.fileid, 'fileids of the names of one file');
    if (this.#handle === null || entry.fileid !== this.#fileid) {
      // The file came with the call that had no answer.
      assert.ok(change !== null, 'another file');
      if (this.#handle !== null) this.#gone();
      const found = await client.lookup(this.#directory, entry.name);
      this.#fresh(found.handle, found.attributes);
      return;
    }
    await this.#meetContents(clean);
  }

  async #meetContents(clean: boolean): Promise<void> {
    const client = this.#nfs();
    const file = this.#file();
    const { attributes } = await client.getattr(file);
    assert.ok(attributes !== null, 'GETATTR');
    const pending = this.#pending;
    this.#pending = null;
    if (clean) assert.equal(pending, null);
    const states = pending === null ? this.#states : [...this.#states, pending];
    let seen = new FileContents(attributes.sizeBytes, new Map());
    for (const { block, count } of blockRuns(states, 64)) {
      if (block * 4096 >= attributes.sizeBytes) continue;
      const answer = await client.read(file, block * 4096, count * 4096);
      assert.equal(answer.status, Status.OK, 'READ');
      assert.equal(answer.data.length, Math.min(count * 4096, attributes.sizeBytes - block * 4096), 'READ: length');
      seen = seen.written(block * 4096, answer.data);
    }
    const committed = await client.commit(file);
    assert.equal(committed.status, Status.OK, 'COMMIT');
    const last = this.#states.length - 1;
    // What may be there: without a loss the last state and what had no answer; with one any state since the last durable one, and halves of the next change.
    const mayBeLost = !clean && this.#verifier !== null && committed.verifier !== this.#verifier;
    if (mayBeLost) assert.ok(this.#uncommitted || pending !== null, 'the verifier changed, and nothing could be lost');
    let problem: string | null = 'nothing compared';
    for (let index = states.length - 1; index >= (mayBeLost ? 0 : last) && problem !== null; index -= 1) {
      const [before, after] = [states[index - 1], states[index]];
      assert.ok(after !== undefined);
      problem = difference(after, seen);
      if (problem !== null && before !== undefined && index > (mayBeLost ? 0 : last)) problem = mixDifference(before, after, seen);
    }
    assert.equal(problem, null, `after ${clean ? 'a clean restart' : 'a kill'}, ${states.length} states, verifier ${mayBeLost ? 'changed' : 'kept'}`);
    this.#states = [seen];
    this.#uncommitted = false;
    this.#verifier = committed.verifier;
    // A change without a reply may have moved the times.
    if (pending !== null || mayBeLost) this.#attributes = null;
    this.#compareAttributes(attributes);
  }
}
