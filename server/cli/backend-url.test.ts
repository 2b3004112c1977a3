import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SettingsError } from '../settings/settings-error.ts';
import { backendFlags } from './backend-url.ts';

/** Settings below `vpool.backend`. */
function flagsOf(url: string, environment: Readonly<Record<string, string>> = {}): Record<string, string> {
  return Object.fromEntries([...backendFlags(url, environment).flags].map(([key, value]) => [key.replace('vpool.backend.', ''), value]));
}

test('a path is a directory', () => {
  for (const [url, path] of [
    ['/srv/b', '/srv/b'],
    ['./b', './b'],
    ['../b', '../b'],
    ['directory:/srv/b', '/srv/b'],
    ['directory:b', 'b'],
  ] as const) {
    assert.deepEqual(flagsOf(url), { kind: 'directory', path });
  }
});

test('swift takes user and key from the variables of the swift command', () => {
  const environment = { ST_USER: 'test:tester', ST_KEY: 'testing', OS_USERNAME: 'other' };
  assert.deepEqual(flagsOf('swift+http://h:8080/auth/v1.0', environment), {
    kind: 'swift',
    'swift.authUrl': 'http://h:8080/auth/v1.0',
    'swift.user': 'test:tester',
    'swift.key': 'testing',
  });
  assert.equal(flagsOf('swift:', { ...environment, ST_AUTH: 'http://h/auth/v1.0' })['swift.authUrl'], 'http://h/auth/v1.0');
});

test('Keystone takes what the openstack command takes', () => {
  const environment = {
    OS_AUTH_URL: 'https://k:5000/v3',
    OS_USERNAME: 'u',
    OS_PASSWORD: 'p',
    OS_USER_DOMAIN_NAME: 'ud',
    OS_PROJECT_NAME: 'pr',
    OS_PROJECT_DOMAIN_NAME: 'pd',
    OS_REGION_NAME: 'r',
    OS_INTERFACE: 'internal',
    OS_CACERT: '/ca.pem',
  };
  const expected = {
    kind: 'swift',
    'swift.authUrl': 'https://k:5000/v3',
    'swift.user': 'u',
    'swift.key': 'p',
    'swift.userDomain': 'ud',
    'swift.project': 'pr',
    'swift.projectDomain': 'pd',
    'swift.region': 'r',
    'swift.interface': 'internal',
    'swift.caFile': '/ca.pem',
  };
  assert.deepEqual(flagsOf('swift:', environment), expected);
  assert.deepEqual(flagsOf('swift+https://k:5000/v3', { ...environment, ST_USER: 'not:me' }), expected);
  assert.deepEqual(flagsOf('swift:', { ...environment, OS_APPLICATION_CREDENTIAL_ID: 'id', OS_APPLICATION_CREDENTIAL_SECRET: 's' }), {
    kind: 'swift',
    'swift.authUrl': 'https://k:5000/v3',
    'swift.applicationCredentialId': 'id',
    'swift.applicationCredentialSecret': 's',
    'swift.region': 'r',
    'swift.interface': 'internal',
    'swift.caFile': '/ca.pem',
  });
});

test('s3 has endpoint and bucket in the URL, AWS only a bucket; credentials are left to the SDK', () => {
  const environment = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 's', AWS_REGION: 'eu-west-1' };
  assert.deepEqual(flagsOf('s3+https://h:9000/vms', environment), {
    kind: 's3',
    's3.endpoint': 'https://h:9000',
    's3.region': 'eu-west-1',
    bucket: 'vms',
  });
  assert.deepEqual(flagsOf('s3+http://[::1]:9000/'), { kind: 's3', 's3.endpoint': 'http://[::1]:9000' });
  assert.deepEqual(flagsOf('s3://vms', { AWS_DEFAULT_REGION: 'r' }), { kind: 's3', 's3.region': 'r', bucket: 'vms' });
  for (const url of ['s3:', 's3://']) assert.deepEqual(flagsOf(url), { kind: 's3' });
});

test('of the VFERRY variables only those of the kind count', () => {
  const environment = { VFERRY_VPOOL_BACKEND_SWIFT_KEY: 'k', VFERRY_VPOOL_BACKEND_S3_PROFILE: 'p', VFERRY_NFS_PORT: '1', HOME: '/' };
  assert.deepEqual(backendFlags('s3:', environment).environment, { VFERRY_VPOOL_BACKEND_S3_PROFILE: 'p' });
  assert.deepEqual(backendFlags('swift+http://h/auth/v1.0', environment).environment, { VFERRY_VPOOL_BACKEND_SWIFT_KEY: 'k' });
});

test('everything else is refused with what can be written, and without the credentials in it', () => {
  for (const url of [
    '',
    'b',
    'http://h/',
    'swift',
    'swift+ftp://h',
    'swift:h',
    's3+https://',
    's3:bucket',
    'directory:',
    'S3:',
    'file:/x',
    's3+http://u:hunter2@h:port/',
  ]) {
    assert.throws(
      () => backendFlags(url, {}),
      (error) => error instanceof SettingsError && /names no backend; write/.test(error.message) && !error.message.includes('hunter2'),
      url,
    );
  }
  for (const url of ['swift+https://u:hunter2@h/v3', 's3+https://hunter2@h/b']) {
    assert.throws(
      () => backendFlags(url, {}),
      (error) => error instanceof SettingsError && /no credentials in a URL/.test(error.message) && !error.message.includes('hunter2'),
      url,
    );
  }
  assert.throws(() => backendFlags('swift:', {}), /neither OS_AUTH_URL nor ST_AUTH is set/);
});
