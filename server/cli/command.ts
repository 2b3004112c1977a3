/** The `vferry` command: what it understands, and which exit code means what (`exit-code.ts`). */
import { inspect } from 'node:util';

import { Command, CommanderError } from 'commander';

import type { ClusterCertificates } from '../cluster-ca-port.ts';
import type { FsckDataDirectory } from '../fsck-port.ts';
import type { StartRouter } from '../router-port.ts';
import { printSettings, printSettingsJson } from '../settings/print.ts';
import { SettingsError } from '../settings/settings-error.ts';
import type { CreateVpool, GenerateKey, TestBackend } from '../vpool-port.ts';
import { printBackendUsage } from './backend-usage.ts';
import { addCertificateCommands } from './certificate-commands.ts';
import { addClusterCommands } from './cluster-commands.ts';
import { ExitCode } from './exit-code.ts';
import { runFsck } from './fsck.ts';
import { createProcessLogger, drained } from './process-logger.ts';
import { addSettingsOptions, backendOf, settingsOf } from './settings-options.ts';
import { type Printer, printStatus } from './status.ts';
import { VERSION } from './version.ts';
import { type ProbeFlags, runBackendTest, runCreateVpool } from './vpool.ts';

export interface CommandComponents {
  readonly startRouter: StartRouter;
  readonly fsck: FsckDataDirectory;
  readonly createVpool: CreateVpool;
  readonly testBackend: TestBackend;
  readonly generateKey: GenerateKey;
  /** Loaded when it is needed. */
  readonly clusterCertificates: () => Promise<ClusterCertificates>;
}

const QUICK = 'measure with less: some seconds';

/** Runs the command with `args` (without node and script) and resolves with the exit code of the process. */
export async function runCommand(args: readonly string[], components: CommandComponents): Promise<ExitCode> {
  const print: Printer = {
    out: (text) => {
      process.stdout.write(text);
    },
    err: (text) => {
      process.stderr.write(text);
    },
  };
  let exitCode: ExitCode = ExitCode.OK;
  const run = (action: (command: Command) => ExitCode | Promise<ExitCode>) =>
    async function (this: Command): Promise<void> {
      exitCode = await action(this);
    };

  const program = new Command('vferry')
    .description('NFSv3 server appliance for VM datastores')
    .version(VERSION, '--version', 'show the version')
    .showHelpAfterError('(see --help)')
    .exitOverride();
  withSettings(program, 'serve', 'serve the datastore until SIGTERM or Ctrl-C').action(
    run(async (command) => {
      const { settings } = settingsOf(command, process.env);
      // Loaded here, so that `vferry version` does not wait for a web server.
      const { serve } = await import('./serve.ts');
      return await serve(settings, components.startRouter, process.stdout);
    }),
  );
  const config = program.command('config').description('check or show the settings');
  withSettings(config, 'check', 'say what is wrong with the settings; exit code 2 if anything is').action(
    run((command) => {
      settingsOf(command, process.env);
      print.out('The settings are valid.\n');
      return ExitCode.OK;
    }),
  );
  withSettings(config, 'print', 'show the effective settings and where each comes from')
    .option('--json', 'as JSON with exact numbers')
    .action(
      run((command) => {
        const { settings, origins } = settingsOf(command, process.env);
        print.out(command.getOptionValue('json') === true ? printSettingsJson(settings) : printSettings(settings, origins));
        return ExitCode.OK;
      }),
    );
  withSettings(program, 'status', 'ask a running router; exit code 0: ready, 1: not ready, 2: no answer')
    .option('--json', 'as JSON')
    .action(run((command) => printStatus(settingsOf(command, process.env).settings.admin, command.getOptionValue('json') === true, print)));
  withSettings(
    program,
    'fsck',
    'verify a data directory and its backend while no router runs; exit code 0: clean, 1: damage, 2: could not run',
  ).action(
    run((command) => {
      const { settings } = settingsOf(command, process.env);
      const logger = createProcessLogger(settings.logging, process.stderr);
      return runFsck(settings, components.fsck, logger, print, () => performance.now());
    }),
  );
  const vpool = program.command('vpool').description('make a datastore');
  withSettings(vpool, 'create', 'probe the backend and make the vPool on it, as serve does at its first start; exit code 1: unfit, or it exists')
    .option('--quick', QUICK)
    .option('--json', 'as JSON')
    .action(run((command) => runCreateVpool(settingsOf(command, process.env).settings, components.createVpool, probeFlags(command), print)));
  const backend = program.command('backend').description('try out a storage backend, or see what it is asked for');
  backend
    .command('test')
    .description('write, read, list, race and measure in a bucket of its own, and say whether a vPool can be there; exit code 1: unfit')
    .argument(
      '[url]',
      '/path, swift+https://keystone:5000/v3, swift+http://host:8080/auth/v1.0, s3+https://host:port/bucket or s3://bucket; default: that of the settings',
    )
    .option('--config <file>', 'settings file (YAML); also VFERRY_CONFIG')
    .option('--quick', QUICK)
    .option('--json', 'as JSON')
    .action(run((command) => runBackendTest(backendOf(command, process.env), components.testBackend, probeFlags(command), print)));
  withSettings(backend, 'usage', 'ask a running router for its requests to the backend, by volume, and what they cost')
    .option('--json', 'as JSON')
    .action(run((command) => printBackendUsage(settingsOf(command, process.env).settings.admin, command.getOptionValue('json') === true, print)));
  addCertificateCommands(program, run, print, components.clusterCertificates);
  addClusterCommands(program, run, print);
  program
    .command('key')
    .description('encryption keys')
    .command('generate')
    .description('print a new key, as a line for vpool.backend.keyFile')
    .action(
      run(async () => {
        print.out(`${await components.generateKey()}\n`);
        return ExitCode.OK;
      }),
    );
  program
    .command('version')
    .description('show the version')
    .action(() => print.out(`${VERSION}\n`));

  try {
    await program.parseAsync(args, { from: 'user' });
    // The caller exits the process, which would cut off what a pager or pipe has not taken yet.
    if (program.args[0] !== 'serve') await Promise.all([drained(process.stdout, Infinity), drained(process.stderr, Infinity)]);
    return exitCode;
  } catch (error) {
    if (error instanceof SettingsError) {
      print.err(`${error.problems.join('\n')}\n`);
      return ExitCode.USAGE;
    }
    // Help and version end this way too; commander has printed what there is to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.OK : ExitCode.USAGE;
    print.err(`This is a bug in vferry: ${inspect(error)}\n`);
    return ExitCode.INTERNAL;
  }
}

function probeFlags(command: Command): ProbeFlags {
  return { json: command.getOptionValue('json') === true, quick: command.getOptionValue('quick') === true };
}

function withSettings(parent: Command, name: string, description: string): Command {
  return addSettingsOptions(parent.command(name).description(description));
}
