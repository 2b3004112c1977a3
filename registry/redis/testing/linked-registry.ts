/** Registries as routers have them: the production link, lease thread and outbox log over a real Redis, each router with a directory of its own. */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { errorCode } from '../../../server/core/errors.ts';
import type { Incarnation, RouterId } from '../../../server/core/ids.ts';
import { type Logger, silentLogger } from '../../../server/core/logger.ts';
import { systemClock, systemRandom } from '../../../server/core/node-time.ts';
import { type Clock, timestampOf } from '../../../server/core/time.ts';
import { INCARNATION, type RegistryUnderTest, ROUTER } from '../../conformance/world.ts';
import type { Mutation, OwnerRecord } from '../../ports.ts';
import { TestClock } from '../../sqlite/testing/test-registry.ts';
import type { OutboxLogSettings } from '../outbox-log.ts';
import { openRedisRegistry, type RedisRegistry, type RedisRegistryOptions } from '../redis-registry.ts';
import type { RedisRegistrySettings } from '../redis-settings.ts';

/** A standalone Redis, Sentinels with one more argument. */
export function redisSettings(ports: readonly number[], fields: Partial<RedisRegistrySettings> = {}): RedisRegistrySettings {
  return {
    urls: ports.map((port) => `redis://127.0.0.1:${port}`),
    mode: 'standalone',
    sentinelName: null,
    username: null,
    password: null,
    passwordFile: null,
    sentinelPassword: null,
    caFile: null,
    certFile: null,
    keyFile: null,
    replicasMin: 0,
    commandTimeoutMs: 1000,
    leaseMs: 7000,
    ...fields,
  };
}

export interface MemberOptions {
  readonly vpoolName: string;
  readonly settings: RedisRegistrySettings;
  /** Default: a new one, removed with the member. */
  readonly directory?: string;
  readonly router?: RouterId;
  readonly incarnation?: Incarnation;
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly whenEmpty?: 'create' | 'refuse';
  readonly patienceMs?: number;
  readonly openTimeoutMs?: number;
  readonly outbox?: OutboxLogSettings;
}

/** One router's registry. */
export class Member implements AsyncDisposable {
  readonly registry: RedisRegistry;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly directory: string;
  /** What it asserts in a recovery round. */
  readonly owned: OwnerRecord[];
  readonly lapses: Error[];
  readonly #keepDirectory: boolean;

  private constructor(
    registry: RedisRegistry,
    fields: Pick<Member, 'router' | 'incarnation' | 'directory' | 'owned' | 'lapses'>,
    keepDirectory: boolean,
  ) {
    this.registry = registry;
    this.router = fields.router;
    this.incarnation = fields.incarnation;
    this.directory = fields.directory;
    this.owned = fields.owned;
    this.lapses = fields.lapses;
    this.#keepDirectory = keepDirectory;
  }

  /** Opens; `join` is the caller's. */
  static async open(options: MemberOptions): Promise<Member> {
    const directory = options.directory ?? fs.mkdtempSync(join(tmpdir(), 'vferry-member-'));
    const owned: OwnerRecord[] = [];
    const lapses: Error[] = [];
    const router = options.router ?? (randomBytes(16).toString('hex') as RouterId);
    const incarnation = options.incarnation ?? (randomBytes(16).toString('hex') as Incarnation);
    const given: RedisRegistryOptions = {
      vpoolName: options.vpoolName,
      whenEmpty: options.whenEmpty ?? 'create',
      directory,
      router,
      incarnation,
      settings: options.settings,
      inlineBytesMax: 4_096,
      owned: () => owned,
      lapsed: (error) => lapses.push(error),
      clock: options.clock ?? systemClock,
      random: systemRandom,
      logger: options.logger ?? silentLogger,
      ...(options.patienceMs === undefined ? {} : { patienceMs: options.patienceMs }),
      ...(options.outbox === undefined ? {} : { outbox: options.outbox }),
      ...(options.openTimeoutMs === undefined ? {} : { openTimeoutMs: options.openTimeoutMs }),
    };
    try {
      return new Member(await openRedisRegistry(given), { router, incarnation, directory, owned, lapses }, options.directory !== undefined);
    } catch (error) {
      if (options.directory === undefined) fs.rmSync(directory, { recursive: true });
      throw error;
    }
  }

  /** Tried again while Redis is slow: that is no question of any test. */
  static async joined(options: MemberOptions): Promise<Member> {
    const deadlineMs = systemClock.monotonicMs() + 240_000;
    const member = await Member.open(options);
    for (;;) {
      try {
        await member.registry.membership.join(member.router, member.incarnation, ['nfs://127.0.0.1:1'], 'test');
        return member;
      } catch (error) {
        if (errorCode(error) === 'registry-unavailable' && systemClock.monotonicMs() < deadlineMs) continue;
        await member[Symbol.asyncDispose]();
        throw error;
      }
    }
  }

  mutation(operationId: string | null = null): Mutation {
    return { operationId, incarnation: this.incarnation, now: timestampOf(systemClock.wallMs()), notAfterMs: Infinity };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry[Symbol.asyncDispose]();
    if (!this.#keepDirectory) fs.rmSync(this.directory, { recursive: true });
  }
}

/** For the conformance suite. */
export class LinkedRegistry implements RegistryUnderTest {
  readonly #options: MemberOptions & { readonly clock: TestClock; readonly directory: string };
  #member: Member;

  private constructor(options: MemberOptions & { readonly clock: TestClock; readonly directory: string }, member: Member) {
    this.#options = options;
    this.#member = member;
  }

  static async open(port: number): Promise<LinkedRegistry> {
    const options = {
      vpoolName: `test-${randomBytes(6).toString('hex')}`,
      settings: redisSettings([port]),
      clock: new TestClock(),
      // In memory where that is possible: the suite waits for each of its steps.
      directory: fs.mkdtempSync(join(fs.existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'vferry-member-')),
      router: ROUTER,
      incarnation: INCARNATION,
    };
    return new LinkedRegistry(options, await Member.open(options));
  }

  get registry(): RedisRegistry {
    return this.#member.registry;
  }

  async reopen(): Promise<void> {
    await this.#member[Symbol.asyncDispose]();
    this.#member = await Member.open(this.#options);
  }

  wallMs(): number {
    return this.#options.clock.wallMs();
  }

  advanceWallMs(byMs: number): void {
    this.#options.clock.advance(byMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#member[Symbol.asyncDispose]();
    fs.rmSync(this.#options.directory, { recursive: true });
  }
}
