/** `vferry vpool create` and `vferry backend test`: what they print and exit with. */
import type { ProbeReport } from '../../backends/probe/probe-report.ts';
import { probeText } from '../../backends/probe/probe-report.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import type { BackendSettings } from '../settings/backend-settings.ts';
import type { Settings } from '../settings/settings.ts';
import type { CreateVpool, ProbeOptions, TestBackend } from '../vpool-port.ts';
import { ExitCode } from './exit-code.ts';
import type { Printer } from './status.ts';

/** `--json`, `--quick`. */
export interface ProbeFlags {
  readonly json: boolean;
  readonly quick: boolean;
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** Exit code 0: made; 1: the backend is unfit, or the vPool exists; 2: it could not run. Progress goes to `print.err`. */
export async function runCreateVpool(settings: Settings, createVpool: CreateVpool, flags: ProbeFlags, print: Printer): Promise<ExitCode> {
  try {
    const created = await probing(flags, print, (options) => createVpool(settings, options));
    if (flags.json) print.out(`${JSON.stringify({ vpool: settings.vpool.name, ...created }, null, 2)}\n`);
    else
      print.out(
        `${probeText(created.report)}\nvPool ${settings.vpool.name} (${created.uuid}) is made on ${created.backend}; vferry serve serves it.\n`,
      );
    return ExitCode.OK;
  } catch (error) {
    if (!isEnvironmentError(error)) throw error;
    print.err(`${error.message}\n`);
    return ['backend-unfit', 'vpool-exists'].includes(errorCode(error) ?? '') ? ExitCode.FAILED : ExitCode.USAGE;
  }
}

/** Exit code 0: fit, perhaps with a weakness; 1: unfit; 2: it could not run. Progress goes to `print.err`. */
export async function runBackendTest(backend: BackendSettings, testBackend: TestBackend, flags: ProbeFlags, print: Printer): Promise<ExitCode> {
  let report: ProbeReport;
  try {
    report = await probing(flags, print, (options) => testBackend(backend, options));
  } catch (error) {
    if (!isEnvironmentError(error)) throw error;
    print.err(`${error.message}\n`);
    return ExitCode.USAGE;
  }
  print.out(flags.json ? `${JSON.stringify(report, null, 2)}\n` : probeText(report));
  return report.verdict === 'unfit' ? ExitCode.FAILED : ExitCode.OK;
}

/** The first SIGINT or SIGTERM ends the work so that it can clean up, the second the process. */
async function probing<T>(flags: ProbeFlags, print: Printer, work: (options: ProbeOptions) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const interrupt = (): void => controller.abort(new Error('interrupted'));
  for (const name of SIGNALS) process.once(name, interrupt);
  // Pauses do not keep a process alive (core/time.ts); here there may be nothing else.
  const timer = setInterval(() => undefined, 60_000);
  try {
    return await work({ effort: flags.quick ? 'quick' : 'full', progress: (text) => print.err(`${text}\n`), signal: controller.signal });
  } finally {
    clearInterval(timer);
    for (const name of SIGNALS) process.off(name, interrupt);
  }
}
