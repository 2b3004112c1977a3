/** What is kept of a cluster in which something was wrong, so that it can be looked into later. */
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';

import type { Cluster } from './cluster.ts';

/**
 * Kills the routers, and puts into `directory` (made) what was wrong with the history of the sector, both routers' logs, and everything that they and Redis had on their disks.
 * `home`: where the cluster keeps that.
 */
export async function keepEvidence(directory: string, cluster: Cluster, home: string, error: unknown, about: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  await Promise.all(cluster.routers.map((router) => router.process.kill()));
  await writeFile(join(directory, 'error.txt'), `${about.join('\n')}\n\n${textOf(error)}\n`);
  for (const { name, process } of cluster.routers) await writeFile(join(directory, `router-${name}.log`), process.log);
  // Sockets are no files that can be copied.
  await cp(home, join(directory, 'home'), { recursive: true, filter: (source) => !source.endsWith('.sock') });
}

function textOf(error: unknown): string {
  if (error instanceof AggregateError) return [error.message, ...error.errors.map(textOf)].join('\n--- and\n');
  return error instanceof Error ? `${error.stack ?? error.message}\n${inspect(error.cause)}` : String(error);
}
