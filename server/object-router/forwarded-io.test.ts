import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ApplianceError } from '../core/errors.ts';
import type { FileId, Incarnation, RouterId } from '../core/ids.ts';
import { Status } from '../nfsd/file-system.ts';
import type { Caller, ReadAnswer, WriteAnswer } from '../nfsd/file-system.ts';
import type { DataCalls } from './data-calls.ts';
import { ForwardedRead, ForwardedWrite } from './forwarded-io.ts';
import type { Remote } from './object-places.ts';
import type { OwnerHint } from './peer-port.ts';
import type { RouterCore } from './router-core.ts';

const HINT: OwnerHint = {
  router: 'a'.repeat(32) as RouterId,
  incarnation: 'b'.repeat(32) as Incarnation,
  term: { generation: 1, counter: 2, nonce: '0'.repeat(16) },
};
const REMOTE = { target: { fileid: 100 as FileId, inodeGeneration: 3, term: HINT.term }, hint: HINT, peer: {} } as unknown as Remote;
const CALLER = {} as Caller;
const SLOW: ReadAnswer = { status: Status.STALE, attributes: null };

function world() {
  const told: unknown[] = [];
  const log: string[] = [];
  const words = new Uint32Array([1, 2, 3, 4]);
  const chunks = [Buffer.alloc(4)];
  const core = {
    handleOf: () => Buffer.alloc(32, 9),
    places: {
      notOwner: (_remote: Remote, hint: OwnerHint | null) => void log.push(hint === null ? 'lost' : 'not owner'),
      cluster: { forwarded: (_object: unknown, kind: string) => void log.push(kind) },
    },
  } as unknown as RouterCore;
  const data = {
    readSlowly: (...args: unknown[]) => {
      log.push('slowly');
      assert.deepEqual(args, [CALLER, Buffer.alloc(32, 9), 4096, target]);
      return Promise.resolve(SLOW);
    },
    writeSlowly: (...args: unknown[]) => {
      log.push('slowly');
      assert.deepEqual(args, [CALLER, Buffer.alloc(32, 9), 4096, 4, chunks, 2, words, 77]);
      return Promise.resolve({ status: Status.STALE, wcc: { before: null, after: null } });
    },
  } as unknown as DataCalls;
  const target = Buffer.alloc(10);
  const later = { settle: (answer: unknown) => void told.push(answer), broken: (error: unknown) => void told.push(error) };
  return {
    told,
    log,
    read: new ForwardedRead(data, core, REMOTE, CALLER, 4096, target, later),
    write: new ForwardedWrite(data, core, REMOTE, CALLER, 4096, 4, chunks, 2, words, 77, later),
  };
}

test('an answer is handed on and counted', () => {
  const { told, log, read } = world();
  const result: ReadAnswer = { status: Status.OK, bytesRead: 3, eof: false, attributes: null };
  read.answered({ kind: 'done', result });
  assert.deepEqual([told, log], [[result], ['read']]);
});

test('who is not the owner, or gave no answer, is asked again as the same call, and not before the network has returned', async () => {
  for (const [end, expected] of [
    [(io: ForwardedRead | ForwardedWrite) => io.answered({ kind: 'not-owner', hint: HINT }), 'not owner'],
    [(io: ForwardedRead | ForwardedWrite) => io.failed(new ApplianceError('peer-unavailable', 'cut', { retryable: true })), 'lost'],
    [(io: ForwardedRead | ForwardedWrite) => io.failed(new ApplianceError('peer-refused', 'versions', { retryable: true })), 'lost'],
  ] as const) {
    for (const which of ['read', 'write'] as const) {
      const { told, log, [which]: io } = world();
      end(io);
      assert.deepEqual([told, log], [[], [expected]]);
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal((told[0] as ReadAnswer | WriteAnswer).status, Status.STALE);
      assert.deepEqual(log, [expected, 'slowly']);
    }
  }
});

test('a bug is not asked for twice', async () => {
  const { told, log, write } = world();
  const bug = new TypeError('a bug');
  write.failed(bug);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([told, log], [[bug], []]);
});
