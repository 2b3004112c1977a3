/** PeerNetwork over HTTP/2 (docs/PEER-PROTOCOL.md): keeps a session to every living member of the cluster. */
import type { RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock, Random } from '../core/time.ts';
import type { Members, PeerNetwork, PeerService } from '../object-router/peer-port.ts';
import type { PeerSelf, PeerTls } from './peer-identity.ts';
import { PeerLink } from './peer-link.ts';
import { PEER_SETTINGS } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';

export interface PeerNetworkComponents {
  readonly members: Members;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Null: plain text, which is allowed between loopback addresses only. */
  readonly tls: PeerTls | null;
  readonly self: PeerSelf;
  /** Called after something came from a peer (a loop that spins for a moment, see oncrpc). */
  readonly heard?: () => void;
}

export class Http2PeerNetwork implements PeerNetwork {
  readonly #components: PeerNetworkComponents;
  readonly #settings: PeerSettings;
  readonly #links = new Map<RouterId, PeerLink>();
  #sessions = 0;
  #isClosed = false;

  /** Connects to all living members at once, and to others as they come. */
  constructor(components: PeerNetworkComponents, settings: Partial<PeerSettings> = {}) {
    this.#components = components;
    this.#settings = { ...PEER_SETTINGS, ...settings };
    components.members.onChange(() => this.#look());
    this.#look();
  }

  peer(router: RouterId): PeerService {
    return this.#link(router).service;
  }

  state(router: RouterId): { readonly connected: boolean; readonly roundTripMs: number | null; readonly problem: string | null } {
    return this.#link(router).state;
  }

  /** Closes all connections at once; calls without an answer fail, and so does every later one. Also right when the lease lapsed. */
  close(): void {
    this.#isClosed = true;
    for (const link of this.#links.values()) link.close('this router stops');
  }

  #look(): void {
    if (this.#isClosed) return;
    const { members } = this.#components;
    for (const member of members.list()) if (member.id !== members.self && !member.dead) this.#link(member.id);
    for (const link of this.#links.values()) link.look();
  }

  #link(router: RouterId): PeerLink {
    let link = this.#links.get(router);
    if (link === undefined) {
      const { members, clock, random, logger, tls, self, heard } = this.#components;
      link = new PeerLink(
        router,
        { members, clock, random, logger, tls, self, nextSession: () => (this.#sessions += 1), heard: heard ?? (() => {}) },
        this.#settings,
      );
      if (this.#isClosed) link.close('this router stops');
      this.#links.set(router, link);
    }
    return link;
  }
}
