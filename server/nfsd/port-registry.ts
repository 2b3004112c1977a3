/** Which RPC programs listen where: the port between services and whatever maps program numbers to ports on this host. */
import type { MaybePromise } from '../core/maybe-promise.ts';

/** rpcbind network ids of the Internet protocols, RFC 5665 §4. */
export type NetId = 'tcp' | 'udp' | 'tcp6' | 'udp6';

export interface PortMapping {
  readonly program: number;
  readonly version: number;
  readonly netid: NetId;
  readonly port: number;
}

export interface PortRegistry {
  /** Adds a mapping. False when the program, version and netid are there already with another port (RFC 1833 §3.1, SET). */
  set(mapping: PortMapping): MaybePromise<boolean>;
  /** Removes a program's version, of one netid or (null) of all. False when there was none. */
  unset(program: number, version: number, netid: NetId | null): MaybePromise<boolean>;
}
