import assert from 'node:assert/strict';
import { test } from 'node:test';

import { seededRandom } from '../../backends/virtual-clock.ts';
import { believedCalls } from './repetition-belief.ts';
import type { RingRecord } from './repetition-belief.ts';

const call = (number: number, fileid: number): RingRecord<number> => ({ number, fileid, call: number });
const forgotten = (number: number, fileid: number): RingRecord<number> => ({ number, fileid: -fileid, call: 0 });
const proven = (number: number, fileid: number, before: number, from = 1): RingRecord<number> => ({ number, fileid, proven: { from, before } });
const numbers = (records: readonly RingRecord<number>[]): number[] => believedCalls(records).map(({ number }) => number);

test('only calls of an object that lie before one of its marks are believed, in their order', () => {
  const records = [call(1, 100), call(2, 101), call(3, 100), proven(4, 100, 3), call(5, 100), proven(6, 101, 2), call(7, 101)];
  assert.deepEqual(numbers(records), [1]);
  assert.deepEqual(numbers([...records, proven(8, 100, 6)]), [1, 3, 5]);
  assert.deepEqual(numbers([...records, proven(8, 100, 6)].reverse()), [1, 3, 5]);
  assert.deepEqual(numbers(records.slice(0, 3)), []);
});

test('a mark says nothing of calls before its first number: they are of another boot', () => {
  assert.deepEqual(numbers([call(1, 100), call(2, 100), proven(3, 100, 3, 2)]), [2]);
  assert.deepEqual(numbers([call(1, 100), call(2, 101), call(3, 102), proven(4, 0, 4, 2)]), [2, 3]);
  // Of two boots.
  assert.deepEqual(numbers([call(1, 100), proven(2, 100, 2), call(3, 100), call(4, 100), proven(5, 100, 5, 4)]), [1, 4]);
});

test('what was forgotten of an object is not believed, whenever it was proven; what came behind is', () => {
  const records = [call(1, 100), call(2, 101), forgotten(3, 100), call(4, 100), proven(5, 100, 5), proven(6, 101, 3)];
  assert.deepEqual(numbers(records), [2, 4]);
});

test('whatever part of the records a power cut leaves, only what a mark that was written had proven is believed; all of it if everything up to the mark is there', () => {
  const random = seededRandom(1);
  const pick = (count: number): number => Math.floor(random.fraction() * count);
  for (let round = 0; round < 300; round += 1) {
    const written: RingRecord<number>[] = [];
    const provenBefore = new Map<number, number>();
    let keptCount = 0;
    for (let number = 1; number <= 60; number += 1) {
      const fileid = 100 + pick(3);
      const kind = pick(10);
      if (kind < 7) written.push(call(number, fileid));
      else if (kind === 7) written.push(forgotten(number, fileid));
      else {
        const before = pick(number) + 1;
        written.push(proven(number, fileid, before));
        provenBefore.set(fileid, Math.max(before, provenBefore.get(fileid) ?? 0));
      }
      if (pick(20) === 0) keptCount = number;
    }
    const left = written.filter((_, index) => index < keptCount || random.fraction() < 0.5);
    for (const { number, fileid } of believedCalls(left)) assert.ok(number < (provenBefore.get(fileid) ?? 0));
    const synced = written.slice(0, keptCount);
    const whole = new Set(numbers(synced));
    const isForgottenLater = ({ number, fileid }: RingRecord<number>): boolean =>
      left.some((later) => later.number > number && later.fileid === -fileid);
    const found = new Set(numbers(left));
    for (const record of synced) if (whole.has(record.number) && !isForgottenLater(record)) assert.ok(found.has(record.number));
  }
});
