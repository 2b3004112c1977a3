/** A Redis registry of the verbs over a plain link, for tests: the outbox is in memory. */
import { randomBytes } from 'node:crypto';

import type { ObjectUuid } from '../../../server/core/ids.ts';
import { systemRandom } from '../../../server/core/node-time.ts';
import type { RegistryUnderTest } from '../../conformance/world.ts';
import type { Outbox, Registry } from '../../ports.ts';
import { TestClock } from '../../sqlite/testing/test-registry.ts';
import { createVpoolArguments } from '../create-vpool.ts';
import { COUNTERS_SCRIPT } from '../read-scripts.ts';
import { redisKeys, type RedisKeys } from '../redis-keys.ts';
import { RedisMembership } from '../redis-membership.ts';
import { RedisNamespace } from '../redis-namespace.ts';
import { RedisOwnership } from '../redis-ownership.ts';
import { decimalAt, RedisVerbs } from '../redis-verbs.ts';
import { CREATE_VPOOL_SCRIPT } from '../round-scripts.ts';
import { verifyRedis } from '../verify-redis.ts';
import { PlainLink } from './plain-link.ts';

export class TestRegistry implements RegistryUnderTest {
  readonly clock: TestClock;
  readonly keys: RedisKeys;
  readonly link: PlainLink;
  readonly #port: number;
  #verbs: RedisVerbs;
  #released = 0;
  registry: Registry & { readonly namespace: RedisNamespace; readonly ownership: RedisOwnership; readonly membership: RedisMembership };

  private constructor(port: number, keys: RedisKeys, clock: TestClock, link: PlainLink) {
    this.#port = port;
    this.keys = keys;
    this.clock = clock;
    this.link = link;
    this.#verbs = new RedisVerbs({ link, keys, clock, random: systemRandom });
    this.registry = this.#compose();
  }

  /** A new vPool in the Redis on this port. */
  static async open(port: number, user?: string): Promise<TestRegistry> {
    const vpoolName = `test-${randomBytes(6).toString('hex')}`;
    const clock = new TestClock();
    const link = new PlainLink(port, user);
    const keys = redisKeys(vpoolName);
    const vpoolUuid = systemRandom.bytes(16).toString('hex') as ObjectUuid;
    const names = CREATE_VPOOL_SCRIPT.keys.map((key) => keys[key]);
    await link.change(
      CREATE_VPOOL_SCRIPT,
      names,
      createVpoolArguments({ vpoolName, vpoolUuid, identity: 'run-1', generation: 1, wallMs: clock.wallMs() }, systemRandom),
    );
    return new TestRegistry(port, keys, clock, link);
  }

  /** Another router's view of the same vPool, with its own connection and outbox. */
  another(): TestRegistry {
    return new TestRegistry(this.#port, this.keys, this.clock, new PlainLink(this.#port));
  }

  get verbs(): RedisVerbs {
    return this.#verbs;
  }

  async reopen(): Promise<void> {
    this.#verbs = new RedisVerbs({ link: this.link, keys: this.keys, clock: this.clock, random: systemRandom });
    this.registry = this.#compose();
  }

  wallMs(): number {
    return this.clock.wallMs();
  }

  advanceWallMs(byMs: number): void {
    this.clock.advance(byMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.link.close();
  }

  #compose(): TestRegistry['registry'] {
    const verbs = this.#verbs;
    const membership = new RedisMembership({ verbs });
    const outbox: Outbox = {
      pending: async (after, limit) =>
        [...this.link.entries.values()]
          .filter((entry) => entry.sequence > Math.max(after, this.#released))
          .sort((a, b) => a.sequence - b.sequence)
          .slice(0, limit),
      release: async (sequence) => {
        this.#released = Math.max(this.#released, Math.min(sequence, Math.max(0, ...this.link.entries.keys())));
      },
      position: async () => {
        const counters = await verbs.read(COUNTERS_SCRIPT, []);
        return { generation: decimalAt(counters, 0, 'meta'), sequence: decimalAt(counters, 1, 'meta') };
      },
    };
    return {
      vpool: { name: 'test', uuid: '0'.repeat(32) },
      namespace: new RedisNamespace({ verbs, random: systemRandom, inlineBytesMax: 4_096 }),
      ownership: new RedisOwnership({ verbs, random: systemRandom }),
      membership,
      outbox,
      health: () => verbs.corruption,
      verify: () => verifyRedis(verbs, membership),
      async [Symbol.asyncDispose]() {},
    };
  }
}
