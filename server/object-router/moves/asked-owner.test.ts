import assert from 'node:assert/strict';
import { test } from 'node:test';

import { VirtualClock } from '../../../backends/virtual-clock.ts';
import { ApplianceError } from '../../core/errors.ts';
import type { FileId, Term } from '../../core/ids.ts';
import type { CededSegments } from '../driver-port.ts';
import type { FollowPosition, MovePart, PeerService } from '../peer-port.ts';
import { AskedOwner } from './asked-owner.ts';
import { GivenObjects } from './given-objects.ts';

const DISK = 7 as FileId;
const ATTEMPT: Term = { generation: 1, counter: 5, nonce: '00000000000000aa' };
const TERM: Term = { generation: 1, counter: 3, nonce: '00000000000000bb' };
const HERE = Buffer.from('what the former owner has of segment 4');

/** Segment 4 of TERM. */
const SEGMENTS: CededSegments = {
  read: (segment, offsetBytes, lengthBytes) =>
    Promise.resolve(
      segment !== 4 || offsetBytes + lengthBytes > HERE.length
        ? null
        : { segment, term: TERM, offsetBytes, bytes: HERE.subarray(offsetBytes, offsetBytes + lengthBytes), sealedBytes: null },
    ),
};

class Pair {
  readonly clock = new VirtualClock();
  readonly given = new GivenObjects(this.clock);
  calls = 0;
  answer: (from: FollowPosition, bytesMax: number) => Promise<MovePart | null> = (from, bytesMax) => this.given.read(DISK, ATTEMPT, from, bytesMax);
  readonly owner: AskedOwner;

  constructor() {
    this.given.add(DISK, ATTEMPT, SEGMENTS);
    const peer: Pick<PeerService, 'moveFetch'> = {
      moveFetch: (_fileid, _attempt, from, bytesMax) => {
        this.calls += 1;
        return this.answer(from, bytesMax);
      },
    };
    this.owner = new AskedOwner(this.clock, peer, DISK, ATTEMPT);
  }

  async read(segment: number, offsetBytes: number, lengthBytes: number, term = TERM): Promise<string | null> {
    const answer = await this.clock.run(Promise.resolve(this.owner.read(segment, term, offsetBytes, lengthBytes)));
    return answer === null ? null : Buffer.isBuffer(answer) ? answer.toString() : 'late';
  }
}

test('the new owner reads from the former one what that one has of the object', async () => {
  const pair = new Pair();
  assert.equal(await pair.read(4, 5, 10), HERE.toString('latin1', 5, 15));
  assert.equal(await pair.read(4, 0, 4), 'what');
});

test('a segment that the former owner does not have, or has of another term, is asked for once', async () => {
  const pair = new Pair();
  assert.equal(await pair.read(3, 0, 4), null);
  assert.equal(await pair.read(3, 8, 4), null);
  assert.equal(pair.calls, 1);
  assert.equal(await pair.read(4, 0, 4, ATTEMPT), null);
  assert.equal(await pair.read(4, 0, 4), null);
  assert.equal(pair.calls, 2);
});

test('what the former owner does not have is remembered for a minute, and of so many segments at most', async () => {
  const pair = new Pair();
  pair.clock.advance(100_000);
  for (let segment = 100; segment < 100 + 600; segment += 1) assert.equal(await pair.read(segment, 0, 4), null);
  assert.equal(pair.calls, 512);
  assert.equal(await pair.read(4, 0, 4), null);
  pair.clock.advance(61_000);
  assert.equal(await pair.read(4, 0, 4), 'what');
  assert.equal(await pair.read(100, 0, 4), null);
  assert.equal(pair.calls, 514);
});

test('an answer that takes long is late, and comes; after one that never comes the former owner is left alone for a while', async () => {
  const pair = new Pair();
  let answerNow = (_part: MovePart | null): void => {};
  pair.answer = () => new Promise((resolve) => (answerNow = resolve));
  const answer = await pair.clock.run(Promise.resolve(pair.owner.read(4, TERM, 0, 4)));
  assert.ok(answer !== null && !Buffer.isBuffer(answer));
  answerNow(await pair.given.read(DISK, ATTEMPT, { segment: 4, offsetBytes: 0, calls: 0 }, 4));
  assert.equal((await pair.clock.run(answer.late))?.toString(), 'what');

  const silent = await pair.clock.run(Promise.resolve(pair.owner.read(4, TERM, 0, 4)));
  assert.ok(silent !== null && !Buffer.isBuffer(silent));
  assert.equal(await pair.clock.run(silent.late), null);
  assert.equal(pair.owner.read(4, TERM, 0, 4), null);
  pair.clock.advance(6_000);
  pair.answer = (from, bytesMax) => pair.given.read(DISK, ATTEMPT, from, bytesMax);
  assert.equal(await pair.read(4, 0, 4), 'what');
});

test('a former owner that is gone is no error', async () => {
  const pair = new Pair();
  pair.answer = () => Promise.reject(new ApplianceError('peer-unavailable', 'gone', { retryable: true }));
  assert.equal(await pair.read(4, 0, 4), null);
  assert.equal(pair.owner.read(4, TERM, 0, 4), null);
});

test('what is asked for at a time is bounded, in calls and in bytes', async () => {
  const pair = new Pair();
  pair.answer = () => new Promise(() => undefined);
  for (let n = 0; n < 64; n += 1) assert.notEqual(pair.owner.read(4, TERM, 0, 4), null);
  assert.equal(pair.owner.read(4, TERM, 0, 4), null);
  const large = new Pair();
  large.answer = () => new Promise(() => undefined);
  for (let n = 0; n < 4; n += 1) assert.notEqual(large.owner.read(4, TERM, 0, 2 ** 20), null);
  assert.equal(large.owner.read(4, TERM, 0, 2 ** 20), null);
});

test('only who received the object last reads what is left of it, and what nobody asks for is forgotten', async () => {
  const clock = new VirtualClock();
  const given = new GivenObjects(clock);
  const read = (attempt: Term): Promise<MovePart | null> => given.read(DISK, attempt, { segment: 4, offsetBytes: 0, calls: 0 }, 4);
  given.add(DISK, ATTEMPT, SEGMENTS);
  assert.equal(await read(TERM), null);
  assert.equal((await read(ATTEMPT))?.pieces[0]?.bytes.toString(), 'what');
  const later: Term = { ...ATTEMPT, counter: 9 };
  given.add(DISK, later, SEGMENTS);
  assert.equal(await read(ATTEMPT), null);
  clock.advance(700_000);
  given.add(8 as FileId, later, SEGMENTS);
  assert.equal(await read(later), null);
});
