/** What a server takes from whom, and what it never executes. The peer is played by hand. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import tls from 'node:tls';
import { crc32 } from 'node:zlib';

import type { Incarnation, RouterId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import type { Logger } from '../core/logger.ts';
import { FrameKind } from './frame.ts';
import type { Hello } from './hello.ts';
import { PeerServer } from './peer-server.ts';
import { DATA_LANE } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { clusterCertificates } from './testing/certificates.ts';
import { MemoryPeerService } from './testing/memory-peer-service.ts';
import { RawPeer, requestBytes } from './testing/raw-peer.ts';
import { settled, SteppedClock, until } from './testing/stepped-clock.ts';
import { CALLER, INCARNATION_B, ROUTER_B, TARGET, VPOOL } from './testing/two-ends.ts';

interface Served {
  readonly server: PeerServer;
  readonly service: MemoryPeerService;
  readonly clock: SteppedClock;
  readonly reasons: string[];
  connect(): RawPeer;
}

async function withServer(use: (served: Served) => Promise<void>, settings: Partial<PeerSettings> = {}): Promise<void> {
  const clock = new SteppedClock();
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const reasons: string[] = [];
  const logger: Logger = {
    ...silentLogger,
    warn: (fields, message) => void reasons.push(`${message}: ${String((fields as { reason?: string }).reason)}`),
  };
  const self = { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL };
  const server = new PeerServer({ service: () => service, clock, logger, tls: null, self }, settings);
  const { port } = await server.listen('127.0.0.1', 0);
  const peers: RawPeer[] = [];
  try {
    await use({
      server,
      service,
      clock,
      reasons,
      connect() {
        const peer = new RawPeer(port);
        peers.push(peer);
        return peer;
      },
    });
  } finally {
    for (const peer of peers) peer.close();
    await server.close();
  }
}

const getattr = { kind: FrameKind.GETATTR, target: TARGET } as const;
const commit = { kind: FrameKind.COMMIT, target: TARGET, caller: CALLER } as const;

test('a hello that fits is welcomed, and calls behind it are answered', async () => {
  await withServer(async ({ connect, server }) => {
    const peer = connect();
    assert.deepEqual(await peer.hello(), { kind: 'welcome', version: 1, creditBytes: 16 * 1024 * 1024 });
    assert.equal(server.peers.length, 1);
    peer.call(7, getattr);
    await until(() => peer.frames.length === 2, 'the call was answered');
    assert.deepEqual([peer.frames[1]!.head.requestId, peer.frames[1]!.head.isAnswer], [7, true]);
  });
});

const refusals: readonly [string, Partial<Hello>, RegExp][] = [
  ['version', { versionFirst: 3, versionLast: 9 }, /speaks versions 3 to 9 of the peer protocol, this one 1 to 2/],
  ['vpool', { vpoolUuid: 'other' }, /belongs to vPool other/],
  ['not-me', { toIncarnation: 'cc'.repeat(16) as Incarnation }, /not bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb in cccc/],
  ['not-me', { toRouter: 'cc'.repeat(16) as RouterId }, /this is router bbbb/],
  ['not-me', { router: ROUTER_B }, /the router itself/],
  ['version', { lane: 3 }, /no stream 0 on lane 3/],
  ['version', { lane: 0, stream: 1 }, /no stream 1 on lane 0/],
];

for (const [refusal, changes, message] of refusals) {
  test(`a hello with ${JSON.stringify(changes)} is refused with a reason, and nothing behind it is executed`, async () => {
    await withServer(async ({ connect, service }) => {
      const peer = connect();
      const answer = await peer.hello(changes);
      assert.ok(answer?.kind === 'refused');
      assert.equal(answer.refusal, refusal);
      assert.match(answer.message, message);
      peer.call(1, getattr);
      peer.close();
      const other = connect();
      await other.hello();
      other.call(1, commit);
      await until(() => other.frames.length === 2, 'the call was answered');
      assert.deepEqual(service.calls, ['commit']);
    });
  });
}

test('versions that overlap agree on the highest that both speak', async () => {
  await withServer(async ({ connect }) => {
    const answer = await connect().hello({ versionFirst: 1, versionLast: 40 });
    assert.ok(answer?.kind === 'welcome' && answer.version === 2);
  });
});

for (const [versionLast, hasCrc] of [
  [1, true],
  [2, false],
] as const) {
  test(`a READ by a caller of version ${versionLast} comes and is answered ${hasCrc ? 'with' : 'without'} CRCs`, async () => {
    await withServer(async ({ connect, service }) => {
      service.write(TARGET, CALLER, 0, 5, [Buffer.from('bytes')], 2);
      const peer = connect();
      if (!hasCrc) peer.leaveCrcsOut();
      await peer.hello({ versionLast, lane: DATA_LANE });
      peer.call(7, { kind: FrameKind.READ, target: TARGET, caller: CALLER, offsetBytes: 0, countBytes: 5 });
      await until(() => peer.frames.length === 2, 'the call was answered');
      const { head, payload } = peer.frames[1]!;
      assert.deepEqual([head.payloadCrc, payload.toString('latin1')], [hasCrc ? crc32('bytes') : 0, 'bytes']);
    });
  });
}

const bad: readonly [string, (peer: RawPeer) => void][] = [
  ['bytes that are no frame', (peer) => peer.send(Buffer.alloc(100, 1))],
  ['a second hello', (peer) => void peer.hello().catch(() => {})],
  ['a call of another lane', (peer) => peer.call(1, { kind: FrameKind.READ, target: TARGET, caller: CALLER, offsetBytes: 0, countBytes: 1 })],
  ['a frame whose CRC is wrong', (peer) => peer.send(requestBytes(1, getattr).fill(0, 0, 4))],
  [
    'an answer',
    (peer) => {
      const frame = requestBytes(1, getattr);
      frame[7] = 1;
      peer.send(frame);
    },
  ],
];

for (const [what, send] of bad) {
  test(`${what} closes the session with a reason, and the next session works`, async () => {
    await withServer(async ({ connect, reasons, service }) => {
      const peer = connect();
      await peer.hello();
      send(peer);
      await peer.closed();
      assert.equal(reasons.length, 1);
      assert.match(reasons[0]!, /^the session of a peer is closed: /);
      const next = connect();
      assert.equal((await next.hello({ session: 2 }))?.kind, 'welcome');
      next.call(1, commit);
      await until(() => next.frames.length === 2, 'the call was answered');
      assert.deepEqual(service.calls, ['commit']);
    });
  });
}

test('a call before the hello closes the connection', async () => {
  await withServer(async ({ connect, service }) => {
    const peer = connect();
    peer.call(1, getattr);
    await peer.closed();
    assert.deepEqual(service.calls, []);
  });
});

test('[!] a newer session of a router ends the older one before anything of the newer is executed; nothing of the older is executed any more', async () => {
  await withServer(async ({ connect, service }) => {
    const old = connect();
    await old.hello({ session: 5 });
    // Half a call is there already.
    const frame = requestBytes(1, commit);
    old.send(frame.subarray(0, 40));
    const newer = connect();
    assert.equal((await newer.hello({ session: 6 }))?.kind, 'welcome');
    old.send(frame.subarray(40));
    await old.closed();
    newer.call(1, getattr);
    await until(() => newer.frames.length === 2, 'the call was answered');
    assert.deepEqual(service.calls, ['getattr']);
    const late = await connect().hello({ session: 5 });
    assert.ok(late?.kind === 'refused' && late.refusal === 'stale');
    const again = await connect().hello({ session: 6 });
    assert.ok(again?.kind === 'refused' && again.refusal === 'stale');
  });
});

test('[!] an incarnation of a router ends the one before, which never comes back', async () => {
  await withServer(async ({ connect }) => {
    const old = connect();
    await old.hello({ session: 50 });
    const newer = connect();
    assert.equal((await newer.hello({ session: 1, incarnation: 'dd'.repeat(16) as Incarnation }))?.kind, 'welcome');
    await old.closed();
    const late = await connect().hello({ session: 51 });
    assert.ok(late?.kind === 'refused' && late.refusal === 'stale');
    assert.equal(newer.isClosed, false);
  });
});

test('all connections of a session end with one of them, and it cannot be joined again', async () => {
  await withServer(async ({ connect }) => {
    const control = connect();
    await control.hello({ lane: 0 });
    const data = connect();
    assert.equal((await data.hello({ lane: 1 }))?.kind, 'welcome');
    control.close();
    await data.closed();
    const bulk = await connect().hello({ lane: 2 });
    assert.ok(bulk?.kind === 'refused' && bulk.refusal === 'stale');
  });
});

test('[!] a session that was silent for 3 s is closed, and nothing more is taken from it, even when the process stood still and the bytes are there before any timer', async () => {
  await withServer(async ({ connect, service, clock, reasons }) => {
    const peer = connect();
    await peer.hello();
    clock.jump(3001);
    peer.call(1, commit);
    await peer.closed();
    assert.deepEqual(service.calls, []);
    assert.match(reasons[0]!, /silent for 3001 ms/);
  });
  await withServer(async ({ connect, clock, reasons, server }) => {
    const peer = connect();
    await peer.hello();
    clock.advance(2900);
    assert.equal(server.peers.length, 1);
    clock.advance(700);
    await peer.closed();
    assert.match(reasons[0]!, /silent for/);
  });
});

test('[!] a frame that was under way for more than 3 s longer than the fastest ends the session and is not executed', async () => {
  await withServer(async ({ connect, service, clock, reasons }) => {
    const peer = connect();
    await peer.hello();
    clock.advance(1000);
    // 10 ms slower than the hello.
    peer.call(1, getattr, { sentMs: 990 });
    await until(() => peer.frames.length === 2, 'the call was answered');
    // Bytes come all the time, but each is older than the one before.
    for (let ms = 1000; ms < 4000; ms += 1000) {
      clock.advance(1000);
      peer.call(2, getattr, { sentMs: 995 });
      await until(() => peer.frames.length === 2 + ms / 1000 || peer.isClosed, 'the call was answered');
    }
    await peer.closed();
    assert.equal(service.calls.length, 3);
    assert.match(reasons[0]!, /a frame was under way for 3\d\d\d ms/);
  });
});

test('[!] a call that was older than 5 s when it was sent is refused, not executed', async () => {
  await withServer(async ({ connect, service }) => {
    const peer = connect();
    await peer.hello();
    peer.call(1, commit, { ageMs: 5001 });
    peer.call(2, commit, { ageMs: 4999 });
    await until(() => peer.frames.length === 3, 'both were answered');
    assert.deepEqual(service.calls, ['commit']);
    assert.equal(peer.frames[1]!.args[0], 2);
    assert.equal(peer.frames[2]!.args[0], 0);
  });
});

test('calls beyond the credit close the session; those within it wait without being lost', async () => {
  await withServer(
    async ({ connect, service, reasons }) => {
      const gate = Promise.withResolvers<void>();
      service.gate = gate.promise;
      const peer = connect();
      await peer.hello();
      for (let id = 1; id <= 10; id++) peer.call(id, getattr);
      await until(() => service.calls.length === 10, 'ten calls run');
      gate.resolve();
      await until(() => peer.frames.length === 11, 'ten calls were answered');
      service.gate = new Promise(() => {});
      for (let id = 1; id <= 11; id++) peer.call(id, getattr);
      await peer.closed();
      assert.equal(service.calls.length, 20);
      assert.match(reasons[0]!, /beyond the credit/);
    },
    { creditBytes: 10 * 1024 },
  );
});

test('a peer that sends calls but takes no answers is closed before they fill the memory', async () => {
  await withServer(
    async ({ connect, reasons, service }) => {
      service.write(TARGET, CALLER, 0, 4_000_000, [Buffer.alloc(4_000_000)], 2);
      const peer = connect();
      await peer.hello({ lane: 1 });
      peer.stopReading();
      const read = { kind: FrameKind.READ, target: TARGET, caller: CALLER, offsetBytes: 0, countBytes: 4_000_000 } as const;
      for (let id = 1; id <= 60 && !peer.isClosed; id++) {
        peer.call(id, read);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until(() => reasons.length > 0, 'the session was closed');
      assert.match(reasons[0]!, /takes no answers/);
    },
    { creditBytes: 4 * 1024 * 1024 + 2048 },
  );
});

test('a lapse closes every connection at once; calls that come with it or after it are not executed', async () => {
  await withServer(async ({ connect, service, server }) => {
    const peer = connect();
    await peer.hello();
    const silent = connect();
    peer.call(1, commit);
    server.lapse();
    await peer.closed();
    await silent.closed();
    assert.deepEqual(service.calls, []);
  });
});

test('without certificates a server listens on loopback addresses only', async () => {
  const self = { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL };
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const server = new PeerServer({ service: () => service, clock: new SteppedClock(), logger: silentLogger, tls: null, self });
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.org']) await assert.rejects(server.listen(host, 0), { code: 'peer-plain-text' });
  const { port } = await server.listen('127.0.0.1', 0);
  assert.ok(port > 0);
  await server.close();
});

test('a connection that says no hello is closed', async () => {
  await withServer(async ({ connect, clock }) => {
    const peer = connect();
    peer.send(Buffer.from('v'));
    await settled();
    clock.advance(4000);
    await peer.closed();
  });
});

test('a lapse leaves no socket open that said goodbye in the middle of its TLS handshake a moment ago', async (t) => {
  const { b } = await clusterCertificates();
  const self = { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL };
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const server = new PeerServer({ service: () => service, clock: new SteppedClock(), logger: silentLogger, tls: b, self });
  const { port } = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  // In the very turn in which Node ends the connection in answer to that, which the system has not carried out yet.
  const lapsed = Promise.withResolvers<void>();
  const ending = net.Socket.prototype._final;
  t.mock.method(net.Socket.prototype, '_final', function (this: net.Socket, done: (error?: Error | null) => void) {
    ending.call(this, done);
    if (!(this instanceof tls.TLSSocket)) return;
    server.lapse();
    lapsed.resolve();
  });
  const client = net.connect({ host: '127.0.0.1', port });
  client.on('error', () => {});
  client.end();
  await lapsed.promise;
  client.destroy();
  await until(() => !process.getActiveResourcesInfo().includes('TCPSocketWrap'), 'all sockets were closed');
});
