/**
 * What a power cut or a failing disk would show: the order of the system calls behind a put, and their failures. The calls of
 * node:fs are recorded, or made to fail, in this process.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, join } from 'node:path';
import { mock, test } from 'node:test';

import { bytes, readAllOf, rejectsWith, withDirectory } from '../conformance.ts';
import { DirectoryStore } from './directory-store.ts';

type Step =
  | 'openSync'
  | 'writeSync'
  | 'fdatasyncSync'
  | 'fsyncSync'
  | 'linkSync'
  | 'unlinkSync'
  | 'mkdirSync'
  | 'rmdirSync'
  | 'readSync'
  | 'statSync';
const STEPS: readonly Step[] = [
  'openSync',
  'writeSync',
  'fdatasyncSync',
  'fsyncSync',
  'linkSync',
  'unlinkSync',
  'mkdirSync',
  'rmdirSync',
  'readSync',
  'statSync',
];

interface Recorded {
  readonly store: DirectoryStore;
  readonly root: string;
  /** System calls since the last `clear`: `fsync bucket`, `link TEMPORARY object`. */
  readonly calls: string[];
  readonly clear: () => void;
  /** Makes the next call of a step fail with `code`; or do what `instead` does. */
  readonly fail: (step: Step, code: string) => void;
  readonly shortWrites: (bytesMax: number) => void;
}

function withRecorded(body: (recorded: Recorded) => Promise<void>): Promise<void> {
  return withDirectory(async (root) => {
    const store = new DirectoryStore({ kind: 'directory', path: root, vpoolUuid: 'e'.repeat(32), initialize: true });
    await store.createBucket('bucket');
    const calls: string[] = [];
    const failures = new Map<Step, string>();
    const pathOfFd = new Map<number, string>();
    let writeBytesMax = Infinity;
    const short = (path: string): string => (basename(path).startsWith('vferry-put-') ? 'TEMPORARY' : basename(path));
    for (const step of STEPS) {
      const original = fs[step] as (...parameters: unknown[]) => unknown;
      const replacement = (...parameters: unknown[]): unknown => {
        const [first, second] = parameters;
        const subject = typeof first === 'number' ? (pathOfFd.get(first) ?? `fd ${first}`) : short(String(first));
        const object = step === 'linkSync' ? ` ${short(String(second))}` : '';
        calls.push(`${step.replace('Sync', '')} ${subject}${object}`);
        const code = failures.get(step);
        if (code !== undefined) {
          failures.delete(step);
          throw Object.assign(new Error(`${code}: injected, ${step}`), { code });
        }
        if (step === 'writeSync') parameters[3] = Math.min(parameters[3] as number, writeBytesMax);
        const result = original.apply(fs, parameters);
        if (step === 'openSync') pathOfFd.set(result as number, short(String(first)));
        return result;
      };
      mock.method(fs, step, replacement as never);
    }
    syncBuiltinESMExports();
    try {
      await body({
        store,
        root,
        calls,
        clear: () => {
          calls.length = 0;
        },
        fail: (step, code) => failures.set(step, code),
        shortWrites: (bytesMax) => {
          writeBytesMax = bytesMax;
        },
      });
    } finally {
      mock.restoreAll();
      syncBuiltinESMExports();
    }
  });
}

/** The calls that change or sync something, as one line. */
function essence(calls: readonly string[]): string {
  return calls.filter((call) => /^(write|fdatasync|fsync|link|unlink|mkdir|rmdir) /.test(call)).join(', ');
}

test('a put syncs the data before the name appears, and the name before it answers', () =>
  withRecorded(async ({ store, calls, clear }) => {
    await store.put('bucket', 'first', bytes(Buffer.from('x')));
    clear();
    await store.put('bucket', 'object', bytes(Buffer.from('x')));
    assert.equal(essence(calls), 'write TEMPORARY, fdatasync TEMPORARY, link TEMPORARY object, fsync bucket, unlink TEMPORARY');
  }));

test('exists is answered only after a sync of the directory: the one who wrote it may have died before that', () =>
  withRecorded(async ({ store, calls, clear, root }) => {
    fs.writeFileSync(join(root, 'buckets', 'bucket', 'object'), 'from somebody who died');
    clear();
    assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('x'))), 'exists');
    assert.equal(essence(calls), 'fsync bucket');
  }));

test('a bucket is durable when it was made, also when it was there, and so is every delete', () =>
  withRecorded(async ({ store, calls, clear }) => {
    clear();
    await store.createBucket('other');
    await store.createBucket('other');
    assert.equal(essence(calls), 'mkdir other, fsync buckets, mkdir other, fsync buckets');
    await store.put('other', 'object', bytes(Buffer.from('x')));
    clear();
    await store.delete('other', 'object');
    await store.deleteBucket('other');
    assert.equal(essence(calls), 'unlink object, fsync other, rmdir other, fsync buckets');
  }));

test('a disk that fails to sync the data leaves no object and no temporary file, and the put is class retry', () =>
  withRecorded(async ({ store, fail, root }) => {
    for (const step of ['writeSync', 'fdatasyncSync', 'linkSync'] as const) {
      fail(step, 'EIO');
      assert.match((await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), 'retry')).message, /input\/output error/);
      assert.deepEqual(fs.readdirSync(join(root, 'buckets', 'bucket')), []);
      assert.deepEqual(fs.readdirSync(join(root, '.tmp')), []);
    }
    assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('x'))), 'written');
  }));

test('a disk that fails to sync the name makes the put class retry, and its repetition answers exists', () =>
  withRecorded(async ({ store, fail }) => {
    fail('fsyncSync', 'EIO');
    await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), 'retry');
    assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('x'))), 'exists');
  }));

test('a temporary file that cannot be removed does not change the answer of a put', () =>
  withRecorded(async ({ store, fail }) => {
    fail('unlinkSync', 'EIO');
    assert.equal(await store.put('bucket', 'object', bytes(Buffer.from('x'))), 'written');
  }));

test('short writes are continued', () =>
  withRecorded(async ({ store, shortWrites, root }) => {
    shortWrites(1000);
    const content = Buffer.from(Array.from({ length: 10_500 }, (_, index) => index & 0xff));
    await store.put('bucket', 'bytes', bytes(content));
    fs.writeFileSync(join(root, 'source'), content);
    await store.put('bucket', 'file', { kind: 'file', path: join(root, 'source'), offsetBytes: 100, lengthBytes: 10_000 });
    assert.deepEqual(await readAllOf(store, 'bucket', 'bytes'), content);
    assert.deepEqual(await readAllOf(store, 'bucket', 'file'), content.subarray(100, 10_100));
  }));

test('each system error is classed by what the caller should do', () =>
  withRecorded(async ({ store, fail }) => {
    const classes = {
      'no-space': ['ENOSPC', 'EDQUOT', 'EMLINK'],
      denied: ['EACCES', 'EPERM', 'EROFS', 'EOPNOTSUPP'],
      retry: ['EIO', 'ESTALE', 'ENOTCONN', 'EMFILE', 'ENOMEM', 'ETIMEDOUT', 'EWHATEVER'],
    } as const;
    for (const [errorClass, codes] of Object.entries(classes)) {
      for (const code of codes) {
        fail('linkSync', code);
        const error = await rejectsWith(store.put('bucket', 'object', bytes(Buffer.from('x'))), errorClass as keyof typeof classes);
        assert.ok(error.message.startsWith('put bucket/object: ') && error.message.includes(code), error.message);
      }
    }
    await store.put('bucket', 'object', bytes(Buffer.from('x')));
    fail('readSync', 'EIO');
    await rejectsWith(store.get('bucket', 'object'), 'retry');
    fail('statSync', 'ENOTCONN');
    assert.match((await rejectsWith(store.get('bucket', 'object'), 'retry')).message, /mount/);
    assert.equal((await readAllOf(store, 'bucket', 'object')).toString(), 'x');
  }));

test('an error of the local source file says so, and not that the backend failed', () =>
  withRecorded(async ({ store, fail, root }) => {
    const path = join(root, 'source');
    fs.writeFileSync(path, 'content');
    fail('readSync', 'EIO');
    const error = await rejectsWith(store.put('bucket', 'object', { kind: 'file', path, offsetBytes: 0, lengthBytes: 7 }), 'retry');
    assert.ok(error.message.includes(`cannot read ${path}`), error.message);
  }));
