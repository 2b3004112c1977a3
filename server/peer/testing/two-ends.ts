/** A PeerServer and an Http2PeerNetwork in one process, connected over loopback. */
import type { FileId, Incarnation, RouterId } from '../../core/ids.ts';
import { silentLogger } from '../../core/logger.ts';
import type { Logger } from '../../core/logger.ts';
import { systemRandom } from '../../core/node-time.ts';
import type { Clock } from '../../core/time.ts';
import type { Member, Members, ObjectTarget, PeerCaller, PeerService } from '../../object-router/peer-port.ts';
import { Http2PeerNetwork } from '../http2-peer-network.ts';
import type { PeerTls } from '../peer-identity.ts';
import { PeerServer } from '../peer-server.ts';
import type { PeerSettings } from '../peer-settings.ts';
import { MemoryPeerService } from './memory-peer-service.ts';
import { SteppedClock, until } from './stepped-clock.ts';

export const ROUTER_A = 'a'.repeat(32) as RouterId;
export const ROUTER_B = 'b'.repeat(32) as RouterId;
export const INCARNATION_A = 'a1'.repeat(16) as Incarnation;
export const INCARNATION_B = 'b1'.repeat(16) as Incarnation;
export const VPOOL = '0f'.repeat(16);
export const CALLER: PeerCaller = {
  uid: 1000,
  gid: 1000,
  gids: [4, 24],
  address: '192.0.2.7',
  operationId: '192.0.2.7|esx1|7|12345|00112233445566778899aabbccddeeff',
};
export const TARGET: ObjectTarget = { fileid: 4711 as FileId, inodeGeneration: 99, term: { generation: 1, counter: 5, nonce: '0011223344556677' } };

/** A list of members that tests change by hand. */
export class FixedMembers implements Members {
  readonly self: RouterId;
  readonly #members = new Map<RouterId, Member>();
  readonly #listeners: (() => void)[] = [];

  constructor(self: RouterId) {
    this.self = self;
  }

  set(id: RouterId, incarnation: Incarnation, port: number, dead = false): void {
    this.#members.set(id, { id, incarnation, addresses: [`nfs://127.0.0.1:1`, `peer://127.0.0.1:${port}`], dead, silentMs: 0 });
    for (const listener of this.#listeners) listener();
  }

  get(router: RouterId): Member | null {
    return this.#members.get(router) ?? null;
  }

  list(): readonly Member[] {
    return [...this.#members.values()];
  }

  isDead(router: RouterId, incarnation: Incarnation): boolean {
    const member = this.get(router);
    return member === null || member.dead || member.incarnation !== incarnation;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

export interface TwoEnds {
  readonly server: PeerServer;
  readonly network: Http2PeerNetwork;
  readonly members: FixedMembers;
  readonly service: MemoryPeerService;
  readonly port: number;
  /** The server's service as the network offers it. */
  readonly peer: PeerService;
}

export interface TwoEndsOptions {
  readonly settings?: Partial<PeerSettings>;
  readonly serverSettings?: Partial<PeerSettings>;
  /** Default: one that stands still, so that nobody loses patience on a slow machine. */
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly tls?: { readonly a: PeerTls; readonly b: PeerTls };
  /** Instead of the MemoryPeerService. */
  readonly service?: (memory: MemoryPeerService) => PeerService;
  /** True: `use` begins before there is a connection. */
  readonly isUnconnected?: boolean;
}

/** Router A calls router B. They are connected when `use` is called, or one of them has refused the other. */
export async function withTwoEnds(use: (ends: TwoEnds) => Promise<void>, options: TwoEndsOptions = {}): Promise<void> {
  const { clock = new SteppedClock(), logger = silentLogger } = options;
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const served = options.service?.(service) ?? service;
  const server = new PeerServer(
    { service: () => served, clock, logger, tls: options.tls?.b ?? null, self: { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL } },
    { ...options.settings, ...options.serverSettings },
  );
  const { port } = await server.listen('127.0.0.1', 0);
  const members = new FixedMembers(ROUTER_A);
  members.set(ROUTER_B, INCARNATION_B, port);
  const network = new Http2PeerNetwork(
    {
      members,
      clock,
      random: systemRandom,
      logger,
      tls: options.tls?.a ?? null,
      self: { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL },
    },
    options.settings,
  );
  try {
    // A call waits for a connection for a second only: less than it may take on a busy machine.
    const isConnected = (): boolean => network.state(ROUTER_B).connected || network.state(ROUTER_B).problem !== null;
    if (options.isUnconnected !== true) await until(isConnected, 'they connected');
    await use({ server, network, members, service, port, peer: network.peer(ROUTER_B) });
  } finally {
    network.close();
    await server.close();
  }
}
