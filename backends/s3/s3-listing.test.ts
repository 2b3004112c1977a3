/** Listings of a service that does not keep to the rules: paging must end. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';

import { rejectsWith } from '../conformance.ts';
import { S3Store } from './s3-store.ts';

/** Runs `body` with a store whose service answers every listing with these keys, truncated or not. */
async function withListing(keys: readonly string[], truncated: boolean, body: (store: S3Store) => Promise<void>): Promise<void> {
  const contents = keys.map((key) => `<Contents><Key>${key}</Key><Size>1</Size></Contents>`).join('');
  const more = `<IsTruncated>${truncated}</IsTruncated>${truncated ? '<NextContinuationToken>next</NextContinuationToken>' : ''}`;
  const server = createServer((_, response) => {
    response.setHeader('Content-Type', 'application/xml');
    response.end(`<?xml version="1.0"?><ListBucketResult><Name>bucket</Name>${more}${contents}</ListBucketResult>`);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const store = new S3Store({
    kind: 's3',
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'key', secretAccessKey: 'secret', sessionToken: null },
    profile: null,
    caFile: null,
    conditionalPut: true,
  });
  try {
    await body(store);
  } finally {
    await store.close();
    server.closeAllConnections();
    server.close();
  }
}

test('names in order are given, strangers among them are not', async () => {
  await withListing(['a', 'a/b', 'a c', 'b'], true, async (store) => {
    assert.deepEqual(await store.list('bucket', '', '', 10), { names: ['a', 'b'], more: true });
  });
});

test('a service that takes no notice of where to go on, or of the prefix, does not make its caller read the same page for ever', async () => {
  await withListing(['a', 'b'], true, async (store) => {
    await rejectsWith(store.list('bucket', '', 'b', 10), 'retry');
    await rejectsWith(store.list('bucket', '', 'a', 10), 'retry');
    await rejectsWith(store.list('bucket', 'b', '', 10), 'retry');
  });
  await withListing(['b', 'a'], false, async (store) => {
    await rejectsWith(store.list('bucket', '', '', 10), 'retry');
  });
});
