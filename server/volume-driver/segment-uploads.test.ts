import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ObjectUuid } from '../core/ids.ts';
import { SegmentUploads } from './segment-uploads.ts';
import type { SealedSegment, UploadRun } from './segment-uploads.ts';

function sealed(number: number): SealedSegment {
  const term = { generation: 1, counter: 1, nonce: '0'.repeat(16) };
  const segment = { uuid: 'a'.repeat(32) as ObjectUuid, number, term, path: `/${number}`, bytes: 100, place: 'log' as const, lastUse: 0 };
  return { segment, totalBytes: 100, lastSequence: number * 10 };
}

/** A store whose puts end when they are told to. */
class Puts {
  readonly started: number[] = [];
  readonly handedOn: string[] = [];
  readonly #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();

  run(options: Partial<UploadRun> = {}): UploadRun {
    return {
      upTo: Infinity,
      dead: new Set(),
      put: ({ segment }) => {
        this.started.push(segment.number);
        return new Promise((resolve, reject) => this.#waiting.set(segment.number, { resolve, reject }));
      },
      done: async (segments) => {
        this.handedOn.push(segments.map(({ segment, dead }) => `${segment.number}${dead ? ' dead' : ''}`).join(','));
      },
      enough: () => false,
      ...options,
    };
  }

  async end(number: number, error?: Error): Promise<void> {
    const waiting = this.#waiting.get(number);
    assert.ok(waiting !== undefined, `${number} is not under way`);
    if (error === undefined) waiting.resolve();
    else waiting.reject(error);
    await turns();
  }
}

async function turns(): Promise<void> {
  for (let count = 0; count < 20; count += 1) await Promise.resolve();
}

test('several go up at a time; they are handed on in order, without gaps', async () => {
  const uploads = new SegmentUploads(4, 3);
  const puts = new Puts();
  for (const number of [7, 5, 6, 8, 9]) uploads.add(sealed(number));
  const running = uploads.run(puts.run());
  await turns();
  assert.deepEqual(puts.started, [5, 6, 7]);
  await puts.end(6);
  await puts.end(7);
  assert.deepEqual(puts.handedOn, []);
  assert.equal(uploads.highWater, 4);
  await puts.end(5);
  assert.deepEqual(puts.handedOn, ['5,6,7']);
  assert.equal(uploads.highWater, 7);
  assert.deepEqual(puts.started, [5, 6, 7, 8, 9]);
  await puts.end(9);
  await puts.end(8);
  await running;
  assert.deepEqual(puts.handedOn, ['5,6,7', '8,9']);
  assert.equal(uploads.ready, false);
});

test('a missing number holds up what is behind it, until it comes', async () => {
  const uploads = new SegmentUploads(0, 4);
  const puts = new Puts();
  uploads.add(sealed(2));
  assert.equal(uploads.ready, false);
  assert.equal(uploads.lastSealed, 2);
  await uploads.run(puts.run());
  assert.deepEqual(puts.started, []);
  uploads.add(sealed(1));
  assert.equal(uploads.ready, true);
  const running = uploads.run(puts.run());
  await turns();
  assert.deepEqual(puts.started, [1, 2]);
  uploads.add(sealed(3));
  await turns();
  assert.deepEqual(puts.started, [1, 2, 3], 'one that comes meanwhile starts at once');
  for (const number of [1, 2, 3]) await puts.end(number);
  await running;
  assert.equal(uploads.highWater, 3);
});

test('after a failure nothing starts; what was stored is handed on or remembered, and not put again', async () => {
  const uploads = new SegmentUploads(0, 3);
  const puts = new Puts();
  for (const number of [1, 2, 3, 4]) uploads.add(sealed(number));
  const failed = assert.rejects(uploads.run(puts.run()), /no room/);
  await turns();
  await puts.end(2, new Error('no room'));
  await puts.end(1);
  assert.deepEqual(puts.handedOn, ['1']);
  await puts.end(3);
  await failed;
  assert.deepEqual(puts.started, [1, 2, 3]);
  const again = uploads.run(puts.run());
  await turns();
  assert.deepEqual(puts.started, [1, 2, 3, 2, 4]);
  await puts.end(4);
  await puts.end(2);
  await again;
  assert.deepEqual(puts.handedOn, ['1', '2,3,4']);
});

test('who takes what is done may fail: what is under way is waited for, and stays done', async () => {
  const uploads = new SegmentUploads(0, 2);
  const puts = new Puts();
  for (const number of [1, 2, 3, 4]) uploads.add(sealed(number));
  const failed = assert.rejects(uploads.run(puts.run({ done: () => Promise.reject(new Error('registry')) })), /registry/);
  await turns();
  await puts.end(1);
  await puts.end(2);
  await puts.end(3);
  await failed;
  assert.deepEqual(puts.started, [1, 2, 3]);
  assert.equal(uploads.highWater, 3, 'the caller got all that was stored');
});

test('dead segments are passed over in their turn, and a run ends where it is told to', async () => {
  const uploads = new SegmentUploads(0, 2);
  const puts = new Puts();
  for (const number of [1, 2, 3, 4]) uploads.add(sealed(number));
  const running = uploads.run(puts.run({ dead: new Set([1, 3]), upTo: 3 }));
  await turns();
  assert.deepEqual(puts.started, [2]);
  await puts.end(2);
  await running;
  assert.deepEqual(puts.handedOn, ['1 dead', '2,3 dead']);
  let enough = false;
  const rest = uploads.run(puts.run({ enough: () => enough }));
  await turns();
  enough = true;
  uploads.add(sealed(5));
  await puts.end(4);
  await rest;
  assert.deepEqual(puts.started, [2, 4]);
});
