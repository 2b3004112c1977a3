/** Routers of a vPool in Redis. Semantics in `registry/ports.ts`. */
import { assert } from '../../server/core/assert.ts';
import type { Incarnation, RouterId } from '../../server/core/ids.ts';
import type { Membership, RouterRecord } from '../ports.ts';
import { corrupt, HEX_32 } from '../record-check.ts';
import { FORGET_ROUTER_SCRIPT, JOIN_SCRIPT, MARK_DEAD_SCRIPT, RENEW_SCRIPT, ROUTERS_SCRIPT } from './membership-scripts.ts';
import { packRouterDetails, unpackRouter } from './packed-owner.ts';
import type { ScriptReply } from './redis-link.ts';
import { bytesAt, incarnationDead, listOfReply, numberAt, type RedisVerbs } from './redis-verbs.ts';

export class RedisMembership implements Membership {
  readonly #verbs: RedisVerbs;

  constructor(components: { readonly verbs: RedisVerbs }) {
    this.#verbs = components.verbs;
  }

  async join(router: RouterId, incarnation: Incarnation, addresses: readonly string[], version: string): Promise<RouterRecord> {
    checkIds(router, incarnation);
    return this.#record(router, await this.#verbs.change(JOIN_SCRIPT, [router, incarnation, packRouterDetails(addresses, version)]));
  }

  async renew(router: RouterId, incarnation: Incarnation): Promise<RouterRecord> {
    checkIds(router, incarnation);
    return this.#record(router, await this.#verbs.change(RENEW_SCRIPT, [router, incarnation]));
  }

  async routers(): Promise<RouterRecord[]> {
    const reply = await this.#verbs.read(ROUTERS_SCRIPT, []);
    return this.#verbs.checked(() => {
      const found: RouterRecord[] = [];
      const { length } = listOfReply(reply, 'Redis routers');
      for (let at = 0; at < length; at += 2) {
        found.push(unpackRouter(bytesAt(reply, at, 'Redis routers').toString(), bytesAt(reply, at + 1, 'Redis routers')));
      }
      return found.sort((a, b) => (a.id < b.id ? -1 : 1));
    });
  }

  async markDead(router: RouterId, incarnation: Incarnation, leaseCounterSeen: number): Promise<'dead' | 'conflict'> {
    checkIds(router, incarnation);
    const reply = await this.#verbs.change(MARK_DEAD_SCRIPT, [router, incarnation, leaseCounterSeen]);
    return this.#verbs.checked(() => (numberAt(reply, 0, 'Redis reply of markDead') === 0 ? 'dead' : 'conflict'));
  }

  async leave(router: RouterId, incarnation: Incarnation): Promise<void> {
    checkIds(router, incarnation);
    await this.#verbs.change(MARK_DEAD_SCRIPT, [router, incarnation, '']);
  }

  /**
   * Takes a router that does not come back out of the list, in one step with the look whether it may be: not while it lives, nor while a record says that it owns
   * something. Its dead incarnations stay dead; should it come back after all, it joins as a new one.
   */
  async forget(router: RouterId): Promise<'forgotten' | 'alive' | 'owner'> {
    assert(HEX_32.test(router), 'router ids are 32 hex digits');
    const reply = await this.#verbs.change(FORGET_ROUTER_SCRIPT, [router]);
    return this.#verbs.checked(() => {
      const status = numberAt(reply, 0, 'Redis reply of forgetRouter');
      if (status === 0) return 'forgotten';
      return status === 1 ? 'alive' : 'owner';
    });
  }

  #record(router: RouterId, reply: ScriptReply): RouterRecord {
    return this.#verbs.checked(() => {
      const status = numberAt(reply, 0, 'Redis reply of a router');
      if (status === 1) throw incarnationDead();
      if (status !== 0) return corrupt('Redis reply of a router', `status ${status}`);
      return unpackRouter(router, bytesAt(reply, 1, 'Redis reply of a router'));
    });
  }
}

function checkIds(router: RouterId, incarnation: Incarnation): void {
  assert(HEX_32.test(router) && HEX_32.test(incarnation), 'router ids and incarnations are 32 hex digits');
}
