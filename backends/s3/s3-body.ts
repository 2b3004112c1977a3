/** The bytes of an answer. */
import type { Readable } from 'node:stream';

import { OBJECT_BYTES_MAX } from '../call-arguments.ts';

/**
 * Reads `body` to its end into memory of its own and nothing besides (a worker transfers it). `lengthBytes`: what the answer announced, if it did.
 * @throws Error when the body ends early, is longer than announced or than any object; the connection is given up then.
 */
export function readAnswer(body: Readable, lengthBytes: number | undefined): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      body.destroy();
      reject(new Error(reason));
    };
    if (lengthBytes !== undefined && lengthBytes > OBJECT_BYTES_MAX) {
      // Errors of the socket that is being torn down are nobody's concern any more.
      body.on('error', () => undefined);
      fail(`an answer of ${lengthBytes} bytes, no object has more than ${OBJECT_BYTES_MAX}`);
      return;
    }
    const target = lengthBytes === undefined ? null : Buffer.allocUnsafeSlow(lengthBytes);
    const chunks: Buffer[] = [];
    let done = 0;
    body.on('data', (chunk: Buffer) => {
      if (done + chunk.byteLength > (target?.byteLength ?? OBJECT_BYTES_MAX)) {
        fail(`the answer is longer than ${target?.byteLength ?? OBJECT_BYTES_MAX} bytes`);
        return;
      }
      if (target === null) chunks.push(chunk);
      else chunk.copy(target, done);
      done += chunk.byteLength;
    });
    body.once('end', () => {
      if (target !== null && done < target.byteLength) reject(new Error(`the answer ended after ${done} of ${target.byteLength} bytes`));
      else resolve(target ?? concatenated(chunks, done));
    });
    body.once('error', reject);
    body.once('close', () => reject(new Error(`the connection ended after ${done} bytes of an answer`)));
  });
}

function concatenated(chunks: readonly Buffer[], lengthBytes: number): Buffer {
  const all = Buffer.allocUnsafeSlow(lengthBytes);
  let position = 0;
  for (const chunk of chunks) {
    chunk.copy(all, position);
    position += chunk.byteLength;
  }
  return all;
}
