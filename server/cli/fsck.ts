/** `vferry fsck`: runs the offline check and shows how far it is and what it found. */
import { unreachable } from '../core/assert.ts';
import { isEnvironmentError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { FsckDataDirectory, FsckEvent } from '../fsck-port.ts';
import type { Settings } from '../settings/settings.ts';
import { ExitCode } from './exit-code.ts';
import type { Printer } from './status.ts';

/** A progress line is at most this often. */
const PROGRESS_INTERVAL_MS = 1000;

/** Exit code 0: clean (warnings allowed); 1: damage; 2: it could not run. Findings and the summary go to `print.out`, progress to `print.err`. */
export async function runFsck(
  settings: Settings,
  fsck: FsckDataDirectory,
  logger: Logger,
  print: Printer,
  monotonicMs: () => number,
): Promise<ExitCode> {
  let phase: { name: string; total: number | null } = { name: 'starting', total: null };
  let lastProgressMs = monotonicMs();
  const onEvent = (event: FsckEvent): void => {
    switch (event.kind) {
      case 'phase':
        phase = event;
        lastProgressMs = monotonicMs();
        print.err(`${event.name}${event.total === null ? '' : ` (${event.total})`}\n`);
        return;
      case 'progress':
        if (monotonicMs() - lastProgressMs < PROGRESS_INTERVAL_MS) return;
        lastProgressMs = monotonicMs();
        print.err(`${phase.name}: ${event.done}${phase.total === null ? '' : ` of ${phase.total}`}\n`);
        return;
      case 'finding':
        print.out(`${event.severity === 'damage' ? 'DAMAGE' : 'warning'} ${event.where}: ${event.message}\n`);
        return;
      default:
        unreachable(event);
    }
  };
  try {
    const report = await fsck(settings, logger, onEvent);
    const checked = Object.entries(report.checked).map(([noun, count]) => `${count} ${noun}`);
    print.out(`checked ${checked.join(', ')}\n`);
    print.out(report.damages === 0 ? `clean, ${report.warnings} warnings\n` : `${report.damages} damages, ${report.warnings} warnings\n`);
    return report.damages === 0 ? ExitCode.OK : ExitCode.FAILED;
  } catch (error) {
    if (!isEnvironmentError(error)) throw error;
    print.err(`fsck cannot run: ${error.message}\n`);
    return ExitCode.USAGE;
  }
}
