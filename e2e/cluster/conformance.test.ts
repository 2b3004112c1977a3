/** The whole checklist of one router (nfs-servers.md 4.3, esxi.md 10) on two, each call through the other one than the call before it. */
import { fileSystemConformance } from '../../server/nfsd/file-system-conformance.ts';
import { scratchDirectory } from '../scratch.ts';
import { clientByTurns } from './client-by-turns.ts';
import { Cluster, thresholds } from './cluster.ts';

fileSystemConformance(
  'cluster, A and B by turns',
  async () => {
    const scratch = await scratchDirectory('cluster-conformance');
    const cluster = await Cluster.start({
      directory: scratch.path,
      portMapper: true,
      // Objects stay where they are: every other call is a forwarded one.
      cluster: thresholds(0),
      environment: { VFERRY_CLIENTS: '127.0.0.1' },
    });
    const [a, b] = cluster.pair;
    return {
      host: a.address,
      nfsPort: cluster.nfsPort,
      mountPort: cluster.nfsPort,
      portmap: { port: 111, udp: true },
      exportName: a.process.vpool,
      deniedAddress: '127.0.0.2',
      connect: async (options) => clientByTurns([await a.nfs(options), await b.nfs(options)]),
      async restart() {
        await Promise.all([a.process.stop(), b.process.stop()]);
        await cluster.startRouters();
      },
      async kill() {
        await Promise.all([a.process.kill(), b.process.kill()]);
        await cluster.startRouters();
      },
      async close() {
        await cluster[Symbol.asyncDispose]();
        await scratch[Symbol.asyncDispose]();
      },
    };
  },
  { durable: true, directoryEntries: 3000, regionBytes: 16 * 1024 * 1024 },
);
