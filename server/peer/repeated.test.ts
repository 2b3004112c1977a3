import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { FileId } from '../core/ids.ts';
import type { PeerCaller } from '../object-router/peer-port.ts';
import { getAttributes, getCaller, getTarget, putAttributes, putCaller, putTarget } from './object-codec.ts';
import { MemoryPeerService } from './testing/memory-peer-service.ts';
import { CALLER, INCARNATION_B, ROUTER_B, TARGET } from './testing/two-ends.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

function through<T>(put: (writer: WireWriter, value: T) => void, get: (reader: WireReader) => T, value: T): T {
  const writer = new WireWriter();
  writer.u32(7);
  put(writer, value);
  const reader = new WireReader(writer.written());
  reader.u32();
  const got = get(reader);
  reader.assertEnd();
  return got;
}

test('what repeats is the very same value; what differs in one byte is what it is', () => {
  const base = new MemoryPeerService(ROUTER_B, INCARNATION_B).attributes(TARGET.fileid);
  assert.equal(through(putTarget, getTarget, TARGET), through(putTarget, getTarget, TARGET));
  assert.equal(through(putAttributes, getAttributes, base), through(putAttributes, getAttributes, { ...base }));
  const caller = { ...CALLER, operationId: '' };
  assert.equal(through(putCaller, getCaller, caller), through(putCaller, getCaller, caller));
  // Few numbers, so that values meet in their places.
  const small = fc.integer({ min: 64, max: 68 });
  fc.assert(
    fc.property(fc.array(fc.tuple(small, small, small), { minLength: 2, maxLength: 40 }), (steps) => {
      for (const [a, b, c] of steps) {
        const target = { fileid: a as FileId, inodeGeneration: b, term: { ...TARGET.term, counter: c } };
        assert.deepEqual(through(putTarget, getTarget, target), target);
        assert.deepEqual(through(putTarget, getTarget, target), target);
        const attributes = { ...base, fileid: a, sizeBytes: b, ctime: { seconds: c, nanoseconds: 0 } };
        assert.deepEqual(through(putAttributes, getAttributes, attributes), attributes);
        const from: PeerCaller = {
          uid: a,
          gid: b,
          gids: Array.from({ length: c - 64 }, (_, at) => at),
          address: '1'.repeat(a - 64),
          operationId: 'x'.repeat(b - 64),
        };
        assert.deepEqual(through(putCaller, getCaller, from), from);
      }
    }),
  );
});
