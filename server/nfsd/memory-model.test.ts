/** The in-memory file system's parts against deliberately dumb models. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { MemoryDirectory } from './memory-inode.ts';
import { SparseContent } from './sparse-content.ts';

const SPACE_BYTES = 20_000;

test('sparse contents read as one array of bytes would, and hold memory for nothing but what is not zero', () => {
  const offset = fc.nat({ max: SPACE_BYTES - 1 });
  const action = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), offset, length: fc.nat({ max: 9000 }), value: fc.nat({ max: 3 }) }),
    fc.record({ kind: fc.constant('truncate' as const), offset, length: fc.constant(0), value: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 30 }), (actions) => {
      const content = new SparseContent();
      const model = Buffer.alloc(SPACE_BYTES);
      for (const { kind, offset: at, length, value } of actions) {
        if (kind === 'truncate') {
          content.truncate(at);
          model.fill(0, at);
          continue;
        }
        const bytes = Buffer.alloc(Math.min(length, SPACE_BYTES - at), value);
        const used = content.usedBytes;
        const growth = content.growthBytes(at, bytes.length);
        content.write(at, bytes);
        assert.ok(content.usedBytes - used <= growth);
        bytes.copy(model, at);
        const seen = Buffer.alloc(SPACE_BYTES, 0xff);
        content.read(0, seen);
        assert.ok(seen.equals(model));
      }
      let blocks = 0;
      for (let at = 0; at < SPACE_BYTES; at += 4096) if (model.subarray(at, at + 4096).some((byte) => byte !== 0)) blocks += 1;
      assert.ok(content.usedBytes >= blocks * 4096 && content.usedBytes <= 5 * 4096);
    }),
    { numRuns: 60 },
  );
});

test('a block overwritten with zeros gives its memory back', () => {
  const content = new SparseContent();
  content.write(100, Buffer.alloc(8192, 1));
  assert.equal(content.usedBytes, 3 * 4096);
  content.write(0, Buffer.alloc(3 * 4096));
  assert.equal(content.usedBytes, 0);
});

test('a directory lists what an array of names would, from any cookie on, through adds and removes', () => {
  const action = fc.record({ add: fc.boolean(), name: fc.nat({ max: 150 }) });
  fc.assert(
    fc.property(fc.array(action, { minLength: 50, maxLength: 600 }), fc.nat(), (actions, from) => {
      const directory = new MemoryDirectory();
      let model: { name: string; cookie: number }[] = [];
      let nextCookie = 3;
      for (const { add, name: number } of actions) {
        const name = `n${number}`;
        const exists = model.some((entry) => entry.name === name);
        assert.equal(directory.get(name) !== null, exists);
        if (add && !exists) {
          directory.add(name, number + 64);
          model.push({ name, cookie: nextCookie++ });
        } else if (!add && exists) {
          directory.remove(name);
          model = model.filter((entry) => entry.name !== name);
        }
      }
      const cookie = from % (nextCookie + 2);
      const listed: { name: string; cookie: number }[] = [];
      directory.after(cookie, (entry) => listed.push({ name: entry.name.toString(), cookie: entry.cookie }) > 0);
      assert.deepEqual(
        listed,
        model.filter((entry) => entry.cookie > cookie),
      );
      assert.equal(directory.size, model.length);
    }),
    { numRuns: 60 },
  );
});
