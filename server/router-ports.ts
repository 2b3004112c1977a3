/** Where the router listens: NFS and MOUNT on one port, MOUNT on its own if set, the port mapper on 111 where that is permitted. */
import { isIPv6 } from 'node:net';

import { ApplianceError, errorCode } from './core/errors.ts';
import type { Logger } from './core/logger.ts';
import type { Clock } from './core/time.ts';
import type { MountProgram } from './nfsd/mount-program.ts';
import type { NfsProgram } from './nfsd/nfs-program.ts';
import { NFS_PROGRAM } from './nfsd/nfs-wire.ts';
import type { PortMapping, PortRegistry } from './nfsd/port-registry.ts';
import { PortTable } from './nfsd/port-table.ts';
import { PORTMAP_PORT, PORTMAP_PROGRAM, PortmapProgram } from './nfsd/portmap-program.ts';
import { nfsMappings, registerAll, unregisterAll } from './nfsd/register-portmap.ts';
import type { RpcServer } from './oncrpc/rpc-server.ts';
import type { RouterAddresses } from './router-port.ts';
import type { NfsSettings } from './settings/settings.ts';

export interface ListeningPorts {
  readonly addresses: RouterAddresses;
  /** Takes the mappings out of a foreign port mapper. */
  close(): Promise<void>;
}

export async function listen(
  components: {
    server: RpcServer;
    nfs: NfsProgram;
    mount: MountProgram;
    clock: Clock;
    logger: Logger;
    /** The host's own port mapper, for when port 111 is not ours. */
    foreign: PortRegistry;
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
  const registered = await register(components.foreign, mappings);
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
  const mappings = nfsMappings({ nfsPort, mountPort }, isIPv6(host) ? ['tcp6', 'udp6'] : ['tcp', 'udp']);
  // With a MOUNT port of its own, NFS is on TCP only.
  return nfsPort === mountPort ? mappings : mappings.filter(({ program, netid }) => program !== NFS_PROGRAM || netid.startsWith('tcp'));
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

/** The function that takes the registration back, or why it could not be made. What somebody else has registered is left alone. */
async function register(foreign: PortRegistry, mappings: readonly PortMapping[]): Promise<(() => Promise<void>) | string> {
  try {
    const refused = await registerAll(foreign, mappings);
    const ours = mappings.filter((mapping) => !refused.includes(mapping));
    const first = refused[0];
    if (first !== undefined) {
      await unregisterAll(foreign, ours);
      return `program ${first.program} version ${first.version} on ${first.netid} is registered by somebody else`;
    }
    return () => unregisterAll(foreign, ours);
  } catch (error) {
    if (errorCode(error) === undefined) throw error;
    return (error as Error).message;
  }
}
