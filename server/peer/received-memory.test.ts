import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ReceivedMemory } from './received-memory.ts';

function read(): ArrayBuffer {
  return new ArrayBuffer(64 * 1024);
}

test('memory is freed when a chunk of a later read comes, not while chunks of the same one do', () => {
  const memory = new ReceivedMemory();
  const [first, second] = [read(), read()];
  memory.received(Buffer.from(first, 0, 100));
  memory.received(Buffer.from(first, 100, 100));
  assert.equal(first.detached, false);
  memory.received(Buffer.from(second, 0, 100));
  assert.deepEqual([first.detached, second.detached], [true, false]);
});

test('memory of which slices live on is kept; that of the next read is not', () => {
  const memory = new ReceivedMemory();
  const [first, second, third] = [read(), read(), read()];
  memory.received(Buffer.from(first));
  memory.keep();
  memory.received(Buffer.from(second));
  memory.received(Buffer.from(third));
  assert.deepEqual([first.detached, second.detached, third.detached], [false, true, false]);
});

test("Node's pool of small Buffers is never freed", () => {
  const memory = new ReceivedMemory();
  const small = Buffer.allocUnsafe(16);
  memory.received(small);
  memory.received(Buffer.from(read()));
  assert.equal(small.buffer.detached, false);
});
