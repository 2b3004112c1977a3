import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SendBufferPool } from './send-buffer.ts';

const KIB = 1024;

test('a buffer is at least as big as asked for, and not twice as big beyond 128 KiB', () => {
  const pool = new SendBufferPool(0);
  for (const size of [1, 65_537, 128 * KIB, 132 * KIB, 132 * KIB + 1, 256 * KIB, 1024 * KIB + 128, 1024 * KIB + 4096, 4096 * KIB + 200]) {
    const { length } = pool.take(size).bytes;
    assert.ok(length >= size, `${size}: ${length}`);
    if (size > 132 * KIB) assert.ok(length <= 2 * size, `${size}: ${length}`);
  }
  assert.ok(pool.take(1024 * KIB + 200).bytes.length < 1100 * KIB, 'a READ of 1 MiB with its header does not need the next class');
});

test('buffers given back are used again, by class', () => {
  const pool = new SendBufferPool(64 * KIB * KIB);
  const slab = pool.takeSlab();
  const large = pool.take(1024 * KIB);
  pool.give(slab);
  pool.give(large);
  assert.notEqual(pool.take(256 * KIB), slab);
  assert.notEqual(pool.take(300 * KIB), large);
  assert.equal(pool.take(900 * KIB), large);
  assert.equal(pool.takeSlab(), slab);
  assert.equal(pool.freeBytes, 0);
});

test('what is kept unused is bounded', () => {
  const pool = new SendBufferPool(3 * KIB * KIB);
  const buffers = Array.from({ length: 10 }, () => pool.take(1000 * KIB));
  for (const buffer of buffers) pool.give(buffer);
  assert.ok(pool.freeBytes <= 3 * KIB * KIB && pool.freeBytes > 2 * KIB * KIB);
});
