/**
 * Checks of single fields of stored records: whatever is read from disk or backend is hostile until it passed here.
 * Every failure is an ApplianceError `registry-corrupt` that names the place.
 */
import { ApplianceError } from '../server/core/errors.ts';

export const HEX_32 = /^[0-9a-f]{32}$/;
export const HEX_16 = /^[0-9a-f]{16}$/;

/** Throws `registry-corrupt`. `where`: table and key, or what else a person needs to find the record. */
export function corrupt(where: string, problem: string): never {
  throw new ApplianceError('registry-corrupt', `${where}: ${problem}; run "vferry fsck" on this data directory`);
}

/** An integer within [min, max]; max is at most 2^53 - 1. */
export function integerOf(value: unknown, min: number, max: number, where: string, field: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    return corrupt(where, `${field} is ${describe(value)}, expected an integer from ${min} to ${max}`);
  }
  return value;
}

export function textOf(value: unknown, lengthMax: number, where: string, field: string): string {
  if (typeof value !== 'string' || value.length > lengthMax)
    return corrupt(where, `${field} is ${describe(value)}, expected text of at most ${lengthMax} characters`);
  return value;
}

/** Text of a fixed form, such as an identifier. */
export function patternOf(value: unknown, pattern: RegExp, where: string, field: string): string {
  if (typeof value !== 'string' || !pattern.test(value)) return corrupt(where, `${field} is ${describe(value)}, expected ${String(pattern)}`);
  return value;
}

export function memberOf<T extends string>(value: unknown, allowed: readonly T[], where: string, field: string): T {
  if (typeof value !== 'string' || !(allowed as readonly string[]).includes(value)) {
    return corrupt(where, `${field} is ${describe(value)}, expected one of ${allowed.join(', ')}`);
  }
  return value as T;
}

export function recordOf(value: unknown, where: string, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return corrupt(where, `${field} is ${describe(value)}, expected an object`);
  return value as Readonly<Record<string, unknown>>;
}

export function listOf(value: unknown, countMax: number, where: string, field: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > countMax)
    return corrupt(where, `${field} is ${describe(value)}, expected a list of at most ${countMax} elements`);
  return value;
}

/** Bytes as base64 text, in the one canonical spelling. The result has a buffer of its own: posting it to a thread copies nothing else. */
export function base64Of(value: unknown, bytesMax: number, where: string, field: string): Uint8Array {
  if (typeof value !== 'string' || value.length > Math.ceil(bytesMax / 3) * 4)
    return corrupt(where, `${field} is ${describe(value)}, expected base64 text`);
  const bytes = Buffer.from(value, 'base64');
  if (bytes.toString('base64') !== value) return corrupt(where, `${field} is not canonical base64`);
  return new Uint8Array(bytes);
}

export function base64From(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

/** Parses JSON text. */
export function jsonOf(text: unknown, where: string, field: string): unknown {
  if (typeof text !== 'string') return corrupt(where, `${field} is ${describe(text)}, expected JSON text`);
  try {
    return JSON.parse(text);
  } catch {
    return corrupt(where, `${field} is not JSON: ${describe(text)}`);
  }
}

function describe(value: unknown): string {
  if (typeof value === 'string') return value.length > 80 ? `"${value.slice(0, 80)}..." (${value.length} characters)` : `"${value}"`;
  if (value instanceof Uint8Array) return `${value.byteLength} bytes`;
  if (Array.isArray(value)) return `a list of ${value.length} elements`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}
