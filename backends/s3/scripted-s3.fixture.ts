/** An S3 service that answers what a test says: for what no real one does on demand. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { S3StoreConfig } from './s3-config.ts';
import { S3Store } from './s3-store.ts';

export interface ScriptedRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** Ends the answer, now or never. */
export type Script = (request: ScriptedRequest, response: ServerResponse) => void;

export interface ScriptedS3 {
  readonly store: S3Store;
  /** Every request so far, in the order of their ends. */
  readonly requests: readonly ScriptedRequest[];
  readonly server: Server;
  /** Of the store. */
  readonly config: S3StoreConfig;
}

/** Runs `body` with a store whose service is `script`, and which waits for it practically for ever unless `inactiveMsMax` says otherwise. */
export async function withScriptedS3(
  script: Script,
  body: (scripted: ScriptedS3) => Promise<void>,
  changes: Partial<S3StoreConfig> = {},
  inactiveMsMax = 240_000,
): Promise<void> {
  const requests: ScriptedRequest[] = [];
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('error', () => undefined);
    incoming.on('end', () => {
      const request = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers, body: Buffer.concat(chunks) };
      requests.push(request);
      script(request, response);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const config: S3StoreConfig = {
    kind: 's3',
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'key-id', secretAccessKey: 'secret-7531', sessionToken: null },
    profile: null,
    caFile: null,
    conditionalPut: true,
    ...changes,
  };
  const store = new S3Store(config, { connectWithinMs: 240_000, inactiveMsMax });
  try {
    await body({ store, requests, server, config });
  } finally {
    await store.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Ends an answer that is an error of S3. */
export function answerError(response: ServerResponse, status: number, code: string, message = 'a message'): void {
  if (!response.hasHeader('Date')) response.setHeader('Date', 'Sun, 22 Nov 2026 10:00:00 GMT');
  response.writeHead(status, { 'Content-Type': 'application/xml' });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message><RequestId>1</RequestId></Error>`);
}
