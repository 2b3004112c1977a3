/** What this router knows of its registry without asking it: which vPool it is, and the highest generation it has seen. One small JSON file, replaced as a whole. */
import { join } from 'node:path';

import type { Disk, DiskFile } from '../../server/core/disk.ts';
import { errorCode } from '../../server/core/errors.ts';
import { corrupt, HEX_32, integerOf, jsonOf, patternOf, recordOf, textOf } from '../record-check.ts';

export interface SeenGeneration {
  readonly vpoolName: string;
  readonly vpoolUuid: string;
  readonly generation: number;
}

const NAME = 'generation.json';
const BYTES_MAX = 4_096;

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
  return {
    vpoolName: textOf(json['vpoolName'], 256, path, 'vpoolName'),
    vpoolUuid: patternOf(json['vpoolUuid'], HEX_32, path, 'vpoolUuid'),
    generation: integerOf(json['generation'], 1, Number.MAX_SAFE_INTEGER, path, 'generation'),
  };
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
