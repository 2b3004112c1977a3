/** What the conformance suite runs in, and the short spellings that its tests use. */
import assert from 'node:assert/strict';

import type { FileId, Incarnation, RouterId } from '../../server/core/ids.ts';
import { type Timestamp, timestampOf } from '../../server/core/time.ts';
import type { Inode, InodeChanges } from '../inode.ts';
import type { CreateOutcome, Mutation, NamedEntry, Namespace, NewInode, Ownership, Registry } from '../ports.ts';

/** A registry under test. Each call of the factory gives a new, empty one. */
export interface RegistryUnderTest extends AsyncDisposable {
  /** The open registry; another object after `reopen`. */
  readonly registry: Registry;
  /** Closes the registry and opens it again: what was answered must be there. */
  reopen(): Promise<void>;
  /** The wall clock that the registry was given. */
  wallMs(): number;
  advanceWallMs(byMs: number): void;
}
export type OpenRegistry = () => Promise<RegistryUnderTest>;

export const ROUTER = 'a'.repeat(32) as RouterId;
export const INCARNATION = '1'.repeat(32) as Incarnation;
export const OTHER_ROUTER = 'b'.repeat(32) as RouterId;
export const OTHER_INCARNATION = '2'.repeat(32) as Incarnation;

export const INLINE: NewInode = {
  class: 'inline',
  mode: 0o644,
  uid: 1000,
  gid: 100,
  sizeBytes: 0,
  atime: null,
  mtime: null,
  exclusiveVerifier: null,
};
export const VOLUME: NewInode = { ...INLINE, class: 'volume', sizeBytes: 1_048_576 };
export const NO_CHANGES: InodeChanges = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

export function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'latin1'));
}

export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

/** One world: a registry with one live incarnation in it. */
export class World implements AsyncDisposable {
  readonly #under: RegistryUnderTest;

  constructor(under: RegistryUnderTest) {
    this.#under = under;
  }

  static async open(open: OpenRegistry): Promise<World> {
    const world = new World(await open());
    await world.registry.membership.join(ROUTER, INCARNATION, ['127.0.0.1:1'], 'test');
    return world;
  }

  get registry(): Registry {
    return this.#under.registry;
  }

  get namespace(): Namespace {
    return this.registry.namespace;
  }

  get ownership(): Ownership {
    return this.registry.ownership;
  }

  get root(): FileId {
    return this.namespace.root;
  }

  reopen(): Promise<void> {
    return this.#under.reopen();
  }

  advanceWallMs(byMs: number): void {
    this.#under.advanceWallMs(byMs);
  }

  wallMs(): number {
    return this.#under.wallMs();
  }

  now(): Timestamp {
    return timestampOf(this.wallMs());
  }

  /** A mutation of the live incarnation. */
  mutation(fields: Partial<Mutation> = {}): Mutation {
    return { operationId: null, incarnation: INCARNATION, now: this.now(), notAfterMs: Infinity, ...fields };
  }

  /** Creates what must be creatable. */
  async file(name: string, file: Partial<NewInode> = {}, directory: FileId = this.root): Promise<Inode> {
    return createdInode(await this.namespace.createFile(this.mutation(), directory, bytesOf(name), { ...INLINE, ...file }));
  }

  async directory(name: string, parent: FileId = this.root): Promise<Inode> {
    return createdInode(
      await this.namespace.createDirectory(this.mutation(), parent, bytesOf(name), { mode: 0o755, uid: 0, gid: 0, atime: null, mtime: null }),
    );
  }

  /** The inode as it is now; null when stale. */
  async inode(fileid: FileId): Promise<Inode | null> {
    return this.namespace.inode(fileid, null);
  }

  async live(fileid: FileId): Promise<Inode> {
    const inode = await this.inode(fileid);
    assert.ok(inode !== null, `inode ${fileid} is live`);
    return inode;
  }

  /** What a name denotes; null when absent. */
  async find(name: string, directory: FileId = this.root): Promise<Inode | null> {
    const outcome = await this.namespace.lookup(directory, bytesOf(name));
    if (outcome.kind === 'found') return outcome.inode;
    assert.equal(outcome.kind, 'absent');
    return null;
  }

  /** The whole directory, read in pages of `limit`. */
  async list(directory: FileId = this.root, limit = 1000): Promise<NamedEntry[]> {
    const all: NamedEntry[] = [];
    for (let after = 0; ;) {
      const outcome = await this.namespace.entries(directory, after, limit);
      assert.ok(outcome.kind === 'entries');
      assert.ok(outcome.entries.length <= limit, 'no more entries than asked for');
      all.push(...outcome.entries);
      if (outcome.eof) return all;
      const last = outcome.entries.at(-1);
      assert.ok(last !== undefined && last.cookie > after, 'a page that is not the last has entries behind the cookie');
      after = last.cookie;
    }
  }

  async names(directory: FileId = this.root): Promise<string[]> {
    return (await this.list(directory)).map((entry) => textOf(entry.name));
  }

  async sequence(): Promise<number> {
    return (await this.registry.outbox.position()).sequence;
  }

  /** Nothing is wrong with any record. */
  async assertSound(): Promise<void> {
    const problems: string[] = [];
    for await (const problem of this.registry.verify()) problems.push(problem);
    assert.deepEqual(problems, []);
    assert.equal(this.registry.health(), null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#under[Symbol.asyncDispose]();
  }
}

export function createdInode(outcome: CreateOutcome): Inode {
  assert.equal(outcome.kind, 'created');
  assert.ok(outcome.kind === 'created');
  return outcome.inode;
}

/** Asserts that a promise rejects with an ApplianceError of this code. */
export async function rejectsWith(promise: Promise<unknown>, code: string): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof Error && 'code' in error, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  });
}
