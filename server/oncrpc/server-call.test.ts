import assert from 'node:assert/strict';
import { test } from 'node:test';

import { AssertionError } from '../core/assert.ts';
import { SendBuffer } from './send-buffer.ts';
import { ServerCall } from './server-call.ts';
import type { ReplyPath } from './server-call.ts';

/** A path that gives every reply a buffer of its own and counts what is sent. */
class CountingPath implements ReplyPath {
  readonly transport = 'tcp';
  readonly clientAddress = '192.0.2.1';
  readonly clientPort = 1;
  sent = 0;

  reserve(call: ServerCall, sizeBytes: number): void {
    call.region = new SendBuffer(Buffer.alloc(sizeBytes));
    call.regionStart = 0;
    call.regionEnd = sizeBytes;
  }

  cancel(): void {}

  send(): void {
    this.sent += 1;
  }
}

const MESSAGE = Buffer.from('00000007 00000000 00000002 000186a3 00000003 00000000 00000000 00000000 00000000 00000000'.replaceAll(' ', ''), 'hex');

function loaded(chunks: Buffer[] | null, message: Buffer = MESSAGE): { call: ServerCall; path: CountingPath } {
  const path = new CountingPath();
  const call = new ServerCall(path, { replyReady() {} });
  if (chunks === null) call.load(path, message, 0, message.length, null);
  else call.load(path, chunks[0]!, 0, 0, chunks);
  return { call, path };
}

test('the message hash does not depend on the xid, nor on how the message arrived', () => {
  const expected = loaded(null).call.messageHash();
  assert.match(expected, /^[0-9a-f]{32}$/);
  for (let first = 0; first < 12; first++) {
    for (let second = first; second < 12; second++) {
      const chunks = [MESSAGE.subarray(0, first), MESSAGE.subarray(first, second), MESSAGE.subarray(second)];
      assert.equal(loaded(chunks).call.messageHash(), expected, `cut at ${first} and ${second}`);
    }
  }
  const otherXid = Buffer.from(MESSAGE);
  otherXid[3] = 8;
  assert.equal(loaded(null, otherXid).call.messageHash(), expected);
  for (let i = 4; i < MESSAGE.length; i++) {
    const other = Buffer.from(MESSAGE);
    other[i]! ^= 1;
    assert.notEqual(loaded(null, other).call.messageHash(), expected, `byte ${i}`);
  }
});

test('a call is answered once: finishing it twice, or beginning again after that, is a bug', () => {
  const { call, path } = loaded(null);
  assert.throws(() => call.finishAt(0), AssertionError);
  const writer = call.beginReply(8);
  call.finish(writer);
  assert.throws(() => call.finish(writer), AssertionError);
  assert.throws(() => call.beginReply(8), AssertionError);
  assert.equal(path.sent, 1);
});

test('a writer of another call does not finish this one', () => {
  const { call } = loaded(null);
  call.beginReply(8);
  const other = loaded(null).call;
  assert.throws(() => call.finish(other.beginReply(8)), AssertionError);
});

test('a reply of more than any reply may have is a bug of the program, not an allocation', () => {
  assert.throws(() => loaded(null).call.beginReply(2 ** 31), AssertionError);
});
