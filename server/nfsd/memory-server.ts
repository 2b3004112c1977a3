/** The in-memory file system behind real sockets: what protocol tests of nfsd, its client and the conformance suite talk to. */
import { silentLogger } from '../core/logger.ts';
import type { Logger } from '../core/logger.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import { RpcServer } from '../oncrpc/rpc-server.ts';
import type { ServerUnderTest } from './conformance/server-under-test.ts';
import type { ExportAccess } from './export-access.ts';
import { openExport } from './export-rules.ts';
import type { FileSystem } from './file-system.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import { MOUNT_PROGRAM, MountProgram } from './mount-program.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfs-program.ts';
import type { NfsProgramSettings } from './nfs-program.ts';
import { NFS_PROGRAM } from './nfs-wire.ts';
import type { NfsObserver } from './observer.ts';
import { PortTable } from './port-table.ts';
import { PORTMAP_PROGRAM, PortmapProgram } from './portmap-program.ts';

export interface MemoryServerOptions {
  readonly fileSystem?: FileSystem;
  readonly access?: ExportAccess;
  readonly observer?: NfsObserver;
  readonly logger?: Logger;
  readonly settings?: Partial<NfsProgramSettings>;
  readonly capacityBytes?: number;
}

/** Serves `/export` to 127.0.0.1 on free ports: NFS and MOUNT on one, the port mapper on another. */
export async function openMemoryServer(options: MemoryServerOptions = {}): Promise<ServerUnderTest & { readonly table: PortTable }> {
  const logger = options.logger ?? silentLogger;
  const clock = systemClock;
  const capacityBytes = options.capacityBytes ?? 4 * 1024 ** 3;
  const fileSystem = options.fileSystem ?? new MemoryFileSystem({ clock, random: systemRandom }, { exportName: 'export', capacityBytes });
  const access = options.access ?? openExport('export', ['127.0.0.1']);
  const nfs = new NfsProgram(
    { fileSystem, access, clock, logger, observer: options.observer ?? null },
    { ...DEFAULT_NFS_SETTINGS, exportName: 'export', ...options.settings },
  );
  const table = new PortTable();
  const portmap = new PortmapProgram({ table, clock }, { advertisedAddress: '127.0.0.1', advertisedAddress6: '::1' });
  const server = new RpcServer({ clock, logger });
  const host = '127.0.0.1';
  const { port } = await server.listenTcp({ host, port: 0, programs: [nfs, new MountProgram({ fileSystem, access, logger })] });
  const mapper = await server.listenTcp({ host, port: 0, programs: [portmap] });
  await server.listenUdp({ host, port: mapper.port, programs: [portmap] });
  for (const version of [2, 3, 4]) table.set({ program: PORTMAP_PROGRAM, version, netid: 'tcp', port: mapper.port });
  table.set({ program: NFS_PROGRAM, version: 3, netid: 'tcp', port });
  for (const version of [1, 3]) table.set({ program: MOUNT_PROGRAM, version, netid: 'tcp', port });
  return {
    host,
    nfsPort: port,
    mountPort: port,
    portmap: { port: mapper.port, udp: true },
    exportName: 'export',
    deniedAddress: '127.0.0.2',
    restart: null,
    kill: null,
    table,
    close: () => server.close(1000),
  };
}
