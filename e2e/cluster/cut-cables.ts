/**
 * Cables are pulled between the parts of a cluster, each of which is a host of a private network (private-network.ts): packets vanish and nobody is told. Two hosts that never give up read and write all the
 * time, and the object is on its way from router to router when it happens. Afterwards it has one owner, runs, and every read was one that a register can show.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Backend } from '../backends/backend-fixture.ts';
import type { SeededRandom } from '../random.ts';
import { RegisterLoad } from '../register-load.ts';
import { Daemon } from '../services/daemon.ts';
import { Cluster, thresholds } from './cluster.ts';
import { NoAnswer } from './operator.ts';
import type { PrivateNetwork } from './private-network.ts';
import { WanderingClient } from './wandering-client.ts';

/** Hosts that the network must have. */
export const CABLE_HOSTS = ['A', 'B', 'redis', 'backend'] as const;

const PULLS = {
  'A-B': (network: PrivateNetwork) => network.cut('A', 'B'),
  'A-redis': (network: PrivateNetwork) => network.cut('A', 'redis'),
  'A-backend': (network: PrivateNetwork) => network.cut('A', 'backend'),
  'B-backend': (network: PrivateNetwork) => network.cut('B', 'backend'),
  A: (network: PrivateNetwork) => network.pull('A'),
  redis: (network: PrivateNetwork) => network.pull('redis'),
  backend: (network: PrivateNetwork) => network.pull('backend'),
} as const;

/** All of them; one name: everything of that host. */
export const CABLES: readonly string[] = Object.keys(PULLS);

/** Which cable, and how long: `A-B:4`; one name only: the cable of that host. */
export interface Cut {
  readonly cable: keyof typeof PULLS;
  readonly seconds: number;
}

const PATH = '/cables-flat.vmdk';
const SETTLED_MS_MAX = 90_000;
const SETTINGS = { VFERRY_LOG_SEGMENT_BYTES: '4MiB', VFERRY_LOG_SEAL_AFTER_MS: '300ms', VFERRY_LOG_CHECKPOINT_AFTER_BYTES: '16MiB' };

export function parseCuts(text: string): Cut[] {
  return text.split(',').map((word) => {
    const [cable = '', seconds] = word.split(':');
    if (!isCable(cable) || !(Number(seconds) > 0)) throw new Error(`${word} is no cut: CABLE:SECONDS, CABLE one of ${CABLES.join(', ')}`);
    return { cable, seconds: Number(seconds) };
  });
}

function isCable(name: string): name is keyof typeof PULLS {
  return Object.hasOwn(PULLS, name);
}

export interface CutCablesOptions {
  /** This process is where its switch is. */
  readonly network: PrivateNetwork;
  /** Exists, empty. */
  readonly directory: string;
  readonly random: SeededRandom;
  readonly cuts: readonly Cut[];
  readonly say: (line: string) => void;
  /** Told when something is wrong, while the cluster is still there. */
  readonly keep: (cluster: Cluster, error: unknown) => Promise<void>;
}

/** Resolves with a line about all of it. @throws AssertionError when a read cannot be explained, Error when the object does not come back. */
export async function cutCables({ network, directory, random, cuts, say, keep }: CutCablesOptions): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const backend = await startBackend(network, directory, random, stack);
  const cluster = stack.use(
    await Cluster.create({
      directory,
      backend,
      places: (name) => network.host(name),
      cluster: { ...thresholds(0), cooldownMs: 0 },
      environment: SETTINGS,
    }),
  );
  await cluster.startRouters();
  const [a, b] = cluster.pair;
  const h1 = stack.use(await WanderingClient.connect({ routers: [a, b], machineName: 'H1' }));
  const h2 = stack.use(await WanderingClient.connect({ routers: [b, a], machineName: 'H2' }));
  const load = await RegisterLoad.create(h1, random.uint32(), PATH.slice(1), { stableOnly: true });
  let over = false;
  let broken: Error | null = null;
  const running = load.runUntil([h1, h2], 4, () => over);
  running.catch((error: unknown) => (broken ??= error as Error));
  const settled = async (when: string): Promise<string> => {
    const began = performance.now();
    for (let last = ''; ; await wait(50)) {
      if (broken !== null) throw broken;
      try {
        const agreed = await cluster.operator.agreed(PATH);
        if (typeof agreed !== 'string') return agreed.name;
        last = agreed;
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error;
        last = error.message;
      }
      if (performance.now() - began > SETTLED_MS_MAX) throw new Error(`${when}: not settled after ${SETTLED_MS_MAX} ms: ${last}`);
    }
  };
  try {
    await settled('at the beginning');
    for (const [index, { cable, seconds }] of cuts.entries()) {
      // Both ways by turns, whatever became of the move before.
      const to = index % 2 === 0 ? b : a;
      await cluster.operator.move(PATH, to === a ? b : a);
      const longest = Math.max(h1.longestMs, h2.longestMs);
      const moving = cluster.operator.beginMove(PATH, to).then(
        () => null,
        (error: unknown) => error,
      );
      await wait(random.below(200));
      await PULLS[cable](network);
      await wait(seconds * 1000);
      await network.restore();
      const restored = performance.now();
      const problem = await moving;
      if (problem !== null && !(problem instanceof NoAnswer)) throw problem;
      const owner = await settled(`after ${cable} for ${seconds} s`);
      // Both get on again, wherever they wandered: a last write and read of each.
      await Promise.all([load.check(h1), load.check(h2)]);
      const now = Math.max(h1.longestMs, h2.longestMs);
      say(
        `${cable} cut for ${seconds} s: owner then ${owner}, all well ${Math.round(performance.now() - restored)} ms after it` +
          `${now > longest ? `, longest operation so far ${Math.round(now)} ms` : ''}`,
      );
    }
  } catch (error) {
    over = true;
    const all = broken === null || broken === error ? error : new AggregateError([broken, error], 'what the hosts saw');
    await keep(cluster, all);
    throw all;
  }
  over = true;
  const operations = await running;
  for (const client of [h1, h2]) await load.check(client);
  return `${cuts.length} cuts, ${operations} operations, the longest ${Math.round(Math.max(h1.longestMs, h2.longestMs))} ms`;
}

async function startBackend(network: PrivateNetwork, directory: string, random: SeededRandom, stack: AsyncDisposableStack): Promise<Backend> {
  const { address, prefix } = network.host('backend');
  const logFile = join(directory, 'backend.log');
  const main = join(import.meta.dirname, '../services/hostile-store-main.ts');
  const daemon = stack.use(
    new Daemon({ name: 'backend', command: [...prefix, process.execPath, main, address, '8080', String(random.uint32())], logFile }),
  );
  daemon.start();
  let first = '';
  await daemon.waitUntil(async () => {
    const [line, rest] = (await readFile(logFile, 'utf8')).split('\n');
    first = line ?? '';
    return rest !== undefined;
  });
  const environment = JSON.parse(first) as Readonly<Record<string, string>>;
  return { name: 'swift', port: null, environment: () => environment, store: null };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
