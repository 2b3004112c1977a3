/**
 * Entry of the `vferry` command and composition root: hands the command the parts it runs. They are loaded when a command needs them, so that
 * `vferry version` or `config check` do not wait for a server.
 */
import v8 from 'node:v8';

import { runCommand } from './cli/command.ts';
import { stuckThreads } from './stuck-threads.ts';

// By default V8 collects everything whenever 64 MB of Buffers came into being, 16 times a second under sequential writes. With this flag they count like
// other memory: 2 to 4 collections a second, half the CPU (docs/PERFORMANCE.md), still bounded.
v8.setFlagsFromString('--external-memory-accounted-in-global-limit');
// Registry and segments hold what is in the guests' files: nobody else on this machine may read them.
process.umask(0o077);
const exitCode = await runCommand(process.argv.slice(2), {
  startRouter: async (settings, dependencies) => (await import('./router.ts')).startRouter(settings, dependencies),
  createVpool: async (settings, options) => (await import('./vpool.ts')).createVpool(settings, options),
  testBackend: async (backend, options) => (await import('./vpool.ts')).testBackend(backend, options),
  generateKey: async () => (await import('./vpool.ts')).generateKey(),
  clusterCertificates: async () => (await import('./cluster-certificates.ts')).clusterCertificates,
  fsck: async (settings, logger, event) => (await import('./fsck.ts')).fsckDataDirectory(settings, logger, event),
});
// Nothing may keep a finished command alive: a socket or timer that somebody forgot must not turn a clean stop into a hang.
// A thread that hangs in a system call cannot be ended by process.exit; the process image can still be replaced by one that exits.
if (stuckThreads.count > 0) process.execve?.('/bin/sh', ['sh', '-c', `exit ${exitCode}`], {});
process.exit(exitCode);
