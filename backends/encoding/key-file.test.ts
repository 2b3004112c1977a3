import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { ApplianceError } from '../../server/core/errors.ts';
import { systemRandom } from '../../server/core/node-time.ts';
import { generateKey, keyId, parseKeys } from './key-file.ts';

const HEX = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const BASE64 = Buffer.from(HEX, 'hex').toString('base64');
const OTHER = 'ff'.repeat(31) + '00';

function refusal(text: string): string {
  try {
    parseKeys(text);
  } catch (error) {
    assert.ok(error instanceof ApplianceError);
    assert.equal(error.code, 'encryption-key-invalid');
    return error.message;
  }
  return assert.fail(`${JSON.stringify(text)} was accepted`);
}

test('a key is 32 bytes as base64 or hex; both have the same id', () => {
  const [fromHex] = parseKeys(HEX);
  const [fromBase64] = parseKeys(BASE64);
  assert.deepEqual(fromHex, fromBase64);
  assert.deepEqual(Buffer.from(fromHex?.secret ?? []).toString('hex'), HEX);
  assert.equal(fromHex?.id, '292b18d8ca1c9df2');
  assert.deepEqual(parseKeys(HEX.toUpperCase()), [fromHex]);
  assert.deepEqual(parseKeys(BASE64.replace('=', '')), [fromHex]);
});

test('the id is the first 8 bytes of SHA-256 over "vferry key id" and the key', () => {
  const secret = Buffer.from(OTHER, 'hex');
  const whole = createHash('sha256')
    .update(Buffer.concat([Buffer.from('vferry key id'), secret]))
    .digest('hex');
  assert.equal(keyId(secret), whole.slice(0, 16));
});

test('keys keep their order: the first is for new data; comments, empty lines, blanks and line ends of any kind do not matter', () => {
  const text = `\uFEFF# keys of vpool1\r\n\r\n  ${OTHER}   # since 2026-11\n${BASE64}\r# end`;
  assert.deepEqual(
    parseKeys(text).map((key) => Buffer.from(key.secret).toString('hex')),
    [OTHER, HEX],
  );
  // In an environment variable lines are awkward.
  assert.deepEqual(parseKeys(`${OTHER},${BASE64}`), parseKeys(`${OTHER}\n${HEX}`));
  assert.deepEqual(parseKeys(` ${OTHER} ${BASE64} `), parseKeys(`${OTHER}\n${HEX}`));
});

test('an error names the line and never the key', () => {
  assert.match(refusal(''), /no key .*vferry key generate/);
  assert.match(refusal('# nothing\n\n'), /no key/);
  assert.match(refusal(`${HEX}\n${HEX.slice(1)}`), /line 2: 63 characters/);
  assert.match(refusal(`\n\n${BASE64}=`), /line 3: 45 characters/);
  assert.match(refusal(`${HEX}\n# again\n${BASE64}`), /line 3 has the same key as line 1/);
  assert.match(refusal('00'.repeat(32)), /line 1: the same byte 32 times/);
  assert.match(refusal('x'.repeat(300_000)), /300000 characters/);
  for (const bad of [HEX.slice(1), `${BASE64}=`, `${HEX}${BASE64}`, `${HEX} ${HEX}`, `${HEX}\n${BASE64}`]) {
    const message = refusal(bad);
    assert.ok(!message.includes(HEX.slice(1, 20)) && !message.includes(BASE64.slice(0, 12)), message);
  }
});

test('a generated key is one that can be parsed, and never the same', () => {
  const [first] = parseKeys(generateKey(systemRandom));
  const [second] = parseKeys(`${generateKey(systemRandom)}\n`);
  assert.equal(first?.secret.byteLength, 32);
  assert.notEqual(first?.id, second?.id);
});
