/**
 * What a router of a cluster has besides what every router has, put together: peers, who is a member, moves. Part of the composition root
 * (`router.ts`), in the order in which it starts and stops.
 */
import type { ClusterRegistry } from '../registry/ports.ts';
import { CertificateFiles } from './cluster-ca/certificate-files.ts';
import { checkCertificates } from './cluster-ca/router-certificate.ts';
import { type ClusterControlComponents, RouterClusterControl } from './cluster-control.ts';
import { assert } from './core/assert.ts';
import type { ForwardObserver, MoveObserver } from './core/cluster-observer.ts';
import type { Disk } from './core/disk.ts';
import type { Incarnation, RouterId } from './core/ids.ts';
import type { Logger } from './core/logger.ts';
import type { Clock, Random } from './core/time.ts';
import type { ObjectDriver } from './object-router/driver-port.ts';
import { MemberWatch } from './object-router/member-watch.ts';
import { MeteredPeer } from './object-router/metered-peer.ts';
import { CededJournal } from './object-router/moves/ceded-journal.ts';
import { Moves } from './object-router/moves/moves.ts';
import { Pins } from './object-router/moves/pins.ts';
import type { ClusterParts } from './object-router/object-places.ts';
import type { ObjectRouter } from './object-router/object-router.ts';
import { ObjectService } from './object-router/object-service.ts';
import type { OpenObjects } from './object-router/open-objects.ts';
import type { OwnedRecords } from './object-router/owned-records.ts';
import { OwnerCache } from './object-router/owner-cache.ts';
import { PeerDesk } from './object-router/peer-desk.ts';
import type { PeerNetwork, PeerService } from './object-router/peer-port.ts';
import { Repetitions } from './object-router/repetitions.ts';
import type { RouterCore } from './object-router/router-core.ts';
import { RouterMoveHost } from './object-router/router-move-host.ts';
import { Http2PeerNetwork } from './peer/http2-peer-network.ts';
import type { PeerTls } from './peer/peer-identity.ts';
import { PeerServer } from './peer/peer-server.ts';
import { RepetitionFile } from './repetition-file.ts';
import type { Settings } from './settings/settings.ts';

export interface ClusterComponents {
  readonly registry: ClusterRegistry;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly self: { readonly router: RouterId; readonly incarnation: Incarnation };
  readonly settings: Settings;
  /** Local state of the vPool. */
  readonly directory: string;
  readonly observer: ForwardObserver & MoveObserver;
}

/** `host:port` as it is written in a URL. */
export function hostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** As long as a copy of a call may wait at another router before it begins (`BEGIN_MS_MAX` in object-places.ts). */
const CLEAN_AFTER_MS_SAFE = 30_000;

export class Cluster implements AsyncDisposable {
  readonly members: MemberWatch;
  readonly network: Http2PeerNetwork;
  readonly owners = new OwnerCache();
  readonly repetitions: Repetitions;
  /** What earlier lives of this router remembered of completed calls went with a power cut or a reboot. */
  readonly isMemoryLost: boolean;
  /** `host:port` that the others are told. */
  readonly peerAddress: string;
  readonly encrypted: boolean;
  readonly journal: CededJournal;
  readonly #components: ClusterComponents;
  readonly #server: PeerServer;
  readonly #pins: Pins;
  readonly #desk: PeerDesk;
  readonly #memory: RepetitionFile;
  readonly #metered: PeerNetwork;
  readonly #certificateEndsAtMs: number | null;
  #moves: Moves | null = null;
  #host: RouterMoveHost | null = null;

  private constructor(
    components: ClusterComponents,
    parts: {
      members: MemberWatch;
      network: Http2PeerNetwork;
      server: PeerServer;
      journal: CededJournal;
      pins: Pins;
      desk: PeerDesk;
      memory: RepetitionFile;
      peerAddress: string;
      certificateEndsAtMs: number | null;
    },
  ) {
    this.#components = components;
    this.members = parts.members;
    this.network = parts.network;
    this.#server = parts.server;
    this.journal = parts.journal;
    this.#pins = parts.pins;
    this.peerAddress = parts.peerAddress;
    this.encrypted = parts.certificateEndsAtMs !== null;
    this.#certificateEndsAtMs = parts.certificateEndsAtMs;
    this.#desk = parts.desk;
    this.#memory = parts.memory;
    this.isMemoryLost = parts.memory.isLost;
    this.repetitions = new Repetitions(components.clock, undefined, parts.memory);
    const sent = new Map<RouterId, PeerService>();
    this.#metered = {
      peer: (router) => {
        let peer = sent.get(router);
        if (peer === undefined) {
          peer = new MeteredPeer(parts.network.peer(router), components.observer, components.clock, 'sent');
          sent.set(router, peer);
        }
        return peer;
      },
      state: (router) => parts.network.state(router),
    };
  }

  /** Why a power cut would lose what is remembered of completed calls; null: it would not. */
  get memoryProblem(): string | null {
    const { problem } = this.#memory;
    return problem === null ? null : `what this router remembers of completed calls would not outlive a power cut: ${problem.message}`;
  }

  /** All objects of former lives are recovered. */
  settled(): void {
    this.#memory.settled();
  }

  /** Listens for peers, joins, learns who else is there. Peers get an answer once `serve` was called. */
  static async join(components: ClusterComponents, addresses: readonly string[], version: string): Promise<Cluster> {
    const { registry, clock, random, logger, self, settings, disk, directory, observer } = components;
    await using stack = new AsyncDisposableStack();
    const { certificates, listen, port, advertise, leaseMs } = settings.cluster;
    const own = certificates === 'none' ? null : certificatesOf(certificates, self.router, clock.wallMs());
    const tls = own?.tls ?? null;
    const identity = { ...self, vpoolUuid: registry.vpool.uuid };
    const desk = new PeerDesk();
    const known: { members: MemberWatch | null } = { members: null };
    const received = new MeteredPeer(desk, observer, clock, 'received');
    const server = new PeerServer({
      service: (from) => {
        known.members?.hurry(from);
        return received;
      },
      clock,
      logger: logger.child({ part: 'peers' }),
      tls,
      self: identity,
    });
    stack.defer(() => server.close());
    const listening = await server.listen(listen, port);
    const peerAddress = advertise ?? hostPort(listening.host, listening.port);
    await registry.membership.join(self.router, self.incarnation, [...addresses, `peer://${peerAddress}`], version);
    const members = new MemberWatch(
      { membership: registry.membership, lease: registry.lease, clock, logger: logger.child({ part: 'members' }) },
      self.router,
      { leaseMs },
    );
    stack.defer(() => members.stop());
    known.members = members;
    await members.start();
    const network = new Http2PeerNetwork({ members, clock, random, logger: logger.child({ part: 'peers' }), tls, self: identity });
    stack.defer(() => network.close());
    const { cleanAfterMs } = settings.cluster;
    if (cleanAfterMs < CLEAN_AFTER_MS_SAFE) {
      logger.warn({ cleanAfterMs }, 'cluster.cleanAfterMs is for tests: after a takeover an old copy of a write could be done over newer data');
    }
    const journal = await CededJournal.open(disk, directory, logger.child({ part: 'moves' }));
    stack.defer(() => journal.close());
    const pins = await Pins.open(disk, directory);
    const memory = stack.use(
      RepetitionFile.open(directory, undefined, undefined, {
        failed: (error) =>
          logger.error({ err: error }, 'what this router remembers of completed calls would not outlive a power cut: its file could not be synced'),
      }),
    );
    if (memory.waitMs > 0) {
      logger.warn(
        { waitMs: memory.waitMs },
        'the machine was started a moment ago: what clients sent to the former life of this router is waited out',
      );
      await clock.sleep(memory.waitMs);
    }
    const cluster = new Cluster(components, {
      members,
      network,
      server,
      journal,
      pins,
      desk,
      memory,
      peerAddress,
      certificateEndsAtMs: own?.endsAtMs ?? null,
    });
    stack.move();
    return cluster;
  }

  /** For ObjectPlaces. */
  get parts(): ClusterParts {
    return {
      members: this.members,
      network: this.#metered,
      owners: this.owners,
      repetitions: this.repetitions,
      forwarded: (object, kind, hint) => this.#moves?.forwarded(object, kind, hint),
    };
  }

  /** Of those that live, the one with the lowest id: does what one router is to do for all. */
  get isFirst(): boolean {
    const { self } = this.members;
    return this.members.list().every((member) => member.dead || member.id >= self);
  }

  /** Peers are served from here on. */
  serve(components: { core: RouterCore; objects: OpenObjects; router: ObjectRouter; driver: ObjectDriver; records: OwnedRecords }): Moves {
    const { registry, clock, random, logger, self, settings } = this.#components;
    const { core, objects, router, driver, records } = components;
    const host = new RouterMoveHost({
      namespace: registry.namespace,
      objects,
      owners: this.owners,
      repetitions: this.repetitions,
      records,
      clock,
      logger: logger.child({ part: 'moves' }),
    });
    const moves = new Moves(
      { host, registry, members: this.members, network: this.network, driver, clock, random, logger: logger.child({ part: 'moves' }), self },
      { journal: this.journal, pins: this.#pins, observer: this.#components.observer },
      settings.cluster,
    );
    const service = new ObjectService({ core, data: router.data, attributes: router.attributes }, self);
    this.#moves = moves;
    this.#host = host;
    this.#desk.open(service, moves);
    moves.start();
    return moves;
  }

  /** What an operator may ask, from `serve` on. */
  control(about: Pick<ClusterControlComponents['about'], 'generation' | 'recovering' | 'forgetRouter'>): RouterClusterControl {
    const { registry, logger, self, settings } = this.#components;
    assert(this.#moves !== null && this.#host !== null, 'peers are served');
    const { urls, mode, sentinelName } = settings.registry.redis;
    const places = urls.map((url) => new URL(url).host).join(', ');
    return new RouterClusterControl({
      registry,
      members: this.members,
      network: this.network,
      moves: this.#moves,
      host: this.#host,
      logger: logger.child({ part: 'moves' }),
      self: self.router,
      about: {
        registry: `redis ${places}${mode === 'sentinel' ? ` (sentinel ${sentinelName})` : mode === 'cluster' ? ' (cluster)' : ''}`,
        peerAddress: this.peerAddress,
        encrypted: this.encrypted,
        certificateEndsAtMs: this.#certificateEndsAtMs,
        ...about,
      },
    });
  }

  /** No peer is answered any more, no move runs: before the objects are closed. */
  async quiet(): Promise<void> {
    this.#desk.close();
    await this.#moves?.close();
    await this.#server.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.quiet();
    this.network.close();
    await this.members.stop();
    await this.journal.close();
    this.#memory[Symbol.dispose]();
  }
}

function certificatesOf(directory: string, router: RouterId, nowMs: number): { readonly tls: PeerTls; readonly endsAtMs: number } {
  const { authority, certificate, key, revocations, endsAtMs } = checkCertificates(new CertificateFiles(directory).read(), directory, router, nowMs);
  return { tls: { ca: authority, cert: certificate, key, crl: revocations }, endsAtMs };
}
