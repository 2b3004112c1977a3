import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { bytes, objectStoreConformance, readAllOf, rejectsWith, withDirectory } from '../conformance.ts';
import { initializeBackendDirectory } from './backend-marker.ts';
import { DirectoryStore, type DirectoryStoreConfig } from './directory-store.ts';

const vpoolUuid = 'a'.repeat(32);

function config(path: string, initialize = false): DirectoryStoreConfig {
  return { kind: 'directory', path, vpoolUuid, initialize };
}

objectStoreConformance('DirectoryStore', async () => {
  const path = await mkdtemp(join(tmpdir(), 'vferry-store-'));
  return { store: new DirectoryStore(config(join(path, 'not', 'there', 'yet'), true)), close: () => rm(path, { recursive: true }) };
});

test('what was put is found by a store that opens the directory later', () =>
  withDirectory(async (path) => {
    const first = new DirectoryStore(config(path, true));
    await first.createBucket('bucket');
    await first.put('bucket', 'object', bytes(Buffer.from('kept')));
    const second = new DirectoryStore(config(path));
    assert.equal((await readAllOf(second, 'bucket', 'object')).toString(), 'kept');
  }));

test('a directory without the marker is not mounted: every call is class retry, and nothing is made in it', () =>
  withDirectory(async (path) => {
    const store = new DirectoryStore(config(path));
    const error = await rejectsWith(store.createBucket('bucket'), 'retry');
    assert.match(error.message, /not mounted/);
    await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), 'retry');
    await rejectsWith(store.get('bucket', 'object'), 'retry');
    await rejectsWith(store.head('bucket', 'object'), 'retry');
    await rejectsWith(store.delete('bucket', 'object'), 'retry');
    await rejectsWith(store.list('bucket', '', '', 10), 'retry');
    assert.deepEqual(fs.readdirSync(path), []);
  }));

test('a root that vanishes while the store runs is class retry, and the store works again when it is back', () =>
  withDirectory(async (path) => {
    const root = join(path, 'backend');
    const store = new DirectoryStore(config(root, true));
    await store.createBucket('bucket');
    await store.put('bucket', 'object', bytes(Buffer.from('x')));
    initializeBackendDirectory(config(root));
    const running = new DirectoryStore(config(root));
    assert.equal((await running.head('bucket', 'object')).kind, 'found');
    fs.renameSync(root, join(path, 'moved'));
    await rejectsWith(running.get('bucket', 'object'), 'retry');
    await rejectsWith(running.put('bucket', 'other', bytes(Buffer.from('y'))), 'retry');
    // An empty directory in its place is a mount point without its mount.
    fs.mkdirSync(root);
    assert.match((await rejectsWith(running.get('bucket', 'object'), 'retry')).message, /not mounted/);
    assert.deepEqual(fs.readdirSync(root), []);
    fs.rmdirSync(root);
    fs.renameSync(join(path, 'moved'), root);
    assert.equal((await readAllOf(running, 'bucket', 'object')).toString(), 'x');
  }));

test('the backend of another vPool, mounted in its place even while the store runs, is denied', () =>
  withDirectory(async (path) => {
    const ours = new DirectoryStore(config(join(path, 'ours'), true));
    await ours.createBucket('bucket');
    initializeBackendDirectory({ path: join(path, 'theirs'), vpoolUuid: 'b'.repeat(32) });
    const running = new DirectoryStore(config(join(path, 'ours')));
    await running.list('bucket', '', '', 10);
    fs.renameSync(join(path, 'ours'), join(path, 'aside'));
    fs.renameSync(join(path, 'theirs'), join(path, 'ours'));
    await rejectsWith(running.createBucket('bucket'), 'denied');
    await rejectsWith(running.get('bucket', 'object'), 'denied');
    assert.throws(() => initializeBackendDirectory(config(join(path, 'ours'))), /another vPool/);
  }));

test('a marker that is rewritten in place while the store runs is noticed', () =>
  withDirectory(async (path) => {
    const store = new DirectoryStore(config(path, true));
    await store.createBucket('bucket');
    const marker = join(path, 'vferry-backend.json');
    const { ctimeMs } = fs.statSync(marker);
    // Until the clock of the file system has ticked.
    while (fs.statSync(marker).ctimeMs === ctimeMs) fs.writeFileSync(marker, fs.readFileSync(marker, 'utf8').replace(vpoolUuid, 'b'.repeat(32)));
    await rejectsWith(store.createBucket('another'), 'denied');
  }));

test('a marker that is damaged or from a newer version is refused with its path', () =>
  withDirectory(async (path) => {
    initializeBackendDirectory(config(path));
    const marker = join(path, 'vferry-backend.json');
    const refused = async (text: string, errorClass: 'corrupt' | 'denied'): Promise<void> => {
      fs.writeFileSync(marker, text);
      const error = await rejectsWith(new DirectoryStore(config(path)).listBuckets('', 10), errorClass);
      assert.ok(error.message.includes(marker));
    };
    await refused('', 'corrupt');
    await refused('{"format":"vferry', 'corrupt');
    await refused('null', 'corrupt');
    await refused('{"format":"other"}', 'corrupt');
    await refused('{"format":"vferry-directory-backend","version":1,"vpoolUuid":7}', 'corrupt');
    await refused('{"format":"vferry-directory-backend","version":2,"vpoolUuid":"x"}', 'denied');
  }));

test('a directory with buckets but no marker is not taken over', () =>
  withDirectory(async (path) => {
    fs.mkdirSync(join(path, 'buckets', 'somebody'), { recursive: true });
    await rejectsWith(new DirectoryStore(config(path, true)).createBucket('bucket'), 'denied');
    assert.deepEqual(fs.readdirSync(join(path, 'buckets')), ['somebody']);
  }));

test('an initialization that died half way is finished by the next one', () =>
  withDirectory(async (path) => {
    fs.mkdirSync(join(path, 'buckets'));
    await new DirectoryStore(config(path, true)).createBucket('bucket');
    await new DirectoryStore(config(path)).createBucket('bucket');
  }));

test('a put leaves no temporary file, whether it was written, existed or failed', () =>
  withDirectory(async (path) => {
    const store = new DirectoryStore(config(path, true));
    await store.createBucket('bucket');
    await store.put('bucket', 'object', bytes(randomBytes(100)));
    await store.put('bucket', 'object', bytes(randomBytes(100)));
    await rejectsWith(
      store.put('bucket', 'short', { kind: 'file', path: join(path, 'vferry-backend.json'), offsetBytes: 0, lengthBytes: 1e6 }),
      'corrupt',
    );
    assert.deepEqual(fs.readdirSync(join(path, '.tmp')), []);
    assert.deepEqual(fs.readdirSync(join(path, 'buckets', 'bucket')), ['object']);
  }));

test('temporary files of a crashed process are removed by the first put; young ones and those of others stay', () =>
  withDirectory(async (path) => {
    initializeBackendDirectory(config(path));
    const temporary = join(path, '.tmp');
    const old = new Date(fs.statSync(temporary).mtimeMs - 16 * 60 * 1000);
    for (const name of ['vferry-put-1-aa', 'vferry-put-2-bb', 'somebody-elses', 'vferry-put-3-cc']) fs.writeFileSync(join(temporary, name), 'x');
    for (const name of ['vferry-put-1-aa', 'vferry-put-2-bb', 'somebody-elses']) fs.utimesSync(join(temporary, name), old, old);
    const store = new DirectoryStore(config(path));
    await store.createBucket('bucket');
    await store.put('bucket', 'object', bytes(Buffer.from('x')));
    assert.deepEqual(fs.readdirSync(temporary).sort(), ['somebody-elses', 'vferry-put-3-cc']);
  }));

test('what a stranger put into a bucket is neither listed, nor followed, nor waited for', () =>
  withDirectory(async (path) => {
    const store = new DirectoryStore(config(path, true));
    await store.createBucket('bucket');
    const bucket = join(path, 'buckets', 'bucket');
    fs.writeFileSync(join(path, 'secret'), 'secret');
    fs.symlinkSync(join(path, 'secret'), join(bucket, 'link'));
    fs.mkdirSync(join(bucket, 'directory'));
    fs.writeFileSync(join(bucket, 'not a name'), 'x');
    execFileSync('mkfifo', [join(bucket, 'fifo')]);
    await rejectsWith(store.get('bucket', 'link'), 'denied');
    for (const name of ['directory', 'fifo']) {
      await rejectsWith(store.get('bucket', name), 'denied');
      await rejectsWith(store.head('bucket', name), 'denied');
    }
    assert.deepEqual((await store.list('bucket', '', '', 10)).names, ['directory', 'fifo', 'link']);
    assert.equal(await store.put('bucket', 'link', bytes(Buffer.from('overwritten?'))), 'exists');
    assert.equal(fs.readFileSync(join(path, 'secret'), 'utf8'), 'secret');
  }));

test('no call leaves a descriptor open', () =>
  withDirectory(async (path) => {
    const store = new DirectoryStore(config(path, true));
    await store.createBucket('bucket');
    const before = fs.readdirSync('/proc/self/fd').length;
    for (let index = 0; index < 20; index += 1) {
      await store.put('bucket', `object-${index}`, bytes(Buffer.from('x')));
      await store.put('bucket', `object-${index}`, bytes(Buffer.from('x')));
      await store.get('bucket', `object-${index}`);
      await store.head('bucket', `object-${index}`);
      await store.get('bucket', 'absent');
      await rejectsWith(
        store.put('bucket', 'short', { kind: 'file', path: join(path, 'vferry-backend.json'), offsetBytes: 0, lengthBytes: 1e6 }),
        'corrupt',
      );
      await rejectsWith(store.put('missing', 'object', bytes(Buffer.from('x'))), 'absent');
    }
    assert.ok(fs.readdirSync('/proc/self/fd').length <= before + 1);
  }));
