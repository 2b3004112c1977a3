/** What this router knows of its registry without asking it: which vPool it is, and the generations that it worked in. One small JSON file, replaced as a whole. */
import { join } from 'node:path';

import type { Disk, DiskFile } from '../../server/core/disk.ts';
import { errorCode } from '../../server/core/errors.ts';
import { corrupt, HEX_32, integerOf, jsonOf, listOf, patternOf, recordOf, textOf } from '../record-check.ts';
import { IDENTITY_CHARACTERS_MAX, isSame, type Settled } from './lineage.ts';

export interface SeenGeneration {
  readonly vpoolName: string;
  readonly vpoolUuid: string;
  /** The highest one. */
  readonly generation: number;
  /** The newest last, that one; older ones for a Redis that goes back to before it. */
  readonly settled: readonly Settled[];
}

/** So many go back further than any log (outbox-log.ts), and fit in BYTES_MAX. */
const SETTLED_MAX = 24;

const NAME = 'generation.json';
const BYTES_MAX = 8_192;

/** null: this router never saw a registry. @throws ApplianceError `registry-corrupt`; the disk's errors as they are. */
export async function readGeneration(disk: Disk, directory: string): Promise<SeenGeneration | null> {
  const path = join(directory, NAME);
  let file: DiskFile;
  try {
    file = await disk.open(path, 'read');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return null;
    throw error;
  }
  const bytes = Buffer.alloc(BYTES_MAX);
  let length: number;
  try {
    length = await new Promise<number>((resolve, reject) => file.read(0, bytes, (error, count) => (error === null ? resolve(count) : reject(error))));
  } finally {
    await file.close();
  }
  const json = recordOf(jsonOf(bytes.toString('utf8', 0, length), path, 'contents'), path, 'contents');
  if (json['version'] !== 1) return corrupt(path, `version ${String(json['version'])}`);
  const generation = integerOf(json['generation'], 1, Number.MAX_SAFE_INTEGER, path, 'generation');
  const settled = listOf(json['settled'] ?? [], SETTLED_MAX, path, 'settled').map((one) => {
    const record = recordOf(one, path, 'settled');
    return {
      generation: integerOf(record['generation'], 1, generation, path, 'settled generation'),
      identity: record['identity'] === null ? null : textOf(record['identity'], IDENTITY_CHARACTERS_MAX, path, 'settled identity'),
    };
  });
  return {
    vpoolName: textOf(json['vpoolName'], 256, path, 'vpoolName'),
    vpoolUuid: patternOf(json['vpoolUuid'], HEX_32, path, 'vpoolUuid'),
    generation,
    settled: settled.length > 0 ? settled : [{ generation, identity: null }],
  };
}

/** `before`, with a generation that the router begins to work in. */
export function settledIn(before: SeenGeneration | null, vpoolName: string, vpoolUuid: string, now: Settled): SeenGeneration {
  const earlier = (before?.settled ?? []).filter((one) => !isSame(one, now));
  return { vpoolName, vpoolUuid, generation: now.generation, settled: [...earlier, now].slice(-SETTLED_MAX) };
}

/** Durable when it resolves. */
export async function writeGeneration(disk: Disk, directory: string, seen: SeenGeneration): Promise<void> {
  const temporary = join(directory, `${NAME}.new`);
  await disk.unlink(temporary).catch((error: unknown) => {
    if (errorCode(error) !== 'ENOENT') throw error;
  });
  const file = await disk.create(temporary);
  try {
    const text = Buffer.from(JSON.stringify({ version: 1, ...seen }));
    await new Promise<void>((resolve, reject) => file.write(0, [text], (error) => (error === null ? resolve() : reject(error))));
    await new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
  } finally {
    await file.close();
  }
  await disk.rename(temporary, join(directory, NAME));
  await disk.syncDirectory(directory);
}
