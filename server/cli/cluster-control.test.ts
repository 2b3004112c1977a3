/** The commands for clusters against a real admin server over a scripted cluster. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type AdminServer, startAdminServer } from '../admin/admin-server.ts';
import { A, B, MOVE, NO_DRAIN, ROUTERS, STATUS, VOLUME, routerWith, scriptedCluster } from '../admin/testing/scripted-cluster.ts';
import type { ClusterControl, DrainReport, MoveReport, MovesReport, VolumeReport } from '../cluster-port.ts';
import type { FileId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { banner } from './banner.ts';
import { type ControlClient, type ControlContext, controlled } from './cluster-control.ts';
import { clusterRows, drainText } from './cluster-text.ts';
import { ExitCode } from './exit-code.ts';
import { command } from './testing/child.ts';

async function adminOf(cluster: ClusterControl | null): Promise<AdminServer> {
  const router = routerWith(cluster);
  return await startAdminServer(
    { listen: '127.0.0.1', port: 0 },
    {
      subject: { phase: () => 'running', router: () => router },
      metrics: { contentType: 'text/plain', text: () => Promise.resolve('') },
      logger: silentLogger,
    },
  );
}

interface Ran {
  readonly code: ExitCode;
  readonly out: string;
  readonly err: string;
  readonly asked: readonly string[];
}

/** Runs a command in this process. */
async function run(
  action: (client: ControlClient) => Promise<ExitCode>,
  change: Partial<ClusterControl> | null = {},
  context: Partial<ControlContext> = {},
): Promise<Ran> {
  const asked: string[] = [];
  await using admin = await adminOf(change === null ? null : scriptedCluster(asked, change));
  let out = '';
  let err = '';
  const code = await controlled(
    {
      admin: { listen: '127.0.0.1', port: admin.port },
      json: false,
      print: { out: (text) => void (out += text), err: (text) => void (err += text) },
      terminal: false,
      interrupted: new AbortController().signal,
      confirm: null,
      ...context,
    },
    action,
  );
  return { code, out, err, asked };
}

const PATH = '/vm1/vm1-flat.vmdk';
const OBJECT = JSON.stringify({ kind: 'path', path: PATH });

test('router list shows who is there and since when somebody is not', async () => {
  const { code, out } = await run((client) => client.listRouters());
  assert.equal(code, ExitCode.OK);
  assert.deepEqual(out.split('\n'), [
    'router          state    nfs            peers          connection     objects           seen      version',
    'aaaaaaaaaaaa *  running  10.0.0.1:2049  10.0.0.1:2050  -              3 (1 recovering)  now       1.0.0',
    'abababababab    dead     10.0.0.2:2049  -              down: refused  -                 61 s ago  1.0.0',
    '',
  ]);
});

test('volume list goes through all pages, of one router if it is named by the beginning of its id', async () => {
  const pages = new Map<string | null, { volumes: readonly VolumeReport[]; next: string | null }>([
    [null, { volumes: [VOLUME], next: '2' }],
    [
      '2',
      {
        volumes: [
          {
            ...VOLUME,
            fileid: 101 as FileId,
            path: null,
            state: 'recovering',
            reason: 'its router is away',
            protection: 'unprotected',
            pinned: true,
          },
          { ...VOLUME, fileid: 102 as FileId, moving: { from: A, to: B } },
        ],
        next: null,
      },
    ],
  ]);
  const seen: unknown[] = [];
  const { out } = await run((client) => client.listVolumes('ab'), {
    volumes(query) {
      seen.push(query);
      return Promise.resolve(pages.get(query.after) ?? { volumes: [], next: null });
    },
  });
  assert.deepEqual(seen, [
    { router: B, after: null, limit: 500 },
    { router: B, after: '2', limit: 500 },
  ]);
  assert.deepEqual(out.split('\n'), [
    'fileid  router        state                           protection   size          path',
    '100     aaaaaaaaaaaa  running                         clean        1GiB          /vm1/vm1-flat.vmdk',
    '101     aaaaaaaaaaaa  recovering: its router is away  unprotected  1GiB  pinned  (volume without a name)',
    '102     aaaaaaaaaaaa  moving to abababababab          clean        1GiB          /vm1/vm1-flat.vmdk',
    '',
  ]);
});

test('a beginning that no router or more than one has is wrong usage, with those that there are', async () => {
  const none = await run((client) => client.listVolumes('ff'));
  assert.equal(none.code, ExitCode.USAGE);
  assert.equal(none.err, 'No router has an id that begins with "ff"; there are aaaaaaaaaaaa (this one), abababababab.\n');
  assert.match((await run((client) => client.moveVolume('100', 'a', false))).err, /^More than one router has an id that begins with "a"/);
  assert.equal((await run((client) => client.moveVolume('100', '', false))).code, ExitCode.USAGE);
});

test('move list shows what runs and what ended, with the stall and the reason of an end', async () => {
  const ended: MoveReport = {
    ...MOVE,
    id: 'm0',
    phase: 'aborted',
    reason: 'io',
    endedAt: '2026-01-01T00:00:02.500Z',
    heldMs: 12.34,
    problem: 'the receiver was lost',
  };
  const { out } = await run((client) => client.listMoves(), { moves: () => ({ running: [], history: [ended] }) });
  assert.match(out, /^No move runs\.\n\nEnded, newest first:\nid /);
  assert.equal(
    out.split('\n').at(-2),
    'm0  100     aaaaaaaaaaaa -> abababababab  io      aborted  2.5 s  1KiB    12.3 ms  /vm1/vm1-flat.vmdk (the receiver was lost)',
  );
  const json = await run((client) => client.listMoves(), {}, { json: true });
  assert.deepEqual((JSON.parse(json.out) as MovesReport).running, [MOVE]);
});

test('move abort aborts, or says that there is nothing to abort', async () => {
  assert.equal((await run((client) => client.abortMove('m1'))).code, ExitCode.OK);
  const gone = await run((client) => client.abortMove('m/2'));
  assert.equal(gone.code, ExitCode.FAILED);
  assert.deepEqual(gone.asked, ['cancel m/2']);
  assert.match(gone.err, /no move m\/2 that can still be aborted/);
});

test('volume move begins a move and is done, or waits until the object is there', async () => {
  const begun = await run((client) => client.moveVolume(PATH, B, false));
  assert.deepEqual([begun.code, begun.asked], [ExitCode.OK, [`move ${OBJECT} ${B}`]]);

  const rounds: MoveReport[] = [
    { ...MOVE, phase: 'copying' },
    { ...MOVE, phase: 'switching', copiedBytes: 4096, behindBytes: 0 },
    { ...MOVE, phase: 'moved', copiedBytes: 4096, behindBytes: 0, heldMs: 8, endedAt: '2026-01-01T00:00:01.000Z' },
  ];
  // The first look is before it begins.
  let round = -1;
  const waited = await run((client) => client.moveVolume(PATH, B, true), {
    volume: () => Promise.resolve(round >= 2 ? { ...VOLUME, router: B } : { ...VOLUME, moving: { from: A, to: B } }),
    moves() {
      const move = rounds[Math.max(0, Math.min(round++, 2))] ?? MOVE;
      return move.endedAt === null ? { running: [move], history: [] } : { running: [], history: [move] };
    },
  });
  assert.equal(waited.code, ExitCode.OK);
  assert.equal(waited.err, 'copying, 25 % of 4096 bytes\nswitching, 100 % of 4096 bytes\n');
  assert.equal(waited.out, '/vm1/vm1-flat.vmdk is on router abababababab; I/O was held for 8.0 ms.\n');

  const there = await run((client) => client.moveVolume(PATH, A, true), { move: () => Promise.resolve({ kind: 'already-there' }) });
  assert.deepEqual([there.code, there.out], [ExitCode.OK, 'It is on router aaaaaaaaaaaa already.\n']);
});

test('a move that is aborted while it is waited for is exit code 1 with the reason', async () => {
  const { code, err } = await run((client) => client.moveVolume(PATH, B, true), {
    moves: () => ({ running: [], history: [{ ...MOVE, phase: 'aborted', endedAt: MOVE.startedAt, problem: 'no space at the receiver' }] }),
  });
  assert.equal(code, ExitCode.FAILED);
  assert.equal(err, 'The move was aborted: no space at the receiver; /vm1/vm1-flat.vmdk stays on router aaaaaaaaaaaa.\n');
});

test('a move that ended before it was looked for is found in the history, not one of former times', async () => {
  const ended = { ...MOVE, phase: 'moved', endedAt: MOVE.startedAt } as const;
  let asked = 0;
  const { code, out } = await run((client) => client.moveVolume(PATH, B, true), {
    move: () => Promise.resolve({ kind: 'started', move: null }),
    volume: () => Promise.resolve({ ...VOLUME, router: B }),
    moves() {
      asked += 1;
      const former = { ...ended, id: 'old', heldMs: 99 };
      return { running: [], history: asked === 1 ? [former] : [{ ...ended, heldMs: 7 }, former] };
    },
  });
  assert.deepEqual([code, out], [ExitCode.OK, '/vm1/vm1-flat.vmdk is on router abababababab; I/O was held for 7.0 ms.\n']);
});

test('a move that this router never sees begin is given up after a while', async () => {
  const { code, err } = await run((client) => client.moveVolume(PATH, B, true), {
    move: () => Promise.resolve({ kind: 'started', move: null }),
    moves: () => ({ running: [], history: [] }),
  });
  assert.equal(code, ExitCode.FAILED);
  assert.match(err, /The move did not come about; .* vferry move list on router abababababab says why\.\n$/);
});

test('a refusal is exit code 1 with what the router says', async () => {
  const { code, err } = await run((client) => client.moveVolume(PATH, B, false), {
    move: () => Promise.resolve({ kind: 'refused', code: 'busy', message: 'Two moves run already.', retryable: true }),
  });
  assert.deepEqual([code, err], [ExitCode.FAILED, 'Two moves run already. (try again later)\n']);
});

test('drain shows a bar until nothing is left; Ctrl-C stops only the waiting', async () => {
  const reports: DrainReport[] = [
    { ...NO_DRAIN, phase: 'moving', done: 1, total: 4, copiedBytes: 2 ** 20, behindBytes: 3 * 2 ** 20 },
    { ...NO_DRAIN, phase: 'stuck', done: 1, total: 4, problem: 'no other router takes anything' },
    { ...NO_DRAIN, phase: 'drained', done: 4, total: 4, copiedBytes: 2 ** 22 },
  ];
  let next = 0;
  const drained = await run((client) => client.drain(true), { drainReport: () => reports[Math.min(next++, 2)] ?? NO_DRAIN });
  assert.equal(drained.code, ExitCode.OK);
  assert.deepEqual(drained.err.split('\n'), [
    '[>                             ] 0 of 4 objects, 0B copied',
    '[=======>                      ] 1 of 4 objects, 1MiB copied, 3MiB to go',
    '[=======>                      ] 1 of 4 objects, 0B copied, no other router takes anything',
    '',
  ]);
  assert.match(drained.out, /^\[={30}\] 4 of 4 objects, 4MiB copied, drained\nNothing is served here any more/);

  const controller = new AbortController();
  const interrupted = await run(
    (client) => client.drain(true),
    {
      drainReport() {
        controller.abort();
        return reports[0] ?? NO_DRAIN;
      },
    },
    { interrupted: controller.signal },
  );
  assert.equal(interrupted.code, ExitCode.FAILED);
  assert.match(interrupted.err, /the drain goes on \(vferry router undrain ends it\)/);
  assert.deepEqual(interrupted.asked, ['drain']);

  const ended = await run((client) => client.drain(true), { drainReport: () => NO_DRAIN });
  assert.deepEqual([ended.code, ended.err.split('\n').at(-2)], [ExitCode.FAILED, 'The drain was ended (vferry router undrain).']);
  assert.match((await run((client) => client.drain(false))).out, /vferry router drain --wait follows it/);
  assert.deepEqual((await run((client) => client.undrain())).asked, ['undrain']);
});

test('a router is forgotten by the beginning of its id; a refusal is said', async () => {
  const { code, out, asked } = await run((client) => client.forgetRouter('ab'));
  assert.deepEqual([code, asked], [ExitCode.OK, [`forget ${B}`]]);
  assert.match(out, /is forgotten/);
  const refused = await run((client) => client.forgetRouter('ab'), {
    forgetRouter: () => Promise.resolve({ kind: 'refused', code: 'owns-objects', message: 'it still owns /x', retryable: false }),
  });
  assert.equal(refused.code, ExitCode.FAILED);
  assert.match(refused.err, /it still owns \/x/);
});

test('on a terminal progress is one line that is written over', async () => {
  let next = 0;
  const { err } = await run(
    (client) => client.drain(true),
    { drainReport: () => (next++ === 0 ? { ...NO_DRAIN, phase: 'moving', done: 2, total: 4 } : { ...NO_DRAIN, phase: 'drained' }) },
    { terminal: true },
  );
  assert.doesNotMatch(err, /\n/);
  assert.ok(err.startsWith('\r\u001B[K[>') && err.endsWith('\r\u001B[K'));
});

test('pin and unpin say what that means', async () => {
  const pinned = await run((client) => client.pin('100', true));
  assert.deepEqual(pinned.asked, ['pin {"kind":"fileid","fileid":100} true']);
  assert.match(pinned.out, /^\/vm1\/vm1-flat\.vmdk stays on router aaaaaaaaaaaa, whatever is forwarded, until it is unpinned/);
  assert.match((await run((client) => client.pin('100', false))).out, /follows its clients again/);
});

const PLAN = [
  `/vm1/vm1-flat.vmdk (fileid 100) belongs to router ${B}, which is dead and was last seen 61 s ago.`,
  'Its protection is unprotected; what the backend has is everything up to sequence 41 of its log.',
  'Given up for good:',
  '  - writes after sequence 41: how many, only that router knows',
  'If that router comes back, the object comes back whole, by itself, unless it is taken over now.',
  '',
].join('\n');

test('a takeover that gives something up names it and does nothing without --force and a yes', async () => {
  const without = await run((client) => client.takeOver(PATH, false, true));
  assert.deepEqual([without.code, without.out, without.asked], [ExitCode.FAILED, PLAN, [`plan ${OBJECT}`]]);
  assert.match(without.err, /^Nothing was done: .* needs --force/);

  const nobody = await run((client) => client.takeOver(PATH, true, false));
  assert.deepEqual([nobody.code, nobody.asked], [ExitCode.USAGE, [`plan ${OBJECT}`]]);
  assert.match(nobody.err, /--yes says that you mean it/);

  const no = await run((client) => client.takeOver(PATH, true, false), {}, { confirm: () => Promise.resolve(false) });
  assert.deepEqual([no.code, no.err, no.asked], [ExitCode.FAILED, 'Nothing was done.\n', [`plan ${OBJECT}`]]);

  const taken = [`plan ${OBJECT}`, `takeover ${OBJECT} ${VOLUME.term} true`];
  for (const ran of [
    await run((client) => client.takeOver(PATH, true, false), {}, { confirm: () => Promise.resolve(true) }),
    await run((client) => client.takeOver(PATH, true, true)),
  ]) {
    assert.deepEqual([ran.code, ran.asked], [ExitCode.OK, taken]);
    assert.equal(ran.out, `${PLAN}/vm1/vm1-flat.vmdk is served by router aaaaaaaaaaaa.\n`);
  }
});

test('a takeover that gives up nothing needs neither; it never asks for more force than that', async () => {
  const { code, out, asked } = await run((client) => client.takeOver(PATH, true, false), {
    takeoverPlan: () =>
      Promise.resolve({ kind: 'plan', volume: VOLUME, ownerSilentMs: null, ownerDead: true, needsForce: false, keptSequence: 41, givenUp: [] }),
  });
  assert.equal(code, ExitCode.OK);
  assert.match(out, /Nothing is given up\.\n/);
  assert.deepEqual(asked, [`takeover ${OBJECT} ${VOLUME.term} false`]);
});

test('a router on its own, nobody there, and something else there, are exit code 2', async () => {
  const alone = await run((client) => client.listRouters(), null);
  assert.deepEqual([alone.code, alone.err], [ExitCode.USAGE, 'This router is no part of a cluster: registry.kind is sqlite.\n']);
  const nobody = await run((client) => client.listRouters(), {}, { admin: { listen: '127.0.0.1', port: 1 } });
  assert.equal(nobody.code, ExitCode.USAGE);
  assert.match(nobody.err, /^No router answers at http:\/\/127\.0\.0\.1:1\/cluster\/routers: /);
  const wrong = await run((client) => client.listRouters(), { routers: () => Promise.resolve(null as never) });
  assert.equal(wrong.code, ExitCode.USAGE);
});

test('status and banner say what the cluster is', () => {
  const rows = new Map(clusterRows({ ...STATUS, drain: { ...NO_DRAIN, phase: 'moving', done: 1, total: 2 } }));
  assert.equal(rows.get('registry'), 'redis 10.0.0.9:6379, generation 2, lease 5.4 s left');
  assert.equal(rows.get('peers'), 'at 10.0.0.1:2050, TLS, certificate until 2030-01-01T00:00:00.000Z');
  assert.equal(rows.get('router'), 'abababababab dead, no address, down: refused');
  assert.equal(rows.get('objects'), '2 clean, 1 unprotected, 0 protected, 1 recovering, 0 moving');
  assert.match(rows.get('drain') ?? '', /1 of 2 objects/);
  const away = new Map(
    clusterRows({ ...STATUS, leaseLeftMs: 0, registryProblem: 'Redis does not answer', encrypted: false, certificateEndsAtMs: null }),
  );
  assert.equal(away.get('registry'), 'redis 10.0.0.9:6379, generation 2, LEASE LAPSED, Redis does not answer');
  assert.equal(away.get('peers'), 'at 10.0.0.1:2050, PLAIN TEXT');
  assert.equal(drainText(NO_DRAIN), 'not draining');
  const facts = {
    version: '1',
    vpool: 'gold',
    data: '/d',
    backend: 'b',
    addresses: { listen: '127.0.0.1', nfsPort: 2049, mountPort: 2049, portmap: 'own' as const },
    adminUrl: 'http://a',
  };
  assert.match(
    banner({ ...facts, cluster: { ...STATUS, routers: ROUTERS.map((router) => ({ ...router, state: 'running' })) } }),
    /^ {2}cluster {2}router aaaaaaaaaaaa at 10\.0\.0\.1:2050, 1 other\n {2}registry redis 10\.0\.0\.9:6379$/m,
  );
  assert.match(banner({ ...facts, cluster: STATUS }), /no other router yet$/m);
  assert.doesNotMatch(banner({ ...facts, cluster: null }), /cluster|registry/);
});

test('the commands are there, take their arguments, and ask the router of the settings', async () => {
  const asked: string[] = [];
  await using admin = await adminOf(scriptedCluster(asked));
  const port = ['--admin-port', String(admin.port)];
  const listed = await command(['router', 'list', '--json', ...port]);
  assert.equal(listed.code, 0);
  assert.deepEqual(JSON.parse(listed.stdout), { routers: JSON.parse(JSON.stringify(ROUTERS)) as unknown });
  assert.equal((await command(['volume', 'takeover', PATH, '--force', ...port])).code, 2);
  assert.equal((await command(['volume', 'takeover', PATH, '--force', '--yes', ...port])).code, 0);
  assert.equal((await command(['volume', 'move', PATH, ...port])).code, 2);
  assert.equal((await command(['volume', 'pin', '100', ...port])).code, 0);
  assert.deepEqual(asked, [`plan ${OBJECT}`, `plan ${OBJECT}`, `takeover ${OBJECT} ${VOLUME.term} true`, 'pin {"kind":"fileid","fileid":100} true']);
});
