/** Keeps the SDK from collecting an answer without end: it bounds neither error pages nor listings. */
import { pipeline, Transform, type Readable } from 'node:stream';

import type { S3Client } from '@aws-sdk/client-s3';

/** A page of 1,000 of the longest keys has 4 MB. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/** Fails every answer above the bound, and gives up its connection, but for an object that is read: `readAnswer` bounds that itself. */
export function boundAnswers(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args);
      const response = result.response as { readonly statusCode: number; body?: Readable };
      const isObject = context.commandName === 'GetObjectCommand' && response.statusCode < 300;
      if (!isObject && response.body !== undefined) response.body = bounded(response.body);
      return result;
    },
    // Behind the SDK's own parsing, which asks for the answer: what it gets is bounded.
    { step: 'deserialize', priority: 'low', name: 'boundAnswers' },
  );
}

function bounded(body: Readable): Readable {
  let doneBytes = 0;
  const limit = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      doneBytes += chunk.byteLength;
      if (doneBytes > ANSWER_BYTES_MAX) done(new Error(`the answer has more than ${ANSWER_BYTES_MAX} bytes`));
      else done(null, chunk);
    },
  });
  // An error of either ends both; the SDK, which reads `limit`, sees it there.
  return pipeline(body, limit, () => undefined);
}
