/** What can go wrong while a router stands at a step of a move, and how it is done to a test cluster. */
import type { HostileStore } from '../hostile-store/hostile-store.ts';
import type { Cluster } from './cluster.ts';

/**
 * Each ends by itself: the world is whole again, but for routers that were killed.
 * `kill` and `error`: the router at the step does it to itself. `kill-*`: SIGKILL from outside. `cut-*`: nothing arrives for two seconds, the router at the step goes on meanwhile; `cut-alone`: no way of it is left.
 * `backend-gone`: connections are refused. `lose-*`: what is asked is done, and its answer is lost. `stop:N`: the router stands there for N seconds, then goes on.
 */
export type Harm =
  | 'kill'
  | 'kill-other'
  | 'kill-both'
  | 'error'
  | 'kill-redis'
  | 'cut-peers'
  | 'cut-redis'
  | 'cut-backend'
  | 'cut-alone'
  | 'backend-gone'
  | 'lose-peers'
  | 'lose-redis'
  | 'stop:2'
  | 'stop:9'
  | 'stop:60';

export const HARMS: readonly Harm[] = [
  'kill',
  'kill-other',
  'kill-both',
  'error',
  'kill-redis',
  'cut-peers',
  'cut-redis',
  'cut-backend',
  'cut-alone',
  'backend-gone',
  'lose-peers',
  'lose-redis',
  'stop:2',
  'stop:9',
  'stop:60',
];

const CUT_MS = 2000;
const DEAF_MS = 500;

/** Action of the fail point that brings a router to the step. */
export function actionOf(harm: Harm): 'kill' | 'error' | 'stop' {
  return harm === 'kill' || harm === 'error' ? harm : 'stop';
}

/** To A, which stands at the step (or died there), and what is around it. `store`: the backend, where harms to it are wanted. */
export async function doHarm(harm: Harm, cluster: Cluster, store: HostileStore | null): Promise<void> {
  const [a, b] = cluster.pair;
  const during = async (ms: number, begin: () => unknown, end: () => unknown): Promise<void> => {
    await begin();
    try {
      a.resume();
      await wait(ms);
    } finally {
      await end();
    }
  };
  switch (harm) {
    case 'kill':
    case 'error':
      return await wait(200);
    case 'kill-other':
      await b.process.kill();
      a.resume();
      return await wait(200);
    case 'kill-both':
      await Promise.all([a.process.kill(), b.process.kill()]);
      return;
    case 'kill-redis': {
      const { primary } = cluster.redis;
      return await during(
        CUT_MS,
        () => primary.kill(),
        () => primary.start(),
      );
    }
    case 'cut-peers':
      return await during(
        CUT_MS,
        () => [a, b].forEach((router) => router.cut('peers')),
        () => [a, b].forEach((router) => router.restore('peers')),
      );
    case 'cut-redis':
      return await during(
        CUT_MS,
        () => a.cut('registry'),
        () => a.restore('registry'),
      );
    case 'cut-backend':
      return await during(
        CUT_MS,
        () => store?.setFaults({ http: { stall: 1 } }),
        () => store?.setFaults({}),
      );
    case 'cut-alone':
      return await during(
        CUT_MS,
        () => {
          for (const router of [a, b]) router.cut('peers');
          a.cut('registry');
          store?.setFaults({ http: { stall: 1 } });
        },
        () => {
          for (const router of [a, b]) router.restore('peers');
          a.restore('registry');
          store?.setFaults({});
        },
      );
    case 'backend-gone':
      return await during(
        CUT_MS,
        () => store?.server.stopListening(),
        () => store?.server.listen(),
      );
    case 'lose-peers':
      return await during(
        DEAF_MS,
        () => [a, b].forEach((router) => router.deafen('peers')),
        () => [a, b].forEach((router) => router.breakAll('peers')),
      );
    case 'lose-redis':
      return await during(
        DEAF_MS,
        () => a.deafen('registry'),
        () => a.breakAll('registry'),
      );
    case 'stop:2':
    case 'stop:9':
    case 'stop:60':
      await wait(Number(harm.slice('stop:'.length)) * 1000);
      a.resume();
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
