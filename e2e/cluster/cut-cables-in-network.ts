/** cut-cables-main.ts as a child process inside a private network, whose namespaces are the caller's. */
import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import type { PrivateNetwork } from './private-network.ts';

export interface InPrivateNetworkOptions {
  readonly directory: string;
  readonly seed: number;
  /** As in `parseCuts`. */
  readonly cuts: string;
  readonly kept: string;
  readonly say: (line: string) => void;
}

export async function inPrivateNetwork(
  network: PrivateNetwork,
  { directory, seed, cuts, kept, say }: InPrivateNetworkOptions,
): Promise<{ readonly ok: boolean; readonly lines: readonly string[] }> {
  const home = join(directory, 'cluster');
  await mkdir(home, { recursive: true });
  const main = join(import.meta.dirname, 'cut-cables-main.ts');
  // The kernel kills it when we die, and its routers when it does.
  const command = ['--pdeathsig', 'KILL', ...network.prefix, process.execPath, main, JSON.stringify(network.plan), home, String(seed), cuts, kept];
  const child = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      say(line);
    });
  }
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  child.once('error', reject);
  child.once('close', (code) => resolve(code === 0));
  return { ok: await promise, lines };
}
