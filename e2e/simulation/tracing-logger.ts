/** What simulated routers log, as lines of the trace. */
import type { Logger } from '../../server/core/logger.ts';

export function tracingLogger(router: string, trace: (line: string) => void): Logger {
  const log =
    (level: string) =>
    (fields: object, message: string): void => {
      const rest = Object.entries(fields).map(([name, value]) => {
        const { code } = value instanceof Error && 'code' in value ? value : { code: '' };
        return `${name}=${value instanceof Error ? `${String(code)} ${value.message}` : String(value)}`;
      });
      trace(`  ${router} ${level} ${message}${rest.length > 0 ? ` [${rest.join(', ')}]` : ''}`);
    };
  const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error'), child: () => logger };
  return logger;
}
