import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { Clock } from '../core/time.ts';
import { DuplicateRequestCache } from './duplicate-request-cache.ts';
import type { CallKey, DuplicateRequestCacheLimits } from './duplicate-request-cache.ts';
import { ServerCall } from './server-call.ts';
import type { ReplyPath } from './server-call.ts';

const PATH: ReplyPath = { transport: 'tcp', clientAddress: '192.0.2.1', clientPort: 1, reserve() {}, cancel() {}, send() {} };

function call(): ServerCall {
  return new ServerCall(PATH, { replyReady() {} });
}

/** A key made up from a number; few different first words, so that probing sequences run into one another. */
function key(n: number): CallKey {
  const words = Uint32Array.of(n % 3, n, 0, 0);
  return { words, text: `key ${n}` };
}

function cacheOf(limits: Partial<DuplicateRequestCacheLimits> = {}): { cache: DuplicateRequestCache; advance: (ms: number) => void } {
  let nowMs = 1000;
  const clock: Clock = { wallMs: () => nowMs, monotonicMs: () => nowMs, after: () => () => {}, soon() {}, sleep: () => Promise.resolve() };
  const cache = new DuplicateRequestCache({ entriesMax: 8, bytesMax: 1024 * 1024, ageMaxMs: 120_000, ...limits }, clock);
  return {
    cache,
    advance: (ms) => {
      nowMs += ms;
    },
  };
}

function run(cache: DuplicateRequestCache, n: number, reply: string): void {
  assert.equal(cache.admit(call(), key(n)).kind, 'run');
  assert.equal(cache.complete(key(n), Buffer.from(reply)).length, 0);
}

function replyOf(cache: DuplicateRequestCache, n: number): string | null {
  const verdict = cache.admit(call(), key(n));
  if (verdict.kind === 'run') cache.forget(key(n));
  return verdict.kind === 'replay' ? verdict.reply.toString() : null;
}

test('a completed call is replayed, a running one is joined, a forgotten one runs again', () => {
  const { cache } = cacheOf();
  run(cache, 1, 'one');
  assert.equal(replyOf(cache, 1), 'one');
  assert.equal(cache.admit(call(), key(2)).kind, 'run');
  const joiner = call();
  assert.equal(cache.admit(joiner, key(2)).kind, 'joined');
  assert.deepEqual(cache.forget(key(2)), [joiner]);
  assert.equal(cache.admit(call(), key(2)).kind, 'run');
  assert.equal(cache.running, 1);
});

test('the reply is copied: the bytes it was made from may be used for something else', () => {
  const { cache } = cacheOf();
  const bytes = Buffer.from('reply');
  cache.admit(call(), key(1));
  cache.complete(key(1), bytes);
  bytes.fill(0);
  assert.equal(replyOf(cache, 1), 'reply');
});

test('a reply is kept for two minutes, and not for ever', () => {
  const { cache, advance } = cacheOf();
  run(cache, 1, 'one');
  advance(119_999);
  assert.equal(replyOf(cache, 1), 'one');
  advance(2);
  assert.equal(replyOf(cache, 1), null);
  assert.equal(cache.entries, 0);
});

test('at the bound of entries the oldest go', () => {
  const { cache } = cacheOf();
  for (let n = 0; n < 20; n++) run(cache, n, `reply ${n}`);
  assert.equal(cache.entries, 8);
  for (let n = 0; n < 20; n++) assert.equal(replyOf(cache, n), n < 12 ? null : `reply ${n}`);
});

test('at the bound of bytes the oldest go, and memory does not grow', () => {
  const { cache } = cacheOf({ entriesMax: 1024 });
  for (let n = 0; n < 200; n++) {
    run(cache, n, String.fromCharCode(97 + (n % 26)).repeat(60_000));
    assert.ok(cache.replyBytes <= 1024 * 1024);
  }
  assert.ok(cache.entries >= 12 && cache.entries <= 17, `${cache.entries} entries`);
  for (let n = 200 - cache.entries; n < 200; n++) assert.equal(replyOf(cache, n), String.fromCharCode(97 + (n % 26)).repeat(60_000));
});

test('memory for replies is taken as it is needed', () => {
  const { cache } = cacheOf({ bytesMax: 64 * 1024 * 1024 });
  assert.equal(cache.replyBytes, 0);
  run(cache, 1, 'one');
  assert.ok(cache.replyBytes <= 256 * 1024);
});

test('whatever is completed in whatever order, the cache answers like a list of the newest replies', () => {
  const step = fc.record({ n: fc.nat(15), length: fc.nat(150_000), wait: fc.nat(40_000) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { cache, advance } = cacheOf({ bytesMax: 512 * 1024 });
      const model: { n: number; reply: string; age: number }[] = [];
      for (const { n, length, wait } of steps) {
        advance(wait);
        for (const entry of model) entry.age += wait;
        const found = replyOf(cache, n);
        const expected = model.findLast((entry) => entry.n === n);
        // The cache may have dropped it for want of room, but what it answers is right, young, and never older than something dropped.
        if (found !== null) {
          assert.equal(found, expected?.reply);
          assert.ok((expected?.age ?? Infinity) <= 120_000);
        } else if (expected !== undefined) {
          const newer = model.slice(model.indexOf(expected));
          const bytes = newer.reduce((sum, entry) => sum + entry.reply.length, 0);
          // A piece of 256 KiB is left when the next reply does not fit, so a quarter of the capacity is sure to be used.
          assert.ok(expected.age > 120_000 || newer.length > 8 || bytes > 128 * 1024, 'dropped without need');
        }
        if (found === null) {
          const reply = `${n}:`.padEnd(length, 'x');
          run(cache, n, reply);
          model.push({ n, reply, age: 0 });
        }
        assert.ok(cache.entries <= 8);
      }
    }),
    { seed: 24, numRuns: 300 },
  );
});
