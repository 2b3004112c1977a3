/** Encoding over a store that fails, lags, lies and damages, two instances of it as two threads are: stored is stored, and never a wrong byte. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes } from '../conformance.ts';
import { FaultyStore } from '../faulty-store.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { StoreError } from '../object-store.ts';
import { putVerified } from '../put-verified.ts';
import { RETRY_DEFAULTS, RetryingStore } from '../retrying-store.ts';
import { seededRandom, VirtualClock } from '../virtual-clock.ts';
import { EncodedStore } from './encoded-store.ts';
import { compressible, incompressible, MODES } from './encoding.fixture.ts';

const OBJECTS = 12;

/** Of all sizes, of one and of many frames. */
function contentOf(index: number): Buffer {
  return Buffer.concat([compressible(index * 4000, index), incompressible(index * 3000, index)]);
}

for (const mode of ['zstd', 'aes', 'both'] as const) {
  test(`${mode}: through failures, lost answers, overwrites, lags and cut or flipped answers`, async () => {
    let right = 0;
    for (let seed = 0; seed < 6; seed += 1) {
      const clock = new VirtualClock();
      const random = seededRandom(seed);
      const inner = new MemoryStore();
      const faulty = new FaultyStore(
        { inner, clock, random },
        {
          failBefore: 0.1,
          loseAnswer: 0.2,
          delay: 0.3,
          delayMsMax: 500,
          visibleLagMsMax: 2000,
          halfVisibleMsMax: 2000,
          blindPut: 1,
          waver: 0.05,
          truncateGet: 0.05,
          flipGet: 0.05,
        },
      );
      const instance = (): RetryingStore =>
        new RetryingStore({ inner: new EncodedStore(faulty, MODES[mode]), clock, random }, { ...RETRY_DEFAULTS, deadlineMs: Infinity });
      const threads = [instance(), instance()] as const;
      await inner.createBucket('bucket');

      const upload = async (index: number): Promise<void> => {
        // A flipped bit may come twice: then the caller puts once more, as the engine does after any failure.
        for (let attempt = 0; attempt < 20; attempt += 1) {
          const thread = threads[(index + attempt) % 2] as RetryingStore;
          const outcome = await putVerified({ store: thread, clock, random }, 'bucket', `o${index}`, bytes(contentOf(index)));
          if (outcome.kind === 'stored') return;
        }
        assert.fail(`object ${index} was never stored`);
      };
      const read = async (index: number): Promise<void> => {
        for (const thread of threads) {
          const offsetBytes = Math.floor(random.fraction() * (contentOf(index).byteLength + 1));
          const lengthBytes = Math.floor(random.fraction() * 40_000);
          for (const range of [{ offsetBytes, lengthBytes }, undefined]) {
            try {
              const outcome = await thread.get('bucket', `o${index}`, range);
              if (outcome.kind === 'absent') continue;
              const expected = range === undefined ? contentOf(index) : contentOf(index).subarray(offsetBytes, offsetBytes + lengthBytes);
              assert.ok(outcome.bytes.equals(expected), `seed ${seed}: wrong bytes of object ${index}`);
              right += 1;
            } catch (error) {
              assert.ok(error instanceof StoreError && error.class === 'corrupt', String(error));
            }
          }
        }
      };
      const indexes = Array.from({ length: OBJECTS }, (_, index) => index + 1);
      await clock.run(Promise.all([...indexes.map(upload), ...indexes.map(read)]));
      await clock.run(Promise.all(indexes.map(read)));
      faulty.setFaults({});
      for (const index of indexes) {
        for (const thread of threads) {
          const outcome = await clock.run(thread.get('bucket', `o${index}`));
          assert.ok(outcome.kind === 'found' && outcome.bytes.equals(contentOf(index)), `seed ${seed}: object ${index}`);
        }
      }
    }
    assert.ok(right > 6 * OBJECTS * 2, `only ${right} reads gave bytes`);
  });
}
