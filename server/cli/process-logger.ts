/**
 * pino behind the Logger port, for the whole process. Writing never waits: Node's standard output is non-blocking for pipes, and what a
 * slow log reader leaves standing is bounded. A reader that stalls costs log lines, never I/O of a VM and never a shutdown.
 */
import { writeSync } from 'node:fs';

import pino from 'pino';

import { errorCode } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { LoggingSettings } from '../settings/settings.ts';
import { humanLogLine } from './human-log.ts';

/** Log text that waits for a slow reader; above it lines are dropped and counted. */
const WAITING_BYTES_MAX = 4 * 1024 * 1024;
/** How long the last words may wait for a slow reader. */
const LAST_WORDS_MS_MAX = 1000;

export interface ProcessLogger extends Logger {
  /** The last words before an exit: tries hard to get them out before it returns, for at most a second. */
  fatal(fields: object, message: string): void;
  /** Lines lost to a reader that did not keep up. */
  readonly linesDropped: number;
  readonly isHuman: boolean;
}

/** Standard output or standard error. */
export type LogOutput = NodeJS.WriteStream & { readonly fd: number };

/** Logs to `output`. */
export function createProcessLogger(settings: LoggingSettings, output: LogOutput): ProcessLogger {
  const isHuman = settings.format === 'human' || (settings.format === 'auto' && output.isTTY);
  const colours = output.isTTY && process.env['NO_COLOR'] === undefined;
  let linesDropped = 0;
  let lastWords = false;
  // Whoever read the log is gone (`vferry serve | head`): go on without.
  output.on('error', () => undefined);
  const write = (json: string): void => {
    const text = isHuman ? humanLogLine(json, colours) : json;
    if (output.writableLength === 0) output.write(text);
    else if (lastWords) writePast(output.fd, text);
    else if (output.writableLength < WAITING_BYTES_MAX) output.write(text);
    else linesDropped += 1;
  };
  const logger = pino(
    {
      level: settings.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write },
  );
  return {
    ...wrap(logger),
    fatal(fields, message) {
      lastWords = true;
      logger.fatal(fields, message);
      lastWords = false;
    },
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

/** Writes ahead of what waits in the stream, on a line of its own: the process ends before that could go out. */
function writePast(fd: number, text: string): void {
  const giveUpMs = performance.now() + LAST_WORDS_MS_MAX;
  const sleep = new Int32Array(new SharedArrayBuffer(4));
  let rest = Buffer.from(`\n${text}`);
  while (rest.byteLength > 0 && performance.now() < giveUpMs) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if (errorCode(error) !== 'EAGAIN') return;
      Atomics.wait(sleep, 0, 0, 10);
    }
  }
}

/** Resolves when all that was written to `output` is handed over, when nobody reads it any more, or after `waitMsMax`. */
export async function drained(output: NodeJS.WriteStream, waitMsMax: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  output.write('', () => resolve());
  const timer = Number.isFinite(waitMsMax) ? setTimeout(resolve, waitMsMax) : undefined;
  await promise;
  clearTimeout(timer);
}
