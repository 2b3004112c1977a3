/** What is kept of a cluster in which something was wrong, so that it can be looked into later. */
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';

import type { ClusterRouter } from './cluster-router.ts';
import type { Cluster } from './cluster.ts';

/**
 * Asks the routers what they know, kills them, and puts into `directory` (made) what was wrong with the history of the sector, both routers' logs, and everything that they and Redis had on their disks.
 */
export async function keepEvidence(directory: string, cluster: Cluster, error: unknown, about: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  const said = await Promise.all(cluster.routers.map((router) => whatItSays(router)));
  await Promise.all(cluster.routers.map((router) => router.process.kill()));
  await writeFile(join(directory, 'error.txt'), `${about.join('\n')}\n\n${textOf(error)}\n\n${said.join('\n')}\n`);
  for (const { name, process } of cluster.routers) await writeFile(join(directory, `router-${name}.log`), process.log);
  // Sockets are no files that can be copied.
  await cp(cluster.directory, join(directory, 'home'), { recursive: true, filter: (source) => !source.endsWith('.sock') });
}

/** Of a router as it is now, if it still answers. */
async function whatItSays(router: ClusterRouter): Promise<string> {
  if (!router.process.running) return `${router.name} does not run`;
  const asked = ['/cluster/moves', '/cluster/volumes?limit=20', '/status'].map(async (path) => {
    try {
      return `${router.name} ${path}: ${(await router.process.http(path)).body}`;
    } catch (error) {
      return `${router.name} ${path}: ${String(error)}`;
    }
  });
  return (await Promise.all(asked)).join('\n');
}

function textOf(error: unknown): string {
  if (error instanceof AggregateError) return [error.message, ...error.errors.map(textOf)].join('\n--- and\n');
  return error instanceof Error ? `${error.stack ?? error.message}\n${inspect(error.cause)}` : String(error);
}
