import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { formatObjectName, NUMBER_MAX, type ObjectName, parseObjectName } from './object-names.ts';

const plain = { noNullPrototype: true };
const name: fc.Arbitrary<ObjectName> = fc.record(
  {
    kind: fc.constantFrom('segment', 'piece', 'checkpoint'),
    number: fc.integer({ min: 0, max: NUMBER_MAX }),
    term: fc.record(
      {
        generation: fc.maxSafeNat(),
        counter: fc.maxSafeNat(),
        nonce: fc.stringMatching(/^[0-9a-f]{16}$/),
      },
      plain,
    ),
  },
  plain,
);

test('names read as they are documented', () => {
  const term = { generation: 1, counter: 23, nonce: '00ff00ff00ff00ff' };
  assert.equal(formatObjectName({ kind: 'segment', number: 42, term }), 'seg-0000000042-1-23-00ff00ff00ff00ff');
  assert.equal(formatObjectName({ kind: 'checkpoint', number: 0, term }), 'ckp-0000000000-1-23-00ff00ff00ff00ff');
  assert.equal(formatObjectName({ kind: 'piece', number: NUMBER_MAX, term }), 'obj-9999999999-1-23-00ff00ff00ff00ff');
});

test('every name that is made is read back', () => {
  fc.assert(fc.property(name, (each) => assert.deepEqual(parseObjectName(formatObjectName(each)), each)));
});

test('names of one kind list in the order of their numbers', () => {
  fc.assert(
    fc.property(name, name, (a, b) => {
      const [first, second] = [formatObjectName(a), formatObjectName({ ...b, kind: a.kind })];
      if (a.number < b.number) assert.ok(first < second);
    }),
  );
});

test('what is not exactly a name is no name', () => {
  for (const text of [
    '',
    'seg-0000000001-1-1-0123456789abcdef ',
    ' seg-0000000001-1-1-0123456789abcdef',
    'seg-0000000001-1-1-0123456789abcdef\n',
    'seg-1-1-1-0123456789abcdef',
    'seg-00000000001-1-1-0123456789abcdef',
    'seg-0000000001-01-1-0123456789abcdef',
    'seg-0000000001-1--0123456789abcdef',
    'seg-0000000001-9007199254740992-1-0123456789abcdef',
    'seg-0000000001-1-1-0123456789ABCDEF',
    'seg-0000000001-1-1-0123456789abcde',
    'Seg-0000000001-1-1-0123456789abcdef',
    'xyz-0000000001-1-1-0123456789abcdef',
    '../seg-0000000001-1-1-0123456789abcdef',
  ]) {
    assert.equal(parseObjectName(text), null, JSON.stringify(text));
  }
});

test('a number or term that no name can hold is a bug', () => {
  const term = { generation: 1, counter: 1, nonce: '0123456789abcdef' };
  for (const number of [-1, 0.5, NUMBER_MAX + 1, Number.NaN])
    assert.throws(() => formatObjectName({ kind: 'segment', number, term }), { name: 'AssertionError' });
  assert.throws(() => formatObjectName({ kind: 'segment', number: 1, term: { ...term, nonce: 'x' } }), { name: 'AssertionError' });
  assert.throws(() => formatObjectName({ kind: 'segment', number: 1, term: { ...term, counter: -1 } }), { name: 'AssertionError' });
});
