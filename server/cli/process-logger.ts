/**
 * pino behind the Logger port, for the whole process. JSON goes to standard output by an asynchronous, bounded writer: a log reader that
 * stalls costs log lines, never I/O of a VM. On a terminal lines are made readable and written at once.
 */
import pino from 'pino';

import type { Logger } from '../core/logger.ts';
import type { LoggingSettings } from '../settings/settings.ts';
import { humanLogLine } from './human-log.ts';

/** Log text that waits for a slow reader; above it lines are dropped and counted. */
const WAITING_BYTES_MAX = 4 * 1024 * 1024;

export interface ProcessLogger extends Logger {
  /** The last words before an exit: writes everything out before it returns. */
  fatal(fields: object, message: string): void;
  /** Writes out what waits. */
  flush(): void;
  /** Lines lost to a reader that did not keep up. */
  readonly linesDropped: number;
  readonly isHuman: boolean;
}

/** Standard output or standard error. */
export type LogOutput = NodeJS.WriteStream & { readonly fd: number };

/** Logs to `output`. */
export function createProcessLogger(settings: LoggingSettings, output: LogOutput): ProcessLogger {
  const terminal = output.isTTY;
  const isHuman = settings.format === 'human' || (settings.format === 'auto' && terminal);
  const colours = terminal && process.env['NO_COLOR'] === undefined;
  let linesDropped = 0;
  let destination: pino.DestinationStream & { flushSync(): void };
  if (isHuman) {
    // Whoever read the log is gone (`vferry serve | head`): go on without.
    output.on('error', () => undefined);
    destination = {
      write: (line) => {
        output.write(humanLogLine(line, colours));
      },
      flushSync() {},
    };
  } else {
    const stream = pino.destination({ dest: output.fd, sync: false, maxLength: WAITING_BYTES_MAX });
    stream.on('drop', () => {
      linesDropped += 1;
    });
    destination = stream;
  }
  const logger = pino(
    {
      level: settings.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  const flush = (): void => destination.flushSync();
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
    fatal(fields, message) {
      logger.fatal(fields, message);
      flush();
    },
    flush,
    get linesDropped() {
      return linesDropped;
    },
    isHuman,
  };
}

function wrap(logger: pino.Logger): Logger {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
  };
}
