/** Joining over real TLS: with a token that is right, wrong, old, used, and with somebody in between. */
import assert from 'node:assert/strict';
import { randomBytes, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { type Server, createServer as createTcpServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';

import fc from 'fast-check';

import { ApplianceError } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import { type KeyedCertificate, fingerprintOf, makeAuthority, makeRequest, signRequest } from './authority.ts';
import { joinWith } from './join-client.ts';
import { type JoinOffer, startJoinServer } from './join-server.ts';
import { type JoinToken, SECRET_BYTES, readToken, splitAddress, writeToken } from './join-token.ts';

const NOW_MS = Date.now();
const FIRST = '11'.repeat(16) as RouterId;
const SECOND = '22'.repeat(16) as RouterId;
const dependencies = { crypto: webcrypto, nowMs: NOW_MS };

interface Events {
  readonly joined: string[];
  readonly refused: string[];
}

/** A server of the first router's host, and a token for it. */
async function offering(change: Partial<JoinOffer> = {}) {
  const authority = await makeAuthority(dependencies, 'gold');
  const { request, key } = await makeRequest(dependencies, FIRST);
  const { certificate } = await signRequest(dependencies, authority, request);
  const events: Events = { joined: [], refused: [] };
  const secret = randomBytes(SECRET_BYTES);
  const endsAtMs = NOW_MS + 60_000;
  const server = await startJoinServer(
    { host: '127.0.0.1', port: 0 },
    {
      certificate,
      authority: authority.certificate,
      key,
      secret,
      endsAtMs,
      uses: 1,
      now: () => NOW_MS,
      async sign(text) {
        const signed = await signRequest(dependencies, authority, text);
        return {
          router: signed.router,
          answer: { certificate: signed.certificate, authority: authority.certificate, revocations: null, settings: 'vpool: { name: gold }\n' },
        };
      },
      joined: (router) => void events.joined.push(router),
      refused: (_address, reason) => void events.refused.push(reason),
      ...change,
    },
  );
  const token: JoinToken = { fingerprint: fingerprintOf(authority.certificate), address: `127.0.0.1:${server.port}`, secret, endsAtMs };
  return { authority, server, token, events, own: { certificate, key } };
}

test('a host with the token gets a certificate for its id, the authority and the settings; then the offer is done', async () => {
  const { server, token, events, authority } = await offering();
  await using _ = server;
  const { certificates, settings } = await joinWith(dependencies, token, SECOND);
  assert.equal(certificates.router, SECOND);
  assert.equal(certificates.authority, authority.certificate);
  assert.equal(settings, 'vpool: { name: gold }\n');
  await server.done;
  assert.deepEqual(events, { joined: [SECOND], refused: [] });
});

test('a token is good for as many hosts as it was made for, and not for one more', async () => {
  const { server, token, events } = await offering({ uses: 2 });
  await using _ = server;
  await joinWith(dependencies, token, SECOND);
  await joinWith(dependencies, token, '33'.repeat(16) as RouterId);
  await assert.rejects(joinWith(dependencies, token, '44'.repeat(16) as RouterId), {
    code: 'join-refused',
    message: /used already.*vferry cluster token/,
  });
  assert.equal(events.joined.length, 2);
});

test('a wrong secret and a token that ended are refused with the reason, and do not use the token up', async () => {
  let nowMs = NOW_MS;
  const { server, token, events } = await offering({ now: () => nowMs });
  await using _ = server;
  await assert.rejects(joinWith(dependencies, { ...token, secret: randomBytes(SECRET_BYTES) }, SECOND), {
    code: 'join-refused',
    message: /not the one that is offered/,
  });
  nowMs = token.endsAtMs;
  await assert.rejects(joinWith(dependencies, token, SECOND), { code: 'join-refused', message: /this token ended at 20/ });
  nowMs = token.endsAtMs - 1;
  await joinWith(dependencies, token, SECOND);
  assert.equal(events.refused.length, 2);
  assert.deepEqual(events.joined, [SECOND]);
});

test('a request that the authority does not sign leaves the token as it was', async () => {
  let broken = true;
  const { server, token, events, authority } = await offering();
  await using _ = server;
  await using strict = await startJoinServer(
    { host: '127.0.0.1', port: 0 },
    {
      ...(await offerOf(authority, token)),
      async sign(text) {
        if (broken) throw new ApplianceError('certificate-request-invalid', 'not signed');
        const { router, certificate } = await signRequest(dependencies, authority, text);
        return { router, answer: { certificate, authority: authority.certificate, revocations: null, settings: '' } };
      },
    },
  );
  const here = { ...token, address: `127.0.0.1:${strict.port}` };
  await assert.rejects(joinWith(dependencies, here, SECOND), { code: 'join-refused', message: /not signed/ });
  broken = false;
  await joinWith(dependencies, here, SECOND);
  assert.deepEqual(events.joined, []);
});

/** An offer of another process with the same authority and secret. */
async function offerOf(authority: KeyedCertificate, token: JoinToken): Promise<JoinOffer> {
  const { request, key } = await makeRequest(dependencies, FIRST);
  return {
    certificate: (await signRequest(dependencies, authority, request)).certificate,
    authority: authority.certificate,
    key,
    secret: token.secret,
    endsAtMs: token.endsAtMs,
    uses: 1,
    now: () => NOW_MS,
    sign: () => Promise.reject(new Error('not asked for')),
    joined: () => undefined,
    refused: () => undefined,
  };
}

test('the secret is never said to who has another authority, or shows ours without being certified by it', async () => {
  const { server, token, authority } = await offering();
  await using _ = server;
  const other = await offering();
  await using __ = other.server;
  await assert.rejects(joinWith(dependencies, { ...token, address: other.token.address }, SECOND), {
    code: 'join-untrusted',
    message: /does not show the authority/,
  });
  // The authority's certificate is no secret: somebody sends it along with one of its own.
  let heard = '';
  const impostor = createTlsServer({ key: other.own.key, cert: `${other.own.certificate}${authority.certificate}` }, (socket) => {
    socket.on('data', (chunk: Buffer) => (heard += chunk.toString()));
    socket.on('error', () => undefined);
  });
  impostor.on('tlsClientError', () => undefined);
  await using stop = await started(impostor);
  await assert.rejects(joinWith(dependencies, { ...token, address: stop.address }, SECOND), { code: 'join-untrusted' });
  assert.equal(heard, '');
});

/** Signed by the authority, valid for servers, of these names. */
async function otherCertificate(authority: KeyedCertificate, commonName: string, uri: string): Promise<KeyedCertificate> {
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const signingKey = await webcrypto.subtle.importKey('pkcs8', x509.PemConverter.decodeFirst(authority.key), algorithm, false, ['sign']);
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: '0102',
      subject: new x509.Name([{ CN: [commonName] }]),
      issuer: new x509.X509Certificate(authority.certificate).subjectName,
      notBefore: new Date(NOW_MS - 1000),
      notAfter: new Date(NOW_MS + 1_000_000),
      publicKey: keys.publicKey,
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: 'url', value: uri }])],
    },
    webcrypto,
  );
  const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return { certificate: `${certificate.toString('pem')}\n`, key };
}

test('who has a certificate of ours that is no router is not told the secret either', async () => {
  const { server, token, authority } = await offering();
  await using _ = server;
  for (const [name, uri] of [
    ['redis', 'https://redis.example.com'],
    [FIRST, 'https://redis.example.com'],
    ['redis', `vferry:router:${FIRST}`],
    [SECOND, `vferry:router:${FIRST}`],
    [FIRST, `x:vferry:router:${FIRST}`],
    // The only one that is a router.
    [FIRST, `vferry:router:${FIRST}`],
  ] as const) {
    const own = await otherCertificate(authority, name, uri);
    let heard = '';
    const impostor = createTlsServer({ key: own.key, cert: `${own.certificate}${authority.certificate}` }, (socket) => {
      socket.on('data', (chunk: Buffer) => {
        heard += chunk.toString();
        socket.destroy();
      });
      socket.on('error', () => undefined);
    });
    impostor.on('tlsClientError', () => undefined);
    await using stop = await started(impostor);
    const isRouter = name === FIRST && uri === `vferry:router:${FIRST}`;
    await assert.rejects(joinWith(dependencies, { ...token, address: stop.address }, SECOND), {
      code: isRouter ? 'join-unreachable' : 'join-untrusted',
    });
    assert.equal(heard.startsWith('POST '), isRouter, `${name} ${uri}`);
  }
});

test('who answers with another authority than it shows is not believed', async () => {
  const { server, token, authority } = await offering();
  await using _ = server;
  const other = await makeAuthority(dependencies, 'gold');
  await using liar = await startJoinServer(
    { host: '127.0.0.1', port: 0 },
    {
      ...(await offerOf(authority, token)),
      async sign(text) {
        const { router, certificate } = await signRequest(dependencies, other, text);
        return { router, answer: { certificate, authority: other.certificate, revocations: null, settings: '' } };
      },
    },
  );
  await assert.rejects(joinWith(dependencies, { ...token, address: `127.0.0.1:${liar.port}` }, SECOND), { code: 'join-untrusted' });
});

test('nobody there, and somebody who speaks no TLS, is said to be unreachable, with what must run', async () => {
  const { server, token } = await offering();
  await server[Symbol.asyncDispose]();
  await assert.rejects(joinWith(dependencies, token, SECOND), {
    code: 'join-unreachable',
    message: /ECONNREFUSED.*vferry cluster token must be running/,
  });
  const plain = createTcpServer((socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  await using stop = await started(plain);
  await assert.rejects(joinWith(dependencies, { ...token, address: stop.address }, SECOND), { code: 'join-unreachable' });
});

test('an answer with a certificate of another router, or another key, is refused', async () => {
  const { server, token, authority } = await offering();
  await using _ = server;
  for (const router of [FIRST, SECOND]) {
    await using liar = await startJoinServer(
      { host: '127.0.0.1', port: 0 },
      {
        ...(await offerOf(authority, token)),
        async sign() {
          const { certificate } = await signRequest(dependencies, authority, (await makeRequest(dependencies, router)).request);
          return { router, answer: { certificate, authority: authority.certificate, revocations: null, settings: '' } };
        },
      },
    );
    await assert.rejects(joinWith(dependencies, { ...token, address: `127.0.0.1:${liar.port}` }, SECOND), { code: 'certificate-unusable' });
  }
});

test('what is no request is refused, whatever it is', async () => {
  const { server, token, events, authority } = await offering();
  await using _ = server;
  const { request } = await import('node:https');
  const ask = async (method: string, path: string, body: string): Promise<number | undefined> => {
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
    request(
      { host: '127.0.0.1', port: server.port, method, path, ca: [authority.certificate], checkServerIdentity: () => undefined, agent: false },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    )
      .once('error', reject)
      .end(body);
    return await promise;
  };
  assert.equal(await ask('GET', '/', ''), 404);
  assert.equal(await ask('POST', '/vferry/join/2', '{}'), 404);
  for (const body of [
    '',
    '{',
    '[]',
    'null',
    '{"secret":1,"request":2}',
    JSON.stringify({ secret: 'x', request: 'y', more: 1 }),
    'x'.repeat(300_000),
  ]) {
    assert.equal(await ask('POST', '/vferry/join/1', body), 400, body.slice(0, 40));
  }
  assert.equal(await ask('POST', '/vferry/join/1', JSON.stringify({ secret: '', request: '' })), 403);
  assert.equal(await ask('POST', '/vferry/join/1', JSON.stringify({ secret: token.secret.toString('base64url'), request: 'junk' })), 400);
  assert.equal(events.refused.length, 11);
  // And it still signs.
  await joinWith(dependencies, token, SECOND);
});

test('a token is as docs/formats/cluster-certificates.md says', () => {
  const token = {
    fingerprint: '00112233445566778899aabbccddeeff'.repeat(2),
    secret: Buffer.from(Array.from({ length: 32 }, (_, index) => index)),
    address: '192.168.10.5:2051',
    endsAtMs: 1_800_000_000_000,
  };
  const text = 'vfj1-ABEiM0RVZneImaq7zN3u_wARIjNEVWZ3iJmqu8zd7v8AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHwBQXBijATE5Mi4xNjguMTAuNToyMDUxgp9sUg';
  assert.equal(writeToken(token), text);
  assert.deepEqual(readToken(text), token);
});

test('a token reads back as it was written, also with line breaks of a terminal; no other text is one', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: SECRET_BYTES, maxLength: SECRET_BYTES }),
      fc.integer({ min: 1, max: 65_535 }),
      fc.constantFrom('10.0.0.1', 'router-1.example.com', '[fd00::1]'),
      fc.nat({ max: 1000 }),
      (fingerprint, secret, port, host, position) => {
        const token = {
          fingerprint: Buffer.from(fingerprint).toString('hex'),
          secret: Buffer.from(secret),
          address: `${host}:${port}`,
          endsAtMs: NOW_MS,
        };
        const text = writeToken(token);
        assert.deepEqual(readToken(text), token);
        assert.deepEqual(readToken(`  ${text.slice(0, 80)}\n${text.slice(80)} \n`), token);
        const index = position % text.length;
        const changed = text[index] === 'A' ? 'B' : 'A';
        const spoilt = readToken(text.slice(0, index) + changed + text.slice(index + 1));
        // The last character may hold bits that mean nothing.
        assert.ok(spoilt === null || index === text.length - 1);
        assert.equal(readToken(text.slice(0, index)), null);
      },
    ),
  );
  for (const text of ['', 'vfj1-', 'vfj1-AAAA', 'token', `vfj1-${'A'.repeat(2000)}`, 'vfj1-!!!!']) assert.equal(readToken(text), null);
  assert.deepEqual(splitAddress('[fd00::1]:7'), { host: 'fd00::1', port: 7 });
  for (const address of ['', 'a', 'a:', 'a:0', 'a:65536', 'a b:1', '[::1:1', 'a:1:2']) assert.equal(splitAddress(address), null, address);
});

async function started(server: Server): Promise<AsyncDisposable & { readonly address: string }> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}
