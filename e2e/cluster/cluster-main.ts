/**
 * `npm run cluster -- [--routers 3] [--backend swift|directory] [--redis standalone|sentinel] [--directory DIR] [--nfs-port N]`: a cluster on this machine. Prints
 * how to mount and where to look, follows the routers' logs, and stops cleanly on Ctrl-C. Without --directory everything is gone then.
 */
import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { scratchDirectory } from '../scratch.ts';
import { Cluster } from './cluster.ts';

const USAGE = 'usage: npm run cluster -- [--routers 1..8] [--backend swift|directory] [--redis standalone|sentinel] [--directory DIR] [--nfs-port N]';

interface Options {
  readonly routers: number;
  readonly backend: 'swift' | 'directory';
  readonly redis: 'standalone' | 'sentinel';
  readonly directory: string | null;
  readonly nfsPort: number;
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      routers: { type: 'string', default: '3' },
      backend: { type: 'string', default: 'swift' },
      redis: { type: 'string', default: 'standalone' },
      directory: { type: 'string' },
      'nfs-port': { type: 'string', default: '2049' },
    },
  });
  const routers = Number(values.routers);
  const nfsPort = Number(values['nfs-port']);
  const { backend, redis } = values;
  if (!Number.isInteger(routers) || routers < 1 || routers > 8 || !Number.isInteger(nfsPort) || nfsPort < 1 || nfsPort > 65_535)
    throw new Error(USAGE);
  if ((backend !== 'swift' && backend !== 'directory') || (redis !== 'standalone' && redis !== 'sentinel')) throw new Error(USAGE);
  return { routers, backend, redis, nfsPort, directory: values.directory === undefined ? null : resolve(values.directory) };
}

/** Resolves at the first SIGINT or SIGTERM. npm sends a second one for the same Ctrl-C: it is ignored. */
function interrupted(): Promise<void> {
  const { promise, resolve: end } = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => end());
  return promise;
}

async function serve(options: Options): Promise<void> {
  const ended = interrupted();
  await using stack = new AsyncDisposableStack();
  const directory = options.directory ?? stack.use(await scratchDirectory('cluster')).path;
  await mkdir(directory, { recursive: true });
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  say(`starting Redis, ${options.backend === 'swift' ? 'Swift' : 'a backend directory'} and ${options.routers} routers in ${directory}`);
  const root = process.getuid?.() === 0;
  const cluster = stack.use(
    await Cluster.create({
      directory,
      routers: options.routers,
      backend: options.backend,
      redis: options.redis,
      nfsPort: options.nfsPort,
      portMapper: root,
      network: '127.0.42',
      environment: { VFERRY_LOG_FORMAT: 'human' },
    }),
  );
  for (const router of cluster.routers) router.process.onLine((line) => say(`${router.name} ${line}`));
  await cluster.startRouters();
  say('');
  for (const { name, address, process: router } of cluster.routers) {
    const ports = `port=${router.nfsPort},mountport=${router.nfsPort}`;
    say(`${name}  mount -t nfs -o vers=3,tcp,nolock,${ports} ${address}:/${router.vpool} /mnt    admin http://127.0.0.1:${router.adminPort}/status`);
    const query = root ? '' : `?nfsport=${router.nfsPort}&mountport=${router.nfsPort}&version=3`;
    say(`   nfs://${address}/${router.vpool}/disk.raw${query}`);
  }
  say(`Redis ${cluster.redis.primary.port}${cluster.backend === null ? '' : `, ${cluster.backend.name} ${cluster.backend.port}`}\n`);
  // Nothing else keeps this process from ending while the routers are quiet.
  const alive = setInterval(() => undefined, 60_000);
  const died = cluster.routers.map(async (router) => `router ${router.name} ended: ${JSON.stringify(await router.process.exited())}`);
  const why = await Promise.race([ended, ...died]);
  clearInterval(alive);
  say(why ?? 'stopping');
  if (why !== undefined) process.exitCode = 1;
  await cluster.stop();
}

await serve(optionsOf(process.argv.slice(2)));
