/** Where the router listens: NFS and MOUNT on one port, MOUNT on its own if set, the port mapper on 111 where that is permitted. */
import { isIPv6 } from 'node:net';

import { ApplianceError, errorCode } from './core/errors.ts';
import type { Logger } from './core/logger.ts';
import type { Clock } from './core/time.ts';
import type { MountProgram } from './nfsd/mount-program.ts';
import { MOUNT_PROGRAM } from './nfsd/mount-program.ts';
import type { NfsProgram } from './nfsd/nfs-program.ts';
import { NFS_PROGRAM } from './nfsd/nfs-wire.ts';
import type { PortMapping, PortRegistry } from './nfsd/port-registry.ts';
import { PortTable } from './nfsd/port-table.ts';
import { PORTMAP_PORT, PORTMAP_PROGRAM, PortmapProgram } from './nfsd/portmap-program.ts';
import type { RpcServer } from './oncrpc/rpc-server.ts';
import type { RouterAddresses } from './router-port.ts';
import type { NfsSettings } from './settings/settings.ts';

export interface ListeningPorts {
  readonly addresses: RouterAddresses;
  /** Takes the mappings out of a foreign port mapper. */
  close(): Promise<void>;
}

/** A running port mapper that is not ours. */
export interface ForeignPortMapper extends PortRegistry {
  close(): Promise<void>;
}

export async function listen(
  components: {
    server: RpcServer;
    nfs: NfsProgram;
    mount: MountProgram;
    clock: Clock;
    logger: Logger;
    connectForeign: (host: string) => Promise<ForeignPortMapper>;
  },
  settings: NfsSettings,
): Promise<ListeningPorts> {
  const { server, nfs, mount, logger } = components;
  const host = settings.listen;
  const nfsAddress = await listenTcp(server, host, settings.port, [nfs, mount], 'NFS');
  const mountAddress = settings.mountPort === null ? nfsAddress : await listenTcp(server, host, settings.mountPort, [mount], 'MOUNT');
  await server.listenUdp({ host, port: mountAddress.port, programs: settings.mountPort === null ? [nfs, mount] : [mount] });
  const mappings = mappingsFor(host, nfsAddress.port, mountAddress.port);
  const addresses = { listen: host, nfsPort: nfsAddress.port, mountPort: mountAddress.port };
  if (settings.portmap === 'off') return { addresses: { ...addresses, portmap: 'none' }, close: async () => undefined };

  const refused = await listenOwn(components, host, mappings);
  if (refused === null) return { addresses: { ...addresses, portmap: 'own' }, close: async () => undefined };
  const registered = await register(components.connectForeign, mappings);
  if (typeof registered !== 'string') return { addresses: { ...addresses, portmap: 'registered' }, close: registered };
  const message = `no port mapper: port ${PORTMAP_PORT} of ${host} cannot be had (${refused}), and no rpcbind takes a registration (${registered}); clients must name the ports (mount -o port=${addresses.nfsPort},mountport=${addresses.mountPort}); ESXi and qemu's nfs:// need the port mapper`;
  if (settings.portmap === 'required') throw new ApplianceError('portmap-unavailable', message);
  logger.warn({ port: PORTMAP_PORT }, message);
  return { addresses: { ...addresses, portmap: 'none' }, close: async () => undefined };
}

async function listenTcp(
  server: RpcServer,
  host: string,
  port: number,
  programs: readonly (NfsProgram | MountProgram)[],
  what: string,
): Promise<{ port: number }> {
  try {
    return await server.listenTcp({ host, port, programs });
  } catch (error) {
    const code = errorCode(error);
    const reason =
      code === 'EADDRINUSE' ? 'is in use' : code === 'EACCES' ? 'is not permitted to this user' : `cannot be used (${(error as Error).message})`;
    throw new ApplianceError(
      'port-unavailable',
      `port ${port} of ${host} for ${what} ${reason}; choose another with --nfs-port, --mount-port or --listen`,
      { cause: error },
    );
  }
}

function mappingsFor(host: string, nfsPort: number, mountPort: number): PortMapping[] {
  const netids = isIPv6(host) ? (['tcp6', 'udp6'] as const) : (['tcp', 'udp'] as const);
  const mappings: PortMapping[] = [];
  for (const netid of netids) {
    if (netid.startsWith('tcp') || nfsPort === mountPort) mappings.push({ program: NFS_PROGRAM, version: 3, netid, port: nfsPort });
    for (const version of [1, 3]) mappings.push({ program: MOUNT_PROGRAM, version, netid, port: mountPort });
  }
  return mappings;
}

/** Null when our own port mapper listens, else why not. */
async function listenOwn(
  components: { server: RpcServer; clock: Clock; logger: Logger },
  host: string,
  mappings: readonly PortMapping[],
): Promise<string | null> {
  const table = new PortTable();
  for (const mapping of mappings) table.set(mapping);
  const own = isIPv6(host) ? (['tcp6', 'udp6'] as const) : (['tcp', 'udp'] as const);
  for (const netid of own) for (const version of [2, 3, 4]) table.set({ program: PORTMAP_PROGRAM, version, netid, port: PORTMAP_PORT });
  const advertised = { advertisedAddress: isIPv6(host) ? '127.0.0.1' : host, advertisedAddress6: isIPv6(host) ? host : '::1' };
  const portmap = new PortmapProgram({ table, clock: components.clock }, advertised);
  try {
    await components.server.listenTcp({ host, port: PORTMAP_PORT, programs: [portmap] });
  } catch (error) {
    return errorCode(error) ?? (error as Error).message;
  }
  try {
    await components.server.listenUdp({ host, port: PORTMAP_PORT, programs: [portmap] });
  } catch (error) {
    components.logger.warn(
      { err: error },
      'the port mapper listens on TCP only: UDP port 111 cannot be had; ESXi uses TCP, showmount and old clients UDP',
    );
  }
  return null;
}

/** The function that takes the registration back, or why it could not be made. */
async function register(
  connect: (host: string) => Promise<ForeignPortMapper>,
  mappings: readonly PortMapping[],
): Promise<(() => Promise<void>) | string> {
  try {
    const mapper = await connect('127.0.0.1');
    for (const mapping of mappings) {
      await mapper.unset(mapping.program, mapping.version, mapping.netid);
      if (!(await mapper.set(mapping))) {
        await mapper.close();
        return `it refuses program ${mapping.program} version ${mapping.version}`;
      }
    }
    return async () => {
      try {
        for (const mapping of mappings) await mapper.unset(mapping.program, mapping.version, mapping.netid);
      } finally {
        await mapper.close();
      }
    };
  } catch (error) {
    return errorCode(error) ?? (error as Error).message;
  }
}
