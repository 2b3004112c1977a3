import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';

import { AssertionError } from './assert.ts';
import { nodeDisk } from './node-disk.ts';

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'vferry-node-disk-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** A descriptor's number is given to the next file that is opened: a call with an old one would read, write or close a stranger's. */
test('a file that is closed takes no call any more, close included, whoever has its descriptor by then', async (t) => {
  const directory = scratch(t);
  const closed = await nodeDisk.create(join(directory, 'closed'));
  await closed.close();
  const other = await nodeDisk.create(join(directory, 'other'));
  await assert.rejects(async () => closed.close(), AssertionError);
  assert.throws(() => closed.write(0, [Buffer.from('x')], () => undefined), AssertionError);
  assert.throws(() => closed.sync(() => undefined), AssertionError);
  assert.throws(() => closed.read(0, Buffer.alloc(1), () => undefined), AssertionError);
  await assert.rejects(async () => closed.truncate(1), AssertionError);
  await new Promise<void>((resolve, reject) => other.write(0, [Buffer.from('y')], (error) => (error === null ? resolve() : reject(error))));
  assert.equal(await other.size(), 1);
  await other.close();
});

test('a file is not closed under a call that is under way', async (t) => {
  const file = await nodeDisk.create(join(scratch(t), 'file'));
  const synced = new Promise<void>((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
  await assert.rejects(async () => file.close(), AssertionError);
  await synced;
  await file.close();
});
