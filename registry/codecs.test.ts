/** Stored forms: what is written is read back equal; anything else is refused as corrupt, never half understood, never a crash. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { ApplianceError } from '../server/core/errors.ts';
import { decodeAfterImage, encodeAfterImage } from './after-image.ts';
import { image, inode, outcome } from './conformance/record-arbitraries.ts';
import { inodeFromJson, inodeFromValues, jsonFromInode, valuesFromInode } from './inode-record.ts';
import { decodeOutcome, encodeOutcome } from './outcome-codec.ts';

test('an inode survives its row and its JSON', () => {
  fc.assert(
    fc.property(inode, (value) => {
      assert.deepEqual(inodeFromValues(valuesFromInode(value), 0, 'test'), value);
      assert.deepEqual(inodeFromJson(JSON.parse(JSON.stringify(jsonFromInode(value))), 'test'), value);
    }),
  );
});

test('every outcome of every verb survives its JSON', () => {
  fc.assert(
    fc.property(outcome, ([verb, value]) => {
      assert.deepEqual(decodeOutcome(verb, encodeOutcome(verb, value), 'test'), value);
    }),
  );
});

test('an after-image survives its JSON', () => {
  fc.assert(
    fc.property(image, (value) => {
      assert.deepEqual(decodeAfterImage(encodeAfterImage(value), 'test'), value);
    }),
  );
});

/** Decodes, or refuses as corrupt. What was decoded is encoded and decoded again to the same. */
function decodesOrRefuses<T>(decode: () => T, again: (value: T) => T): void {
  let value: T;
  try {
    value = decode();
  } catch (error) {
    assert.ok(error instanceof ApplianceError && error.code === 'registry-corrupt', String(error));
    return;
  }
  assert.deepEqual(again(value), value);
}

/** Text with a slice replaced by another. */
function mutated(text: string, at: number, length: number, by: string): string {
  const start = at % (text.length + 1);
  return text.slice(0, start) + by + text.slice(start + length);
}

const mutation = fc.tuple(
  fc.nat(),
  fc.nat({ max: 3 }),
  fc.oneof(
    fc.constantFrom('', '0', '-1', '1e99', 'null', '{}', '[]', '"', '"__proto__"', ',', '9007199254740993', '1.5'),
    fc.string({ maxLength: 3 }),
  ),
);

test('hostile JSON is refused as corrupt, or means what it says', () => {
  fc.assert(
    fc.property(outcome, image, mutation, ([verb, value], after, [at, length, by]) => {
      const stored = mutated(encodeOutcome(verb, value), at, length, by);
      decodesOrRefuses(
        () => decodeOutcome(verb, stored, 'test'),
        (decoded) => decodeOutcome(verb, encodeOutcome(verb, decoded), 'test'),
      );
      const imageText = mutated(encodeAfterImage(after), at, length, by);
      decodesOrRefuses(
        () => decodeAfterImage(imageText, 'test'),
        (decoded) => decodeAfterImage(encodeAfterImage(decoded), 'test'),
      );
    }),
    { numRuns: 2_000 },
  );
});

test('any JSON at all in place of a record is refused as corrupt or is one', () => {
  fc.assert(
    fc.property(outcome, fc.json(), fc.anything(), ([verb], text, thing) => {
      decodesOrRefuses(
        () => decodeOutcome(verb, text, 'test'),
        (decoded) => decodeOutcome(verb, encodeOutcome(verb, decoded), 'test'),
      );
      decodesOrRefuses(
        () => decodeAfterImage(text, 'test'),
        (decoded) => decodeAfterImage(encodeAfterImage(decoded), 'test'),
      );
      decodesOrRefuses(
        () => inodeFromJson(thing, 'test'),
        (decoded) => inodeFromJson(jsonFromInode(decoded), 'test'),
      );
    }),
    { numRuns: 500 },
  );
});

test('an after-image of a later version is refused', () => {
  assert.throws(() => decodeAfterImage('{"version":2}', 'outbox 7'), { code: 'registry-corrupt', message: /outbox 7: after-image of version 2/ });
});
