/** Annotated bytes of the calls that matter most, decoded, executed, and compared byte for byte. RFC 4506, RFC 1813. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLogger } from '../core/logger.ts';
import { systemClock } from '../core/node-time.ts';
import { openExport } from './export-rules.ts';
import { FakeCall } from './fake-call.ts';
import type { Attributes, DirectoryEntry, FileSystem } from './file-system.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfs-program.ts';
import { NFS_PROGRAM } from './nfs-wire.ts';
import { NfsProcedure } from './procedure-table.ts';

/** Hex with comments behind `#`. */
function bytes(text: string): Buffer {
  return Buffer.from(text.replace(/#.*$/gm, '').replace(/\s/g, ''), 'hex');
}

const FILE: Attributes = {
  type: 1,
  mode: 0o644,
  nlink: 1,
  uid: 0,
  gid: 100,
  sizeBytes: 68_169_720_922_112,
  usedBytes: 4096,
  fsid: 0x0123_4567_89ab_cdefn,
  fileid: 0x1f_ffff_ffff_ffff,
  atime: { seconds: 1, nanoseconds: 2 },
  mtime: { seconds: 0xffff_ffff, nanoseconds: 999_999_999 },
  ctime: { seconds: 5, nanoseconds: 6 },
};
const DIRECTORY: Attributes = { ...FILE, type: 2, mode: 0o755, nlink: 2, sizeBytes: 4096 };

const FILE_FATTR3 = `
  00000001                   # type NF3REG
  000001a4                   # mode 0644
  00000001                   # nlink
  00000000 00000064          # uid, gid
  00003e00 00000000          # size 62 TB
  00000000 00001000          # used
  00000000 00000000          # rdev
  01234567 89abcdef          # fsid
  001fffff ffffffff          # fileid 2^53-1
  00000001 00000002          # atime
  ffffffff 3b9ac9ff          # mtime
  00000005 00000006          # ctime
`;
const DIRECTORY_FATTR3 = FILE_FATTR3.replace('00000001                   # type NF3REG', '00000002 # NF3DIR')
  .replace('000001a4', '000001ed')
  .replace('00000001                   # nlink', '00000002 # nlink')
  .replace('00003e00 00000000', '00000000 00001000');

function execute(fileSystem: Partial<FileSystem>, procedure: number, args: Buffer): Buffer {
  const program = new NfsProgram(
    { fileSystem: fileSystem as FileSystem, access: openExport('x'), clock: systemClock, logger: silentLogger, observer: null },
    { ...DEFAULT_NFS_SETTINGS, exportName: 'x' },
  );
  const call = new FakeCall({ program: NFS_PROGRAM, version: 3, procedure, args: [args] });
  assert.equal(program.dispatch(call), null);
  return call.reply!;
}

test('GETATTR3res', () => {
  const reply = execute({ getattr: () => ({ status: 0, attributes: FILE }) }, NfsProcedure.GETATTR, bytes('00000004 01020304'));
  assert.equal(reply.toString('hex'), bytes(`00000000 ${FILE_FATTR3}`).toString('hex'));
});

test('READ3args and READ3res: five bytes at 2^32+1, padded, at the end of the file', () => {
  let seen: unknown = null;
  const reply = execute(
    {
      read(_caller, object, offsetBytes, target) {
        seen = [Buffer.from(object).toString('hex'), offsetBytes, target.length];
        target.write('vFeRr');
        return { status: 0, bytesRead: 5, eof: true, attributes: FILE };
      },
    },
    NfsProcedure.READ,
    bytes(`
      00000005 0102030405 000000 # file
      00000001 00000001          # offset
      00001000                   # count`),
  );
  assert.deepEqual(seen, ['0102030405', 2 ** 32 + 1, 4096]);
  const expected = bytes(`
    00000000                     # NFS3_OK
    00000001 ${FILE_FATTR3}      # file_attributes
    00000005                     # count
    00000001                     # eof
    00000005 7646655272 000000   # data, padded with zeros`);
  assert.equal(reply.toString('hex'), expected.toString('hex'));
});

test('WRITE3args and WRITE3res', () => {
  let seen: unknown = null;
  const wcc = { before: { sizeBytes: 7, mtime: { seconds: 8, nanoseconds: 9 }, ctime: { seconds: 10, nanoseconds: 11 } }, after: FILE };
  const reply = execute(
    {
      write(_caller, object, offsetBytes, countBytes, chunks, stability) {
        seen = [Buffer.from(object).toString('hex'), offsetBytes, countBytes, Buffer.concat(chunks).toString(), stability];
        return { status: 0, wcc, countBytes, committed: 2, verifier: Buffer.from('0807060504030201', 'hex') };
      },
    },
    NfsProcedure.WRITE,
    bytes(`
      00000001 ff 000000         # file
      000000ff fffffffe          # offset
      00000003                   # count
      00000001                   # DATA_SYNC
      00000003 616263 00         # data`),
  );
  assert.deepEqual(seen, ['ff', 0xff_ffff_fffe, 3, 'abc', 1]);
  const expected = bytes(`
    00000000                     # NFS3_OK
    00000001                     # pre_op_attr follows
    00000000 00000007            # size
    00000008 00000009            # mtime
    0000000a 0000000b            # ctime
    00000001 ${FILE_FATTR3}      # post_op_attr
    00000003                     # count
    00000002                     # FILE_SYNC
    08070605 04030201            # verf`);
  assert.equal(reply.toString('hex'), expected.toString('hex'));
});

test('READDIRPLUS3args and READDIRPLUS3res: one entry with attributes and handle, one without', () => {
  let seen: unknown = null;
  const entries: DirectoryEntry[] = [
    { fileid: 65, name: Buffer.from('x.vmx~'), cookie: 3, attributes: FILE, handle: Buffer.from('aabbcc', 'hex') },
    { fileid: 66, name: Buffer.from([0xff]), cookie: 0x1f_ffff_ffff_fffe, attributes: null, handle: null },
  ];
  const reply = execute(
    {
      readdir(_caller, _directory, cookie, cookieVerifier, limit, wantAttributes) {
        seen = [cookie, Buffer.from(cookieVerifier).toString('hex'), wantAttributes];
        assert.ok(limit >= 2);
        return { status: 0, entries, eof: true, attributes: DIRECTORY, cookieVerifier: Buffer.from('1112131415161718', 'hex') };
      },
    },
    NfsProcedure.READDIRPLUS,
    bytes(`
      00000001 d0 000000         # dir
      00000000 00000002          # cookie
      11121314 15161718          # cookieverf
      00001000 00002000          # dircount, maxcount`),
  );
  assert.deepEqual(seen, [2, '1112131415161718', true]);
  const expected = bytes(`
    00000000                     # NFS3_OK
    00000001 ${DIRECTORY_FATTR3} # dir_attributes
    11121314 15161718            # cookieverf
    00000001                     # an entry follows
    00000000 00000041            # fileid
    00000006 782e766d787e 0000   # name
    00000000 00000003            # cookie
    00000001 ${FILE_FATTR3}      # name_attributes
    00000001 00000003 aabbcc 00  # name_handle
    00000001                     # an entry follows
    00000000 00000042            # fileid
    00000001 ff 000000           # name
    001fffff fffffffe            # cookie
    00000000                     # no attributes
    00000000                     # no handle
    00000000                     # end of the list
    00000001                     # eof`);
  assert.equal(reply.toString('hex'), expected.toString('hex'));
});

test('LOOKUP3resfail and RENAME3resfail carry attributes', () => {
  const lookup = execute(
    { lookup: () => ({ status: 2, attributes: DIRECTORY }) },
    NfsProcedure.LOOKUP,
    bytes('00000001 d0 000000 00000001 78 000000'),
  );
  assert.equal(lookup.toString('hex'), bytes(`00000002 00000001 ${DIRECTORY_FATTR3}`).toString('hex'));
  const none = { before: null, after: null };
  const rename = execute(
    { rename: () => ({ status: 18, fromWcc: { before: null, after: DIRECTORY }, toWcc: none }) },
    NfsProcedure.RENAME,
    bytes('00000001 d0 000000 00000001 78 000000 00000001 d1 000000 00000001 79 000000'),
  );
  assert.equal(rename.toString('hex'), bytes(`00000012 00000000 00000001 ${DIRECTORY_FATTR3} 00000000 00000000`).toString('hex'));
});
