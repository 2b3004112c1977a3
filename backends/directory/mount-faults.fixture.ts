/**
 * Run by mount-faults.test.ts in mount and user namespaces of its own: `node mount-faults.fixture.ts SCENARIO DIRECTORY`.
 * Mounts real file systems on DIRECTORY/mount, asserts how a DirectoryStore behaves on them, and exits with 0.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

import { bytes, readAllOf, rejectsWith } from '../conformance.ts';
import { StoreError } from '../object-store.ts';
import { DirectoryStore } from './directory-store.ts';

const scenario = process.argv[2] ?? '';
const directory = process.argv[3] ?? '';
const mountPoint = join(directory, 'mount');
fs.mkdirSync(mountPoint);

function run(command: string, ...options: string[]): void {
  execFileSync(command, options, { stdio: ['ignore', 'ignore', 'inherit'] });
}

function store(initialize: boolean): DirectoryStore {
  return new DirectoryStore({ kind: 'directory', path: mountPoint, vpoolUuid: 'd'.repeat(32), initialize });
}

async function full(): Promise<void> {
  run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mountPoint);
  const backend = store(true);
  await backend.createBucket('bucket');
  const source = join(directory, 'segment');
  const content = randomBytes(900_000);
  fs.writeFileSync(source, content);
  const stored: string[] = [];
  const fill = async (prefix: string): Promise<StoreError> => {
    for (let index = 0; ; index += 1) {
      const name = `${prefix}${index}`;
      const body = index % 2 === 0 ? bytes(content) : ({ kind: 'file', path: source, offsetBytes: 0, lengthBytes: content.byteLength } as const);
      try {
        assert.equal(await backend.put('bucket', name, body), 'written');
        stored.push(name);
      } catch (error) {
        assert.ok(error instanceof StoreError);
        return error;
      }
    }
  };
  const error = await fill('first-');
  assert.equal(error.class, 'no-space');
  assert.match(error.message, /free space/);
  assert.ok(stored.length >= 3);
  assert.deepEqual(fs.readdirSync(join(mountPoint, '.tmp')), [], 'a half-written object is not left to fill the disk');
  assert.deepEqual((await backend.list('bucket', '', '', 100)).names, stored);
  // Space comes back: no restart is needed.
  await backend.delete('bucket', stored.shift() ?? '');
  assert.equal((await fill('second-')).class, 'no-space');
  assert.ok(stored.includes('second-0'));
  for (const name of stored) assert.ok((await readAllOf(backend, 'bucket', name)).equals(content));
}

async function inodes(): Promise<void> {
  run('mount', '-t', 'tmpfs', '-o', 'size=4m,nr_inodes=12', 'tmpfs', mountPoint);
  const backend = store(true);
  await backend.createBucket('bucket');
  const put = async (): Promise<void> => {
    for (let index = 0; index < 20; index += 1) await backend.put('bucket', `o${index}`, bytes(Buffer.from('x')));
  };
  await rejectsWith(put(), 'no-space');
  await backend.createBucket('last-inode');
  await rejectsWith(backend.createBucket('another'), 'no-space');
}

async function readOnly(): Promise<void> {
  run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mountPoint);
  const backend = store(true);
  await backend.createBucket('bucket');
  await backend.createBucket('other');
  await backend.put('bucket', 'object', bytes(Buffer.from('kept')));
  run('mount', '-o', 'remount,ro', mountPoint);
  for (const reader of [backend, store(false)]) {
    assert.match((await rejectsWith(reader.put('bucket', 'new', bytes(Buffer.from('x'))), 'denied')).message, /read-only/);
    await rejectsWith(reader.createBucket('third'), 'denied');
    await rejectsWith(reader.deleteBucket('other'), 'denied');
    await rejectsWith(reader.delete('bucket', 'object'), 'denied');
    assert.equal((await readAllOf(reader, 'bucket', 'object')).toString(), 'kept');
    assert.deepEqual((await reader.list('bucket', '', '', 10)).names, ['object']);
  }
  run('mount', '-o', 'remount,rw', mountPoint);
  assert.equal(await backend.put('bucket', 'new', bytes(Buffer.from('x'))), 'written');
}

async function unmounted(): Promise<void> {
  const real = join(directory, 'real');
  fs.mkdirSync(real);
  run('mount', '--bind', real, mountPoint);
  const backend = store(true);
  await backend.createBucket('bucket');
  await backend.put('bucket', 'object', bytes(Buffer.from('kept')));
  run('umount', mountPoint);
  for (const each of [store(false), backend]) {
    // The second one was made to initialize, and must do that only once.
    assert.match((await rejectsWith(each.put('bucket', 'new', bytes(Buffer.from('x'))), 'retry')).message, /not mounted/);
    await rejectsWith(each.createBucket('bucket'), 'retry');
    await rejectsWith(each.get('bucket', 'object'), 'retry');
    await rejectsWith(each.head('bucket', 'object'), 'retry');
    await rejectsWith(each.delete('bucket', 'object'), 'retry');
    await rejectsWith(each.deleteBucket('bucket'), 'retry');
    await rejectsWith(each.list('bucket', '', '', 10), 'retry');
    assert.deepEqual(fs.readdirSync(mountPoint), [], 'nothing was written to the bare mount point');
  }
  run('mount', '--bind', real, mountPoint);
  assert.equal((await readAllOf(backend, 'bucket', 'object')).toString(), 'kept');
  assert.equal(await backend.put('bucket', 'new', bytes(Buffer.from('x'))), 'written');
}

const scenarios: Readonly<Record<string, () => Promise<void>>> = { full, inodes, 'read-only': readOnly, unmounted };
const chosen = scenarios[scenario];
assert.ok(chosen !== undefined, `no scenario ${scenario}`);
await chosen();
