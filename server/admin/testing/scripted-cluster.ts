/** A cluster that says what the test wants, and notes what it was asked for. */
import type { ClusterControl, ClusterStatus, DrainReport, MoveReport, RouterReport, VolumeReport } from '../../cluster-port.ts';
import type { FileId, Incarnation, RouterId } from '../../core/ids.ts';
import type { Router } from '../../router-port.ts';

export const A = 'aa'.repeat(16) as RouterId;
export const B = 'ab'.repeat(16) as RouterId;

export const NO_DRAIN: DrainReport = {
  phase: 'none',
  startedAt: null,
  done: 0,
  total: 0,
  copiedBytes: 0,
  behindBytes: 0,
  failed: [],
  problem: null,
};

export const ROUTERS: readonly RouterReport[] = [
  {
    id: A,
    incarnation: '01'.repeat(16) as Incarnation,
    self: true,
    state: 'running',
    version: '1.0.0',
    nfs: '10.0.0.1:2049',
    peer: '10.0.0.1:2050',
    admin: '127.0.0.1:8080',
    silentMs: 0,
    connection: null,
    objects: 3,
    recovering: 1,
  },
  {
    id: B,
    incarnation: '02'.repeat(16) as Incarnation,
    self: false,
    state: 'dead',
    version: '1.0.0',
    nfs: '10.0.0.2:2049',
    peer: null,
    admin: null,
    silentMs: 61_000,
    connection: { connected: false, roundTripMs: null, problem: 'refused' },
    objects: null,
    recovering: null,
  },
];

export const VOLUME: VolumeReport = {
  fileid: 100 as FileId,
  path: '/vm1/vm1-flat.vmdk',
  class: 'volume',
  sizeBytes: 2 ** 30,
  router: A,
  state: 'running',
  reason: null,
  protection: 'clean',
  moving: null,
  pinned: false,
  term: '1.7.00112233445566aa',
};

export const MOVE: MoveReport = {
  id: 'm1',
  fileid: VOLUME.fileid,
  path: VOLUME.path,
  from: A,
  to: B,
  reason: 'operator',
  phase: 'copying',
  startedAt: '2026-01-01T00:00:00.000Z',
  endedAt: null,
  copiedBytes: 1024,
  behindBytes: 3072,
  heldMs: null,
  stepsMs: {},
  problem: null,
};

export const STATUS: ClusterStatus = {
  registry: 'redis 10.0.0.9:6379',
  registryProblem: null,
  generation: 2,
  leaseLeftMs: 5432,
  peerAddress: '10.0.0.1:2050',
  encrypted: true,
  certificateEndsAtMs: Date.UTC(2030, 0, 1),
  routers: ROUTERS,
  owned: { clean: 2, unprotected: 1, protected: 0 },
  recovering: 1,
  movesRunning: 0,
  drain: NO_DRAIN,
};

/** Everything but what `change` says. `asked` gets a line for each call that changes something or names an object. */
export function scriptedCluster(asked: string[], change: Partial<ClusterControl> = {}): ClusterControl {
  const note = (...words: unknown[]): void =>
    void asked.push(words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' '));
  return {
    status: () => STATUS,
    routers: () => Promise.resolve(ROUTERS),
    volumes(query) {
      note('volumes', query);
      return Promise.resolve({ volumes: [VOLUME], next: null });
    },
    volume(object) {
      note('volume', object);
      return Promise.resolve(VOLUME);
    },
    moves: () => ({ running: [MOVE], history: [] }),
    move(object, to) {
      note('move', object, to);
      return Promise.resolve({ kind: 'started', move: MOVE });
    },
    cancelMove(id) {
      note('cancel', id);
      return Promise.resolve(id === MOVE.id);
    },
    drain() {
      note('drain');
      return Promise.resolve({ ...NO_DRAIN, phase: 'moving', total: 4 });
    },
    undrain() {
      note('undrain');
      return Promise.resolve(NO_DRAIN);
    },
    drainReport: () => NO_DRAIN,
    forgetRouter(router) {
      note('forget', router);
      return Promise.resolve({ kind: 'forgotten', router });
    },
    pin(object, pinned) {
      note('pin', object, pinned);
      return Promise.resolve({ ...VOLUME, pinned });
    },
    takeoverPlan(object) {
      note('plan', object);
      return Promise.resolve({
        kind: 'plan',
        volume: { ...VOLUME, router: B, protection: 'unprotected' },
        ownerSilentMs: 61_000,
        ownerDead: true,
        needsForce: true,
        keptSequence: 41,
        givenUp: ['writes after sequence 41: how many, only that router knows'],
      });
    },
    takeover(object, term, force) {
      note('takeover', object, term, force);
      return Promise.resolve({ kind: 'taken', volume: VOLUME });
    },
    ...change,
  };
}

/** A router of which nothing but its cluster matters. */
export function routerWith(cluster: ClusterControl | null): Router {
  return {
    addresses: { listen: '127.0.0.1', nfsPort: 2049, mountPort: 2049, portmap: 'none' },
    cluster,
    status: () => {
      throw new Error('not asked for');
    },
    ready: () => ({ ready: true, problems: [] }),
    backendUsage: () => Promise.reject(new Error('not asked for')),
    close: () => Promise.resolve(),
  };
}
