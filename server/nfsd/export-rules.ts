/** ExportAccess from a list of rules: the first rule whose networks contain the address decides; no rule means denied. */
import { BlockList, isIP } from 'node:net';

import { ApplianceError } from '../core/errors.ts';
import type { ExportAccess, ExportDecision, ExportEntry, Squash } from './export-access.ts';

export interface ExportRule {
  /** CIDR blocks or single addresses, IPv4 or IPv6: `10.0.0.0/8`, `fd00::/8`, `127.0.0.1`. */
  readonly networks: readonly string[];
  readonly readOnly: boolean;
  readonly squash: Squash;
  readonly anonymousUid: number;
  readonly anonymousGid: number;
}

export interface ExportDefinition {
  /** Name without slashes, e.g. `vpool1`. */
  readonly name: string;
  readonly rules: readonly ExportRule[];
}

interface CompiledRule {
  readonly block: BlockList;
  readonly decision: ExportDecision;
}

/** `::ffff:10.0.0.1` (an IPv4 client on a dual-stack socket) as `10.0.0.1`; everything else as it is. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && isIP(address.slice(7)) === 4 ? address.slice(7) : address;
}

function addNetwork(block: BlockList, network: string): void {
  const slash = network.indexOf('/');
  const address = slash < 0 ? network : network.slice(0, slash);
  const family = isIP(address);
  const bits = slash < 0 ? (family === 4 ? 32 : 128) : Number(network.slice(slash + 1));
  const prefixIsNumber = slash < 0 || /^\d{1,3}$/.test(network.slice(slash + 1));
  if (family === 0 || !prefixIsNumber || bits > (family === 4 ? 32 : 128)) {
    throw new ApplianceError('export-network', `"${network}" is not a network: write ADDRESS or ADDRESS/BITS, e.g. 10.0.0.0/8 or fd00::/8`);
  }
  block.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6');
}

/** @throws ApplianceError `export-network` for a network that is none. */
export class ExportRules implements ExportAccess {
  readonly #byName = new Map<string, CompiledRule[]>();
  readonly #entries: ExportEntry[] = [];

  constructor(definitions: readonly ExportDefinition[]) {
    for (const definition of definitions) {
      const compiled = definition.rules.map((rule) => {
        const block = new BlockList();
        for (const network of rule.networks) addNetwork(block, network);
        const { readOnly, squash, anonymousUid, anonymousGid } = rule;
        return { block, decision: { readOnly, squash, anonymousUid, anonymousGid } };
      });
      this.#byName.set(definition.name, compiled);
      this.#entries.push({ path: `/${definition.name}`, groups: definition.rules.flatMap((rule) => rule.networks) });
    }
  }

  decide(address: string, exportName: string): ExportDecision {
    const rules = this.#byName.get(exportName);
    if (rules === undefined) return READ_ONLY_NOBODY;
    const plain = plainAddress(address);
    const family = isIP(plain);
    // An address with a zone (`fe80::1%eth0`) or none at all is nobody's.
    if (family === 0) return 'denied';
    for (const rule of rules) if (rule.block.check(plain, family === 4 ? 'ipv4' : 'ipv6')) return rule.decision;
    return 'denied';
  }

  list(): readonly ExportEntry[] {
    return this.#entries;
  }
}

/** For names that are no export: MNT then asks the FileSystem, which answers NOENT. */
const READ_ONLY_NOBODY: ExportDecision = { readOnly: true, squash: 'all', anonymousUid: 65_534, anonymousGid: 65_534 };

/** One export, open to `networks`, read-write, nobody squashed: what ESXi needs (esxi.md 1.1) and tests use. */
export function openExport(name: string, networks: readonly string[] = ['0.0.0.0/0', '::/0']): ExportRules {
  return new ExportRules([{ name, rules: [{ networks, readOnly: false, squash: 'none', anonymousUid: 65_534, anonymousGid: 65_534 }] }]);
}
