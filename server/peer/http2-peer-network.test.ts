/** The calling side: what happens to calls when connections are lost, held, cut, refused. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';

import type { FileId, Incarnation, RouterId } from '../core/ids.ts';
import { silentLogger } from '../core/logger.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import type { ObjectTarget, PeerService } from '../object-router/peer-port.ts';
import { Http2PeerNetwork } from './http2-peer-network.ts';
import { PeerServer } from './peer-server.ts';
import type { PeerSettings } from './peer-settings.ts';
import { certificateOf, clusterCertificates, makeTestAuthority } from './testing/certificates.ts';
import { MemoryPeerService } from './testing/memory-peer-service.ts';
import { settled, SteppedClock, until } from './testing/stepped-clock.ts';
import { TcpRelay } from './testing/tcp-relay.ts';
import { CALLER, FixedMembers, INCARNATION_A, INCARNATION_B, ROUTER_A, ROUTER_B, TARGET, VPOOL, withTwoEnds } from './testing/two-ends.ts';
import type { TwoEnds } from './testing/two-ends.ts';

const MIB = 1024 * 1024;

interface Relayed extends TwoEnds {
  readonly relay: TcpRelay;
  readonly caller: SteppedClock;
  readonly owner: SteppedClock;
}

/** Router A calls router B through a relay; both have clocks that stand still. Connected when `use` is called. */
async function withRelay(
  use: (ends: Relayed) => Promise<void>,
  options: { settings?: Partial<PeerSettings>; service?: (memory: MemoryPeerService) => PeerService } = {},
): Promise<void> {
  const caller = new SteppedClock();
  const owner = new SteppedClock();
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B, 16 * MIB);
  const served = options.service?.(service) ?? service;
  const server = new PeerServer(
    {
      service: () => served,
      clock: owner,
      logger: silentLogger,
      tls: null,
      self: { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL },
    },
    options.settings,
  );
  const { port } = await server.listen('127.0.0.1', 0);
  const relay = new TcpRelay(port);
  const members = new FixedMembers(ROUTER_A);
  members.set(ROUTER_B, INCARNATION_B, await relay.listen());
  const self = { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL };
  const network = new Http2PeerNetwork({ members, clock: caller, random: systemRandom, logger: silentLogger, tls: null, self }, options.settings);
  try {
    await until(() => network.state(ROUTER_B).connected, 'they connected');
    await use({ server, network, members, service, port, peer: network.peer(ROUTER_B), relay, caller, owner });
  } finally {
    network.close();
    await relay.close();
    await server.close();
  }
}

const unavailable = { name: 'ApplianceError', code: 'peer-unavailable', retryable: true };

test('a connection that is lost fails the calls under way on all lanes at once, and the next calls work over a new session', async () => {
  await withRelay(async ({ peer, service, relay, caller, network }) => {
    service.gate = new Promise(() => {});
    const calls = [peer.getattr(TARGET), peer.getattr(TARGET)];
    await until(() => service.calls.length === 2, 'both calls run');
    relay.connections[1]!.cut();
    for (const call of calls) await assert.rejects(call as Promise<unknown>, unavailable);
    assert.equal(network.state(ROUTER_B).connected, false);
    assert.equal(typeof network.state(ROUTER_B).problem, 'string');
    service.gate = null;
    // While it rests calls are refused at once; after the delay it connects again.
    await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, unavailable);
    caller.advance(100);
    assert.equal((await peer.getattr(TARGET)).kind, 'done');
    assert.equal(relay.connections.length, 6);
  });
});

test('an answer that is cut in its middle fails its call; the buffer is not written to afterwards', async () => {
  await withRelay(async ({ peer, relay, service }) => {
    service.write(TARGET, CALLER, 0, 4 * MIB, [Buffer.alloc(4 * MIB, 7)], 2);
    relay.connections[1]!.cutAfter('client', 2 * MIB);
    const into = Buffer.alloc(4 * MIB);
    await assert.rejects(peer.read(TARGET, CALLER, 0, into) as Promise<unknown>, unavailable);
    into.fill(9);
    await settled();
    assert.ok(into.every((byte) => byte === 9));
  });
});

test('a write that is cut in the middle of its frame is never executed, not even its first bytes', async () => {
  let writes = 0;
  await withRelay(
    async ({ peer, relay, service, server }) => {
      relay.connections[1]!.cutAfter('server', MIB);
      await assert.rejects(peer.write(TARGET, CALLER, 0, 2 * MIB, [Buffer.alloc(2 * MIB, 7)], 2) as Promise<unknown>, unavailable);
      await until(() => server.peers.length === 0, 'the server noticed');
      assert.equal(writes, 0);
      assert.equal(service.attributes(1).sizeBytes, 0);
    },
    {
      service: (memory) => ({
        ...boundService(memory),
        write(...args) {
          writes += 1;
          return memory.write(...args);
        },
      }),
    },
  );
});

test('[!] a way that hears nothing for 3 s is given up by the caller; what the way still holds is not executed when it arrives', async () => {
  await withRelay(async ({ peer, relay, service, caller, owner, server }) => {
    for (const connection of relay.connections) connection.hold('server');
    const write = peer.setattr(TARGET, CALLER, { mode: null, uid: null, gid: null, sizeBytes: 5, atime: null, mtime: null }, null);
    await settled();
    caller.advance(3600);
    await assert.rejects(write as Promise<unknown>, unavailable);
    // The owner's process stood still for as long: its timers did not run.
    owner.jump(3600);
    for (const connection of relay.connections) connection.release();
    await until(() => server.peers.length === 0, 'the server ended the session');
    assert.deepEqual(service.calls, []);
  });
});

test('pings keep an idle session, and tell the round trip', async () => {
  await withRelay(async ({ caller, owner, network, relay }) => {
    for (let second = 0; second < 20; second++) {
      caller.advance(1000);
      owner.advance(1000);
      // Answers must arrive before the next second.
      await settled();
    }
    assert.equal(relay.connections.length, 3);
    const { connected, roundTripMs, problem } = network.state(ROUTER_B);
    assert.deepEqual([connected, problem, typeof roundTripMs], [true, null, 'number']);
  });
});

test('an owner that answers nothing yet hears the caller all the same: pings do not wait for one another', async () => {
  await withRelay(async ({ caller, owner, relay, server }) => {
    for (const connection of relay.connections) connection.hold('client');
    // Clocks run apart, so that the caller does not take it for silence yet.
    for (let half = 0; half < 5; half++) {
      caller.advance(500);
      owner.advance(800);
      await settled();
    }
    owner.advance(800);
    assert.equal(server.peers.length, 1);
    for (const connection of relay.connections) connection.release();
  });
});

test('thousands of calls of all sizes at once keep their answers', async () => {
  const release: (() => void)[] = [];
  await withTwoEnds(
    async ({ peer }) => {
      let state = 12345;
      const random = (below: number): number => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return Math.floor((state / 2 ** 32) * below);
      };
      const calls: Promise<void>[] = [];
      for (let i = 0; i < 5000; i++) {
        const fileid = 64 + i;
        const target: ObjectTarget = { ...TARGET, fileid: fileid as FileId };
        calls.push(
          (async () => {
            switch (random(3)) {
              case 0: {
                const answer = await peer.getattr(target);
                assert.ok(answer.kind === 'done' && answer.result.status === 0 && answer.result.attributes.fileid === fileid);
                break;
              }
              case 1: {
                const into = Buffer.alloc(random(50) === 0 ? 100_000 : random(2) === 0 ? 4096 : random(5000));
                const answer = await peer.read(target, CALLER, fileid * 7, into);
                assert.ok(answer.kind === 'done' && answer.result.status === 0 && answer.result.bytesRead === into.length);
                assert.ok(into.every((byte) => byte === (fileid & 0xff)));
                break;
              }
              default: {
                const data = Buffer.alloc(random(50) === 0 ? 100_000 : random(5000) + 1, fileid & 0xff);
                const answer = await peer.write(target, CALLER, 0, data.length, [data], 2);
                assert.ok(answer.kind === 'done' && answer.result.status === 0 && answer.result.countBytes === data.length);
                assert.equal(answer.result.wcc.after?.fileid, fileid);
              }
            }
          })(),
        );
      }
      let isDone = false;
      const all = Promise.all(calls).finally(() => {
        isDone = true;
      });
      all.catch(() => undefined);
      // Answers leave in another order than their calls came.
      while (!isDone) {
        await new Promise((resolve) => setImmediate(resolve));
        while (release.length > 0) release.splice(random(release.length), 1)[0]!();
      }
      await all;
    },
    {
      service: (memory) => ({
        ...boundService(memory),
        async read(target, _caller, offsetBytes, into) {
          await new Promise<void>((resolve) => release.push(resolve));
          assert.equal(offsetBytes, target.fileid * 7);
          into.fill(target.fileid & 0xff);
          return { kind: 'done', result: { status: 0, bytesRead: into.length, eof: false, attributes: null } };
        },
        async write(target, _caller, _offsetBytes, countBytes, chunks) {
          await new Promise<void>((resolve) => release.push(resolve));
          assert.ok(chunks.every((chunk) => chunk.every((byte) => byte === (target.fileid & 0xff))));
          const wcc = { before: null, after: memory.attributes(target.fileid) };
          return { kind: 'done', result: { status: 0, wcc, countBytes, committed: 2, verifier: Buffer.alloc(8) } };
        },
      }),
    },
  );
});

test('data that does not move holds up no metadata, moves hold up no data, and large transfers hold up no small ones', async () => {
  const held: (() => void)[] = [];
  await withRelay(
    async ({ peer, relay }) => {
      // Large reads use up the credit of their stream.
      const large = Array.from({ length: 12 }, () => peer.read(TARGET, CALLER, 0, Buffer.alloc(MIB)) as Promise<unknown>);
      await until(() => held.length === 4, 'the credit is used up');
      assert.equal((await peer.read(TARGET, CALLER, 0, Buffer.alloc(4096))).kind, 'done');
      const fetch = peer.moveFetch(TARGET.fileid, TARGET.term, { segment: 1, offsetBytes: 0, calls: 0 }, MIB, 0);
      for (const connection of relay.connections) connection.hold('client');
      relay.connections[0]!.release();
      for (let i = 0; i < 100; i++) assert.equal((await peer.getattr(TARGET)).kind, 'done');
      let isOver = false;
      void Promise.race([fetch, ...large]).then(() => {
        isOver = true;
      });
      await settled();
      assert.equal(isOver, false);
      for (const connection of relay.connections) connection.release();
      await fetch;
      const release = setInterval(() => {
        for (const one of held.splice(0)) one();
      }, 1);
      await Promise.all(large);
      clearInterval(release);
    },
    {
      settings: { creditBytes: 4 * MIB + 8192 },
      service: (memory) => ({
        ...boundService(memory),
        async read(target, caller, offsetBytes, into) {
          if (into.length > 4096) await new Promise<void>((resolve) => held.push(resolve));
          return memory.read(target, caller, offsetBytes, into);
        },
      }),
    },
  );
});

test('a caller that cannot receive holds back its calls: the owner keeps no more answers than the credit', async () => {
  let reads = 0;
  await withRelay(
    async ({ peer, relay, service }) => {
      service.write(TARGET, CALLER, 0, 4 * MIB, [Buffer.alloc(4 * MIB, 7)], 2);
      relay.connections[1]!.hold('client');
      const calls = Array.from({ length: 100 }, () => peer.read(TARGET, CALLER, 0, Buffer.alloc(MIB)) as Promise<unknown>);
      await until(() => reads >= 8, 'the credit is used up');
      await settled();
      assert.equal(reads, 8);
      relay.connections[1]!.release();
      await Promise.all(calls);
      assert.equal(reads, 100);
    },
    {
      settings: { creditBytes: 8 * (MIB + 1024) },
      service: (memory) => ({
        ...boundService(memory),
        read(...args) {
          reads += 1;
          return memory.read(...args);
        },
      }),
    },
  );
});

test('[!] a call that waited for credit for more than 5 s is not sent any more', async () => {
  await withRelay(
    async ({ peer, service, caller }) => {
      const gate = Promise.withResolvers<void>();
      service.gate = gate.promise;
      const first = peer.getattr(TARGET);
      const second = peer.setattr(TARGET, CALLER, { mode: 1, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null }, null);
      await until(() => service.calls.length === 1, 'the first call runs');
      // No timer runs in between: the age is looked at when there is credit.
      caller.jump(5001);
      gate.resolve();
      assert.equal((await first).kind, 'done');
      await assert.rejects(second as Promise<unknown>, { ...unavailable, message: /waited for 5001 ms/ });
      assert.deepEqual(service.calls, ['getattr']);
    },
    { settings: { creditBytes: 1024 } },
  );
});

test('calls that wait for credit beyond the limit are refused', async () => {
  await withRelay(
    async ({ peer, service }) => {
      service.gate = new Promise(() => {});
      const calls = Array.from({ length: 12 }, () => peer.getattr(TARGET) as Promise<unknown>);
      await assert.rejects(calls[11]!, { ...unavailable, message: /bytes of calls wait for it/ });
      for (const call of calls) call.catch(() => {});
    },
    { settings: { creditBytes: 1024, queueBytesMax: 10 * 1024 } },
  );
});

test('a call without an answer fails after its time; a late answer is dropped, and the session stays', async () => {
  await withRelay(
    async ({ peer, service, caller, owner, relay }) => {
      const gate = Promise.withResolvers<void>();
      service.gate = gate.promise;
      const call = peer.getattr(TARGET);
      let failed: unknown = null;
      void (call as Promise<unknown>).catch((error: unknown) => {
        failed = error;
      });
      for (let second = 0; second < 5 && failed === null; second++) {
        caller.advance(1000);
        owner.advance(1000);
        await settled();
      }
      await assert.rejects(call as Promise<unknown>, { ...unavailable, message: /no answer within 3000 ms/ });
      gate.resolve();
      assert.equal((await peer.getattr(TARGET)).kind, 'done');
      assert.equal(relay.connections.length, 3);
    },
    { settings: { callTimeoutMs: 3000 } },
  );
});

test('failures of the service arrive as such, and leave the session as it is', async () => {
  await withTwoEnds(
    async ({ peer }) => {
      await assert.rejects(peer.moveFreeze(TARGET.fileid, TARGET.term, { segment: 1, offsetBytes: 0, calls: 0 }), {
        code: 'ENOSPC',
        retryable: false,
      });
      assert.equal((await peer.getattr(TARGET)).kind, 'done');
    },
    {
      service: (memory) => ({
        ...boundService(memory),
        moveFreeze() {
          return Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC', syscall: 'write' }));
        },
      }),
    },
  );
});

test('without a way calls fail at once; when Members says that the router is there they work without waiting for the delay; a new incarnation is a new session', async () => {
  const clock = new SteppedClock();
  const members = new FixedMembers(ROUTER_A);
  const self = { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL };
  const network = new Http2PeerNetwork({ members, clock, random: systemRandom, logger: silentLogger, tls: null, self });
  const peer = network.peer(ROUTER_B);
  await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, { ...unavailable, message: /no member/ });
  // A port that nobody listens on.
  const unused = new PeerServer({
    service: () => peer,
    clock,
    logger: silentLogger,
    tls: null,
    self: { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL },
  });
  const { port } = await unused.listen('127.0.0.1', 0);
  await unused.close();
  members.set(ROUTER_B, INCARNATION_B, port);
  await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, { ...unavailable, message: /ECONNREFUSED/ });
  for (const incarnation of [INCARNATION_B, 'b2'.repeat(16) as Incarnation]) {
    const service = new MemoryPeerService(ROUTER_B, incarnation);
    const server = new PeerServer({
      service: () => service,
      clock,
      logger: silentLogger,
      tls: null,
      self: { router: ROUTER_B, incarnation, vpoolUuid: VPOOL },
    });
    const listening = await server.listen('127.0.0.1', 0);
    members.set(ROUTER_B, incarnation, listening.port);
    assert.equal((await peer.getattr(TARGET)).kind, 'done');
    assert.deepEqual(service.calls, ['getattr']);
    if (incarnation !== INCARNATION_B) members.set(ROUTER_B, incarnation, listening.port, true);
    if (incarnation !== INCARNATION_B) await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, { ...unavailable, message: /dead|no member/ });
    // The first one stays while the second one is asked: its session is left by the new incarnation, not by its end.
    if (incarnation === INCARNATION_B) void server.close();
    else await server.close();
  }
  network.close();
  await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, unavailable);
});

test('calls wait for a connection that is being made, at most a second', async () => {
  const clock = new SteppedClock();
  // Accepts, and never says hello.
  const relay = new TcpRelay(1);
  const members = new FixedMembers(ROUTER_A);
  const silent = net.createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const self = { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL };
  const network = new Http2PeerNetwork({ members, clock, random: systemRandom, logger: silentLogger, tls: null, self });
  members.set(ROUTER_B, INCARNATION_B, (silent.address() as { port: number }).port);
  const call = network.peer(ROUTER_B).getattr(TARGET) as Promise<unknown>;
  let failed = false;
  call.catch(() => {
    failed = true;
  });
  clock.advance(999);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(failed, false);
  clock.advance(1);
  await assert.rejects(call, { ...unavailable, message: /no connection within 1000 ms/ });
  network.close();
  await relay.close();
  silent.close();
});

test('with certificates of the cluster calls work; the certificate must be that of the router that says hello, and of the one that was called', async () => {
  const authority = await makeTestAuthority();
  const [a, b, c] = [
    await certificateOf(authority, ROUTER_A),
    await certificateOf(authority, ROUTER_B),
    await certificateOf(authority, 'c'.repeat(32) as RouterId),
  ];
  await withTwoEnds(
    async ({ peer, service }) => {
      const data = Buffer.alloc(3 * MIB, 3);
      await peer.write(TARGET, CALLER, 0, data.length, [data], 2);
      const into = Buffer.alloc(data.length);
      await peer.read(TARGET, CALLER, 0, into);
      assert.ok(into.equals(data));
      assert.equal(service.attributes(1).sizeBytes, data.length);
    },
    { tls: { a, b } },
  );
  for (const [tls, problem] of [
    [{ a: c, b }, /refuses \(certificate\): the certificate is of router cccc.*, the hello of aaaa/],
    [{ a, b: c }, /its certificate is of router cccc/],
  ] as const) {
    await withTwoEnds(
      async ({ peer, network, service }) => {
        await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, { code: 'peer-refused', message: problem });
        assert.match(network.state(ROUTER_B).problem ?? '', problem);
        assert.deepEqual(service.calls, []);
      },
      { tls },
    );
  }
});

test('a certificate of another authority, or none, is refused by both ends', async () => {
  const { a, b } = await clusterCertificates();
  const strangers = await clusterCertificates();
  for (const tls of [
    { a: strangers.a, b },
    { a, b: strangers.b },
    // Trusted by the caller, but not by the server.
    { a: { ...strangers.a, ca: a.ca }, b },
  ]) {
    await withTwoEnds(
      async ({ peer, service }) => {
        await assert.rejects(peer.getattr(TARGET) as Promise<unknown>, {
          name: 'ApplianceError',
          code: /^peer-(refused|unavailable)$/,
          retryable: true,
        });
        assert.deepEqual(service.calls, []);
      },
      { tls },
    );
  }
});

test('a lapse also closes connections that are not done with TLS yet', async () => {
  const { b } = await clusterCertificates();
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const self = { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: VPOOL };
  const server = new PeerServer({ service: () => service, clock: new SteppedClock(), logger: silentLogger, tls: b, self });
  const { port } = await server.listen('127.0.0.1', 0);
  const socket = net.connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('connect', resolve));
  // Accepted, too.
  await settled();
  server.lapse();
  await until(() => socket.destroyed, 'the connection was closed');
  await server.close();
});

test('a connection that does not get on with TLS is closed in time: strangers cannot use them all up', async () => {
  const { a, b } = await clusterCertificates();
  await withTwoEnds(
    async ({ port, peer, network }) => {
      const strangers = Array.from({ length: 20 }, () => net.connect({ host: '127.0.0.1', port }));
      for (const socket of strangers) socket.on('error', () => {});
      await until(() => strangers.every((socket) => socket.destroyed), 'the connections were closed');
      // The same time holds for the peer, and a busy machine may need more than one try.
      const deadlineMs = systemClock.monotonicMs() + 240_000;
      while (!network.state(ROUTER_B).connected) {
        assert.ok(systemClock.monotonicMs() < deadlineMs, network.state(ROUTER_B).problem ?? 'no connection');
        await systemClock.sleep(20);
      }
      assert.equal((await peer.getattr(TARGET)).kind, 'done');
    },
    { clock: systemClock, tls: { a, b }, serverSettings: { connectTimeoutMs: 1000, connectionsMax: 24 }, isUnconnected: true },
  );
});

test('a refusal for versions or vPools is what calls and state say', async () => {
  const clock = systemClock;
  const service = new MemoryPeerService(ROUTER_B, INCARNATION_B);
  const server = new PeerServer({
    service: () => service,
    clock,
    logger: silentLogger,
    tls: null,
    self: { router: ROUTER_B, incarnation: INCARNATION_B, vpoolUuid: 'another' },
  });
  const { port } = await server.listen('127.0.0.1', 0);
  const members = new FixedMembers(ROUTER_A);
  members.set(ROUTER_B, INCARNATION_B, port);
  const self = { router: ROUTER_A, incarnation: INCARNATION_A, vpoolUuid: VPOOL };
  const network = new Http2PeerNetwork({ members, clock, random: systemRandom, logger: silentLogger, tls: null, self });
  await until(() => network.state(ROUTER_B).problem !== null, 'they met');
  await assert.rejects(network.peer(ROUTER_B).getattr(TARGET) as Promise<unknown>, {
    code: 'peer-refused',
    message: /belongs to vPool 0f0f.*, this one to another/,
  });
  assert.match(network.state(ROUTER_B).problem ?? '', /refuses \(vpool\)/);
  network.close();
  await server.close();
});

/** Methods of a class instance that can be spread. */
function boundService(memory: MemoryPeerService): PeerService {
  return {
    getattr: (...args) => memory.getattr(...args),
    attributesOf: (...args) => memory.attributesOf(...args),
    read: (...args) => memory.read(...args),
    write: (...args) => memory.write(...args),
    commit: (target) => memory.commit(target),
    setattr: (...args) => memory.setattr(...args),
    inodeChanged: (...args) => memory.inodeChanged(...args),
    moveAsk: (...args) => memory.moveAsk(...args),
    moveFetch: (fileid, attempt, from, bytesMax) => memory.moveFetch(fileid, attempt, from, bytesMax),
    moveFreeze: (...args) => memory.moveFreeze(...args),
    moveConfirm: (...args) => memory.moveConfirm(...args),
    moveAbort: (...args) => memory.moveAbort(...args),
    moveOffer: (...args) => memory.moveOffer(...args),
  };
}
