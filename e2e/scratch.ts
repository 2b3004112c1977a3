/** A temporary directory that is gone when its scope ends. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { stackOf } from './test-stack.ts';

export interface Scratch extends AsyncDisposable {
  readonly path: string;
}

/** Creates `/tmp/vferry-<name>-XXXXXX`, or in another directory than /tmp; removed with everything in it on disposal. */
export async function scratchDirectory(name: string, parent = tmpdir()): Promise<Scratch> {
  const path = await mkdtemp(join(parent, `vferry-${name}-`));
  return {
    path,
    async [Symbol.asyncDispose](): Promise<void> {
      await rm(path, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

/** The path of a directory that is gone when `t` ends. */
export async function scratchFor(t: TestContext, name: string): Promise<string> {
  return stackOf(t).use(await scratchDirectory(name)).path;
}
