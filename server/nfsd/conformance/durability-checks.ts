/** What must outlive the process: esxi.md 10, checks 7, 23, 28, 29, 38; nfs-servers.md 4.3, lines 1, 2, 5, 11. */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';

import { Stability, Status } from '../file-system.ts';
import { fill, lockContents, pattern, readAll } from './contents.ts';
import { bounce, failed, GUARDED, listAll, made, namesOf, newFile, succeeded } from './server-under-test.ts';
import type { Suite, SuiteOf } from './server-under-test.ts';

/** Does something before the server goes down, and returns what to verify when it is up again. */
type Prepare = (suite: Suite) => Promise<() => Promise<void>>;

/** One restart and one kill for all checks: a start takes seconds. */
export function durabilityChecks(suite: SuiteOf): void {
  for (const [how, checks] of [
    ['restart', RESTART_CHECKS],
    ['kill', KILL_CHECKS],
  ] as const) {
    describe(`after a ${how}`, () => {
      const verify = new Map<string, () => Promise<void>>();
      before(async () => {
        for (const [title, prepare] of checks) {
          try {
            verify.set(title, await prepare(suite()));
          } catch (error) {
            verify.set(title, () => Promise.reject(error));
          }
        }
        await bounce(suite(), how);
      });
      for (const [title] of checks) test(title, () => verify.get(title)!());
    });
  }
}

const RESTART_CHECKS: readonly [string, Prepare][] = [
  [
    'esxi 7: handles, fileids and attributes are the same (4.3/1, 4.3/2)',
    async (suite) => {
      const directory = await suite.directory();
      const file = await newFile(suite, directory, 'x-flat.vmdk');
      succeeded(await suite.client.write(file.handle, 0, Buffer.from('before the restart'), Stability.FILE_SYNC));
      const before = succeeded(await suite.client.getattr(file.handle)).attributes;
      const directoryBefore = succeeded(await suite.client.getattr(directory)).attributes;
      const { verifier } = succeeded(await suite.client.commit(file.handle));
      return async () => {
        assert.deepEqual(succeeded(await suite.client.getattr(file.handle)).attributes, before);
        assert.deepEqual(succeeded(await suite.client.commit(file.handle)).verifier, verifier);
        assert.deepEqual(succeeded(await suite.client.getattr(directory)).attributes, directoryBefore);
        assert.equal(succeeded(await suite.client.read(file.handle, 0, 100)).data.toString(), 'before the restart');
        assert.deepEqual(succeeded(await suite.client.mount(suite.server.exportName)).handle, suite.root);
      };
    },
  ],
  [
    'esxi 23: a walk begun before goes on',
    async (suite) => {
      const directory = await suite.directory();
      await fill(suite, directory, 300, 'f');
      const first = succeeded(await suite.client.readdirplus(directory, 0, Buffer.alloc(8), 4096, 4096));
      assert.ok(!first.eof);
      return async () => {
        const names = first.entries.map((entry) => entry.name.toString());
        let page = first;
        while (!page.eof) {
          page = succeeded(await suite.client.readdirplus(directory, page.entries.at(-1)!.cookie, first.cookieVerifier, 4096, 4096));
          names.push(...page.entries.map((entry) => entry.name.toString()));
        }
        assert.equal(names.length, 302);
        assert.equal(new Set(names).size, 302);
      };
    },
  ],
  [
    'UNSTABLE data that were not committed are there after a clean stop, or the verifier has changed',
    (suite) => prepareUncommitted(suite, 'disk-flat.vmdk'),
  ],
];

const KILL_CHECKS: readonly [string, Prepare][] = [
  [
    'esxi 38: lock file, contents and fileid are there',
    async (suite) => {
      const directory = await suite.directory();
      const lock = await newFile(suite, directory, '.lck-3');
      succeeded(await suite.client.write(lock.handle, 0, lockContents('H1', 77), Stability.FILE_SYNC));
      return async () => {
        const found = succeeded(await suite.client.lookup(directory, '.lck-3'));
        assert.deepEqual(found.handle, lock.handle);
        assert.equal(found.attributes?.fileid, lock.fileid);
        assert.ok(succeeded(await suite.client.read(lock.handle, 0, 512)).data.equals(lockContents('H1', 77)));
      };
    },
  ],
  [
    '4.3/11: CREATE, MKDIR, SYMLINK, LINK, RENAME, REMOVE, RMDIR and SETATTR that were answered have happened',
    async (suite) => {
      const directory = await suite.directory();
      const { client } = suite;
      const { handle } = await newFile(suite, directory, 'created');
      made(await client.mkdir(directory, 'made'));
      made(await client.mkdir(directory, 'unmade'));
      made(await client.symlink(directory, 'symlink', 'created'));
      await newFile(suite, directory, 'removed');
      await newFile(suite, directory, 'x.vmx~');
      const old = await newFile(suite, directory, 'x.vmx');
      assert.equal((await client.link(handle, directory, 'linked')).status, Status.OK);
      assert.equal((await client.rename(directory, 'x.vmx~', directory, 'x.vmx')).status, Status.OK);
      succeeded(await client.remove(directory, 'removed'));
      succeeded(await client.rmdir(directory, 'unmade'));
      succeeded(await client.setattr(handle, { mode: 0o751, uid: 7, gid: 8, sizeBytes: 123_456, mtime: { seconds: 1_500_000_000, nanoseconds: 5 } }));
      const before = succeeded(await client.getattr(handle)).attributes;
      return async () => {
        assert.deepEqual(namesOf(await listAll(suite.client, directory, 65_536)).sort(), ['created', 'linked', 'made', 'symlink', 'x.vmx']);
        assert.deepEqual(succeeded(await suite.client.getattr(handle)).attributes, before);
        failed(await suite.client.getattr(old.handle), Status.STALE);
      };
    },
  ],
  [
    '4.3/24: a call sent again gets its first answer',
    async (suite) => {
      const directory = await suite.directory();
      const xid = 0x5000_0000 + (process.pid << 8);
      const first = made(await suite.client.create(directory, 'once', GUARDED, { xid }));
      await newFile(suite, directory, 'gone');
      succeeded(await suite.client.remove(directory, 'gone', { xid: xid + 1 }));
      await newFile(suite, directory, 'from');
      assert.equal((await suite.client.rename(directory, 'from', directory, 'to', { xid: xid + 2 })).status, Status.OK);
      return async () => {
        assert.deepEqual(made(await suite.client.create(directory, 'once', GUARDED, { xid })), first);
        succeeded(await suite.client.remove(directory, 'gone', { xid: xid + 1 }));
        assert.equal((await suite.client.rename(directory, 'from', directory, 'to', { xid: xid + 2 })).status, Status.OK);
        failed(await suite.client.create(directory, 'once', GUARDED), Status.EXIST);
      };
    },
  ],
  [
    '4.3/10: an EXCLUSIVE create repeats by its verifier',
    async (suite) => {
      const directory = await suite.directory();
      const verifier = Buffer.from('a1b2c3d4e5f60718', 'hex');
      const first = made(await suite.client.create(directory, 'exclusive', { mode: 'exclusive', verifier }));
      return async () => {
        assert.deepEqual(made(await suite.client.create(directory, 'exclusive', { mode: 'exclusive', verifier })), first);
        failed(await suite.client.create(directory, 'exclusive', { mode: 'exclusive', verifier: Buffer.alloc(8) }), Status.EXIST);
      };
    },
  ],
  ...['descriptor.vmdk', 'disk-flat.vmdk'].flatMap((name): [string, Prepare][] => [
    [
      `esxi 28 (${name}): FILE_SYNC data and sizes are there, under the same verifier (4.3/5, 4.3/11)`,
      async (suite) => {
        const directory = await suite.directory();
        const { handle } = await newFile(suite, directory, name);
        const data = pattern(300_000, 9);
        const { verifier } = succeeded(await suite.client.write(handle, 12_345, data, Stability.FILE_SYNC));
        succeeded(await suite.client.setattr(handle, { sizeBytes: 400_000 }));
        return async () => {
          const found = succeeded(await suite.client.lookup(directory, name));
          assert.deepEqual(found.handle, handle);
          // A router whose peer has just started may leave them out of LOOKUP: they are optional there.
          const attributes = found.attributes ?? succeeded(await suite.client.getattr(handle)).attributes;
          assert.equal(attributes.sizeBytes, 400_000);
          assert.ok((await readAll(suite.client, handle, 12_345, data.length)).equals(data));
          assert.deepEqual(succeeded(await suite.client.commit(handle)).verifier, verifier, 'nothing was lost: the same verifier');
        };
      },
    ],
    [
      `esxi 29 (${name}): the verifier has changed, or the data that were not committed are there (4.3/5)`,
      (suite) => prepareUncommitted(suite, name),
    ],
  ]),
];

async function prepareUncommitted(suite: Suite, name: string): Promise<() => Promise<void>> {
  const { handle } = await newFile(suite, await suite.directory(), name);
  const committed = pattern(50_000, 3);
  succeeded(await suite.client.write(handle, 0, committed, Stability.UNSTABLE));
  succeeded(await suite.client.commit(handle));
  const data = pattern(50_000, 4);
  const { verifier } = succeeded(await suite.client.write(handle, 50_000, data, Stability.UNSTABLE));
  return async () => {
    const after = succeeded(await suite.client.commit(handle)).verifier;
    assert.ok((await readAll(suite.client, handle, 0, 50_000)).equals(committed), 'committed data stay');
    const survived = (await readAll(suite.client, handle, 50_000, 50_000)).equals(data);
    assert.ok(survived || !Buffer.from(after).equals(verifier), 'lost without a changed verifier');
  };
}
