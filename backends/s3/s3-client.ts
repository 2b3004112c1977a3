/** The SDK's client as this store wants it. */
import { createHash } from 'node:crypto';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';

import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';

import { readCaFile } from '../swift/ca-file.ts';
import { boundAnswers } from './s3-bounded-answer.ts';
import type { S3StoreConfig } from './s3-config.ts';

/** More than the calls that a worker gets at a time (`threaded-store.ts`): nothing waits for a socket. */
const SOCKETS_MAX = 256;
const CONNECT_WITHIN_MS = 5000;
/** No byte in either direction for so long: the connection is dead, or as good as that. What kernels hold of a body may take 20 s to leave over a slow link. */
const INACTIVE_MS_MAX = 40_000;

export interface S3Timeouts {
  readonly connectWithinMs: number;
  readonly inactiveMsMax: number;
}

const S3_TIMEOUTS: S3Timeouts = { connectWithinMs: CONNECT_WITHIN_MS, inactiveMsMax: INACTIVE_MS_MAX };

const nothing = (): void => undefined;
const SILENT = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

/**
 * Steps of the SDK that do nothing for these settings but cost a fifth of a small GET's CPU: the logger's inputs, tracing in AWS Lambda, redirects
 * to other regions, directory buckets (which this store cannot use: they list in no order), `Expect`, and a check of names that are ours.
 */
const IDLE_MIDDLEWARE = [
  'loggerMiddleware',
  'recursionDetectionMiddleware',
  'regionRedirectMiddleware',
  's3ExpressMiddleware',
  'addExpectContinueMiddleware',
  'validateBucketNameMiddleware',
];

/** Connects at the first request. @throws StoreError `denied` when the CA file cannot be read. */
export function makeS3Client(config: S3StoreConfig, timeouts: S3Timeouts = S3_TIMEOUTS): S3Client {
  const agentOptions = { keepAlive: true, maxSockets: SOCKETS_MAX };
  const httpsAgent = new HttpsAgent(config.caFile === null ? agentOptions : { ...agentOptions, ca: readCaFile(config.caFile) });
  const settings: S3ClientConfig = {
    region: config.region,
    forcePathStyle: config.forcePathStyle,
    // Repeating is the RetryingStore's business, which counts it and knows when to give up.
    maxAttempts: 1,
    // Trailing checksums are refused by Swift's s3api and radosgw; Content-MD5 is understood by all.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // It would take a new connection for every put.
    expectContinueHeader: false,
    // What goes wrong is in the error, and said once, by the router's logger; the SDK would write some of it to the console.
    logger: SILENT,
    requestHandler: {
      httpAgent: new HttpAgent(agentOptions),
      httpsAgent,
      connectionTimeout: timeouts.connectWithinMs,
      socketTimeout: timeouts.inactiveMsMax,
    },
  };
  if (config.endpoint !== null) settings.endpoint = config.endpoint;
  if (config.profile !== null) settings.profile = config.profile;
  if (config.credentials !== null) {
    const { accessKeyId, secretAccessKey, sessionToken } = config.credentials;
    settings.credentials = sessionToken === null ? { accessKeyId, secretAccessKey } : { accessKeyId, secretAccessKey, sessionToken };
  }
  const client = new S3Client(settings);
  for (const name of IDLE_MIDDLEWARE) client.middlewareStack.remove(name);
  digestBodiesOnce(client);
  boundAnswers(client);
  return client;
}

/**
 * Bodies are protected by a signed Content-MD5, which every S3 service checks, and by nothing besides: the SHA-256 that the signature would
 * have of a body costs as much CPU again. A multi-object delete gets a Content-MD5 in place of the SDK's CRC-32, which s3api does not know.
 */
function digestBodiesOnce(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => (args) => {
      const request = args.request as { headers: Record<string, string>; body?: unknown };
      if (context.commandName === 'PutObjectCommand') request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
      if (context.commandName === 'DeleteObjectsCommand' && typeof request.body === 'string') {
        for (const name of Object.keys(request.headers)) if (/^x-amz-(checksum-|sdk-checksum-)/i.test(name)) delete request.headers[name];
        request.headers['content-md5'] = createHash('md5').update(request.body).digest('base64');
      }
      return next(args);
    },
    { step: 'build', priority: 'low', name: 'digestBodiesOnce' },
  );
}
