import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import { openExport } from './export-rules.ts';
import { encodeArgs, FakeCall } from './fake-call.ts';
import type { FileSystem } from './file-system.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import {
  decodeExportList,
  decodeMountList,
  decodeMountResult,
  MOUNT_PROGRAM,
  MountProcedure,
  MountProgram,
  MountStatus,
  normalizeMountPath,
} from './mount-program.ts';
import type { MountResult } from './mount-program.ts';

function subject(mount?: FileSystem['mount']): {
  program: MountProgram;
  mount: (path: string, from?: string) => Promise<MountResult>;
  reply: (version: number, procedure: number, path?: string, from?: string) => XdrReader | string | null;
} {
  const inner = new MemoryFileSystem({ clock: systemClock, random: systemRandom }, { exportName: 'vpool1', capacityBytes: 1024 });
  const fileSystem = mount === undefined ? inner : Object.assign(Object.create(inner) as FileSystem, { mount });
  const program = new MountProgram({ fileSystem, access: openExport('vpool1', ['127.0.0.0/8', '10.0.0.0/8']), logger: silentLogger });
  const call = (version: number, procedure: number, path?: string, from = '127.0.0.1'): FakeCall =>
    new FakeCall({
      program: MOUNT_PROGRAM,
      version,
      procedure,
      args: [path === undefined ? Buffer.alloc(0) : encodeArgs((w) => w.string(path))],
      clientAddress: from,
    });
  return {
    program,
    async mount(path, from) {
      const mnt = call(3, MountProcedure.MNT, path, from);
      assert.equal(await program.dispatch(mnt), null);
      const reader = new XdrReader([mnt.reply!]);
      const result = decodeMountResult(reader);
      reader.assertEnd();
      return result;
    },
    reply(version, procedure, path, from) {
      const made = call(version, procedure, path, from);
      const refusal = program.dispatch(made);
      if (refusal !== null) return refusal as string;
      return new XdrReader([made.reply!]);
    },
  };
}

test('paths are the same export however they are spelt; going up is no path', () => {
  for (const path of ['vpool1', '/vpool1', '/vpool1/', '//vpool1//', './vpool1/.']) assert.equal(normalizeMountPath(path), 'vpool1');
  assert.equal(normalizeMountPath('/vpool1/sub/'), 'vpool1/sub');
  for (const path of ['..', '/vpool1/../x', 'a\0b']) assert.equal(normalizeMountPath(path), null);
});

test('what the file system says of a path becomes the mountstat3 of the same meaning, anything else SERVERFAULT', async () => {
  const cases = [
    [MountStatus.NOENT, 2],
    [MountStatus.NOTDIR, 20],
    [MountStatus.IO, 5],
    [MountStatus.SERVERFAULT, 70],
    [MountStatus.SERVERFAULT, 10_008],
  ] as const;
  for (const [expected, status] of cases) {
    assert.equal((await subject(() => ({ status })).mount('/vpool1')).status, expected);
    assert.equal((await subject(() => Promise.resolve({ status })).mount('/vpool1')).status, expected);
  }
});

test('the list of mounts has each host and path once, forgets what is unmounted, and is bounded', async () => {
  const { mount, reply } = subject();
  const list = (): string[] => {
    const dump = reply(3, MountProcedure.DUMP);
    assert.ok(dump instanceof XdrReader);
    const entries = decodeMountList(dump);
    dump.assertEnd();
    return entries.map((entry) => `${entry.hostname}:${entry.directory}`);
  };
  for (const path of ['vpool1', '/vpool1', '/vpool1/']) assert.equal((await mount(path)).status, MountStatus.OK);
  await mount('/vpool1', '10.0.0.1');
  assert.deepEqual(list(), ['127.0.0.1:/vpool1', '10.0.0.1:/vpool1']);
  reply(1, MountProcedure.UMNT, 'vpool1');
  assert.deepEqual(list(), ['10.0.0.1:/vpool1']);
  reply(3, MountProcedure.UMNTALL, undefined, '10.0.0.1');
  assert.deepEqual(list(), []);
  for (let i = 0; i < 1500; i++) await mount('/vpool1', `10.0.${i >> 8}.${i & 255}`);
  assert.equal(list().length, 1024);
  assert.equal(list().at(-1), '10.0.5.219:/vpool1', 'the newest stay');
});

test('versions 1 and 2 have NULL, DUMP, UMNT, UMNTALL and EXPORT, not MNT', () => {
  const { reply } = subject();
  for (const version of [1, 2]) {
    assert.equal(reply(version, MountProcedure.MNT, '/vpool1'), 'procedure-unavailable');
    for (const procedure of [MountProcedure.NULL, MountProcedure.DUMP, MountProcedure.UMNTALL, MountProcedure.EXPORT]) {
      assert.ok(reply(version, procedure) instanceof XdrReader);
    }
    assert.ok(reply(version, MountProcedure.UMNT, '/none') instanceof XdrReader);
  }
  assert.equal(reply(3, 6), 'procedure-unavailable');
  const exports = reply(3, MountProcedure.EXPORT);
  assert.ok(exports instanceof XdrReader);
  assert.deepEqual(decodeExportList(exports), [{ path: '/vpool1', groups: ['127.0.0.0/8', '10.0.0.0/8'] }]);
});

test('a client outside of the networks is told so at MNT', async () => {
  const { mount } = subject();
  assert.equal((await mount('/vpool1', '11.0.0.1')).status, MountStatus.ACCES);
  assert.equal((await mount('/vpool1', '::ffff:10.0.0.1')).status, MountStatus.OK);
  assert.equal((await mount('/none', '11.0.0.1')).status, MountStatus.NOENT);
});
