/** `vferry vpool create` and `vferry backend test`: what they print and exit with. */
import type { ProbeReport } from '../../backends/probe/probe-report.ts';
import { probeText } from '../../backends/probe/probe-report.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import type { BackendSettings } from '../settings/backend-settings.ts';
import type { Settings } from '../settings/settings.ts';
import type { CreateVpool, TestBackend } from '../vpool-port.ts';
import { ExitCode } from './exit-code.ts';
import type { Printer } from './status.ts';

/** Exit code 0: made; 1: the backend is unfit, or the vPool exists; 2: it could not run. Progress goes to `print.err`. */
export async function runCreateVpool(settings: Settings, createVpool: CreateVpool, json: boolean, print: Printer): Promise<ExitCode> {
  try {
    const created = await keptAlive(() => createVpool(settings, (text) => print.err(`${text}\n`)));
    if (json) print.out(`${JSON.stringify({ vpool: settings.vpool.name, ...created }, null, 2)}\n`);
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
export async function runBackendTest(backend: BackendSettings, testBackend: TestBackend, json: boolean, print: Printer): Promise<ExitCode> {
  let report: ProbeReport;
  try {
    report = await keptAlive(() => testBackend(backend, (text) => print.err(`${text}\n`)));
  } catch (error) {
    if (!isEnvironmentError(error)) throw error;
    print.err(`${error.message}\n`);
    return ExitCode.USAGE;
  }
  print.out(json ? `${JSON.stringify(report, null, 2)}\n` : probeText(report));
  return report.verdict === 'unfit' ? ExitCode.FAILED : ExitCode.OK;
}

/** Pauses do not keep a process alive (core/time.ts); here there may be nothing else. */
async function keptAlive<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 60_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}
