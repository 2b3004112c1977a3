/** Builds `stamped-io.c`, once for each version of its text, under `.cache/guest/`. Needs the Debian packages gcc and libc6-dev. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '../../command.ts';

const SOURCE = join(import.meta.dirname, 'stamped-io.c');
const CACHE = join(import.meta.dirname, '..', '..', '..', '.cache', 'guest');

/** Path of the static program. */
export async function stampedIo(): Promise<string> {
  const text = await readFile(SOURCE);
  const path = join(CACHE, `stamped-io-${createHash('sha256').update(text).digest('hex').slice(0, 12)}`);
  if (existsSync(path)) return path;
  await mkdir(CACHE, { recursive: true });
  const work = `${path}.${process.pid}`;
  await run(['gcc', '-O2', '-static', '-Wall', '-Wextra', '-Werror', '-o', work, SOURCE]);
  await rename(work, path);
  return path;
}
