import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';

import { OBJECT_BYTES_MAX } from '../call-arguments.ts';
import { readAnswer } from './s3-body.ts';

function answerOf(...chunks: readonly string[]): PassThrough {
  const body = new PassThrough();
  for (const chunk of chunks) body.write(chunk);
  return body;
}

test('an answer is its bytes, in memory of their own, announced or not', async () => {
  for (const lengthBytes of [11, undefined]) {
    const bytes = await readAnswer(answerOf('hello ', 'world').end(), lengthBytes);
    assert.equal(bytes.toString(), 'hello world');
    assert.equal(bytes.buffer.byteLength, 11);
  }
});

test('an answer that is shorter or longer than announced is none, and its connection is given up', async () => {
  await assert.rejects(readAnswer(answerOf('hello').end(), 11), /ended after 5 of 11 bytes/);
  const endless = answerOf('hello world');
  await assert.rejects(readAnswer(endless, 5), /longer than 5 bytes/);
  assert.ok(endless.destroyed);
});

test('an answer that announces more than any object has is not read at all', async () => {
  const body = answerOf('hello');
  await assert.rejects(readAnswer(body, OBJECT_BYTES_MAX + 1), /no object has more/);
  assert.ok(body.destroyed);
});

test('a connection that closes or breaks in the middle is an error', async () => {
  const closed = answerOf('hello');
  const reading = assert.rejects(readAnswer(closed, 11), /the connection ended after 5 bytes/);
  setImmediate(() => closed.destroy());
  await reading;
  const broken = answerOf('hello');
  const other = assert.rejects(readAnswer(broken, undefined), /cable cut/);
  setImmediate(() => broken.destroy(new Error('cable cut')));
  await other;
});
