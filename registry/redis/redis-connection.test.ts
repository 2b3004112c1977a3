// oxlint-disable-next-line import/no-unassigned-import -- it changes `Reflect`, before @peculiar/x509 is loaded
import '../../server/cluster-ca/reflect-metadata.ts';
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { TLSSocket, createSecureContext } from 'node:tls';

import * as x509 from '@peculiar/x509';

import { errorCode } from '../../server/core/errors.ts';
import { systemClock } from '../../server/core/node-time.ts';
import { RedisConnection } from './redis-connection.ts';
import type { RedisAddress } from './redis-connection.ts';
import { redisSettings } from './testing/linked-registry.ts';

const COMPONENTS = { clock: systemClock, credentials: { username: null, password: null }, name: 'test' };

/** A Redis that takes `answerMs` to answer anything; Infinity: it accepts, and says nothing. */
async function slowRedis(t: TestContext, answerMs: number): Promise<RedisAddress> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('data', () => {
      if (answerMs !== Infinity) setTimeout(() => socket.write('+PONG\r\n'), answerMs).unref();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
}

test('a Redis that is slow to answer can be connected to, as long as it answers a command in time', async (t) => {
  const address = await slowRedis(t, 700);
  const connection = await RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 60_000 }, COMPONENTS);
  assert.equal(connection.ended, false);
  connection.close();
});

test('a Redis that accepts and says nothing is given up', async (t) => {
  const address = await slowRedis(t, Infinity);
  await assert.rejects(
    RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 200 }, COMPONENTS),
    (error) => errorCode(error) === 'registry-unavailable',
  );
});

test('time in which this process stood still is no time in which Redis did not answer', async (t) => {
  const address = await slowRedis(t, 0);
  const opening = RedisConnection.open(address, { ...redisSettings([]), commandTimeoutMs: 60_000 }, COMPONENTS);
  const untilMs = systemClock.monotonicMs() + 700;
  while (systemClock.monotonicMs() < untilMs);
  (await opening).close();
});

/** Of 127.0.0.1, signed by itself. */
async function ownCertificate(): Promise<{ readonly cert: string; readonly key: string }> {
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    { name: 'CN=redis', keys, extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }])] },
    webcrypto,
  );
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  return { cert: certificate.toString('pem'), key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n` };
}

test('a Redis that accepts has a command’s time for the TLS handshake as well, and is given up when it says nothing then', async (t) => {
  const identity = await ownCertificate();
  const sockets = new Set<Socket>();
  let handshakeAfterMs = 700;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    if (handshakeAfterMs === Infinity) return;
    setTimeout(() => {
      const encrypted = new TLSSocket(socket, { isServer: true, secureContext: createSecureContext(identity) });
      encrypted.on('error', () => undefined);
      encrypted.on('data', () => encrypted.write('+PONG\r\n'));
    }, handshakeAfterMs).unref();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const directory = await mkdtemp(join(tmpdir(), 'vferry-redis-tls-'));
  t.after(() => rm(directory, { recursive: true }));
  const caFile = join(directory, 'ca.pem');
  await writeFile(caFile, identity.cert);
  const { port } = server.address() as AddressInfo;
  const settings = { ...redisSettings([]), urls: [`rediss://127.0.0.1:${port}`], caFile };
  const address = { host: '127.0.0.1', port };
  const connection = await RedisConnection.open(address, { ...settings, commandTimeoutMs: 60_000 }, COMPONENTS);
  assert.equal(connection.ended, false);
  connection.close();
  handshakeAfterMs = Infinity;
  await assert.rejects(
    RedisConnection.open(address, { ...settings, commandTimeoutMs: 200 }, COMPONENTS),
    (error) => errorCode(error) === 'registry-unavailable',
  );
});
