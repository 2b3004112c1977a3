import assert from 'node:assert/strict';
import http2 from 'node:http2';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import tls from 'node:tls';

import { tlsOptions } from './peer-identity.ts';
import { resetSocket } from './socket-reset.ts';
import { clusterCertificates } from './testing/certificates.ts';
import { until } from './testing/stepped-clock.ts';

test('the other end sees a reset, not an orderly end, and no handle stays open, also below HTTP/2', async () => {
  const errors: (string | undefined)[] = [];
  const server = net.createServer((socket) => {
    socket.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code));
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const before = process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
  for (const isHttp2 of [false, true]) {
    const socket = net.connect({ host: '127.0.0.1', port });
    const session = isHttp2 ? http2.connect('http://peer', { createConnection: () => socket }) : null;
    session?.on('error', () => {});
    await new Promise((resolve) => socket.once('connect', resolve));
    socket.write('x');
    await new Promise((resolve) => setImmediate(resolve));
    resetSocket(socket);
    session?.destroy();
    await until(() => errors.length === (isHttp2 ? 2 : 1), 'the server saw an error');
  }
  assert.deepEqual(errors, ['ECONNRESET', 'ECONNRESET']);
  await until(() => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length === before, 'all handles were closed');
  server.close();
});

test('a socket that is still connecting, or gone, is closed without an error', async () => {
  const server = net.createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = net.connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  const errors: unknown[] = [];
  socket.on('error', (error) => errors.push(error));
  resetSocket(socket);
  await until(() => socket.closed, 'the socket is closed');
  resetSocket(socket);
  assert.deepEqual(errors, []);
  server.close();
});

for (const isTls of [false, true])
  test(`a socket whose other end has just said goodbye is closed as well${isTls ? ', below TLS' : ''}`, async () => {
    const { a, b } = await clusterCertificates();
    const goodbye = (socket: net.Socket): void => {
      socket.on('error', () => {});
      socket.resume();
      socket.end();
    };
    const server = isTls ? tls.createServer(tlsOptions(b), goodbye) : net.createServer(goodbye);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const socket = net.connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    const carrier = isTls ? tls.connect({ socket, ...tlsOptions(a), checkServerIdentity: () => undefined }) : socket;
    for (const one of [socket, carrier]) one.on('error', () => {});
    carrier.resume();
    await new Promise<void>((resolve) =>
      carrier.once('end', () =>
        // Behind Node's own end of the socket, which the system has not carried out yet.
        process.nextTick(() => {
          process.nextTick(() => {
            assert.deepEqual([carrier.writableEnded, carrier.writableFinished], [true, false]);
            resetSocket(socket, carrier);
            resolve();
          });
        }),
      ),
    );
    if (isTls) setImmediate(() => carrier.destroy());
    await until(() => !process.getActiveResourcesInfo().includes('TCPSocketWrap'), 'all handles were closed');
    server.close();
  });
