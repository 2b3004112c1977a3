/** What an operator asks of a cluster, by the admin API of one of its routers, with the letters of the test's routers instead of ids. */
import type { MoveReport, MovesReport, VolumePage, VolumeReport } from '../../server/cluster-port.ts';
import { metric } from '../metrics-page.ts';
import type { ClusterRouter } from './cluster-router.ts';
import type { Cluster } from './cluster.ts';

const POLL_MS = 20;

/** The router that was asked is dead, stands still, was stopped under the call, or said that it cannot say. */
export class NoAnswer extends Error {}

/** What was waited for did not come in time. */
class NotInTime extends Error {}

export class Operator {
  readonly #cluster: Cluster;
  readonly #idOf = new Map<ClusterRouter, string>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** Its router id: the same over all its lives. */
  async idOf(router: ClusterRouter): Promise<string> {
    const known = this.#idOf.get(router);
    if (known !== undefined) return known;
    const status = JSON.parse((await router.process.http('/status')).body) as { router: { routerId: string } };
    this.#idOf.set(router, status.router.routerId);
    return status.router.routerId;
  }

  /** The router with this id. */
  async routerOf(id: string): Promise<ClusterRouter> {
    for (const router of this.#cluster.routers) if ((await this.idOf(router)) === id) return router;
    throw new Error(`no router of the cluster has the id ${id}`);
  }

  /** The object's report as a running router gives it; null: it has no owner (yet). */
  async volume(path: string, asked = this.#anybody()): Promise<VolumeReport | null> {
    const answer = await ask(asked, 'GET', `/cluster/volume?object=${encodeURIComponent(path)}`);
    if (answer.status === 404 || (answer.status === 409 && answer.text.includes('no-owner'))) return null;
    return answer.json() as VolumeReport;
  }

  /** All objects with an owner, as a running router sees them. */
  async volumes(asked = this.#anybody()): Promise<VolumeReport[]> {
    const all: VolumeReport[] = [];
    let after = '';
    for (;;) {
      const page = (await ask(asked, 'GET', `/cluster/volumes?limit=1000${after}`)).json() as VolumePage;
      all.push(...page.volumes);
      if (page.next === null) return all;
      after = `&after=${encodeURIComponent(page.next)}`;
    }
  }

  /** Waits until the object is `running` at that router. @throws Error with its last report. */
  async waitForOwner(path: string, router: ClusterRouter, timeoutMs = 240_000): Promise<VolumeReport> {
    const id = await this.idOf(router);
    return await this.waitFor(path, (volume) => volume.router === id && volume.state === 'running' && volume.moving === null, timeoutMs);
  }

  /** Waits until the object's report is as `wanted`. @throws Error with its last report. */
  async waitFor(path: string, wanted: (volume: VolumeReport) => boolean, timeoutMs = 240_000): Promise<VolumeReport> {
    const began = performance.now();
    let last = 'none';
    for (;;) {
      try {
        const volume = await this.volume(path);
        if (volume !== null && wanted(volume)) return volume;
        last = JSON.stringify(volume);
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error;
        last = String(error);
      }
      if (performance.now() - began > timeoutMs) throw new NotInTime(`${path} after ${timeoutMs} ms: ${last}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** The router that serves the object, if all say the same of it: running, not moving. Else what they say, as text. @throws NoAnswer when one does not answer. */
  async agreed(path: string): Promise<ClusterRouter | string> {
    const seen = await Promise.all(this.#cluster.routers.map((router) => this.volume(path, router)));
    const [first] = seen;
    const same = seen.every((report) => report?.router === first?.router && report?.term === first?.term);
    if (first === null || first === undefined || !same || first.state !== 'running' || first.moving !== null) return JSON.stringify(seen);
    return await this.routerOf(first.router);
  }

  /** Asks the router that gets it to begin a move. False: not now. */
  async beginMove(path: string, to: ClusterRouter): Promise<boolean> {
    const body = { object: path, to: await this.idOf(to) };
    const answer = await ask(to, 'POST', '/cluster/moves', body);
    return answer.status < 300;
  }

  /**
   * Moves an object and waits for it. @returns the receiver's report of this very move; null when it has none: it was restarted, or got the object by
   * an attempt of before. @throws Error when it is not there in time; it is asked for again when an attempt is aborted.
   */
  async move(path: string, to: ClusterRouter, timeoutMs = 240_000): Promise<MoveReport | null> {
    const began = performance.now();
    let before: ReadonlySet<string> | null = null;
    for (;;) {
      try {
        before ??= new Set((await this.moves(to)).history.map(({ id }) => id));
        await this.beginMove(path, to);
        const there = await this.waitForOwner(path, to, Math.min(5000, timeoutMs));
        const ended = await this.ended(there.fileid, to);
        return ended.find((move) => move.phase === 'moved' && before?.has(move.id) === false) ?? null;
      } catch (error) {
        if (!(error instanceof NotInTime || error instanceof NoAnswer) || performance.now() - began > timeoutMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    }
  }

  /** What a router says of an object's moves, the newest first, when none runs there any more: the registry knows the owner before the receiver is done. */
  async ended(fileid: VolumeReport['fileid'], router: ClusterRouter): Promise<readonly MoveReport[]> {
    for (;;) {
      const { running, history } = await this.moves(router);
      if (!running.some((move) => move.fileid === fileid)) return history.filter((move) => move.fileid === fileid);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async moves(router: ClusterRouter): Promise<MovesReport> {
    return (await ask(router, 'GET', '/cluster/moves')).json() as MovesReport;
  }

  /** Operations that this router has sent to others. */
  async forwarded(router: ClusterRouter): Promise<number> {
    const page = (await router.process.http('/metrics')).body;
    return metric(page, 'vferry_forwarded_operations_total', { direction: 'sent', outcome: 'done' });
  }

  #anybody(): ClusterRouter {
    const running = this.#cluster.routers.find((router) => router.process.running && !router.paused);
    if (running === undefined) throw new Error('no router of the cluster runs');
    return running;
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
  /** @throws NoAnswer with the body when the status is none of success. */
  json(): unknown;
}

/** @throws NoAnswer when none came. */
async function ask(router: ClusterRouter, method: string, path: string, body?: unknown): Promise<Answer> {
  const answer = await fetched(router, method, path, body);
  return {
    ...answer,
    json: () => {
      if (answer.status >= 300) throw new NoAnswer(`${method} ${path} at ${router.name}: ${answer.status} ${answer.text}`);
      return JSON.parse(answer.text) as unknown;
    },
  };
}

async function fetched(
  router: ClusterRouter,
  method: string,
  path: string,
  body: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  try {
    const response = await fetch(`http://${router.process.adminHost}:${router.process.adminPort}${path}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    // fetch knows no other errors of what it was told to do: no connection, an end of it, or the time that is over.
    throw new NoAnswer(`${method} ${path} at ${router.name}: ${String(error)}`, { cause: error });
  }
}
