/** Registering services: with a running system rpcbind (over TCP to its port 111), or with our own port mapper's table, alike. */
import { RpcClient } from '../oncrpc/rpc-client.ts';
import type { RpcCallOptions } from '../oncrpc/rpc-client.ts';
import type { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import { MOUNT_PROGRAM } from './mount-program.ts';
import { NFS_PROGRAM } from './nfs-wire.ts';
import type { NetId, PortMapping, PortRegistry } from './port-registry.ts';
import { encodeBinding, encodeMapping, IPPROTO_TCP, IPPROTO_UDP, PORTMAP_PROGRAM, PortmapProcedure, RpcbindProcedure } from './portmap-program.ts';
import { formatUniversalAddress } from './universal-address.ts';

const RPCBIND_VERSION = 4;

/**
 * The host's rpcbind as a PortRegistry. IPv4 goes by version 2, which every port mapper speaks, IPv6 by version 4. Each call has its own
 * connection: a registration happens once in the life of a process.
 *
 * Methods throw what RpcClient throws when rpcbind is not there or refuses (ApplianceError `rpc-connect-failed`, `rpc-timeout` ...).
 */
export class SystemPortmapper implements PortRegistry {
  readonly #host: string;
  readonly #port: number;
  readonly #options: RpcCallOptions;

  constructor(at: { readonly host: string; readonly port: number; readonly timeoutMs: number }) {
    this.#host = at.host;
    this.#port = at.port;
    this.#options = { timeoutMs: at.timeoutMs };
  }

  set(mapping: PortMapping): Promise<boolean> {
    const { program, version, netid, port } = mapping;
    if (netid === 'tcp' || netid === 'udp') {
      const protocol = netid === 'tcp' ? IPPROTO_TCP : IPPROTO_UDP;
      return this.#call(2, PortmapProcedure.SET, (w) => encodeMapping(w, { program, version, protocol, port }));
    }
    const address = formatUniversalAddress('::', port);
    return this.#call(RPCBIND_VERSION, RpcbindProcedure.SET, (w) => encodeBinding(w, { program, version, netid, address, owner: 'superuser' }));
  }

  unset(program: number, version: number, netid: NetId | null): Promise<boolean> {
    const binding = { program, version, netid: netid ?? '', address: '', owner: 'superuser' };
    return this.#call(RPCBIND_VERSION, RpcbindProcedure.UNSET, (w) => encodeBinding(w, binding));
  }

  async #call(version: number, procedure: number, encode: (writer: XdrWriter) => void): Promise<boolean> {
    const timeout = this.#options.timeoutMs === undefined ? {} : { connectTimeoutMs: this.#options.timeoutMs };
    const rpc = await RpcClient.connect({ host: this.#host, port: this.#port, ...timeout });
    try {
      const results: XdrReader = await rpc.call(PORTMAP_PROGRAM, version, procedure, encode, this.#options);
      return results.bool();
    } finally {
      await rpc.close();
    }
  }
}

/** What a router registers: NFS 3 and MOUNT 1 to 3, on every netid it listens on. */
export function nfsMappings(ports: { readonly nfsPort: number; readonly mountPort: number }, netids: readonly NetId[]): PortMapping[] {
  return netids.flatMap((netid) => [
    { program: NFS_PROGRAM, version: 3, netid, port: ports.nfsPort },
    ...[1, 2, 3].map((version) => ({ program: MOUNT_PROGRAM, version, netid, port: ports.mountPort })),
  ]);
}

/**
 * Registers all mappings. Returns those that were refused because somebody else has registered them with another port: they are his, and
 * are left alone.
 */
export async function registerAll(registry: PortRegistry, mappings: readonly PortMapping[]): Promise<PortMapping[]> {
  const refused: PortMapping[] = [];
  for (const mapping of mappings) if (!(await registry.set(mapping))) refused.push(mapping);
  return refused;
}

/** Takes back what `registerAll` registered: pass the same mappings without the refused ones. */
export async function unregisterAll(registry: PortRegistry, mappings: readonly PortMapping[]): Promise<void> {
  for (const { program, version, netid } of mappings) await registry.unset(program, version, netid);
}
