import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import { SequentialStreams } from './read-ahead-streams.ts';
import type { Stream } from './read-ahead-streams.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

function watch(): { streams: SequentialStreams; ended: Stream[]; observe(offsetBytes: number, lengthBytes?: number, nowMs?: number): Stream | null } {
  const ended: Stream[] = [];
  const streams = new SequentialStreams((stream) => ended.push(stream));
  return { streams, ended, observe: (offsetBytes, lengthBytes = 4 * KIB, nowMs = 0) => streams.observe(offsetBytes, lengthBytes, nowMs) };
}

test('three small reads one behind the other are a stream, two large ones are', () => {
  const { observe } = watch();
  assert.equal(observe(40 * KIB), null);
  assert.equal(observe(44 * KIB), null);
  const small = observe(48 * KIB);
  assert.equal(small?.endBytes, 52 * KIB);
  assert.equal(small?.readBytes, 12 * KIB);
  assert.equal(observe(100 * MIB, MIB), null);
  assert.equal(observe(101 * MIB, MIB)?.endBytes, 102 * MIB);
});

test('reads that were sent together and arrive out of order are one stream', () => {
  const { observe } = watch();
  for (const offset of [8, 0, 16, 24]) observe(offset * KIB, 8 * KIB);
  const stream = observe(40 * KIB, 8 * KIB);
  assert.equal(stream?.endBytes, 48 * KIB);
  assert.equal(observe(32 * KIB, 8 * KIB), stream);
  assert.equal(stream?.endBytes, 48 * KIB, 'a late one does not take it back');
});

test('the same blocks again and again are no stream', () => {
  const { observe } = watch();
  for (let round = 0; round < 20; round += 1) for (const offset of [0, 4]) assert.equal(observe(offset * KIB), null);
});

test('random reads are hardly ever taken for a stream', () => {
  const { observe } = watch();
  const random = seededRandom(5);
  let taken = 0;
  for (let read = 0; read < 20_000; read += 1) if (observe(Math.floor(random.fraction() * 262_144) * 4 * KIB) !== null) taken += 1;
  assert.ok(taken < 20, `${taken} of 20000`);
});

test('several streams at once are told apart, among random reads', () => {
  const { streams, observe } = watch();
  const random = seededRandom(6);
  const found = new Set<Stream>();
  for (let step = 0; step < 64; step += 1) {
    for (let reader = 0; reader < 4; reader += 1) {
      const stream = observe(reader * 1024 * MIB + step * 64 * KIB, 64 * KIB);
      if (stream !== null) found.add(stream);
    }
    observe((8 + random.fraction() * 1000) * 1024 * MIB);
  }
  assert.equal(found.size, 4);
  assert.deepEqual(
    [...found].map((stream) => stream.readBytes),
    Array(4).fill(4 * MIB),
  );
  assert.equal(streams.streams.length, 4);
});

test('a new stream takes the place of the one that rests longest', () => {
  const { streams, ended, observe } = watch();
  for (let reader = 0; reader < 9; reader += 1)
    for (let step = 0; step < 3; step += 1) observe(reader * 1024 * MIB + step * MIB, MIB, reader === 3 ? 50 : 100 + reader);
  assert.equal(streams.streams.length, 8);
  assert.deepEqual(
    ended.map((stream) => [Math.floor(stream.endBytes / (1024 * MIB)), stream.ended]),
    [[3, true]],
  );
});

test('a stream that is not read for some time ends; one that is stays', () => {
  const { streams, ended, observe } = watch();
  for (const [reader, nowMs] of [
    [0, 100],
    [1, 900],
  ] as const)
    for (let step = 0; step < 3; step += 1) observe(reader * 1024 * MIB + step * MIB, MIB, nowMs);
  streams.endIdle(500);
  assert.deepEqual([streams.streams.length, ended.length, ended[0]?.endBytes], [1, 1, 3 * MIB]);
});
