/** A Redis that can be put back to what it was earlier, for tests of what is forgotten then. */
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { type MemberOptions, redisSettings } from '../../registry/redis/testing/linked-registry.ts';
import { errorCode } from '../../server/core/errors.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { scratchFor } from '../scratch.ts';
import { RedisService } from '../services/redis.ts';
import { stackOf } from '../test-stack.ts';

export const LEASE_MS = 6_000;

/** A Redis whose append-only file can be put back to an earlier state. */
export class RestorableRedis {
  readonly service: RedisService;
  readonly home: string;

  private constructor(service: RedisService, home: string) {
    this.service = service;
    this.home = home;
  }

  static async forTest(t: TestContext): Promise<RestorableRedis> {
    const directory = await scratchFor(t, 'redis');
    return new RestorableRedis(stackOf(t).use(await RedisService.start({ directory })), join(directory, 'primary'));
  }

  get options(): MemberOptions {
    const settings = redisSettings([this.service.primary.port], { leaseMs: LEASE_MS, commandTimeoutMs: 500 });
    return { vpoolName: 'forgetful', settings, patienceMs: 300 };
  }

  /** Everything answered so far: `appendfsync always`. */
  async backUp(name = 'backup'): Promise<void> {
    await rm(join(this.home, name), { recursive: true, force: true });
    await cp(join(this.home, 'appendonlydir'), join(this.home, name), { recursive: true });
  }

  async restore(name = 'backup'): Promise<void> {
    await this.service.primary.kill();
    await rm(join(this.home, 'appendonlydir'), { recursive: true });
    await cp(join(this.home, name), join(this.home, 'appendonlydir'), { recursive: true });
    await this.service.primary.start();
  }
}

/** Asks again while the registry is unavailable. */
export async function until<T>(ask: () => Promise<T> | T, timeoutMs = 240_000): Promise<T> {
  const deadlineMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (errorCode(error) !== 'registry-unavailable' || systemClock.monotonicMs() > deadlineMs) throw error;
    }
  }
}
