import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { FileId, Incarnation, RouterId } from '../../core/ids.ts';
import type { Clock } from '../../core/time.ts';
import type { DrivenObject } from '../driver-port.ts';
import type { OwnerHint } from '../peer-port.ts';
import { IoCount } from './io-count.ts';
import type { MovableObject, MoveSettings } from './move-host.ts';
import { MovePolicy } from './move-policy.ts';

const DISK = { fileid: 100 as FileId, inodeGeneration: 1 };
const HINT: OwnerHint = {
  router: 'a'.repeat(32) as RouterId,
  incarnation: 'i' as Incarnation,
  term: { generation: 1, counter: 1, nonce: '0'.repeat(16) },
};
const SETTINGS: MoveSettings = {
  volumeReadThreshold: 8,
  volumeWriteThreshold: 4,
  fileReadThreshold: 0,
  fileWriteThreshold: 2,
  movesMax: 2,
  cooldownMs: 10_000,
  decayMs: 60_000,
};

function policyWith(settings: Partial<MoveSettings> = {}, pinned: readonly number[] = []): { policy: MovePolicy; pass(ms: number): void } {
  let nowMs = 100_000;
  const clock: Clock = {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    after: () => () => undefined,
    soon: () => undefined,
    sleep: () => Promise.resolve(),
  };
  const policy = new MovePolicy(clock, { ...SETTINGS, ...settings }, (fileid) => pinned.includes(fileid));
  return { policy, pass: (ms) => void (nowMs += ms) };
}

function object(own = 0, peers = 0): MovableObject {
  const ownIo = new IoCount();
  const peerIo = new IoCount();
  ownIo.writes = own;
  peerIo.reads = peers;
  return { driven: { fileid: DISK.fileid } as DrivenObject, inode: null as never, unlinked: false, ownIo, peerIo };
}

function times(count: number, work: () => boolean): boolean {
  let last = false;
  for (let index = 0; index < count; index += 1) last = work();
  return last;
}

test('reads and writes have thresholds of their own, by class; 0 is never', () => {
  const { policy } = policyWith();
  assert.equal(
    times(7, () => policy.count(DISK, 'read', HINT)),
    false,
  );
  assert.equal(policy.candidate(DISK.fileid, 'volume'), null);
  assert.equal(policy.count(DISK, 'read', HINT), true);
  assert.equal(policy.candidate(DISK.fileid, 'volume')?.hint, HINT);
  assert.equal(policy.candidate(DISK.fileid, 'file'), null, 'no reads move a file');
  const other = { fileid: 101 as FileId, inodeGeneration: 1 };
  assert.equal(
    times(2, () => policy.count(other, 'write', HINT)),
    true,
    'enough for a file',
  );
  assert.notEqual(policy.candidate(other.fileid, 'file'), null);
  assert.equal(policy.candidate(other.fileid, 'volume'), null, 'not for a volume');
  const never = policyWith({ volumeReadThreshold: 0, volumeWriteThreshold: 0, fileReadThreshold: 0, fileWriteThreshold: 0 }).policy;
  assert.equal(
    times(10_000, () => never.count(DISK, 'write', HINT)),
    false,
  );
});

test('counts decay: what trickles never moves', () => {
  const { policy, pass } = policyWith({ decayMs: 1_000 });
  for (let second = 0; second < 100; second += 1) {
    assert.equal(policy.count(DISK, 'write', HINT), false, `second ${second}`);
    pass(1_000);
    policy.decay([]);
  }
  pass(20_000);
  policy.decay([]);
  assert.equal(policy.counted, 0, 'and is forgotten');
});

test('after a refusal the asker waits, longer each time, and asks again', () => {
  const { policy, pass } = policyWith();
  times(4, () => policy.count(DISK, 'write', HINT));
  const waits: number[] = [];
  for (let refusal = 0; refusal < 8; refusal += 1) {
    policy.refused(DISK.fileid);
    let waitedMs = 0;
    while (!policy.count(DISK, 'write', HINT)) {
      pass(500);
      waitedMs += 500;
    }
    waits.push(waitedMs);
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
});

test('what moved rests, at both sides; an operator and a drain do not wait', () => {
  const { policy, pass } = policyWith();
  policy.moved(DISK.fileid);
  assert.equal(
    times(10, () => policy.count(DISK, 'write', HINT)),
    false,
  );
  assert.equal(policy.candidate(DISK.fileid, 'volume'), null);
  assert.match(policy.mayGive(object(0, 100), 'io')?.reason ?? '', /rests for another 10000 ms/);
  assert.equal(policy.mayGive(object(0, 100), 'operator'), null);
  assert.equal(policy.mayGive(object(0, 100), 'drain'), null);
  pass(10_000);
  assert.equal(policy.count(DISK, 'write', HINT), true);
  assert.notEqual(policy.candidate(DISK.fileid, 'volume'), null);
  assert.equal(policy.mayGive(object(0, 100), 'io'), null);
});

test('an owner that uses the object more than the others keeps it, until it does not any more', () => {
  const { policy, pass } = policyWith();
  const busy = object(1_000, 400);
  assert.match(policy.mayGive(busy, 'io')?.reason ?? '', /1000 calls of late, against 400/);
  assert.equal(policy.mayGive(busy, 'operator'), null);
  // Its VM left: within seconds the others' count is higher, whatever decayMs is.
  let seconds = 0;
  while (policy.mayGive(busy, 'io') !== null) {
    pass(1_000);
    policy.decay([busy]);
    busy.peerIo.reads += 200;
    seconds += 1;
  }
  assert.ok(seconds <= 4, `${seconds} s`);
});

test('what is pinned stays, unless an operator or a drain moves it', () => {
  const { policy } = policyWith({}, [100]);
  assert.match(policy.mayGive(object(0, 100), 'io')?.reason ?? '', /pinned/);
  assert.equal(policy.mayGive(object(0, 100), 'operator'), null);
  assert.equal(policy.mayGive(object(0, 100), 'drain'), null);
});

test('a number that is used anew counts anew; of too many objects those used longest ago are forgotten', () => {
  const { policy } = policyWith();
  times(3, () => policy.count(DISK, 'write', HINT));
  assert.equal(policy.count({ ...DISK, inodeGeneration: 2 }, 'write', HINT), false);
  for (let fileid = 1_000; fileid < 30_000; fileid += 1) policy.count({ fileid: fileid as FileId, inodeGeneration: 1 }, 'read', HINT);
  assert.ok(policy.counted <= 16_384);
});
