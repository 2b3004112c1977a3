/** A router's data directory: its identity, and a lock so that two processes never share it. */
import { accessSync, constants, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { z } from 'zod';

import { ApplianceError, errorCode } from './core/errors.ts';
import type { RouterId } from './core/ids.ts';
import type { Random } from './core/time.ts';
import type { HintFile } from './object-router/garbage-schedule.ts';
import { syncPath } from './sync-path.ts';

const routerSchema = z.strictObject({ version: z.literal(1), id: z.string().regex(/^[0-9a-f]{32}$/) });
const uuid = z.string().regex(/^[0-9a-f]{32}$/);
const text = z.string().max(4096);
const locationSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('directory'), path: text }),
  z.strictObject({
    kind: z.literal('swift'),
    authUrl: text,
    storageUrl: text.nullable(),
    user: text.nullable(),
    project: text.nullable(),
    region: text.nullable(),
  }),
  z.strictObject({ kind: z.literal('s3'), endpoint: text.nullable(), region: text }),
]);
const vpoolSchemaV1 = z.strictObject({
  version: z.literal(1),
  uuid,
  backend: z.strictObject({ kind: z.literal('directory'), path: text }),
  linked: z.boolean().exactOptional(),
});
const figure = z.number().nullable();
const vpoolSchemaV2 = z.strictObject({
  version: z.literal(2),
  uuid,
  backend: locationSchema,
  layout: z.discriminatedUnion('kind', [z.strictObject({ kind: z.literal('buckets') }), z.strictObject({ kind: z.literal('prefix'), bucket: text })]),
  /** Whether the backend itself keeps two owners apart (create-if-absent is atomic), or only the registry does. */
  fence: z.enum(['backend', 'registry']),
  /** Whether the backend has the identity object `vpool-<uuid>`: not in vPools made by vferry 0.1. */
  identity: z.boolean(),
  /** What the probe found at creation; null: made before there was one. `at`: ISO 8601, UTC. */
  probe: z
    .strictObject({
      at: text,
      verdict: z.enum(['fit', 'fit-but', 'unfit']),
      findings: z.array(text).max(100),
      figures: z.record(text, figure),
    })
    .nullable(),
  /** Objects may be compressed or encrypted. Set before the first one is; never unset. */
  encoded: z.boolean(),
  /** Ids of all keys that objects may be encrypted with: 16 hex digits each. */
  keys: z.array(z.string().regex(/^[0-9a-f]{16}$/)).max(10_000),
  /** Objects may be there that are not encrypted. Set before the first one is; never unset. */
  unencrypted: z.boolean(),
  /** Local segments may be the backend's objects (hard links): none is ever overwritten, whatever the settings say later. */
  linked: z.boolean(),
});
const vpoolSchema = z.union([
  vpoolSchemaV2,
  vpoolSchemaV1.transform(({ uuid: known, backend, linked = false }): VpoolFile => ({
    version: 2,
    uuid: known,
    backend,
    layout: { kind: 'buckets' },
    fence: 'backend',
    identity: false,
    probe: null,
    encoded: false,
    keys: [],
    unencrypted: true,
    linked,
  })),
]);

/** What a router remembers of a vPool outside its registry: that its backend was made, where, and what must not be forgotten of it. */
export type VpoolFile = z.output<typeof vpoolSchemaV2>;

/** Where a backend is, without secrets. */
export type BackendLocation = VpoolFile['backend'];

/** A locked data directory. */
export interface DataDirectory extends Disposable {
  readonly path: string;
  readonly routerId: RouterId;
}

/**
 * Makes the directory if needed, locks it, and draws or reads the router's identity. The lock is the operating system's (through SQLite): it ends
 * with the process, however that ends.
 * @throws ApplianceError `data-locked`, `data-unusable`.
 */
export function openDataDirectory(path: string, random: Random): DataDirectory {
  let lock: DatabaseSync;
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    lock = lockDirectory(path);
  } catch (error) {
    if (error instanceof ApplianceError) throw error;
    throw new ApplianceError('data-unusable', `the data directory ${path} cannot be used: ${whyUnusable(path, error as Error)}`, { cause: error });
  }
  try {
    const file = join(path, 'router.json');
    let known = readJson(file, routerSchema);
    if (known === null) {
      known = { version: 1, id: random.bytes(16).toString('hex') };
      writeDurably(file, known);
    }
    return {
      path,
      routerId: known.id as RouterId,
      [Symbol.dispose]() {
        lock.close();
      },
    };
  } catch (error) {
    lock.close();
    throw error;
  }
}

/**
 * The router's identity without keeping the lock: drawn if there is none yet. A router that runs on the directory does not hinder, since an identity never changes.
 * @throws ApplianceError `data-locked`, `data-unusable`.
 */
export function routerIdOf(path: string, random: Random): RouterId {
  const known = readJson(join(path, 'router.json'), routerSchema);
  if (known !== null) return known.id as RouterId;
  using directory = openDataDirectory(path, random);
  return directory.routerId;
}

/** On a read-only file system a recursive mkdir says ENOENT and SQLite that it cannot open its file: neither says what to repair. */
function whyUnusable(path: string, error: Error): string {
  let existing = path;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    accessSync(existing, constants.W_OK);
  } catch (cause) {
    return `${existing} is not writable: ${(cause as Error).message}`;
  }
  return error.message;
}

/** Locks a directory that exists, without making anything but the lock file. @throws ApplianceError `data-locked`. */
export function lockDirectory(path: string): DatabaseSync {
  const lock = new DatabaseSync(join(path, 'lock.db'));
  try {
    lock.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT');
    return lock;
  } catch (error) {
    lock.close();
    if (/locked|busy/i.test((error as Error).message)) {
      throw new ApplianceError(
        'data-locked',
        `the data directory ${path} is in use by another vferry process; stop that one or name another directory with --data`,
      );
    }
    throw error;
  }
}

/** In the directory of a vPool: there once the vPool was completely made. */
export const VPOOL_FILE = 'vpool.json';

/** What is remembered of a vPool; null when it was never completely made. */
export function readVpoolFile(directory: string): VpoolFile | null {
  return readJson(join(directory, VPOOL_FILE), vpoolSchema);
}

export function writeVpoolFile(directory: string, vpool: VpoolFile): void {
  writeDurably(join(directory, VPOOL_FILE), vpool);
}

/** A small file that is replaced as a whole and whose loss is harmless: it is not synced. */
export function hintFile(path: string): HintFile {
  return {
    async read() {
      try {
        return await readFile(path, 'utf8');
      } catch (error) {
        if (errorCode(error) === 'ENOENT') return null;
        throw error;
      }
    },
    async write(text) {
      await writeFile(`${path}.tmp`, text);
      await rename(`${path}.tmp`, path);
    },
  };
}

function readJson<T>(file: string, schema: z.ZodType<T>): T | null {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new ApplianceError('data-unusable', `${file} is damaged: ${(error as Error).message}; restore it from a backup`, { cause: error });
  }
}

function writeDurably(file: string, content: object): void {
  writeFileSync(`${file}.tmp`, `${JSON.stringify(content)}\n`, { mode: 0o600 });
  syncPath(`${file}.tmp`);
  renameSync(`${file}.tmp`, file);
  syncPath(join(file, '..'));
}
