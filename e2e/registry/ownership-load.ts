/** Volumes that go from router to router as fast as the registry changes their owners, each under one hand; what was acknowledged must be what is there. */
import assert from 'node:assert/strict';

import type { Mutation, NewInode, OwnerOutcome, OwnerRecord } from '../../registry/ports.ts';
import type { Member } from '../../registry/redis/testing/linked-registry.ts';
import { errorCode } from '../../server/core/errors.ts';
import type { FileId } from '../../server/core/ids.ts';
import { systemClock } from '../../server/core/node-time.ts';

const VOLUME: NewInode = {
  class: 'volume',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 1_048_576,
  atime: null,
  mtime: null,
  exclusiveVerifier: null,
};

/** One volume and its last acknowledged record. */
class TravellingVolume {
  readonly fileid: FileId;
  owner: OwnerRecord;
  readonly #members: readonly Member[];
  #step = 0;

  private constructor(members: readonly Member[], owner: OwnerRecord) {
    this.#members = members;
    this.owner = owner;
    this.fileid = owner.fileid;
    this.#holder.owned.push(owner);
  }

  static async create(members: readonly Member[], index: number): Promise<TravellingVolume> {
    const member = members[index % members.length];
    assert.ok(member !== undefined);
    const { namespace, ownership } = member.registry;
    const made = await namespace.createFile(member.mutation(`travels ${index}`), namespace.root, Buffer.from(`travels-${index}`), VOLUME);
    assert.ok(made.kind === 'created');
    const claimed = await ownership.claim(member.mutation(), made.inode.fileid, member.router, null, null, nonceOf(index, 0));
    assert.ok(claimed.kind === 'done');
    return new TravellingVolume(members, claimed.owner);
  }

  get #holder(): Member {
    const holder = this.#members.find(({ router }) => router === this.owner.router);
    assert.ok(holder !== undefined);
    return holder;
  }

  /** A move to the next router: three changes, each asked for until it is answered. @returns their number. */
  async move(): Promise<number> {
    this.#step += 1;
    const giver = this.#holder;
    const receiver = this.#members[(this.#members.indexOf(giver) + 1) % this.#members.length];
    assert.ok(receiver !== undefined);
    const { term } = this.owner;
    const updated = await this.#asked('update', giver, (mutation) =>
      giver.registry.ownership.update(mutation, this.fileid, term, { protection: { kind: 'unprotected' } }),
    );
    this.#replace(giver, updated);
    const begun = await this.#asked('begin', giver, (mutation) =>
      giver.registry.ownership.beginMove(mutation, this.fileid, term, receiver.router, nonceOf(this.fileid, this.#step)),
    );
    const attempt = begun.moving?.attempt;
    assert.ok(attempt !== undefined && begun.router === giver.router);
    this.#replace(giver, begun);
    // It serves it no longer, whatever becomes of the request.
    this.#replace(giver, null);
    const closing = { term, lastSegment: this.#step, lastSequence: this.#step };
    const transferred = await this.#asked('transfer', giver, (mutation) =>
      giver.registry.ownership.transfer(mutation, this.fileid, term, attempt, closing, { kind: 'clean' }),
    );
    assert.equal(transferred.router, receiver.router);
    assert.ok(transferred.term.counter > term.counter, 'terms grow');
    this.#replace(receiver, transferred);
    return 3;
  }

  #replace(member: Member, owner: OwnerRecord | null): void {
    const at = member.owned.findIndex(({ fileid }) => fileid === this.fileid);
    if (at !== -1) member.owned.splice(at, 1);
    if (owner === null) return;
    member.owned.push(owner);
    this.owner = owner;
  }

  async #asked(what: string, member: Member, call: (mutation: Mutation) => Promise<OwnerOutcome>): Promise<OwnerRecord> {
    const mutation = member.mutation(`${this.fileid} ${what} ${this.#step}`);
    for (;;) {
      try {
        const outcome = await call(mutation);
        assert.ok(outcome.kind === 'done', `${what} of step ${this.#step} of object ${this.fileid}: ${JSON.stringify(outcome)}`);
        return outcome.owner;
      } catch (error) {
        if (errorCode(error) !== 'registry-unavailable') throw error;
      }
    }
  }
}

export class OwnershipLoad {
  changes = 0;
  readonly #volumes: readonly TravellingVolume[];
  readonly #members: readonly Member[];
  #stopped = false;
  #running: Promise<void[]> | null = null;

  private constructor(members: readonly Member[], volumes: readonly TravellingVolume[]) {
    this.#members = members;
    this.#volumes = volumes;
  }

  static async create(members: readonly Member[], count: number): Promise<OwnershipLoad> {
    return new OwnershipLoad(members, await Promise.all(Array.from({ length: count }, (_, index) => TravellingVolume.create(members, index))));
  }

  start(): void {
    this.#running = Promise.all(
      this.#volumes.map(async (volume) => {
        while (!this.#stopped) this.changes += await volume.move();
      }),
    );
    // Whoever waits for more, or stops it, learns of a failure.
    this.#running.catch(() => undefined);
  }

  /** Waits until `count` more changes were acknowledged. */
  async more(count: number, timeoutMs = 240_000): Promise<void> {
    const wanted = this.changes + count;
    const deadlineMs = systemClock.monotonicMs() + timeoutMs;
    while (this.changes < wanted) {
      assert.ok(systemClock.monotonicMs() < deadlineMs, `only ${this.changes} of ${wanted} changes of owners within ${timeoutMs} ms`);
      await Promise.race([systemClock.sleep(20), this.#running]);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** Every member shows exactly what was acknowledged, and takes the next change. */
  async verify(): Promise<void> {
    for (const volume of this.#volumes) {
      for (const { registry } of this.#members) assert.deepEqual(await registry.ownership.owner(volume.fileid), volume.owner);
      await volume.move();
    }
  }
}

function nonceOf(object: number, step: number): string {
  return `${object.toString(16).padStart(8, '0').slice(-8)}${step.toString(16).padStart(8, '0')}`;
}
