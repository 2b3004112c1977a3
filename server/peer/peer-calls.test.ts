import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';

import type { SetAttributes } from '../nfsd/file-system.ts';
import { VERIFIER } from './testing/memory-peer-service.ts';
import { until } from './testing/stepped-clock.ts';
import { CALLER, INCARNATION_B, ROUTER_A, ROUTER_B, TARGET, withTwoEnds } from './testing/two-ends.ts';

const NO_CHANGES: SetAttributes = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

test('what is written through a peer is read through it, at 4 KiB and 1 MiB, with attributes and verifier unchanged', async () => {
  await withTwoEnds(async ({ peer, service }) => {
    for (const countBytes of [4096, 1024 * 1024]) {
      const data = randomBytes(countBytes);
      const chunks = [data.subarray(0, 1000), data.subarray(1000)];
      const written = await peer.write(TARGET, CALLER, 512, countBytes, chunks, 2);
      assert.equal(written.kind, 'done');
      assert.ok(written.kind === 'done' && written.result.status === 0);
      assert.deepEqual(written.result.wcc.after, service.attributes(TARGET.fileid));
      assert.deepEqual([written.result.countBytes, written.result.committed, written.result.verifier], [countBytes, 2, VERIFIER]);
      const into = Buffer.alloc(countBytes + 100);
      const read = await peer.read(TARGET, CALLER, 512, into);
      assert.deepEqual(read, {
        kind: 'done',
        result: { status: 0, bytesRead: countBytes, eof: true, attributes: service.attributes(TARGET.fileid) },
      });
      assert.ok(into.subarray(0, countBytes).equals(data));
    }
  });
});

test('getattr, attributesOf, commit, setattr and inodeChanged arrive and are answered', async () => {
  await withTwoEnds(async ({ peer, service }) => {
    const attributes = service.attributes(TARGET.fileid);
    assert.deepEqual(await peer.getattr(TARGET), { kind: 'done', result: { status: 0, attributes } });
    const elsewhere = { ...TARGET, term: { ...TARGET.term, counter: 0 } };
    assert.deepEqual(await peer.getattr(elsewhere), {
      kind: 'not-owner',
      hint: { router: ROUTER_B, incarnation: INCARNATION_B, term: elsewhere.term },
    });
    assert.deepEqual(await peer.attributesOf([TARGET, elsewhere, TARGET]), [attributes, null, attributes]);
    assert.deepEqual(await peer.attributesOf([]), []);
    assert.deepEqual(await peer.commit(TARGET, CALLER), {
      kind: 'done',
      result: { status: 0, wcc: { before: null, after: attributes }, verifier: VERIFIER },
    });
    const guarded = await peer.setattr(TARGET, CALLER, { ...NO_CHANGES, sizeBytes: 77, mtime: 'server' }, { seconds: 1, nanoseconds: 2 });
    assert.deepEqual(guarded, { kind: 'done', result: { status: 10002, wcc: { before: null, after: attributes } } });
    const changed = await peer.setattr(TARGET, CALLER, { ...NO_CHANGES, sizeBytes: 77, atime: { seconds: 5, nanoseconds: 6 } }, null);
    assert.deepEqual(changed, { kind: 'done', result: { status: 0, wcc: { before: null, after: { ...attributes, sizeBytes: 77, usedBytes: 77 } } } });
    await peer.inodeChanged(TARGET.fileid);
    assert.equal(service.calls.at(-1), `inodeChanged ${TARGET.fileid}`);
  });
});

test('the messages of a move arrive and are answered', async () => {
  await withTwoEnds(async ({ peer, service }) => {
    const nonce = '8899aabbccddeeff';
    assert.deepEqual(await peer.moveAsk(TARGET, ROUTER_A, nonce, 'io'), await service.moveAsk(TARGET, ROUTER_A, nonce, 'io'));
    assert.deepEqual(await peer.moveAsk(TARGET, ROUTER_A, nonce, 'operator'), { kind: 'refused', reason: 'the object is pinned', retryable: false });
    await peer.write(TARGET, CALLER, 0, 3_000_000, [randomBytes(3_000_000)], 2);
    const from = { segment: 8, offsetBytes: 100, calls: 5 };
    assert.deepEqual(
      await peer.moveFetch(TARGET.fileid, TARGET.term, from, 2_500_000, 10),
      await service.moveFetch(TARGET.fileid, TARGET.term, from, 2_500_000),
    );
    const over = { ...TARGET.term, counter: 0 };
    assert.equal(await peer.moveFetch(TARGET.fileid, over, from, 1000, 0), null);
    assert.deepEqual(await peer.moveFreeze(TARGET.fileid, TARGET.term, from), await service.moveFreeze(TARGET.fileid, TARGET.term, from));
    assert.equal(await peer.moveFreeze(TARGET.fileid, over, from), null);
    assert.deepEqual(await peer.moveConfirm(TARGET.fileid, TARGET.term, 90), { kind: 'aborted', reason: 'sequence 90 is not the last' });
    await peer.moveAbort(TARGET.fileid, TARGET.term, 'tired');
    assert.equal(service.calls.at(-1), 'moveAbort tired');
    assert.deepEqual([await peer.moveOffer(TARGET, ROUTER_A, 'drain'), await peer.moveOffer(TARGET, ROUTER_A, 'io')], [true, false]);
  });
});

test('calls that cannot be encoded fail alone: they take no credit, and those behind them arrive', async () => {
  await withTwoEnds(
    async ({ peer }) => {
      const data = Buffer.alloc(256 * 1024, 1);
      // Connected: what has to wait is encoded behind the caller's back, where a bug ends the process.
      await peer.write(TARGET, CALLER, 0, data.length, [data], 2);
      const impossible = { ...TARGET, inodeGeneration: -1 };
      for (let call = 0; call < 8; call += 1)
        await assert.rejects(async () => peer.write(impossible, CALLER, 0, data.length, [data], 2), { name: 'AssertionError' });
      const answer = Promise.resolve(peer.write(TARGET, CALLER, 0, data.length, [data], 2));
      let isDone = false;
      void answer.then(() => {
        isDone = true;
      });
      await until(() => isDone, 'the call behind them was answered');
    },
    { settings: { creditBytes: 1024 * 1024 } },
  );
});
