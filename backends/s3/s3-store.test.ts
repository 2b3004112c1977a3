/** S3Store against a service that says and does what a test wants. Real services: radosgw.test.ts, swift-s3api.test.ts. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readlinkSync, truncateSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { bytes, readAllOf, rejectsWith, withDirectory } from '../conformance.ts';
import type { StoreErrorClass } from '../object-store.ts';
import { S3Store } from './s3-store.ts';
import { answerError, type Script, withScriptedS3 } from './scripted-s3.fixture.ts';

const body = bytes(Buffer.from('content'));
const etag = (content: Uint8Array): string => `"${createHash('md5').update(content).digest('hex')}"`;

describe('errors of the service', () => {
  const ofPut: readonly (readonly [number, string, StoreErrorClass])[] = [
    [404, 'NoSuchBucket', 'absent'],
    [403, 'AccessDenied', 'denied'],
    [403, 'InvalidAccessKeyId', 'denied'],
    [403, 'SignatureDoesNotMatch', 'denied'],
    [400, 'ExpiredToken', 'denied'],
    [400, 'InvalidRequest', 'denied'],
    [405, 'MethodNotAllowed', 'denied'],
    [301, 'PermanentRedirect', 'denied'],
    [403, 'RequestTimeTooSkewed', 'retry'],
    [400, 'RequestTimeout', 'retry'],
    [400, 'IncompleteBody', 'retry'],
    [400, 'BadDigest', 'retry'],
    [409, 'ConditionalRequestConflict', 'retry'],
    [409, 'OperationAborted', 'retry'],
    [429, 'TooManyRequests', 'retry'],
    [408, 'Whatever', 'retry'],
    [500, 'InternalError', 'retry'],
    [502, 'BadGateway', 'retry'],
    [503, 'SlowDown', 'retry'],
    [503, 'ServiceUnavailable', 'retry'],
    [504, 'GatewayTimeout', 'retry'],
    [507, 'InsufficientStorage', 'no-space'],
    [507, 'Whatever', 'no-space'],
    [507, 'XMinioStorageFull', 'no-space'],
    [403, 'QuotaExceeded', 'no-space'],
    [413, 'EntityTooLarge', 'no-space'],
    [503, 'InsufficientCapacity', 'no-space'],
    [501, 'NotImplemented', 'denied'],
  ];
  for (const [status, code, errorClass] of ofPut) {
    test(`${status} ${code} for a put is ${errorClass}`, () =>
      withScriptedS3(
        (_, response) => answerError(response, status, code),
        async ({ store, requests }) => {
          const error = await rejectsWith(store.put('bucket', 'name', body), errorClass);
          assert.match(error.message, /^put bucket\/name: /);
          assert.match(error.message, new RegExp(`${code}|${status}`));
          assert.equal(requests.length, 1, 'repeating is not for this store');
        },
      ));
  }

  test('412 for a conditional put is exists, for a plain one an error', async () => {
    const script: Script = (_, response) => answerError(response, 412, 'PreconditionFailed');
    await withScriptedS3(script, async ({ store, requests }) => {
      assert.equal(await store.put('bucket', 'name', body), 'exists');
      assert.equal(requests[0]?.headers['if-none-match'], '*');
    });
    await withScriptedS3(
      script,
      async ({ store, requests }) => {
        await rejectsWith(store.put('bucket', 'name', body), 'denied');
        assert.equal(requests[0]?.headers['if-none-match'], undefined);
      },
      { conditionalPut: false },
    );
  });

  test('a wrong clock is said in words, with the time of the service', () =>
    withScriptedS3(
      (_, response) => answerError(response, 403, 'RequestTimeTooSkewed'),
      async ({ store }) => {
        const error = await rejectsWith(store.list('bucket', '', '', 1), 'retry');
        assert.match(error.message, /the clock of this machine is wrong \(the service's says Sun, 22 Nov 2026 10:00:00 GMT\)/);
      },
    ));

  test('the attempt after a wrong clock is signed with the time of the service', () => {
    const ahead = new Date(Date.now() + 3_600_000);
    return withScriptedS3(
      ({ headers }, response) => {
        const signedAt = String(headers['x-amz-date']).replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z');
        const skewed = Math.abs(Date.parse(signedAt) - ahead.getTime()) > 600_000;
        response.setHeader('Date', ahead.toUTCString());
        if (skewed) answerError(response, 403, 'RequestTimeTooSkewed');
        else response.writeHead(204).end();
      },
      async ({ store }) => {
        await rejectsWith(store.delete('bucket', 'name'), 'retry');
        await store.delete('bucket', 'name');
      },
    );
  });

  test('text of the service gets into a message as one short line, and credentials never do', () =>
    withScriptedS3(
      (_, response) => answerError(response, 403, 'AccessDenied', `first\nsecond &#27;[31m ${'x'.repeat(10_000)}`),
      async ({ store }) => {
        const error = await rejectsWith(store.delete('bucket', 'name'), 'denied');
        // oxlint-disable-next-line no-control-regex -- they must not be there
        assert.doesNotMatch(error.message, /[\u0000-\u001f]/);
        assert.ok(error.message.length < 500, error.message);
        assert.match(error.message, /first second .*docs\/OPERATIONS\.md/);
        assert.doesNotMatch(JSON.stringify([error, error.stack, error.cause]), /secret-7531/);
      },
    ));

  test('an answer that is no S3 at all is judged by its status, or tried again', async () => {
    for (const [status, errorClass] of [
      [200, 'retry'],
      [403, 'denied'],
      [502, 'retry'],
    ] as const) {
      await withScriptedS3(
        (_, response) => response.writeHead(status, { 'Content-Type': 'text/html' }).end('<html><body>Welcome to the hotel<p></body>'),
        async ({ store }) => {
          await rejectsWith(store.list('bucket', '', '', 10), errorClass);
        },
      );
    }
  });

  test('buckets: one of ours is success, one of somebody else is denied, a full one cannot be deleted', async () => {
    const answers: Record<string, readonly [number, string]> = {
      '/ours': [409, 'BucketAlreadyOwnedByYou'],
      '/theirs': [409, 'BucketAlreadyExists'],
      '/full': [409, 'BucketNotEmpty'],
      '/busy': [409, 'OperationAborted'],
      '/gone': [404, 'NoSuchBucket'],
    };
    await withScriptedS3(
      ({ url }, response) => answerError(response, ...(answers[url.replace(/\/?(\?.*)?$/, '')] ?? [500, 'InternalError'])),
      async ({ store }) => {
        await store.createBucket('ours');
        assert.match((await rejectsWith(store.createBucket('theirs'), 'denied')).message, /belongs to somebody else/);
        await rejectsWith(store.deleteBucket('full'), 'denied');
        await rejectsWith(store.deleteBucket('busy'), 'retry');
        await store.deleteBucket('gone');
      },
    );
  });

  test('what is not there is absent to get and head, and deleted', () =>
    withScriptedS3(
      (_, response) => answerError(response, 404, 'NoSuchKey'),
      async ({ store }) => {
        assert.deepEqual(await store.get('bucket', 'name'), { kind: 'absent' });
        assert.deepEqual(await store.get('bucket', 'name', { offsetBytes: 0, lengthBytes: 10 }), { kind: 'absent' });
        assert.deepEqual(await store.head('bucket', 'name'), { kind: 'absent' });
        await store.delete('bucket', 'name');
      },
    ));
});

describe('the way to the service', () => {
  test('nobody listens: retry, with the reason', () =>
    withScriptedS3(
      () => undefined,
      async ({ store, server }) => {
        await new Promise((resolve) => server.close(resolve));
        assert.match((await rejectsWith(store.head('bucket', 'name'), 'retry')).message, /ECONNREFUSED/);
      },
    ));

  test('a connection that says nothing is given up, before and inside of an answer', async () => {
    await withScriptedS3(
      () => undefined,
      async ({ store }) => {
        assert.match((await rejectsWith(store.get('bucket', 'name'), 'retry')).message, /TimeoutError/);
        await rejectsWith(store.put('bucket', 'name', body), 'retry');
      },
      {},
      200,
    );
    await withScriptedS3(
      (_, response) => response.writeHead(200, { 'Content-Length': 100 }).write('half'),
      async ({ store }) => {
        await rejectsWith(store.get('bucket', 'name'), 'retry');
      },
      {},
      200,
    );
  });

  test('an abort ends a call at once, also in the middle of an answer, and frees the connection', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200, { 'Content-Length': 100 }).write('half'),
      async ({ store, server }) => {
        const controller = new AbortController();
        const get = rejectsWith(store.get('bucket', 'name', undefined, controller.signal), 'retry');
        setTimeout(() => controller.abort(new Error('enough')), 50);
        assert.match((await get).message, /get bucket\/name: aborted/);
        // Node tells both ends a moment later.
        for (let wait = 0; wait < 6000 && (await connectionsOf(server)) > 0; wait += 1) await new Promise((resolve) => setTimeout(resolve, 10));
        assert.equal(await connectionsOf(server), 0);
      },
    ));

  test('without path style the bucket is in the host', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200, { 'Content-Length': 7 }).end('content'),
      async ({ requests, config }) => {
        const endpoint = config.endpoint?.replace('127.0.0.1', 'localhost') ?? null;
        const store = new S3Store({ ...config, endpoint, forcePathStyle: false });
        const outcome = await store.get('bucket', 'name').catch((error: unknown) => String(error));
        await store.close();
        // Not every resolver knows names below localhost: then the refusal says what was asked for.
        if (typeof outcome === 'string') assert.match(outcome, /(ENOTFOUND|EAI_AGAIN).* bucket\.localhost/);
        else assert.deepEqual([requests[0]?.headers.host?.split(':')[0], requests[0]?.url.split('?')[0]], ['bucket.localhost', '/name']);
      },
    ));
});

describe('the bytes', () => {
  const content = randomBytes(100_000);

  test('a put carries a Content-MD5, no checksum that only AWS knows, and no second digest of the body', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200, { ETag: etag(content) }).end(),
      async ({ store, requests }) => {
        assert.equal(await store.put('bucket', 'name', { kind: 'bytes', chunks: [content.subarray(0, 7), content.subarray(7)] }), 'written');
        const [request] = requests;
        assert.ok(request?.body.equals(content));
        assert.equal(request?.headers['content-md5'], createHash('md5').update(content).digest('base64'));
        assert.equal(request?.headers['x-amz-content-sha256'], 'UNSIGNED-PAYLOAD');
        assert.match(request?.headers.authorization ?? '', /SignedHeaders=[^,]*content-md5/);
        const names = Object.keys(request?.headers ?? {});
        assert.deepEqual(
          names.filter((name) => /checksum|expect|transfer-encoding|content-encoding/.test(name)),
          [],
        );
      },
    ));

  test('large bodies go over one connection that stays open, and wait for nothing', () => {
    const ports = new Set<number | undefined>();
    return withScriptedS3(
      (_, response) => {
        ports.add(response.req.socket.remotePort);
        response.writeHead(200).end();
      },
      async ({ store, requests }) => {
        const large = Buffer.alloc(3 * 1024 * 1024);
        for (const name of ['a', 'b', 'c']) await store.put('bucket', name, bytes(large));
        assert.equal(ports.size, 1);
        assert.deepEqual(
          requests.map(({ headers }) => headers.expect),
          [undefined, undefined, undefined],
        );
      },
    );
  });

  test('a large part of a file goes as it is read, with the same headers as bytes in memory', () =>
    withFile(randomBytes(5_000_000), (path, file) =>
      withScriptedS3(
        (_, response) => response.writeHead(200).end(),
        async ({ store, requests }) => {
          await store.put('bucket', 'name', { kind: 'file', path, offsetBytes: 1000, lengthBytes: 4_000_001 });
          const [request] = requests;
          const part = file.subarray(1000, 4_001_001);
          assert.ok(request?.body.equals(part));
          assert.equal(request?.headers['content-length'], '4000001');
          assert.equal(request?.headers['content-md5'], createHash('md5').update(part).digest('base64'));
          assert.equal(request?.headers['x-amz-content-sha256'], 'UNSIGNED-PAYLOAD');
          assert.equal(request?.headers['transfer-encoding'], undefined);
          assert.equal(request?.headers['if-none-match'], '*');
        },
      ),
    ));

  test('a file that gets shorter while it is sent ends the put as corrupt at once, and no complete body arrives', () =>
    withFile(Buffer.alloc(64 * 1024 * 1024), (path) =>
      withScriptedS3(
        (_, response) => response.writeHead(200).end(),
        async ({ store, requests, server }) => {
          server.once('request', () => truncateSync(path, 1000));
          const error = await rejectsWith(
            store.put('bucket', 'name', { kind: 'file', path, offsetBytes: 0, lengthBytes: 64 * 1024 * 1024 }),
            'corrupt',
          );
          assert.match(error.message, /ends early/);
          assert.equal(requests.length, 0);
          assert.deepEqual(openFiles(path), []);
        },
      ),
    ));

  test('an abort or a refusal in the middle of a large file ends the put, and the file is closed', (t) =>
    withFile(Buffer.alloc(64 * 1024 * 1024), async (path) => {
      t.mock.method(console, 'warn', (message: unknown) => assert.fail(`the SDK wrote to the console: ${String(message)}`));
      const body = { kind: 'file', path, offsetBytes: 0, lengthBytes: 64 * 1024 * 1024 } as const;
      await withScriptedS3(
        () => undefined,
        async ({ store, server }) => {
          const controller = new AbortController();
          server.once('request', () => controller.abort(new Error('enough')));
          assert.match((await rejectsWith(store.put('bucket', 'name', body, controller.signal), 'retry')).message, /aborted/);
          assert.deepEqual(openFiles(path), []);
          server.once('request', (incoming: IncomingMessage) => incoming.socket.destroy());
          await rejectsWith(store.put('bucket', 'name', body), 'retry');
          assert.deepEqual(openFiles(path), []);
          server.once('request', (_, response: ServerResponse) => answerError(response, 403, 'AccessDenied'));
          await rejectsWith(store.put('bucket', 'name', body), 'denied');
          assert.deepEqual(openFiles(path), []);
        },
      );
    }));

  test('a whole object is read again when its bytes do not have its MD5, and corrupt when that happens twice', async () => {
    const flipped = Buffer.from(content);
    flipped[5] = (flipped[5] as number) ^ 1;
    for (const badAnswers of [0, 1, 2]) {
      let gets = 0;
      await withScriptedS3(
        ({ method }, response) => {
          const bad = method === 'GET' && gets < badAnswers;
          if (method === 'GET') gets += 1;
          response.writeHead(200, { 'Content-Length': method === 'GET' ? content.byteLength : 0, ETag: etag(content) });
          response.end(method === 'GET' ? (bad ? flipped : content) : '');
        },
        async ({ store }) => {
          await store.put('bucket', 'name', bytes(content));
          if (badAnswers < 2) assert.ok((await readAllOf(store, 'bucket', 'name')).equals(content));
          else await rejectsWith(store.get('bucket', 'name'), 'corrupt');
          assert.equal(gets, Math.min(2, badAnswers + 1));
        },
      );
    }
  });

  test('ETags that are no MD5 of the content are not taken for one', async () => {
    for (const headers of [
      { ETag: `"${'a'.repeat(32)}-7"` },
      { ETag: `"${'a'.repeat(32)}"`, 'x-amz-server-side-encryption': 'aws:kms' },
      { ETag: 'W/"opaque"' },
      {},
    ]) {
      await withScriptedS3(
        (_, response) => response.writeHead(200, { ...headers, 'Content-Length': content.byteLength }).end(content),
        async ({ store, requests }) => {
          assert.ok((await readAllOf(store, 'bucket', 'name')).equals(content));
          assert.equal(requests.length, 1);
        },
      );
    }
  });

  test('a service whose ETags only look like MD5s is found out once, by its answer to a put or by the same bytes twice', async () => {
    const script: Script = ({ method }, response) => {
      response.writeHead(200, { ETag: `"${'b'.repeat(32)}"`, 'Content-Length': method === 'GET' ? content.byteLength : 0 });
      response.end(method === 'GET' ? content : '');
    };
    for (const [first, gets] of [
      ['put', 2],
      ['get', 3],
    ] as const) {
      await withScriptedS3(script, async ({ store, requests }) => {
        if (first === 'put') await store.put('bucket', 'name', bytes(content));
        for (let read = 0; read < 2; read += 1) assert.ok((await readAllOf(store, 'bucket', 'name')).equals(content));
        assert.equal(requests.filter(({ method }) => method === 'GET').length, gets);
      });
    }
  });

  test('an answer that ends early is tried again, whole or by range, announced or not', async () => {
    for (const headers of [{ 'Content-Length': content.byteLength }, { 'Transfer-Encoding': 'chunked' }]) {
      await withScriptedS3(
        (_, response) => {
          response.writeHead(200, headers);
          response.write(content.subarray(0, 5000), () => response.destroy());
        },
        async ({ store }) => {
          await rejectsWith(store.get('bucket', 'name'), 'retry');
          await rejectsWith(store.get('bucket', 'name', { offsetBytes: 0, lengthBytes: content.byteLength }), 'retry');
        },
      );
    }
  });

  test('an answer of unknown length is read to its end', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200, { 'Transfer-Encoding': 'chunked' }).end(content),
      async ({ store }) => {
        assert.ok((await readAllOf(store, 'bucket', 'name')).equals(content));
      },
    ));

  test('more bytes than any object has are refused before they are read', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200, { 'Content-Length': 2 ** 40 }).write('x'),
      async ({ store }) => {
        await rejectsWith(store.get('bucket', 'name'), 'retry');
      },
    ));

  test('a range: asked for by its bytes, cut at the end, and given from a service that knows no ranges', async () => {
    const range = { offsetBytes: 1000, lengthBytes: 4096 };
    const answer = (status: number, headers: Record<string, string>, part: Uint8Array): Script => {
      return (_, response) => void response.writeHead(status, { ...headers, 'Content-Length': part.byteLength }).end(part);
    };
    const whole = content.subarray(1000, 5096);
    await withScriptedS3(answer(206, { 'Content-Range': `bytes 1000-5095/100000` }, whole), async ({ store, requests }) => {
      const outcome = await store.get('bucket', 'name', range);
      assert.ok(outcome.kind === 'found' && outcome.bytes.equals(whole));
      assert.equal(outcome.bytes.buffer.byteLength, 4096, 'memory of its own: it is transferred');
      assert.equal(requests[0]?.headers.range, 'bytes=1000-5095');
    });
    await withScriptedS3(answer(206, { 'Content-Range': `bytes 1000-1004/1005` }, whole.subarray(0, 5)), async ({ store }) => {
      const outcome = await store.get('bucket', 'name', range);
      assert.ok(outcome.kind === 'found' && outcome.bytes.equals(whole.subarray(0, 5)));
    });
    await withScriptedS3(answer(200, {}, content), async ({ store }) => {
      const outcome = await store.get('bucket', 'name', range);
      assert.ok(outcome.kind === 'found' && outcome.bytes.equals(whole));
      assert.equal(outcome.bytes.buffer.byteLength, 4096);
    });
    await withScriptedS3(
      (_, response) => answerError(response, 416, 'InvalidRange'),
      async ({ store }) => {
        const outcome = await store.get('bucket', 'name', range);
        assert.ok(outcome.kind === 'found' && outcome.bytes.byteLength === 0);
      },
    );
  });

  test('a part of another range, or less of it than there is, is never given as the answer', async () => {
    for (const [contentRange, lengthBytes] of [
      ['bytes 0-4095/100000', 4096],
      ['bytes 1000-2000/100000', 1001],
      ['bytes 1000-9191/100000', 8192],
      ['bytes 1000-5095/100000', 4000],
      ['nonsense', 4096],
    ] as const) {
      await withScriptedS3(
        (_, response) =>
          response.writeHead(206, { 'Content-Range': contentRange, 'Content-Length': lengthBytes }).end(content.subarray(0, lengthBytes)),
        async ({ store }) => {
          await rejectsWith(store.get('bucket', 'name', { offsetBytes: 1000, lengthBytes: 4096 }), 'retry');
        },
      );
    }
  });
});

describe('deleting many', () => {
  const names = Array.from({ length: 260 }, (_, index) => `object-${index}`);
  const deleted = '<?xml version="1.0"?><DeleteResult></DeleteResult>';

  test('goes in few requests, each with a Content-MD5', () =>
    withScriptedS3(
      (_, response) => response.writeHead(200).end(deleted),
      async ({ store, requests }) => {
        await store.deleteMany('bucket', names);
        assert.equal(requests.length, 2);
        for (const request of requests) {
          assert.match(request.url, /^\/bucket\/?\?delete/);
          assert.equal(request.headers['content-md5'], createHash('md5').update(request.body).digest('base64'));
          assert.deepEqual(
            Object.keys(request.headers).filter((name) => name.includes('checksum')),
            [],
          );
        }
        const asked = requests.flatMap((request) => [...request.body.toString().matchAll(/<Key>([^<]+)<\/Key>/g)].map((match) => match[1]));
        assert.deepEqual(asked, names);
      },
    ));

  test('one by one where the service has no such request, which is remembered', async () => {
    for (const [status, code] of [
      [400, 'MalformedXML'],
      [400, 'InvalidRequest'],
      [501, 'NotImplemented'],
      [405, 'MethodNotAllowed'],
    ] as const) {
      await withScriptedS3(
        ({ method }, response) => (method === 'POST' ? answerError(response, status, code) : response.writeHead(204).end()),
        async ({ store, requests }) => {
          await store.deleteMany('bucket', ['a', 'b', 'c']);
          await store.deleteMany('bucket', ['d']);
          assert.deepEqual(requests.map(({ method, url }) => `${method} ${url.split('?')[0]}`).sort(), [
            'DELETE /bucket/a',
            'DELETE /bucket/b',
            'DELETE /bucket/c',
            'DELETE /bucket/d',
            'POST /bucket/',
          ]);
        },
      );
    }
  });

  test('a failure of the request, or of one object, fails the call', async () => {
    const failed = (code: string): string => deleted.replace('</', `<Error><Key>a</Key><Code>${code}</Code><Message>m</Message></Error></`);
    for (const [script, errorClass] of [
      [(_, response) => answerError(response, 503, 'SlowDown'), 'retry'],
      [(_, response) => response.writeHead(200).end(failed('InternalError')), 'retry'],
      [(_, response) => response.writeHead(200).end(failed('AccessDenied')), 'denied'],
    ] as readonly (readonly [Script, StoreErrorClass])[]) {
      await withScriptedS3(script, async ({ store }) => {
        await rejectsWith(store.deleteMany('bucket', ['a', 'b']), errorClass);
      });
    }
    await withScriptedS3(
      (_, response) => response.writeHead(200).end(failed('NoSuchKey')),
      async ({ store }) => {
        await store.deleteMany('bucket', ['a', 'b']);
      },
    );
  });

  test('a 400 that is about this attempt only is not taken for a request that the service lacks', () =>
    withScriptedS3(
      (_, response) => answerError(response, 400, 'RequestTimeout'),
      async ({ store, requests }) => {
        await rejectsWith(store.deleteMany('bucket', ['a', 'b']), 'retry');
        assert.deepEqual(
          requests.map(({ method }) => method),
          ['POST'],
        );
      },
    ));

  test('a right that lacks is not taken for a request that lacks', () =>
    withScriptedS3(
      (_, response) => answerError(response, 403, 'AccessDenied'),
      async ({ store, requests }) => {
        await rejectsWith(store.deleteMany('bucket', ['a', 'b']), 'denied');
        assert.deepEqual(
          requests.map(({ method }) => method),
          ['POST'],
        );
      },
    ));
});

describe('where the store gets what it needs', () => {
  const plain = {
    kind: 's3',
    endpoint: 'https://user:secret-7531@s3.example.com:8443/path?token=secret-7531',
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: null,
    profile: null,
    caFile: null,
    conditionalPut: false,
  } as const;

  test('its description has the endpoint and nothing secret', () => {
    assert.equal(new S3Store(plain).description, 's3:https://s3.example.com:8443/path');
    assert.equal(new S3Store({ ...plain, endpoint: null, region: 'eu-central-1' }).description, 's3:https://s3.eu-central-1.amazonaws.com');
  });

  test('a CA file that is missing is a denied call, not a crash', async () => {
    const store = new S3Store({ ...plain, caFile: '/nonexistent/ca.pem' });
    assert.match((await rejectsWith(store.listBuckets('', 1), 'denied')).message, /cannot read the CA file \/nonexistent\/ca\.pem/);
    await store.close();
  });

  test('credentials come from the environment when the settings have none', async (t) => {
    const saved = { ...process.env };
    t.after(() => {
      process.env = saved;
    });
    process.env['AWS_ACCESS_KEY_ID'] = 'from-environment';
    process.env['AWS_SECRET_ACCESS_KEY'] = 'secret-7531';
    await withScriptedS3(
      (_, response) => response.writeHead(200).end('<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>'),
      async ({ store, requests }) => {
        assert.deepEqual(await store.listBuckets('', 10), { names: [], more: false });
        assert.match(requests[0]?.headers.authorization ?? '', /Credential=from-environment\//);
      },
      { credentials: null },
    );
  });
});

/** Runs `body` with a file of this content. */
function withFile(content: Buffer, body: (path: string, content: Buffer) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const path = join(directory, 'segment');
    writeFileSync(path, content);
    await body(path, content);
  });
}

/** Descriptors that this process has of the file. */
function openFiles(path: string): string[] {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      // Closed since it was listed.
      return false;
    }
  });
}

function connectionsOf(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)));
  });
}
