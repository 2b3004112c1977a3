import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { H2Error } from './h2-error.ts';
import { encodeHeaders, HeaderDecoder } from './hpack.ts';
import { decodeHuffman } from './huffman.ts';

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex');
}

test('what is encoded is decoded, and means the same at every place of a connection', () => {
  const field = fc.tuple(fc.stringMatching(/^[a-z][a-z-]{0,30}$/), fc.stringMatching(/^[ -~]{0,300}$/));
  const decoder = new HeaderDecoder();
  fc.assert(
    fc.property(fc.array(field, { maxLength: 20 }), (list) => {
      assert.deepEqual(decoder.decode(encodeHeaders(list)), list);
    }),
    { numRuns: 200 },
  );
  const request = [
    [':method', 'POST'],
    [':path', '/vferry/peer'],
  ] as const;
  assert.deepEqual(decoder.decode(encodeHeaders(request)), request);
});

test('the examples of RFC 7541, C.4: Huffman code, and fields that refer to earlier ones', () => {
  const decoder = new HeaderDecoder();
  const first = [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ];
  assert.deepEqual(decoder.decode(bytes('8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff')), first);
  assert.deepEqual(decoder.decode(bytes('8286 84be 5886 a8eb 1064 9cbf')), [...first, ['cache-control', 'no-cache']]);
  assert.deepEqual(decoder.decode(bytes('8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf')), [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ]);
});

test('the table forgets the oldest fields when it is full, and all when it is made empty', () => {
  const decoder = new HeaderDecoder();
  const kept = (value: string): Buffer => Buffer.concat([Buffer.of(0x40, 1, 0x61, 0x7f, value.length - 127), Buffer.from(value)]);
  for (let i = 0; i < 40; i++) decoder.decode(kept(String(i).padStart(200, '0')));
  // 4,096 bytes hold 17 fields of 233.
  assert.deepEqual(decoder.decode(Buffer.of(0x80 | (61 + 17))), [['a', '23'.padStart(200, '0')]]);
  assert.throws(() => decoder.decode(Buffer.of(0x80 | (61 + 18))), H2Error);
  assert.deepEqual(decoder.decode(Buffer.of(0x20, 0x82)), [[':method', 'GET']]);
  assert.throws(() => decoder.decode(Buffer.of(0x80 | 62)), H2Error);
});

const broken: readonly [string, string][] = [
  ['index 0', '80'],
  ['an index beyond the tables', 'ff 80 01'],
  ['a number without an end', 'ff ff ff ff ff ff ff'],
  ['a string longer than the block', '00 05 61'],
  ['a string that is missing', '00 01 61'],
  ['a table larger than it may be', '3f e2 1f'],
  ['a change of the table behind a field', '82 20'],
  ['Huffman code with the end of a string in it', '00 84 ff ff ff ff 00'],
  ['Huffman code with 8 bits of padding', '00 82 1f ff 00'],
  ['Huffman code with padding that is not ones', '00 81 18 00'],
];

for (const [what, hex] of broken)
  test(`${what} is refused`, () => {
    assert.throws(() => new HeaderDecoder().decode(bytes(hex)), H2Error);
  });

test('fields that are many are refused before they take memory', () => {
  const decoder = new HeaderDecoder();
  decoder.decode(Buffer.concat([Buffer.of(0x40, 1, 0x61, 0x7f, 0x80, 0x17), Buffer.alloc(127 + 0x17 * 128, 0x62)]));
  assert.throws(() => decoder.decode(Buffer.alloc(1000, 0xbe)), H2Error);
});

test('[!] any bytes are decoded or refused, nothing else', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HeaderDecoder();
      try {
        for (const block of blocks) decoder.decode(block);
      } catch (error) {
        assert.ok(error instanceof H2Error);
      }
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (code) => {
      try {
        decodeHuffman(code);
      } catch (error) {
        assert.ok(error instanceof H2Error);
      }
    }),
  );
});
