/** The cluster's certificates, by real TLS: who is let in, who is not, and what is said then. */
import assert from 'node:assert/strict';
import { X509Certificate, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { type TLSSocket, connect, createServer } from 'node:tls';

import { errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import {
  AUTHORITY_DAYS,
  CERTIFICATE_DAYS,
  type KeyedCertificate,
  fingerprintOf,
  makeAuthority,
  makeRequest,
  makeRevocations,
  signRequest,
} from './authority.ts';
import { type CertificateTexts, checkCertificates, routerOf } from './router-certificate.ts';

const DAY_MS = 24 * 3600 * 1000;
const NOW_MS = Date.now();
const ROUTER = 'ab'.repeat(16) as RouterId;
const OTHER = 'cd'.repeat(16) as RouterId;

function at(nowMs: number) {
  return { crypto: webcrypto, nowMs };
}

async function certified(authority: KeyedCertificate, router: RouterId, nowMs = NOW_MS): Promise<CertificateTexts & { serial: string }> {
  const { request, key } = await makeRequest(at(nowMs), router);
  const signed = await signRequest(at(nowMs), authority, request);
  return { authority: authority.certificate, certificate: signed.certificate, key, revocations: null, serial: signed.serial };
}

/** A handshake in which both show a certificate: what each says of the other, or the error code. */
async function handshake(server: CertificateTexts, client: CertificateTexts): Promise<{ atServer: string; atClient: string }> {
  const options = ({ authority, certificate, key, revocations }: CertificateTexts) => ({
    ca: [authority],
    cert: certificate,
    key,
    minVersion: 'TLSv1.3' as const,
    ...(revocations === null ? {} : { crl: [revocations] }),
  });
  const seen = (socket: TLSSocket): string => {
    const certificate = socket.getPeerX509Certificate();
    return certificate === undefined ? 'none' : (routerOf(certificate) ?? 'not a router');
  };
  const atServer = Promise.withResolvers<string>();
  // With rejectUnauthorized Node tells a server ECONNRESET whatever the reason was.
  const listener = createServer({ ...options(server), requestCert: true, rejectUnauthorized: false }, (socket) => {
    atServer.resolve(socket.authorized ? seen(socket) : String(socket.authorizationError));
    socket.on('error', () => undefined);
    socket.end('hello');
  });
  listener.on('tlsClientError', (error) => atServer.resolve(errorCode(error) ?? 'error'));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const socket = connect({
    ...options(client),
    port: (listener.address() as AddressInfo).port,
    host: '127.0.0.1',
    checkServerIdentity: () => undefined,
  });
  const atClient = Promise.withResolvers<string>();
  socket.once('data', () => atClient.resolve(seen(socket)));
  socket.once('error', (error) => atClient.resolve(errorCode(error) ?? 'error'));
  socket.once('close', () => atClient.resolve('closed'));
  try {
    return { atServer: await atServer.promise, atClient: await atClient.promise };
  } finally {
    socket.destroy();
    listener.close();
  }
}

test('two routers of one authority know each other by their ids', async () => {
  const authority = await makeAuthority(at(NOW_MS), 'gold');
  const [a, b] = [await certified(authority, ROUTER), await certified(authority, OTHER)];
  assert.deepEqual(await handshake(a, b), { atServer: OTHER, atClient: ROUTER });
});

test('a router of another authority of the same name is refused by both sides', async () => {
  const [ours, theirs] = [await makeAuthority(at(NOW_MS), 'gold'), await makeAuthority(at(NOW_MS), 'gold')];
  const [a, b] = [await certified(ours, ROUTER), await certified(theirs, OTHER)];
  assert.equal((await handshake(a, b)).atClient, 'SELF_SIGNED_CERT_IN_CHAIN');
  // The server's own judgement, with a client that believes it.
  const gullible = { ...b, authority: ours.certificate };
  assert.equal((await handshake(a, gullible)).atServer, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');
});

test('a certificate that ended or has not begun is refused in the handshake', async () => {
  const authority = await makeAuthority(at(NOW_MS - 500 * DAY_MS), 'gold');
  const [expired, early] = [await certified(authority, ROUTER, NOW_MS - 400 * DAY_MS), await certified(authority, ROUTER, NOW_MS + 2 * DAY_MS)];
  const good = await certified(authority, OTHER);
  assert.equal((await handshake(expired, good)).atClient, 'CERT_HAS_EXPIRED');
  assert.equal((await handshake(early, good)).atClient, 'CERT_NOT_YET_VALID');
  assert.equal((await handshake(good, expired)).atServer, 'CERT_HAS_EXPIRED');
});

test('a revoked router is refused by whoever has the list, the others are not', async () => {
  const authority = await makeAuthority(at(NOW_MS), 'gold');
  const [a, b, c] = [await certified(authority, ROUTER), await certified(authority, OTHER), await certified(authority, 'ef'.repeat(16) as RouterId)];
  const revocations = await makeRevocations(at(NOW_MS), authority, [{ serial: b.serial, atMs: NOW_MS }]);
  assert.equal((await handshake({ ...a, revocations }, b)).atServer, 'CERT_REVOKED');
  assert.equal((await handshake(b, { ...a, revocations })).atClient, 'CERT_REVOKED');
  assert.equal((await handshake({ ...a, revocations }, { ...c, revocations })).atServer, 'ef'.repeat(16));
  const none = await makeRevocations(at(NOW_MS), authority, []);
  assert.equal((await handshake({ ...a, revocations: none }, b)).atServer, OTHER);
});

test('certificates have the form that other programs expect', async () => {
  const authority = await makeAuthority(at(NOW_MS), 'gold, "O=evil+x');
  const { certificate, serial } = await certified(authority, ROUTER);
  const [root, leaf] = [new X509Certificate(authority.certificate), new X509Certificate(certificate)];
  assert.equal(root.ca, true);
  assert.match(root.subject, /^CN=vferry cluster gold\\, \\"O=evil\\\+x\nOU=[0-9a-f]{16}$/);
  assert.equal(leaf.ca, false);
  assert.equal(leaf.subject, `CN=${ROUTER}`);
  assert.equal(leaf.subjectAltName, `URI:vferry:router:${ROUTER}`);
  assert.equal(leaf.serialNumber.toLowerCase(), serial);
  assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  assert.equal(leaf.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  assert.equal(Math.round((leaf.validToDate.getTime() - NOW_MS) / DAY_MS), CERTIFICATE_DAYS);
  assert.equal(Math.round((root.validToDate.getTime() - NOW_MS) / DAY_MS), AUTHORITY_DAYS);
  assert.match(fingerprintOf(authority.certificate), /^[0-9a-f]{64}$/);
});

test('no certificate outlives its authority', async () => {
  const authority = await makeAuthority(at(NOW_MS - (AUTHORITY_DAYS - 10) * DAY_MS), 'gold');
  const { certificate } = await certified(authority, ROUTER);
  assert.equal(new X509Certificate(certificate).validTo, new X509Certificate(authority.certificate).validTo);
});

test('a request is signed only with a valid signature, of a name that is a router, with a P-256 key', async () => {
  const authority = await makeAuthority(at(NOW_MS), 'gold');
  const refused = { code: 'certificate-request-invalid' };
  const { request } = await makeRequest(at(NOW_MS), ROUTER);
  const lines = request.trim().split('\n');
  const der = Buffer.from(lines.slice(1, -1).join(''), 'base64');
  const pem = (bytes: Buffer): string => `${lines[0]}\n${bytes.toString('base64')}\n${lines.at(-1)}\n`;
  assert.equal((await signRequest(at(NOW_MS), authority, pem(der))).router, ROUTER);
  const stolen = Buffer.from(der.toString('latin1').replaceAll(ROUTER, OTHER), 'latin1');
  await assert.rejects(signRequest(at(NOW_MS), authority, pem(stolen)), { ...refused, message: /its signature is wrong/ });
  await assert.rejects(signRequest(at(NOW_MS), authority, (await makeRequest(at(NOW_MS), 'evil' as RouterId)).request), {
    ...refused,
    message: /names no router/,
  });
  for (const text of ['', 'x', pem(Buffer.alloc(0)), authority.certificate, pem(der.subarray(0, 100))]) {
    await assert.rejects(signRequest(at(NOW_MS), authority, text), refused);
  }
  // Whatever bit is flipped: refused, or the very same name and key.
  for (let bit = 0; bit < der.length * 8; bit += 5) {
    const flipped = Buffer.from(der);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const outcome = await signRequest(at(NOW_MS), authority, pem(flipped)).catch((error: unknown) => errorCode(error));
    assert.ok(outcome === refused.code || (typeof outcome === 'object' && outcome.router === ROUTER), `bit ${bit}: ${JSON.stringify(outcome)}`);
  }
});

test('what a router finds in its directory is checked before it serves, and the message says what to do', async () => {
  const authority = await makeAuthority(at(NOW_MS), 'gold');
  const good = await certified(authority, ROUTER);
  const another = await certified(await makeAuthority(at(NOW_MS), 'gold'), ROUTER);
  const check = (texts: Partial<CertificateTexts>, router: RouterId | null = ROUTER, nowMs = NOW_MS) =>
    checkCertificates({ ...good, ...texts }, '/c', router, nowMs);
  const checked = check({});
  assert.equal(checked.router, ROUTER);
  assert.equal(checked.authorityFingerprint, fingerprintOf(authority.certificate));
  assert.equal(Math.round((checked.endsAtMs - NOW_MS) / DAY_MS), CERTIFICATE_DAYS);
  assert.equal(check({}, null).router, ROUTER);
  const unusable = (message: RegExp) => ({ code: 'certificate-unusable', message });
  assert.throws(() => check({ authority: 'x' }), unusable(/^the certificates in \/c cannot be used: ca\.pem is no certificate$/));
  assert.throws(() => check({ certificate: '' }), unusable(/router\.pem is no certificate$/));
  assert.throws(() => check({ authority: good.certificate }), unusable(/ca\.pem is no certificate authority/));
  assert.throws(() => check({ authority: another.authority }), unusable(/was not signed by the authority .*vferry cluster join/));
  assert.throws(() => check({ key: 'x' }), unusable(/router-key\.pem is no private key/));
  assert.throws(() => check({ key: another.key }), unusable(/router-key\.pem is not the key of router\.pem/));
  assert.throws(() => check({ certificate: authority.certificate, key: authority.key }), unusable(/router\.pem names no router/));
  assert.throws(() => check({}, OTHER), unusable(new RegExp(`is of router ${ROUTER}, but this data directory is router ${OTHER}`)));
  assert.throws(() => check({}, ROUTER, NOW_MS - DAY_MS), unusable(/ca\.pem begins at .* set the clock/));
  assert.throws(() => check({}, ROUTER, NOW_MS + 398 * DAY_MS), {
    code: 'certificate-expired',
    message: /^\/c\/router\.pem ended at .* renew it \(vferry cluster renew\)$/,
  });
  assert.throws(() => check({}, ROUTER, NOW_MS + 4000 * DAY_MS), { code: 'certificate-expired', message: /ca\.pem ended .*vferry cluster init/ });
});
