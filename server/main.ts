/**
 * Entry of the `vferry` command and composition root: hands the command the parts it runs. They are loaded when a command needs them, so that
 * `vferry version` or `config check` do not wait for a server.
 */
import { runCommand } from './cli/command.ts';

const exitCode = await runCommand(process.argv.slice(2), {
  startRouter: async (settings, dependencies) => (await import('./router.ts')).startRouter(settings, dependencies),
  fsck: async (settings, logger, event) => (await import('./fsck.ts')).fsckDataDirectory(settings, logger, event),
});
// Nothing may keep a finished command alive: a socket or timer that somebody forgot must not turn a clean stop into a hang.
process.exit(exitCode);
