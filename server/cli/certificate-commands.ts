/** `vferry cluster`: making, handing out and renewing the certificates by which routers know each other. */
import { type Command, InvalidArgumentError } from 'commander';

import type { CertificateReport, ClusterCertificates } from '../cluster-ca-port.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import { duration, hostAndPort, integer, ipAddress, port as portKind } from '../settings/kinds.ts';
import type { LoadedSettings } from '../settings/load.ts';
import { printSharedSettings } from '../settings/print.ts';
import type { RunAction } from './cluster-commands.ts';
import { ExitCode } from './exit-code.ts';
import { addSettingsOptions, settingsOf } from './settings-options.ts';
import type { Printer } from './status.ts';

/** Beside the default of `cluster.port`. */
const JOIN_PORT = 2051;
const VALID = '15m';
const DAY_MS = 24 * 3600 * 1000;
const USES_MAX = 100;
const TOKEN_CHARACTERS_MAX = 4096;

/** Refusals: what was asked for cannot be. Everything else could not run. */
const NO = new Set(['cluster-exists', 'other-cluster', 'join-refused', 'join-untrusted', 'no-such-router', 'certificate-expired']);

/** Adds the commands to `program`. `load` gives the certificates' part when one of them runs. */
export function addCertificateCommands(program: Command, run: RunAction, print: Printer, load: () => Promise<ClusterCertificates>): void {
  const cluster = program.command('cluster').description('certificates by which the routers of a cluster know each other');
  const add = (
    name: string,
    description: string,
    action: (certificates: ClusterCertificates, loaded: LoadedSettings, command: Command) => Promise<ExitCode>,
  ): Command =>
    addSettingsOptions(cluster.command(name).description(description)).action(
      run(async (command) => {
        const loaded = settingsOf(command, process.env);
        try {
          return await action(await load(), loaded, command);
        } catch (error) {
          if (!isEnvironmentError(error)) throw error;
          print.err(`${error.message}\n`);
          return NO.has(errorCode(error) ?? '') ? ExitCode.FAILED : ExitCode.USAGE;
        }
      }),
    );
  const reported = (report: CertificateReport): ExitCode => {
    print.out(reportText(report));
    return ExitCode.OK;
  };

  add('init', "make the cluster's certificate authority and this router's certificate", async (certificates, { settings }) => {
    const report = await certificates.init(settings);
    print.out(`${reportText(report)}\nThe authority's key stays in this directory: keep a copy of it in a safe place.\n`);
    print.out('For each other host: vferry cluster token here, vferry cluster join TOKEN there.\n');
    return ExitCode.OK;
  });
  add('token', 'let another host join: prints a token and waits until it was used (on the host of the authority)', (certificates, loaded, command) =>
    offer(certificates, loaded, command, print),
  )
    .option('--join-listen <address>', 'IP address to wait on; default: cluster.listen', parsedBy(ipAddress))
    .option('--join-port <port>', `port to wait on; default ${JOIN_PORT}`, parsedBy(portKind))
    .option('--address <host:port>', 'what the other host connects to, if that is another address', parsedBy(hostAndPort))
    .option('--valid <time>', `how long the token is good, default ${VALID}`, parsedBy(duration(1000, 7 * DAY_MS)))
    .option('--uses <count>', 'how many hosts may join with it, default 1', parsedBy(integer(1, USES_MAX)));
  add(
    'join',
    "get this router's certificate with a token; prints the settings that the cluster shares. Again: renews it",
    async (certificates, { settings }, command) => {
      const token = command.args.join('');
      const { report, sharedSettings } = await certificates.join(settings, token === '' || token === '-' ? await standardInput() : token);
      print.err(`${reportText(report)}\nSettings for this host: complete its addresses, and the files and secrets that are named:\n\n`);
      print.out(`data: ${JSON.stringify(settings.data)}\n${sharedSettings}`);
      return ExitCode.OK;
    },
  ).argument('[token...]', 'from vferry cluster token on the other host; without it, or -: from standard input');
  add(
    'renew',
    "a new certificate for this router, on the authority's host (elsewhere: join again). A running router takes it at its next start",
    async (certificates, { settings }) => reported(await certificates.renew(settings)),
  );
  add('revoke', "certificates of a router are not valid any more (on the authority's host)", async (certificates, { settings }, command) => {
    const { router, certificates: count, list } = await certificates.revoke(settings, command.args[0] ?? '');
    print.out(
      `${count === 0 ? 'All certificates' : `${count} certificate${count === 1 ? '' : 's'}`} of router ${router} ${count === 0 ? 'were revoked already' : 'revoked'}.\n` +
        `Copy ${list} to the certificate directory of every other router and restart it (drain first): until then it accepts that router.\n`,
    );
    return ExitCode.OK;
  }).argument('<router>', 'id of a router, or its beginning');
  add('show', "this router's certificate: until when, of which authority", async (certificates, { settings }) =>
    reported(await certificates.show(settings)),
  );
}

async function offer(certificates: ClusterCertificates, { settings, origins }: LoadedSettings, command: Command, print: Printer): Promise<ExitCode> {
  if (settings.registry.kind !== 'redis') {
    print.err('This router has no registry that others can share: set registry.kind: redis and registry.redis.urls first.\n');
    return ExitCode.USAGE;
  }
  const value = (name: string): string | null => {
    const given: unknown = command.getOptionValue(name);
    return typeof given === 'string' ? given : null;
  };
  const controller = new AbortController();
  const interrupt = (): void => controller.abort();
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const name of signals) process.once(name, interrupt);
  const { cluster } = settings;
  const host = value('joinListen') ?? cluster.listen;
  const port = Number(value('joinPort') ?? JOIN_PORT);
  const uses = Number(value('uses') ?? 1);
  try {
    const joined = await certificates.offer(settings, {
      listen: { host, port },
      address: value('address') ?? advertised(host, cluster.advertise, port),
      validMs: duration(1000, 7 * DAY_MS).parse(value('valid') ?? VALID) ?? 0,
      uses,
      sharedSettings: printSharedSettings(settings, origins),
      signal: controller.signal,
      offered(token, address, endsAt) {
        print.err(
          `Waiting at ${address} until ${endsAt} for ${uses === 1 ? 'a router' : `${uses} routers`} to join. On the other host:\n\n  vferry cluster join `,
        );
        print.out(`${token}\n`);
        print.err('\nWhoever has this token can become a router of this cluster. Ctrl-C takes it back.\n');
      },
      joined: (router, address, again) => print.err(`Router ${router} at ${address} has ${again ? 'a new certificate' : 'joined'}.\n`),
      refused: (address, reason) => print.err(`Refused ${address}: ${reason}\n`),
    });
    if (joined === uses) return ExitCode.OK;
    print.err(`${joined === 0 ? 'Nobody' : `Only ${joined}`} joined; the token is not good any more.\n`);
    return ExitCode.FAILED;
  } finally {
    for (const name of signals) process.off(name, interrupt);
  }
}

/** Where a wildcard address is reached: at the host that peers are told. */
function advertised(listen: string, advertise: string | null, port: number): string | null {
  if ((listen !== '0.0.0.0' && listen !== '::') || advertise === null) return null;
  return `${advertise.slice(0, advertise.lastIndexOf(':'))}:${port}`;
}

function reportText(report: CertificateReport): string {
  const rows = [
    ['router', report.router],
    ['certificate', `in ${report.directory}, until ${report.endsAt}`],
    ['authority', `SHA-256 ${report.authority}${report.canSign ? ', key in the same directory' : ''}`],
  ];
  return rows.map(([name = '', text = '']) => `${name.padEnd(13)}${text}\n`).join('');
}

/** The text as it is, checked. */
function parsedBy(kind: { readonly allowed: string; parse(value: unknown): unknown }): (text: string) => string {
  return (text) => {
    if (kind.parse(text) === undefined) throw new InvalidArgumentError(`It must be ${kind.allowed}.`);
    return text;
  };
}

/** Where others on this machine do not see it, as they do arguments. A line, or to the end. */
async function standardInput(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin) {
    text += String(chunk);
    if (text.includes('\n') || text.length > TOKEN_CHARACTERS_MAX) break;
  }
  return text;
}
