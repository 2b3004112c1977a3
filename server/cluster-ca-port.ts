/** Port of what the command does with a cluster's certificates: making an authority, letting routers join, renewing, revoking. */
import type { RouterId } from './core/ids.ts';
import type { Settings } from './settings/settings.ts';

/** Certificates of this router, as they lie in their directory. */
export interface CertificateReport {
  readonly directory: string;
  readonly router: RouterId;
  /** ISO 8601, UTC. */
  readonly endsAt: string;
  /** SHA-256, 64 hex digits: the same on all routers of a cluster. */
  readonly authority: string;
  /** The authority's key is here: this host can let others join. */
  readonly canSign: boolean;
}

export interface OfferOptions {
  /** Where joining hosts are listened for. Port 0: any free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** `host:port` that they reach it at; null: `listen`. */
  readonly address: string | null;
  readonly validMs: number;
  /** Hosts that may join. */
  readonly uses: number;
  /** YAML: what joining hosts are shown. */
  readonly sharedSettings: string;
  /** Ends the offer. */
  readonly signal: AbortSignal;
  /** It is listened; `token` is for the other host. */
  readonly offered: (token: string, address: string, endsAt: string) => void;
  readonly joined: (router: RouterId, address: string, again: boolean) => void;
  readonly refused: (address: string, reason: string) => void;
}

/** All of them reject with ApplianceErrors: `certificate-missing`, `certificate-unusable`, `certificate-expired`, `data-unusable`, `data-locked`, and what is said. */
export interface ClusterCertificates {
  /** Makes an authority and this router's certificate. `cluster-exists`: there is one. */
  init(settings: Settings): Promise<CertificateReport>;
  /** Resolves with the number of hosts that joined: all that may, or fewer when the time was over or the signal came. `join-port-unavailable`. */
  offer(settings: Settings, options: OfferOptions): Promise<number>;
  /** `token-invalid`, `other-cluster` (certificates of another one are there), `join-unreachable`, `join-untrusted`, `join-refused`. */
  join(settings: Settings, token: string): Promise<{ readonly report: CertificateReport; readonly sharedSettings: string }>;
  /** A new key and certificate for this router, on the host of the authority. */
  renew(settings: Settings): Promise<CertificateReport>;
  /** Puts all certificates of a router on the list of revoked ones. Resolves with the path of the list. `no-such-router`. */
  revoke(settings: Settings, router: string): Promise<{ readonly router: RouterId; readonly certificates: number; readonly list: string }>;
  show(settings: Settings): Promise<CertificateReport>;
}
