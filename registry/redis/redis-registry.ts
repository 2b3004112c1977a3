/**
 * The Object Registry of a cluster, in Redis (design section 5): verbs over a link that holds the promises, the lease of this router, its redo log, recovery rounds.
 * One per incarnation; the caller holds the lock of `directory`.
 */
import { uptime } from 'node:os';
import { join } from 'node:path';

import type { RegistryObserver } from '../../server/core/cluster-observer.ts';
import type { Disk } from '../../server/core/disk.ts';
import { ApplianceError, errorCode } from '../../server/core/errors.ts';
import type { Incarnation, ObjectUuid, RouterId } from '../../server/core/ids.ts';
import type { Logger } from '../../server/core/logger.ts';
import { nodeDisk } from '../../server/core/node-disk.ts';
import { processMonotonicMs } from '../../server/core/node-time.ts';
import type { Clock, Random } from '../../server/core/time.ts';
import type { ClusterRegistry, Membership, Outbox, OwnerRecord, RouterRecord } from '../ports.ts';
import { createVpoolArguments } from './create-vpool.ts';
import { readGeneration, type SeenGeneration, settledIn, writeGeneration } from './generation-file.ts';
import { LeaseKeeper } from './lease-keeper.ts';
import { OutboxLog, type OutboxLogSettings } from './outbox-log.ts';
import { COUNTERS_SCRIPT } from './read-scripts.ts';
import { RecoveryRounds } from './recovery-round.ts';
import { redisKeys } from './redis-keys.ts';
import { LiveRedisLink } from './redis-link-live.ts';
import { RedisMembership } from './redis-membership.ts';
import { RedisNamespace } from './redis-namespace.ts';
import { RedisOwnership } from './redis-ownership.ts';
import type { RedisRegistrySettings } from './redis-settings.ts';
import { decimalAt, RedisVerbs } from './redis-verbs.ts';
import { verifyRedis } from './verify-redis.ts';

/** How long the start waits for a Redis that may be used. */
const OPEN_TIMEOUT_MS = 30_000;
/** How long a call is held while there is no usable Redis, before NFS clients are told to come back. */
const PATIENCE_MS = 5_000;

export interface RedisRegistryOptions {
  readonly vpoolName: string;
  /** Of a Redis that has no such vPool: make it, unless this router saw it before; or refuse. */
  readonly whenEmpty: 'create' | 'refuse';
  /** Local state: outbox log, highest generation seen. */
  readonly directory: string;
  readonly router: RouterId;
  readonly incarnation: Incarnation;
  readonly settings: RedisRegistrySettings;
  readonly inlineBytesMax: number;
  /** What this router serves now: asserted in a recovery round. */
  readonly owned: () => readonly OwnerRecord[];
  /** The lease is over, or the loop stood still: nothing may be answered any more. Called once. */
  readonly lapsed: (error: Error) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly observer?: RegistryObserver;
  readonly disk?: Disk;
  readonly outbox?: OutboxLogSettings;
  readonly openTimeoutMs?: number;
  readonly patienceMs?: number;
}

/** Numbers for metrics and tests. */
export interface RedisRegistryCounts {
  readonly generation: number;
  readonly roundTrips: number;
  readonly changes: number;
  readonly reads: number;
  readonly retries: number;
  readonly waitsShort: number;
  readonly sessions: number;
  readonly rounds: number;
  readonly replayed: number;
  readonly outboxPending: number;
  readonly outboxBytes: number;
}

export interface RedisRegistry extends ClusterRegistry {
  counts(): RedisRegistryCounts;
  /** What in Redis's configuration is less than the docs ask for; nothing that stops a router. */
  warnings(): readonly string[];
  /** Takes a dead router that owns nothing out of the list of members. */
  forgetRouter(router: RouterId): Promise<'forgotten' | 'alive' | 'owner'>;
}

/**
 * @throws ApplianceError `registry-void` (no such vPool, and it is not to be made), `registry-unfit` (Redis may evict keys), `registry-foreign`,
 * `registry-unavailable` (nothing usable within the time of the start), `registry-corrupt`; the disk's errors as they are.
 */
export async function openRedisRegistry(options: RedisRegistryOptions): Promise<RedisRegistry> {
  const { vpoolName, directory, router, settings, clock, random, logger } = options;
  const disk = options.disk ?? nodeDisk;
  const keys = redisKeys(vpoolName);
  await using stack = new AsyncDisposableStack();
  await disk.makeDirectory(directory);
  let seen: SeenGeneration | null = await readGeneration(disk, directory);
  const log = await OutboxLog.open({ disk, clock }, join(directory, 'outbox'), options.outbox);
  stack.defer(() => log.close());

  const lease = stack.use(
    new LeaseKeeper(
      {
        clock,
        processMonotonicMs,
        uptimeSeconds: uptime,
        logger,
        renewed: (durationMs) => options.observer?.roundTrip('renew', 'ok', durationMs),
        failed: (durationMs) => options.observer?.roundTrip('renew', 'retried', durationMs),
        lapsed: (error) => {
          options.lapsed(error);
        },
      },
      { redis: settings, vpoolName },
    ),
  );
  let self: RouterRecord | null = null;
  let members: readonly string[] = [];
  const rounds = new RecoveryRounds(
    {
      clock,
      logger,
      observer: options.observer ?? null,
      local: {
        get seen() {
          return seen;
        },
        async settled(vpoolUuid, now) {
          const next = settledIn(seen, vpoolName, vpoolUuid, now);
          await writeGeneration(disk, directory, next);
          seen = next;
        },
        log,
        owned: options.owned,
        self: () => (lease.valid ? self : null),
        members: () => members,
      },
      createArguments: (identity) => {
        const vpoolUuid = random.bytes(16).toString('hex') as ObjectUuid;
        return createVpoolArguments({ vpoolName, vpoolUuid, identity, generation: 1, wallMs: clock.wallMs() }, random);
      },
    },
    {
      vpoolName,
      router,
      replicasMin: settings.replicasMin,
      commandTimeoutMs: settings.commandTimeoutMs,
      leaseMs: settings.leaseMs,
      whenEmpty: options.whenEmpty,
    },
  );
  const link = stack.use(
    new LiveRedisLink(
      {
        clock,
        random,
        logger,
        settler: rounds,
        observer: options.observer ?? null,
        append: (entry) => log.append(entry).catch((error: unknown) => refuseChange(error, directory)),
        leaseConfirmedAtMs: (identity) => lease.confirmedAtMs(identity),
        onSession: (generation) => {
          lease.memory.generation = generation;
        },
      },
      { redis: settings, vpoolName, patienceMs: options.patienceMs ?? PATIENCE_MS },
    ),
  );
  await link.open(options.openTimeoutMs ?? OPEN_TIMEOUT_MS);
  const known: SeenGeneration | null = seen;
  if (known === null) throw new ApplianceError('registry-unavailable', 'the registry was opened, but no generation was seen', { retryable: true });

  const verbs = new RedisVerbs({ link, keys, clock, random, patienceMs: options.patienceMs ?? PATIENCE_MS });
  const members_ = new RedisMembership({ verbs });
  const membership: Membership = {
    join: async (id, incarnation, addresses, version) => {
      const sentAtMs = clock.monotonicMs();
      const record = await members_.join(id, incarnation, addresses, version);
      if (id === router && incarnation === options.incarnation) {
        if (self === null) lease.start(id, incarnation, sentAtMs);
        self = record;
      }
      return record;
    },
    renew: (id, incarnation) => members_.renew(id, incarnation),
    routers: async () => {
      const all = await members_.routers();
      members = all.filter((record) => !record.dead).map((record) => record.id);
      return all;
    },
    markDead: (id, incarnation, counter) => members_.markDead(id, incarnation, counter),
    leave: (id, incarnation) => members_.leave(id, incarnation),
  };
  const outbox: Outbox = {
    pending: (after, limit) => log.pending(after, limit),
    release: (sequence) => log.release(sequence),
    async position() {
      const counters = await verbs.read(COUNTERS_SCRIPT, []);
      return verbs.checked(() => ({
        generation: decimalAt(counters, 0, 'Redis counters'),
        sequence: decimalAt(counters, 1, 'Redis counters'),
      }));
    },
  };
  const resources = stack.move();
  return {
    vpool: { name: vpoolName, uuid: known.vpoolUuid },
    namespace: new RedisNamespace({ verbs, random, inlineBytesMax: options.inlineBytesMax }),
    ownership: new RedisOwnership({ verbs, random }),
    membership,
    outbox,
    lease,
    get confirmedAgoMs() {
      return clock.monotonicMs() - Math.max(link.confirmedAtMs, lease.confirmedAtMs(null));
    },
    health() {
      const failure = log.failure;
      if (failure !== null)
        return `the outbox log in ${directory} cannot be written (${errorCode(failure) ?? failure.name}): namespace changes are refused`;
      return verbs.corruption ?? link.problem ?? log.damage ?? (lease.trouble === null ? null : `the lease could not be renewed: ${lease.trouble}`);
    },
    verify: () => verifyRedis(verbs, members_),
    warnings: () => link.warnings,
    forgetRouter: (id) => members_.forget(id),
    counts: () => ({
      generation: link.generation,
      ...link.counts,
      ...rounds.counts,
      outboxPending: log.pendingCount,
      outboxBytes: log.bytes,
    }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The change is in Redis, but not in the log: it is not acknowledged, and asked again it gets into the log. @throws ApplianceError */
function refuseChange(error: unknown, directory: string): never {
  if (error instanceof ApplianceError) throw error;
  const message = `the outbox log in ${directory} cannot be written: ${error instanceof Error ? error.message : String(error)}`;
  const full = ['ENOSPC', 'EDQUOT'].includes(errorCode(error) ?? '');
  throw new ApplianceError(full ? 'registry-no-space' : 'registry-unavailable', message, { retryable: true, cause: error });
}
