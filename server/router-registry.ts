/** The registry of a router: its own (SQLite), or that of its cluster (Redis) with what belongs to a member of it. Part of the composition root. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import type { ClusterRegistry, Membership, Registry } from '../registry/ports.ts';
import { openSqliteRegistry, SQLITE_REGISTRY_DEFAULTS } from '../registry/sqlite/sqlite-registry.ts';
import { VERSION } from './cli/version.ts';
import { Cluster, hostPort } from './cluster.ts';
import type { Disk } from './core/disk.ts';
import { errorCode } from './core/errors.ts';
import type { Incarnation, RouterId } from './core/ids.ts';
import type { Logger } from './core/logger.ts';
import type { Clock, Random } from './core/time.ts';
import { VPOOL_FILE } from './data-directory.ts';
import { OwnedRecords } from './object-router/owned-records.ts';
import type { RouterDependencies } from './router-port.ts';
import type { Settings } from './settings/settings.ts';

const RETRY_OPEN_MS = 500;

export interface Opening {
  readonly settings: Settings;
  /** Local state of the vPool. */
  readonly directory: string;
  readonly self: { readonly router: RouterId; readonly incarnation: Incarnation };
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  readonly dependencies: RouterDependencies;
}

/** Of a single router, joined. */
export async function openEmbedded({ settings, directory, self, clock, random, logger }: Opening): Promise<Registry> {
  await using stack = new AsyncDisposableStack();
  const registry = stack.use(
    await openSqliteRegistry({
      path: join(directory, 'registry.db'),
      vpoolName: settings.vpool.name,
      clock,
      random,
      logger: logger.child({ part: 'registry' }),
      settings: { ...SQLITE_REGISTRY_DEFAULTS, inlineBytesMax: settings.vpool.inlineBytesMax },
    }),
  );
  await registry.membership.join(self.router, self.incarnation, ownAddresses(settings), VERSION);
  stack.move();
  return registry;
}

/** Who left for good is no member any more, which the next renewal of its lease is told: no reason to begin anew instead of stopping. */
export class Departure {
  readonly #beginAnew: (error: Error) => void;
  #hasLeft = false;

  constructor(beginAnew: (error: Error) => void) {
    this.#beginAnew = beginAnew;
  }

  /** The membership, through which this router leaves. */
  noticed(membership: Membership): Membership {
    return {
      ...membership,
      leave: (router, incarnation) => {
        this.#hasLeft = true;
        return membership.leave(router, incarnation);
      },
    };
  }

  lapsed(error: Error): void {
    if (!this.#hasLeft) this.#beginAnew(error);
  }
}

/** A member of a cluster. Its registry is disposed of last. */
export interface Joined extends AsyncDisposable {
  readonly registry: ClusterRegistry;
  readonly cluster: Cluster;
  readonly records: OwnedRecords;
  /** Of the registry; it grows whenever the registry forgot something. */
  generation(): number;
  /** Of how Redis is set up; it works, but keeps less than it could. */
  warnings(): readonly string[];
  /** Of the registry: a dead router that owns nothing. */
  forgetRouter(router: RouterId): Promise<'forgotten' | 'alive' | 'owner'>;
}

export async function joinCluster(opening: Opening): Promise<Joined> {
  const { settings, directory, self, clock, random, logger, disk, dependencies } = opening;
  await using stack = new AsyncDisposableStack();
  let records: OwnedRecords | null = null;
  const departure = new Departure(dependencies.beginAnew);
  // Only a cluster loads the client of Redis.
  const { openRedisRegistry } = await import('../registry/redis/redis-registry.ts');
  const isKnown = existsSync(join(directory, VPOOL_FILE));
  const options = {
    vpoolName: settings.vpool.name,
    // A router that served this vPool before knows that it is not new: an empty registry has lost it.
    whenEmpty: isKnown ? ('refuse' as const) : ('create' as const),
    directory,
    router: self.router,
    incarnation: self.incarnation,
    settings: { ...settings.registry.redis, leaseMs: settings.cluster.leaseMs },
    inlineBytesMax: settings.vpool.inlineBytesMax,
    owned: () => records?.all() ?? [],
    lapsed: (error: Error) => departure.lapsed(error),
    clock,
    random,
    logger: logger.child({ part: 'registry' }),
    observer: dependencies.clusterObserver,
  };
  const redis = stack.use(await patiently(() => openRedisRegistry(options), isKnown, opening));
  records = new OwnedRecords(redis.ownership, self.router);
  const registry: ClusterRegistry = {
    vpool: redis.vpool,
    namespace: redis.namespace,
    ownership: records,
    membership: departure.noticed(redis.membership),
    outbox: redis.outbox,
    lease: redis.lease,
    get confirmedAgoMs() {
      return redis.confirmedAgoMs;
    },
    health: () => redis.health(),
    verify: () => redis.verify(),
    [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
  };
  const cluster = stack.use(
    await Cluster.join(
      { registry, disk, clock, random, logger, self, settings, directory, observer: dependencies.clusterObserver },
      ownAddresses(settings),
      VERSION,
    ),
  );
  records.checkClaim = (fileid, expected) => cluster.journal.checkClaim(fileid, expected);
  const resources = stack.move();
  return {
    registry,
    cluster,
    records,
    generation: () => redis.counts().generation,
    warnings: () => redis.warnings(),
    forgetRouter: (router) => redis.forgetRouter(router),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/**
 * A router that belongs to a cluster waits for its registry, however long that is away: whoever starts it (again) cannot know better. A first start fails
 * instead, since what it was told may be wrong.
 */
async function patiently<T>(open: () => Promise<T>, isKnown: boolean, { clock, logger }: Opening): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await open();
    } catch (error) {
      if (!isKnown || errorCode(error) !== 'registry-unavailable') throw error;
      logger[attempt === 0 ? 'warn' : 'debug']({ err: error }, 'the registry is away; the router starts when it is back');
      await clock.sleep(RETRY_OPEN_MS);
    }
  }
}

/** What others are told of where this router is; a port that the system chooses is nobody's business but its own. */
function ownAddresses({ nfs, admin }: Settings): string[] {
  const addresses = [];
  if (nfs.port !== 0) addresses.push(`nfs://${hostPort(nfs.listen, nfs.port)}`);
  if (admin.port !== 0) addresses.push(`http://${hostPort(admin.listen, admin.port)}`);
  return addresses;
}
