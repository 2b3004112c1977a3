import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Logger } from '../core/logger.ts';
import { silentLogger } from '../core/logger.ts';
import { systemClock, systemRandom } from '../core/node-time.ts';
import type { RpcCredential } from '../oncrpc/rpc-program.ts';
import { XdrError } from '../oncrpc/xdr-error.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import type { XdrWriter } from '../oncrpc/xdr-writer.ts';
import type { ExportAccess, ExportDecision, Squash } from './export-access.ts';
import { ExportRules, openExport } from './export-rules.ts';
import { encodeArgs, FakeCall } from './fake-call.ts';
import { fileSystemConformance } from './file-system-conformance.ts';
import type { Caller, FileSystem, Later, ReadAnswer, WriteAnswer } from './file-system.ts';
import { Stability, Status } from './file-system.ts';
import { goldenNfsCalls } from './golden-calls.ts';
import type { GoldenCall, GoldenObjects } from './golden-calls.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import { openMemoryServer } from './memory-server.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfs-program.ts';
import type { NfsProgramSettings } from './nfs-program.ts';
import { encodeSetAttributes, NFS_PROGRAM, NO_CHANGES } from './nfs-wire.ts';
import type { NfsObserver } from './observer.ts';
import { FAILURE_SHAPES, isChanging, NFS_PROCEDURE_NAMES, NfsProcedure } from './procedure-table.ts';
import { decodeReadResult } from './procedures/read.ts';
import { decodeReaddirResult, encodeReaddirplusArgs } from './procedures/readdir.ts';
import { encodeWriteArgs } from './procedures/write.ts';

const ME: Caller = { uid: 0, gid: 0, gids: [], address: '127.0.0.1', operationId: () => 'me', writeIdentity: () => 0 };

/** Every method of the port answers through `answer`, which gets the method's own answer as a thunk. */
function decorated(inner: FileSystem, answer: (method: string, run: () => unknown, caller: Caller) => unknown): FileSystem {
  return new Proxy(inner, {
    get(target, method) {
      const value: unknown = Reflect.get(target, method);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => answer(String(method), () => value.apply(target, args) as unknown, args[0] as Caller);
    },
  });
}

/** Everything comes a loop turn later, when the arguments that were lent may be gone. */
function late(inner: FileSystem): FileSystem {
  return decorated(inner, (_method, run) => {
    const result = run();
    return new Promise((resolve) => setImmediate(() => resolve(result)));
  });
}

/** As `late`, but who can be told without a promise is. */
function told(inner: FileSystem): FileSystem {
  return new Proxy(late(inner), {
    get(target, method) {
      if (method !== 'read' && method !== 'write') return Reflect.get(target, method);
      return (...args: unknown[]) => {
        const later = args.pop() as Later<ReadAnswer | WriteAnswer>;
        const answer = (Reflect.get(inner, method) as (...rest: unknown[]) => ReadAnswer | WriteAnswer).apply(inner, args);
        setImmediate(() => later.settle(answer));
        return null;
      };
    },
  });
}

function memory(): MemoryFileSystem {
  return new MemoryFileSystem({ clock: systemClock, random: systemRandom }, { exportName: 'export', capacityBytes: 2 ** 24 });
}

interface Programmed {
  readonly fileSystem?: FileSystem;
  readonly access?: ExportAccess;
  readonly logger?: Logger;
  readonly observer?: NfsObserver;
  readonly settings?: Partial<NfsProgramSettings>;
}

function programOf(init: Programmed): NfsProgram {
  return new NfsProgram(
    {
      fileSystem: init.fileSystem ?? memory(),
      access: init.access ?? openExport('export'),
      clock: systemClock,
      logger: init.logger ?? silentLogger,
      observer: init.observer ?? null,
    },
    { ...DEFAULT_NFS_SETTINGS, exportName: 'export', ...init.settings },
  );
}

function nfsCall(
  procedure: number,
  encode: (writer: XdrWriter) => void,
  init: { credential?: RpcCredential; clientAddress?: string; xid?: number } = {},
): FakeCall {
  return new FakeCall({ program: NFS_PROGRAM, version: 3, procedure, args: [encodeArgs(encode)], ...init });
}

function rawCall(procedure: number, args: Buffer, init: { clientAddress?: string } = {}): FakeCall {
  return new FakeCall({ program: NFS_PROGRAM, version: 3, procedure, args: [args], ...init });
}

function statusOf(call: FakeCall): number {
  assert.ok(call.reply !== null, 'answered');
  return call.reply.readUInt32BE(0);
}

/** Golden calls of every procedure but NULL. */
function everyCall(objects: GoldenObjects): GoldenCall[] {
  return goldenNfsCalls(objects).filter((golden) => golden.procedure !== NfsProcedure.NULL);
}

interface Populated extends GoldenObjects {
  readonly fileSystem: MemoryFileSystem;
  readonly objects: GoldenObjects;
}

function populated(): Populated {
  const fileSystem = memory();
  const handleOf = (result: { status: number; handle?: Uint8Array }): Uint8Array => {
    assert.ok(result.status === Status.OK && result.handle !== undefined);
    return result.handle;
  };
  const directory = handleOf(fileSystem.mount(ME, 'export'));
  const file = handleOf(fileSystem.create(ME, directory, Buffer.from('file'), { mode: 'guarded', attributes: NO_CHANGES }));
  const link = handleOf(fileSystem.symlink(ME, directory, Buffer.from('link'), Buffer.from('file'), NO_CHANGES));
  const objects = { directory, file, link };
  return { fileSystem, objects, ...objects };
}

fileSystemConformance('memory, every answer a turn late', () => openMemoryServer({ fileSystem: told(memory4GiB()) }), {
  durable: false,
  directoryEntries: 2000,
  regionBytes: 8 * 1024 * 1024,
});

function memory4GiB(): MemoryFileSystem {
  return new MemoryFileSystem({ clock: systemClock, random: systemRandom }, { exportName: 'export', capacityBytes: 2 ** 32 });
}

test('every procedure answers at once when the file system does: no promise', () => {
  const { fileSystem, objects } = populated();
  const program = programOf({ fileSystem });
  for (const { procedure, args } of everyCall(objects)) {
    const call = rawCall(procedure, args);
    assert.equal(program.dispatch(call), null, NFS_PROCEDURE_NAMES[procedure]);
    assert.ok(call.reply !== null);
  }
});

test('a file system that throws or rejects is answered with SERVERFAULT in the shape of the procedure, and reported', async () => {
  const { fileSystem, objects } = populated();
  const breaks = [
    () => {
      throw new Error('broken');
    },
    () => Promise.reject(new Error('broken')),
  ];
  for (const answer of breaks) {
    const errors: object[] = [];
    const logger = { ...silentLogger, error: (fields: object) => void errors.push(fields) };
    const program = programOf({ fileSystem: decorated(fileSystem, answer), logger });
    const calls = everyCall(objects);
    for (const { procedure, args } of calls) {
      const call = rawCall(procedure, args);
      assert.equal(await program.dispatch(call), null);
      assert.equal(statusOf(call), Status.SERVERFAULT, NFS_PROCEDURE_NAMES[procedure]);
      const words = { nothing: 1, 'post-op': 2, wcc: 3, 'two-wcc': 5, 'post-op-and-wcc': 4 }[FAILURE_SHAPES[procedure]!];
      assert.equal(call.reply!.length, 4 * words, `shape of ${NFS_PROCEDURE_NAMES[procedure]}`);
    }
    assert.equal(errors.length, calls.length);
  }
});

test('the observer hears of every call: status, bytes, and -1 for arguments that do not decode', async () => {
  const { fileSystem, directory, file } = populated();
  const started: number[] = [];
  const finished: [number, number, number, number][] = [];
  const observer: NfsObserver = {
    started: (procedure) => void started.push(procedure),
    finished(procedure, status, latencyMs, bytesRead, bytesWritten) {
      assert.ok(latencyMs >= 0);
      finished.push([procedure, status, bytesRead, bytesWritten]);
    },
  };
  for (const subject of [fileSystem, late(fileSystem)]) {
    const program = programOf({ fileSystem: subject, observer });
    await program.dispatch(nfsCall(NfsProcedure.WRITE, (w) => encodeWriteArgs(w, file, 0, Buffer.from('0123456789'), Stability.FILE_SYNC)));
    await program.dispatch(
      nfsCall(NfsProcedure.READ, (w) => {
        w.opaque(file);
        w.uint64(4n);
        w.uint32(100);
      }),
    );
    await program.dispatch(
      nfsCall(NfsProcedure.LOOKUP, (w) => {
        w.opaque(directory);
        w.string('missing');
      }),
    );
    assert.throws(() => program.dispatch(nfsCall(NfsProcedure.GETATTR, (w) => w.uint32(99))), XdrError);
    assert.deepEqual(started.splice(0), [7, 6, 3, 1]);
    assert.deepEqual(finished.splice(0), [
      [7, Status.OK, 0, 10],
      [6, Status.OK, 6, 0],
      [3, Status.NOENT, 0, 0],
      [1, -1, 0, 0],
    ]);
  }
});

test('READ and WRITE may be told their answer, at once or later, without a promise: it is sent and counted then, once; what is broken is SERVERFAULT', async () => {
  const { fileSystem, file } = populated();
  const finished: number[] = [];
  const observer: NfsObserver = { started: () => undefined, finished: (_procedure, status) => void finished.push(status) };
  const told: Later<ReadAnswer | WriteAnswer>[] = [];
  let atOnce: WriteAnswer | null = null;
  const telling = new Proxy(fileSystem, {
    get(target, method) {
      if (method !== 'read' && method !== 'write') return Reflect.get(target, method);
      return (...args: unknown[]) => {
        const later = args.at(-1) as Later<ReadAnswer | WriteAnswer>;
        if (atOnce === null) told.push(later);
        else later.settle(atOnce);
        return null;
      };
    },
  });
  const program = programOf({ fileSystem: telling, observer });
  const write = (): FakeCall => {
    const call = nfsCall(NfsProcedure.WRITE, (w) => encodeWriteArgs(w, file, 0, Buffer.from('0123456789'), Stability.FILE_SYNC));
    assert.equal(program.dispatch(call), null);
    return call;
  };
  const [first, second] = [write(), write()];
  assert.deepEqual([first.reply, finished.length], [null, 0]);
  const answer: WriteAnswer = { status: Status.JUKEBOX, wcc: { before: null, after: null } };
  told[0]!.settle(answer);
  assert.deepEqual([statusOf(first), finished.splice(0)], [Status.JUKEBOX, [Status.JUKEBOX]]);
  told[1]!.broken(new TypeError('a bug'));
  assert.deepEqual([statusOf(second), finished.splice(0)], [Status.SERVERFAULT, [Status.SERVERFAULT]]);
  atOnce = answer;
  assert.deepEqual([statusOf(write()), finished.splice(0)], [Status.JUKEBOX, [Status.JUKEBOX]]);
});

test('squash turns root, or everybody, into the anonymous user', () => {
  const { fileSystem, file } = populated();
  const seen: [number, number, readonly number[]][] = [];
  const watching = decorated(fileSystem, (_method, run, caller) => {
    seen.push([caller.uid, caller.gid, caller.gids]);
    return run();
  });
  const as = (squash: Squash, uid: number): (typeof seen)[number] => {
    const rule = { networks: ['0.0.0.0/0'], readOnly: false, squash, anonymousUid: 99, anonymousGid: 98 };
    const program = programOf({ fileSystem: watching, access: new ExportRules([{ name: 'export', rules: [rule] }]) });
    const credential = { flavor: 'sys', uid, gid: uid, gids: [1, 2], machineName: '', stamp: 0 } as const;
    void program.dispatch(nfsCall(NfsProcedure.GETATTR, (w) => w.opaque(file), { credential }));
    return seen.pop()!;
  };
  assert.deepEqual(as('none', 0), [0, 0, [1, 2]]);
  assert.deepEqual(as('root', 0), [99, 98, []]);
  assert.deepEqual(as('root', 5), [5, 5, [1, 2]]);
  assert.deepEqual(as('all', 5), [99, 98, []]);
});

test('a read-only export answers every change with ROFS and its attributes, grants no changing bit, and serves the rest', () => {
  const { fileSystem, objects } = populated();
  const rule = { networks: ['0.0.0.0/0'], readOnly: true, squash: 'none', anonymousUid: 99, anonymousGid: 99 } as const;
  const program = programOf({ fileSystem, access: new ExportRules([{ name: 'export', rules: [rule] }]) });
  for (const { procedure, args } of everyCall(objects)) {
    const call = rawCall(procedure, args);
    assert.equal(program.dispatch(call), null);
    if (isChanging(procedure)) {
      assert.equal(statusOf(call), Status.ROFS, NFS_PROCEDURE_NAMES[procedure]);
      assert.ok(call.reply!.length > 84, 'attributes');
    } else assert.equal(statusOf(call), Status.OK, NFS_PROCEDURE_NAMES[procedure]);
    if (procedure === NfsProcedure.ACCESS) assert.equal(call.reply!.readUInt32BE(call.reply!.length - 4), 0x3f & ~0x1c);
  }
  assert.ok(!isChanging(NfsProcedure.COMMIT), 'COMMIT changes nothing');
});

test('a denied address gets ACCES from every procedure but NULL, and the rules are asked once per address', () => {
  const { fileSystem, objects } = populated();
  const asked: string[] = [];
  const access: ExportAccess = {
    list: () => [],
    decide(address, exportName): ExportDecision {
      asked.push(`${address} ${exportName}`);
      return address === '10.0.0.1' ? 'denied' : { readOnly: false, squash: 'none', anonymousUid: 1, anonymousGid: 1 };
    },
  };
  const program = programOf({ fileSystem, access });
  for (const { procedure, args } of everyCall(objects)) {
    const denied = rawCall(procedure, args, { clientAddress: '10.0.0.1' });
    assert.equal(program.dispatch(denied), null);
    assert.equal(statusOf(denied), Status.ACCES);
    const allowed = rawCall(procedure, args, { clientAddress: '10.0.0.2' });
    void program.dispatch(allowed);
    assert.notEqual(statusOf(allowed), Status.ACCES);
  }
  const nothing = nfsCall(NfsProcedure.NULL, () => undefined, { clientAddress: '10.0.0.1' });
  assert.equal(program.dispatch(nothing), null);
  assert.equal(nothing.reply?.length, 0);
  assert.deepEqual(asked, ['10.0.0.1 export', '10.0.0.2 export']);
});

test('AUTH_NONE is too weak for all but NULL, unless it is allowed: then the caller is nobody', () => {
  const { fileSystem, file } = populated();
  const credential = { flavor: 'none', uid: 65_534, gid: 65_534, gids: [], machineName: '', stamp: 0 } as const;
  const getattr = (): FakeCall => nfsCall(NfsProcedure.GETATTR, (w) => w.opaque(file), { credential });
  const refused: number[] = [];
  const observer: NfsObserver = { started: () => undefined, finished: (_procedure, status) => void refused.push(status) };
  const strict = programOf({ fileSystem, observer });
  assert.equal(strict.dispatch(getattr()), 'auth-too-weak');
  assert.deepEqual(refused, [-1]);
  assert.equal(strict.dispatch(nfsCall(NfsProcedure.NULL, () => undefined, { credential })), null);
  const call = getattr();
  assert.equal(programOf({ fileSystem, settings: { allowAuthNone: true } }).dispatch(call), null);
  assert.equal(statusOf(call), Status.OK);
});

test('the operation id starts with the client address, is the same for a call sent again and differs for any other', () => {
  const { fileSystem, file } = populated();
  const ids: string[] = [];
  const program = programOf({
    fileSystem: decorated(fileSystem, (_method, run, caller) => {
      ids.push(caller.operationId());
      assert.equal(caller.operationId(), ids.at(-1));
      return run();
    }),
  });
  const send = (xid: number, machineName: string, clientAddress: string, mode: number): string => {
    const credential = { flavor: 'sys', uid: 0, gid: 0, gids: [], machineName, stamp: 5 } as const;
    const encode = (w: XdrWriter): void => {
      w.opaque(file);
      encodeSetAttributes(w, { ...NO_CHANGES, mode });
      w.bool(false);
    };
    void program.dispatch(nfsCall(NfsProcedure.SETATTR, encode, { xid, credential, clientAddress }));
    return ids.pop()!;
  };
  const first = send(1, 'H1', '127.0.0.1', 0o600);
  assert.ok(first.startsWith('127.0.0.1|'));
  assert.equal(send(1, 'H1', '127.0.0.1', 0o600), first);
  for (const other of [
    send(2, 'H1', '127.0.0.1', 0o600),
    send(1, 'H2', '127.0.0.1', 0o600),
    send(1, 'H1', '127.0.0.2', 0o600),
    send(1, 'H1', '127.0.0.1', 0o601),
  ]) {
    assert.notEqual(other, first);
  }
});

test('RFC 1813 §4.5: replies of exactly the procedures that do not repeat harmlessly are remembered', () => {
  const program = programOf({});
  const cached = NFS_PROCEDURE_NAMES.filter((_name, procedure) => program.isCached(3, procedure));
  assert.deepEqual(cached, ['setattr', 'create', 'mkdir', 'symlink', 'mknod', 'remove', 'rmdir', 'rename', 'link']);
  assert.equal(program.procedureName(3, 21), 'commit');
  assert.equal(program.procedureName(3, 22), 'unknown');
  assert.equal(program.dispatch(nfsCall(22, () => undefined)), 'procedure-unavailable');
});

test('READ without attributes in the reply has the same data', async () => {
  const { fileSystem, file } = populated();
  const data = Buffer.from(Array.from({ length: 301 }, (_, i) => i & 0xff));
  fileSystem.write(ME, file, 0, data.length, [data], Stability.FILE_SYNC);
  const bare = decorated(fileSystem, (method, run) => {
    const result = run() as object;
    return method === 'read' ? { ...result, attributes: null } : result;
  });
  for (const subject of [fileSystem, bare, late(bare)]) {
    for (const [offset, count] of [
      [0, 301],
      [0, 3],
      [100, 50],
      [299, 1000],
      [500, 10],
    ] as const) {
      const call = nfsCall(NfsProcedure.READ, (w) => {
        w.opaque(file);
        w.uint64(BigInt(offset));
        w.uint32(count);
      });
      await programOf({ fileSystem: subject }).dispatch(call);
      const reader = new XdrReader([call.reply!]);
      const result = decodeReadResult(reader);
      reader.assertEnd();
      assert.ok(result.status === Status.OK && result.data.equals(data.subarray(offset, offset + count)));
      assert.equal(result.eof, offset + count >= 301);
      assert.equal(result.attributes === null, subject !== fileSystem);
    }
  }
});

test('a READ of more than the server gives at once is short and not the end; pages of directories are capped likewise', () => {
  const { fileSystem, directory, file } = populated();
  fileSystem.write(ME, file, 0, 10_000, [Buffer.alloc(10_000, 1)], Stability.FILE_SYNC);
  for (let i = 0; i < 100; i++) fileSystem.create(ME, directory, Buffer.from(`f${i}`), { mode: 'guarded', attributes: NO_CHANGES });
  const program = programOf({ fileSystem, settings: { readBytesMax: 4096, readdirBytesMax: 2048 } });
  const read = nfsCall(NfsProcedure.READ, (w) => {
    w.opaque(file);
    w.uint64(0n);
    w.uint32(0xffff_ffff);
  });
  void program.dispatch(read);
  const result = decodeReadResult(new XdrReader([read.reply!]));
  assert.ok(result.status === Status.OK && result.data.length === 4096 && !result.eof);
  const list = nfsCall(NfsProcedure.READDIRPLUS, (w) => encodeReaddirplusArgs(w, directory, 0, Buffer.alloc(8), 0xffff_ffff, 0xffff_ffff));
  void program.dispatch(list);
  assert.ok(list.reply!.length <= 2048 + 4);
  const page = decodeReaddirResult(new XdrReader([list.reply!]), true);
  assert.ok(page.status === Status.OK && page.entries.length > 5 && !page.eof);
});

test('ACCESS never tells of more than was asked, whatever the file system says', () => {
  const { fileSystem, file } = populated();
  const generous = decorated(fileSystem, (method, run) => (method === 'access' ? { ...(run() as object), granted: 0x3f } : run()));
  const call = nfsCall(NfsProcedure.ACCESS, (w) => {
    w.opaque(file);
    w.uint32(0x05);
  });
  void programOf({ fileSystem: generous }).dispatch(call);
  assert.equal(call.reply!.readUInt32BE(call.reply!.length - 4), 0x05);
});

test('a WRITE of nothing reaches the file system wherever it is, at an offset it can represent', () => {
  const { fileSystem, file } = populated();
  for (const offset of [0n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    const call = nfsCall(NfsProcedure.WRITE, (w) => encodeWriteArgs(w, file, offset, Buffer.alloc(0), Stability.FILE_SYNC));
    void programOf({ fileSystem }).dispatch(call);
    assert.equal(statusOf(call), Status.OK);
  }
});

test('WRITE hands on the chunks in which the data arrived, not a copy', () => {
  const { fileSystem, file } = populated();
  const args = encodeArgs((w) => encodeWriteArgs(w, file, 0, Buffer.alloc(9000, 7), Stability.FILE_SYNC));
  const chunks = [args.subarray(0, 50), args.subarray(50, 4000), args.subarray(4000)];
  let received: readonly Uint8Array[] = [];
  const watching = new Proxy(fileSystem, {
    get: (target, method) =>
      method !== 'write'
        ? Reflect.get(target, method)
        : (...rest: Parameters<FileSystem['write']>) => {
            received = rest[4];
            const [caller, object, offsetBytes, countBytes, data, stability] = rest;
            return target.write(caller, object, offsetBytes, countBytes, data, stability);
          },
  });
  const call = new FakeCall({ program: NFS_PROGRAM, version: 3, procedure: NfsProcedure.WRITE, args: chunks });
  void programOf({ fileSystem: watching }).dispatch(call);
  assert.equal(statusOf(call), Status.OK);
  assert.equal(
    received.reduce((sum, chunk) => sum + chunk.length, 0),
    9000,
  );
  assert.ok(received.length >= 2 && received.every((chunk) => chunk.buffer === args.buffer));
});

test('a full file system is NOSPC for data, not for names, and deleting gives room again', () => {
  const { fileSystem, directory } = populated();
  const files = ['a', 'b'].map((name) => {
    const created = fileSystem.create(ME, directory, Buffer.from(name), { mode: 'guarded', attributes: NO_CHANGES });
    return (created as { handle: Uint8Array }).handle;
  });
  const big = Buffer.alloc(2 ** 24, 1);
  assert.equal(fileSystem.write(ME, files[0]!, 0, big.length, [big], Stability.FILE_SYNC).status, Status.OK);
  const full = fileSystem.fsstat(ME, directory);
  assert.ok(full.status === Status.OK && full.stat.freeBytes === 0);
  assert.equal(fileSystem.write(ME, files[1]!, 0, 1, [Buffer.from('x')], Stability.FILE_SYNC).status, Status.NOSPC);
  assert.equal(fileSystem.write(ME, files[0]!, 5, 1, [Buffer.from('x')], Stability.FILE_SYNC).status, Status.OK, 'overwriting needs no room');
  assert.equal(fileSystem.remove(ME, directory, Buffer.from('a')).status, Status.OK);
  assert.equal(fileSystem.write(ME, files[1]!, 0, 1, [Buffer.from('x')], Stability.FILE_SYNC).status, Status.OK);
});
