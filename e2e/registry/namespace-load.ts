/**
 * Clients that change the namespace through registries of several routers, each its own names, and remember what was acknowledged: afterwards it must be there, all of it
 * and nothing else, and nothing may have been executed twice.
 */
import assert from 'node:assert/strict';

import type { Inode } from '../../registry/inode.ts';
import type { NewInode } from '../../registry/ports.ts';
import type { Member } from '../../registry/redis/testing/linked-registry.ts';
import { errorCode } from '../../server/core/errors.ts';
import type { FileId } from '../../server/core/ids.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { SeededRandom } from '../random.ts';

const INLINE: NewInode = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null };

interface Held {
  readonly fileid: FileId;
  contents: string;
}

/** One client: one change after another, each asked again with the same operation id until it is answered. */
class NamespaceClient {
  readonly name: string;
  /** What was acknowledged. */
  readonly files = new Map<string, Held>();
  acknowledged = 0;
  repeated = 0;
  longestMs = 0;
  readonly #members: readonly Member[];
  readonly #random: SeededRandom;
  #operation = 0;

  constructor(name: string, members: readonly Member[], seed: number) {
    this.name = name;
    this.#members = members;
    this.#random = new SeededRandom(seed);
  }

  async step(): Promise<void> {
    const names = [...this.files.keys()];
    const chosen = names[this.#random.below(Math.max(1, names.length))];
    const kind = chosen === undefined || names.length < 5 ? 0 : this.#random.below(4);
    if (kind === 0 || chosen === undefined) return this.#create(`${this.name}-${this.#operation}`);
    if (kind === 1) return this.#remove(chosen);
    if (kind === 2) return this.#rename(chosen, `${this.name}-${this.#operation}`);
    return this.#write(chosen, `lock ${this.#operation}`);
  }

  async #create(name: string): Promise<void> {
    const outcome = await this.#until(({ registry }, mutation) =>
      registry.namespace.createFile(mutation, registry.namespace.root, bytes(name), INLINE),
    );
    assert.equal(outcome.kind, 'created', `${name} was created once`);
    assert.ok(outcome.kind === 'created');
    this.files.set(name, { fileid: outcome.inode.fileid, contents: '' });
  }

  async #remove(name: string): Promise<void> {
    const outcome = await this.#until(({ registry }, mutation) => registry.namespace.remove(mutation, registry.namespace.root, bytes(name)));
    assert.equal(outcome.kind, 'removed', `${name} was there and was removed once`);
    this.files.delete(name);
  }

  async #rename(from: string, to: string): Promise<void> {
    const outcome = await this.#until(({ registry }, mutation) =>
      registry.namespace.rename(mutation, registry.namespace.root, bytes(from), registry.namespace.root, bytes(to)),
    );
    assert.equal(outcome.kind, 'renamed', `${from} was there and was renamed once`);
    const held = this.files.get(from);
    assert.ok(held !== undefined);
    this.files.delete(from);
    this.files.set(to, held);
  }

  async #write(name: string, contents: string): Promise<void> {
    const held = this.files.get(name);
    assert.ok(held !== undefined);
    const outcome = await this.#until(({ registry }, mutation) => registry.namespace.writeInline(mutation, held.fileid, 0, bytes(contents)));
    assert.equal(outcome.kind, 'written');
    held.contents = contents + held.contents.slice(contents.length);
  }

  /** Another router at every try, as a client's retransmissions may take. */
  async #until<T>(call: (member: Member, mutation: ReturnType<Member['mutation']>) => Promise<T>): Promise<T> {
    this.#operation += 1;
    const id = `${this.name}|${this.#operation}`;
    const startedMs = systemClock.monotonicMs();
    for (let attempt = 0; ; attempt += 1) {
      const member = this.#members[(this.#operation + attempt) % this.#members.length];
      assert.ok(member !== undefined);
      try {
        const outcome = await call(member, member.mutation(id));
        this.acknowledged += 1;
        this.longestMs = Math.max(this.longestMs, systemClock.monotonicMs() - startedMs);
        return outcome;
      } catch (error) {
        if (errorCode(error) !== 'registry-unavailable') throw error;
        this.repeated += 1;
      }
    }
  }
}

export class NamespaceLoad {
  readonly clients: readonly NamespaceClient[];
  readonly #members: readonly Member[];
  #stopped = false;
  #running: Promise<void[]> | null = null;

  /** `clientsPerMember` clients for each member; each client goes through all of them by turns. */
  constructor(members: readonly Member[], clientsPerMember: number, seed: number) {
    this.#members = members;
    this.clients = members.flatMap((_, at) =>
      Array.from({ length: clientsPerMember }, (__, index) => new NamespaceClient(`c${at}${index}`, members, seed * 100 + at * 10 + index)),
    );
  }

  start(): void {
    this.#running = Promise.all(
      this.clients.map(async (client) => {
        while (!this.#stopped) await client.step();
      }),
    );
    // Whoever stops it learns of a failure.
    this.#running.catch(() => undefined);
  }

  get acknowledged(): number {
    return this.clients.reduce((sum, client) => sum + client.acknowledged, 0);
  }

  get longestMs(): number {
    return Math.max(...this.clients.map((client) => client.longestMs));
  }

  /** Waits until `count` more changes were acknowledged. */
  async more(count: number, timeoutMs = 240_000): Promise<void> {
    const wanted = this.acknowledged + count;
    const deadlineMs = systemClock.monotonicMs() + timeoutMs;
    while (this.acknowledged < wanted) {
      assert.ok(systemClock.monotonicMs() < deadlineMs, `only ${this.acknowledged} of ${wanted} changes within ${timeoutMs} ms: ${this.#problems()}`);
      await Promise.race([systemClock.sleep(20), this.#running]);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** Every member shows exactly what was acknowledged, and names that are `others`' work. */
  async verify(others: (name: string) => boolean = () => false): Promise<void> {
    const expected = new Map<string, Held>();
    for (const client of this.clients) for (const [name, held] of client.files) expected.set(name, held);
    for (const { registry } of this.#members) {
      const found = new Map<string, Inode>();
      for (let after = 0; ;) {
        const page = await registry.namespace.entries(registry.namespace.root, after, 1_000);
        assert.ok(page.kind === 'entries');
        for (const entry of page.entries) {
          const name = Buffer.from(entry.name).toString();
          if (!others(name)) found.set(name, entry.inode);
        }
        if (page.eof) break;
        after = page.entries.at(-1)?.cookie ?? after;
      }
      assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort(), 'exactly the acknowledged names are there');
      for (const [name, held] of expected) {
        const inode = found.get(name);
        assert.equal(inode?.fileid, held.fileid, `${name} is the file that was made`);
        assert.equal(Buffer.from(inode.inlineBytes ?? []).toString(), held.contents, `${name} has the contents that were acknowledged last`);
      }
      const problems: string[] = [];
      for await (const problem of registry.verify()) problems.push(problem);
      assert.deepEqual(problems, []);
    }
  }

  #problems(): string {
    return this.#members.map(({ registry }) => registry.health() ?? 'well').join('; ');
  }
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}
