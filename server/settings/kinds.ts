/**
 * Kinds of values that a setting can have. Each takes what YAML gives (numbers, booleans, strings, lists) and what the environment and
 * flags give (strings), and says in words what is allowed. Nothing is guessed: `yes`, `1_000`, `4G` and `010` are refused, not interpreted.
 */
import { isIP, isIPv4 } from 'node:net';

/** `parse` answers undefined for what is not allowed; the message is then "must be `allowed`". */
export interface Kind<T> {
  readonly allowed: string;
  parse(value: unknown): T | undefined;
}

/** Decimal without sign, leading zeros, separators or exponent: the only spelling that everybody reads alike. */
const WHOLE_NUMBER = /^(0|[1-9]\d{0,15})$/;

function wholeNumber(value: unknown): number | undefined {
  const number = typeof value === 'string' && WHOLE_NUMBER.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isSafeInteger(number) ? number : undefined;
}

export function integer(min: number, max: number): Kind<number> {
  return {
    allowed: `a whole number from ${min} to ${max}`,
    parse(value) {
      const number = wholeNumber(value);
      return number !== undefined && number >= min && number <= max ? number : undefined;
    },
  };
}

/** A TCP port; 0 lets the system choose. */
export const port: Kind<number> = { ...integer(0, 65_535), allowed: 'a port from 0 (any free one) to 65535' };

export const boolean: Kind<boolean> = {
  allowed: 'true or false',
  parse: (value) => (value === true || value === 'true' ? true : value === false || value === 'false' ? false : undefined),
};

export function choice<const T extends readonly string[]>(...words: T): Kind<T[number]> {
  return {
    allowed: words.length === 1 ? `${words[0]} (nothing else exists yet)` : `one of ${words.join(', ')}`,
    parse: (value) => words.find((word) => word === value),
  };
}

/** One of few numbers. */
export function numberChoice<const T extends readonly number[]>(...numbers: T): Kind<T[number]> {
  return {
    allowed: `one of ${numbers.join(', ')}`,
    parse(value) {
      const number = wholeNumber(value);
      return numbers.find((candidate) => candidate === number);
    },
  };
}

const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, PiB: 2 ** 50 };

/** Bytes: a whole number, or a number with a binary unit. Decimal units and bare `G` mean different things to different people: refused. */
export function size(minBytes: number, maxBytes: number): Kind<number> {
  return {
    allowed: `a size from ${formatSize(minBytes)} to ${formatSize(maxBytes)}: bytes, or a number with B, KiB, MiB, GiB, TiB or PiB such as 4GiB`,
    parse: (value) => within(parseUnits(value, SIZE_UNITS), minBytes, maxBytes),
  };
}

const TIME_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds: a whole number, or a number with a unit. */
export function duration(minMs: number, maxMs: number): Kind<number> {
  return {
    allowed: `a time from ${formatDuration(minMs)} to ${formatDuration(maxMs)}: milliseconds, or a number with ms, s, m, h or d such as 24h`,
    parse: (value) => within(parseUnits(value, TIME_UNITS), minMs, maxMs),
  };
}

function parseUnits(value: unknown, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof value !== 'string' || WHOLE_NUMBER.test(value)) return wholeNumber(value);
  const match = /^((?:0|[1-9]\d{0,15})(?:\.\d{1,6})?) ?([A-Za-z]+)$/.exec(value);
  const unit = match?.[2] === undefined || !Object.hasOwn(units, match[2]) ? undefined : units[match[2]];
  return unit === undefined ? undefined : wholeNumber(Number(match?.[1]) * unit);
}

function within(number: number | undefined, min: number, max: number): number | undefined {
  return number !== undefined && number >= min && number <= max ? number : undefined;
}

/** `4GiB`, `1.5MiB`, `4097`: exact, so that it reads back as the same number. */
export function formatSize(bytes: number): string {
  return withUnit(bytes, SIZE_UNITS, 'B');
}

/** `24h`, `1500ms`: exact. */
export function formatDuration(durationMs: number): string {
  return withUnit(durationMs, TIME_UNITS, 'ms');
}

function withUnit(number: number, units: Readonly<Record<string, number>>, smallest: string): string {
  let best = smallest;
  for (const [unit, factor] of Object.entries(units)) if (number >= factor && number % factor === 0) best = unit;
  return `${number / (units[best] ?? 1)}${best}`;
}

/** Something, or the word `auto` (null): a value that is found out at run time. */
export function orAuto<T>(kind: Kind<T>): Kind<T | null> {
  return { allowed: `auto, or ${kind.allowed}`, parse: (value) => (value === 'auto' ? null : kind.parse(value)) };
}

export const ipAddress: Kind<string> = {
  allowed: 'an IP address such as 127.0.0.1, 0.0.0.0 or ::1 (no host name)',
  parse: (value) => (typeof value === 'string' && isIP(value) !== 0 ? value : undefined),
};

/** Answers in the form address/prefix. */
export const network: Kind<string> = {
  allowed: 'networks in CIDR notation such as 192.168.10.0/24, or single IP addresses',
  parse(value) {
    if (typeof value !== 'string') return undefined;
    const [address = '', prefix, ...rest] = value.split('/');
    const version = isIP(address);
    if (version === 0 || rest.length > 0) return undefined;
    const prefixMax = version === 4 ? 32 : 128;
    const bits = prefix === undefined ? prefixMax : WHOLE_NUMBER.test(prefix) ? Number(prefix) : -1;
    return bits >= 0 && bits <= prefixMax ? `${address}/${bits}` : undefined;
  },
};

/** A directory name; made absolute when the settings are resolved. */
export const path: Kind<string> = {
  allowed: 'a directory path',
  parse: (value) => (typeof value === 'string' && value !== '' && !value.includes('\0') && value.length <= 4096 ? value : undefined),
};

/** A file name; made absolute when the settings are resolved. */
export const filePath: Kind<string> = { ...path, allowed: 'a file path' };

/** Text in one line. A number is refused: nobody knows how it was written before YAML read it. */
export function text(charactersMax: number): Kind<string> {
  return {
    allowed: `text of at most ${charactersMax} characters, in quotes if it looks like something else to YAML`,
    // oxlint-disable-next-line no-control-regex -- control characters are what is refused
    parse: (value) => (typeof value === 'string' && value.length <= charactersMax && /^\P{Cc}+$/u.test(value) ? value : undefined),
  };
}

/** Text that may have several lines. */
export function secretText(charactersMax: number): Kind<string> {
  return {
    allowed: `text of at most ${charactersMax} characters, in quotes if it looks like something else to YAML`,
    parse: (value) => (typeof value === 'string' && value !== '' && value.length <= charactersMax && !value.includes('\0') ? value : undefined),
  };
}

/** No credentials in it: they would be in logs and in `config print`. */
export const httpUrl: Kind<string> = {
  allowed: 'a URL that begins with http:// or https://, without user, password, query and fragment',
  parse(value) {
    if (typeof value !== 'string' || value.length > 2048 || !/^https?:\/\/[^\s]+$/.test(value)) return undefined;
    const url = URL.parse(value);
    return url === null || url.username !== '' || url.password !== '' || /[?#]/.test(value) ? undefined : value;
  },
};

/** No credentials in it, for the same reason; no database number: a vPool's keys have its name. */
export const redisUrl: Kind<string> = {
  allowed: 'URLs redis://host:port or rediss://host:port (TLS), without user, password and path',
  parse: (value) =>
    typeof value === 'string' && /^rediss?:\/\//.test(value) && hostAndPort.parse(value.replace(/^rediss?:\/\//, '')) !== undefined
      ? value
      : undefined,
};

/** A host name or IP address (IPv6 in brackets) and a port. */
export const hostAndPort: Kind<string> = {
  allowed: 'host:port, such as 192.168.10.5:2050 or [fd00::5]:2050',
  parse(value) {
    const match =
      typeof value === 'string' && value.length <= 300
        ? /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)):([1-9]\d{0,4})$/.exec(value)
        : null;
    if (match === null || Number(match[3]) > 65_535) return undefined;
    return match[1] === undefined || isIP(match[1]) === 6 ? (value as string) : undefined;
  },
};

/** What S3 allows, and Swift too. */
export const bucketName: Kind<string> = {
  allowed: 'a bucket name of 3 to 63 lower-case letters, digits, "." and "-" that begins and ends with a letter or digit',
  parse: (value) => (typeof value === 'string' && /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(value) && !value.includes('..') ? value : undefined),
};

/** An amount of money. */
export const price: Kind<number> = {
  allowed: 'a number from 0 to 1000000 with at most 6 decimals, such as 0.005',
  parse(value) {
    const number = typeof value === 'string' && /^(0|[1-9]\d{0,6})(\.\d{1,6})?$/.test(value) ? Number(value) : value;
    return typeof number === 'number' && number >= 0 && number <= 1_000_000 && Number(number.toFixed(6)) === number ? number : undefined;
  },
};

/** One component of an export path, safe in file names, URLs, Redis keys and metrics labels. */
export const poolName: Kind<string> = {
  allowed: 'a name of 1 to 63 letters, digits, ".", "_" and "-" that begins with a letter or digit',
  parse: (value) => (typeof value === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(value) ? value : undefined),
};

export const globPattern: Kind<string> = {
  allowed: 'file name patterns of at most 255 characters, with * and ? as wildcards and without "/"',
  parse: (value) => (typeof value === 'string' && /^[^/\0]{1,255}$/u.test(value) ? value : undefined),
};

/** A YAML list, or text with commas between the items. */
export function list<T>(item: Kind<T>, countMin: number, countMax: number): Kind<readonly T[]> {
  return {
    allowed: `a list of ${countMin} to ${countMax}: ${item.allowed}`,
    parse(value) {
      const items: unknown[] | undefined =
        typeof value === 'string' ? value.split(',').map((part) => part.trim()) : Array.isArray(value) ? value : undefined;
      if (items === undefined || items.length < countMin || items.length > countMax) return undefined;
      const parsed: T[] = [];
      for (const raw of items) {
        const one = item.parse(raw);
        if (one === undefined) return undefined;
        parsed.push(one);
      }
      return parsed;
    },
  };
}

/** True for addresses that only this machine can reach. */
export function isLoopback(address: string): boolean {
  return isIPv4(address) ? address.startsWith('127.') : address === '::1';
}
