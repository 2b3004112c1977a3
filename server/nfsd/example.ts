/** An in-memory NFS server: `node server/nfsd/example.ts 2049`, then `nfs-ls "nfs://127.0.0.1/export?nfsport=2049&mountport=2049&version=3"`. */
import { silentLogger as logger } from '../core/logger.ts';
import { systemClock as clock, systemRandom as random } from '../core/node-time.ts';
import { RpcServer } from '../oncrpc/rpc-server.ts';
import { openExport } from './export-rules.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import { MountProgram } from './mount-program.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfs-program.ts';

const fileSystem = new MemoryFileSystem({ clock, random }, { exportName: 'export', capacityBytes: 1024 ** 3 });
const access = openExport('export', ['127.0.0.0/8']);
const nfs = new NfsProgram({ fileSystem, access, clock, logger, observer: null }, { ...DEFAULT_NFS_SETTINGS, exportName: 'export' });
const server = new RpcServer({ clock, logger });
const programs = [nfs, new MountProgram({ fileSystem, access, logger })];
const address = await server.listenTcp({ host: '127.0.0.1', port: Number(process.argv[2] ?? 2049), programs });
console.log(`serving nfs://127.0.0.1/export?nfsport=${address.port}&mountport=${address.port}&version=3`);
