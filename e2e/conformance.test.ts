/** The whole checklist of nfsd (nfs-servers.md 4.3, esxi.md 10) against a router with its registry, drivers and disk under it. */
import { fileSystemConformance } from '../server/nfsd/file-system-conformance.ts';
import { RouterProcess } from './router-process.ts';
import { scratchDirectory } from './scratch.ts';

/** An address of its own, so that port 111 is free there whatever this machine runs. */
const LISTEN = '127.0.64.1';

fileSystemConformance(
  'router',
  async () => {
    const scratch = await scratchDirectory('conformance');
    const router = await RouterProcess.create({
      dataDirectory: scratch.path,
      listen: LISTEN,
      portMapper: true,
      environment: { VFERRY_NFS_PORTMAP: 'required', VFERRY_CLIENTS: '127.0.0.1' },
    });
    await router.start();
    return {
      host: LISTEN,
      nfsPort: router.nfsPort,
      mountPort: router.nfsPort,
      portmap: { port: 111, udp: true },
      exportName: router.vpool,
      deniedAddress: '127.0.0.2',
      async restart() {
        await router.stop();
        await router.start();
      },
      async kill() {
        await router.kill();
        await router.start();
      },
      async close() {
        await router[Symbol.asyncDispose]();
        await scratch[Symbol.asyncDispose]();
      },
    };
  },
  { durable: true, directoryEntries: 20_000, regionBytes: 64 * 1024 * 1024 },
);
