/** What one setting is made of: kind, default, description, flag. */
import { z } from 'zod';

import type { Kind } from './kinds.ts';

interface Flag {
  /** As commander wants it: `--nfs-port <port>`. */
  readonly flag?: string;
  /** Never shown by `config print`, messages or logs. */
  readonly secret?: boolean;
}

/** One setting. `fallback`: its default as a person would write it, or undefined when `resolve.ts` finds it (`fallbackText` says how). */
export interface Setting<T> extends Flag {
  readonly kind: Kind<T>;
  readonly description: string;
  readonly fallback: unknown;
  readonly fallbackText: string;
  readonly type: z.ZodType<T>;
}

function zodType<T>(kind: Kind<T>): z.ZodType<T> {
  return z.unknown().transform((value, context) => {
    const parsed = kind.parse(value);
    if (parsed !== undefined) return parsed;
    context.addIssue({ code: 'custom', message: kind.allowed, input: value });
    return z.NEVER;
  });
}

export function setting<T>(kind: Kind<T>, fallback: string | number | boolean | readonly string[], description: string, flag: Flag = {}): Setting<T> {
  const fallbackText = Array.isArray(fallback) ? fallback.join(', ') : String(fallback);
  return { kind, description, fallback, fallbackText, type: zodType(kind).prefault(fallback), ...flag };
}

/** A setting whose default depends on something else, or that has none. */
export function computed<T>(kind: Kind<T>, fallbackText: string, description: string, flag: Flag = {}): Setting<T | undefined> {
  return { kind, description, fallback: undefined, fallbackText, type: zodType(kind).optional(), ...flag };
}

type Shape<R extends Record<string, Setting<unknown>>> = { [K in keyof R]: R[K]['type'] };

/** Schema of a section of the file: its settings, and the sections in it. */
export function section<R extends Record<string, Setting<unknown>>, N extends z.ZodRawShape>(settings: R, nested: N) {
  const shape = Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, value.type])) as Shape<R>;
  return z.strictObject({ ...shape, ...nested }).prefault({} as never);
}
