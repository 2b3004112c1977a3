/** PortRegistry in memory: what our own port mapper serves. */
import type { NetId, PortMapping, PortRegistry } from './port-registry.ts';

/** More are refused: only local services register, and no host has so many. */
const MAPPINGS_MAX = 512;

export class PortTable implements PortRegistry {
  #mappings: PortMapping[] = [];

  /** In the order of registration. */
  list(): readonly PortMapping[] {
    return this.#mappings;
  }

  set(mapping: PortMapping): boolean {
    const old = this.find(mapping.program, mapping.version, mapping.netid);
    if (old !== null) return old.port === mapping.port;
    if (this.#mappings.length >= MAPPINGS_MAX) return false;
    this.#mappings.push(mapping);
    return true;
  }

  unset(program: number, version: number, netid: NetId | null): boolean {
    const count = this.#mappings.length;
    this.#mappings = this.#mappings.filter((m) => m.program !== program || m.version !== version || (netid !== null && m.netid !== netid));
    return this.#mappings.length < count;
  }

  /** The mapping of exactly this version, or null. */
  find(program: number, version: number, netid: NetId): PortMapping | null {
    return this.#mappings.find((m) => m.program === program && m.version === version && m.netid === netid) ?? null;
  }

  /**
   * The mapping of this version or else of the newest one: RFC 1833 §3.1 lets GETPORT answer so, and the program itself then says
   * PROG_MISMATCH with the versions it has.
   */
  findAny(program: number, version: number, netid: NetId): PortMapping | null {
    const exact = this.find(program, version, netid);
    if (exact !== null) return exact;
    let best: PortMapping | null = null;
    for (const m of this.#mappings) {
      if (m.program === program && m.netid === netid && (best === null || m.version > best.version)) best = m;
    }
    return best;
  }
}
