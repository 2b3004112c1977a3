import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CallTable } from './call-table.ts';
import { FrameKind } from './frame.ts';
import { PeerCall } from './peer-call.ts';
import { TARGET } from './testing/two-ends.ts';

function call(): PeerCall {
  return new PeerCall({ kind: FrameKind.GETATTR, target: TARGET }, null, 0, { answered: () => undefined, failed: () => undefined });
}

test('a number finds its call while that is under way; the number of a call that took its place does not', () => {
  const table = new CallTable();
  const calls = Array.from({ length: 100 }, call);
  for (const one of calls) table.add(one);
  assert.equal(new Set(calls.map(({ id }) => id)).size, 100);
  for (const one of calls) assert.equal(table.get(one.id), one);
  const [gone] = calls as [PeerCall];
  table.remove(gone);
  assert.equal(table.get(gone.id), null);
  const next = call();
  table.add(next);
  assert.notEqual(next.id, gone.id);
  assert.equal(table.get(gone.id), null);
  assert.equal(table.get(next.id), next);
  assert.equal(table.list().length, 100);
  for (const id of [0, 0xffff_ffff, next.id + 1]) if (!table.list().some((one) => one.id === id)) assert.equal(table.get(id), null);
});

test('numbers stay below 2^32 and never repeat among calls under way, however many there were', () => {
  const table = new CallTable();
  const staying = call();
  table.add(staying);
  const passing = call();
  for (let count = 0; count < 200_000; count += 1) {
    table.add(passing);
    assert.ok(passing.id > 0 && passing.id < 2 ** 32 && passing.id !== staying.id);
    table.remove(passing);
  }
  assert.equal(table.get(staying.id), staying);
});
