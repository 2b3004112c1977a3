/** Log lines for a terminal: `12:34:56.789 WARN  message  key=value`. Input is what pino writes; text from clients cannot forge lines or escapes. */
import { stripVTControlCharacters } from 'node:util';

const COLOURS: Readonly<Record<string, string>> = {
  debug: '\u001B[2m',
  info: '\u001B[32m',
  warn: '\u001B[33m',
  error: '\u001B[31m',
  fatal: '\u001B[41m',
};
const RESET = '\u001B[0m';

/** One JSON log line as text with a line end. What is no JSON object is shown as it is. */
export function humanLogLine(json: string, colours: boolean): string {
  let record: Record<string, unknown>;
  try {
    record = JSON.parse(json) as Record<string, unknown>;
  } catch {
    return json;
  }
  const { level, time, msg, err, ...fields } = record;
  const name = String(level);
  const label = name.toUpperCase().padEnd(5);
  const head = `${String(time).slice(11, 23)} ${colours ? `${COLOURS[name] ?? ''}${label}${RESET}` : label} ${clean(String(msg))}`;
  const tail = Object.entries(fields).map(([key, value]) => `${key}=${plain(value)}`);
  const text = tail.length === 0 ? head : `${head}  ${tail.join(' ')}`;
  return `${text}\n${err === undefined ? '' : errorText(err)}`;
}

/** Words are bare, everything else is JSON, which escapes control characters but those from 128 up. */
function plain(value: unknown): string {
  return typeof value === 'string' && /^[\w./:@%+-]+$/.test(value) ? value : clean(JSON.stringify(value));
}

function errorText(error: unknown): string {
  const stack = typeof error === 'object' && error !== null && 'stack' in error ? String(error.stack) : JSON.stringify(error);
  return `${stack
    .split('\n')
    .map((line) => `    ${clean(line)}`)
    .join('\n')}\n`;
}

function clean(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are what is taken out
  return stripVTControlCharacters(text).replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, '?');
}
