import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';

import { rejectsWith } from '../conformance.ts';
import { type Script, withScriptedS3 } from './scripted-s3.fixture.ts';

const MIB = 2 ** 20;

/** Answers with `status` and a body that is longer than anybody should take; tells how much of it was taken. */
function endless(status: number): { script: Script; sentBytes: () => number } {
  let sentBytes = 0;
  const script: Script = (_, response) => {
    response.writeHead(status, { 'Content-Type': 'application/xml' });
    response.on('error', () => undefined);
    const piece = Buffer.alloc(MIB, ' ');
    const send = async (): Promise<void> => {
      while (!response.destroyed && sentBytes < 64 * MIB) {
        sentBytes += piece.byteLength;
        if (!response.write(piece)) await Promise.race([once(response, 'drain'), once(response, 'close')]);
      }
      response.end();
    };
    void send();
  };
  return { script, sentBytes: () => sentBytes };
}

test('an error page and a listing without end are given up, with their connections', async () => {
  for (const status of [200, 500, 403]) {
    const { script, sentBytes } = endless(status);
    await withScriptedS3(script, async ({ store, server }) => {
      const closed = new Promise<void>((resolve) => {
        server.once('connection', (socket) => socket.once('close', () => resolve()));
      });
      await assert.rejects(store.list('bucket', '', '', 10));
      assert.ok(sentBytes() < 64 * MIB, `${status}: ${sentBytes()} bytes were taken`);
      await closed;
    });
  }
  const { script } = endless(503);
  await withScriptedS3(script, async ({ store }) => {
    assert.match((await rejectsWith(store.get('bucket', 'name'), 'retry')).message, /^get bucket\/name: /);
  });
});

test('an object that is larger than such an answer may be is read', async () => {
  const content = Buffer.alloc(20 * MIB, 7);
  await withScriptedS3(
    (_, response) => response.end(content),
    async ({ store }) => {
      const outcome = await store.get('bucket', 'name');
      assert.ok(outcome.kind === 'found' && outcome.bytes.equals(content));
    },
  );
});
