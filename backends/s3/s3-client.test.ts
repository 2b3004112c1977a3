import assert from 'node:assert/strict';
import { test } from 'node:test';

import { makeS3Client } from './s3-client.ts';

test('a request passes the steps of the SDK that it needs, and no other: an upgrade that brings or renames some is looked at', () => {
  const client = makeS3Client({
    kind: 's3',
    endpoint: 'http://127.0.0.1:1',
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'key', secretAccessKey: 'secret', sessionToken: null },
    profile: null,
    caFile: null,
    conditionalPut: true,
  });
  const steps = client.middlewareStack.identify().map((step) => step.replace(/ .*/, ''));
  client.destroy();
  assert.deepEqual(steps.sort(), [
    'boundAnswers',
    'contentLengthMiddleware',
    'deserializerMiddleware',
    'digestBodiesOnce',
    'getUserAgentMiddleware',
    'hostHeaderMiddleware',
    'httpSigningMiddleware',
    'retryMiddleware',
    'serializerMiddleware',
  ]);
});
