/** `vferry cluster` as processes: what is printed where, and the exit codes. What they do is tested in cluster-certificates.test.ts. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { CommandChild, command } from './testing/child.ts';

const CLUSTER = {
  VFERRY_REGISTRY_KIND: 'redis',
  VFERRY_REGISTRY_REDIS_URLS: 'redis://10.0.0.9:6379',
  VFERRY_REGISTRY_REDIS_PASSWORD: 'hunter2',
  VFERRY_VPOOL_BACKEND_PATH: '/shared',
  VFERRY_VPOOL: 'gold',
};

test('init, token, join: the token is all that stdout has there, the shared settings all that it has here', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'vferry-certificates-'));
  const at = (host: string): string[] => ['--data', join(directory, host)];
  try {
    const init = await command(['cluster', 'init', ...at('a')], {}, CLUSTER);
    assert.deepEqual([init.code, init.stderr], [0, '']);
    assert.match(
      init.stdout,
      /^router {7}[0-9a-f]{32}\ncertificate {2}in .*\/a\/cluster, until 20.*Z\nauthority {4}SHA-256 [0-9a-f]{64}, key in the same/,
    );
    assert.match((await command(['cluster', 'init', ...at('a')], {}, CLUSTER)).stderr, /has certificates of a cluster already/);

    await using offer = new CommandChild(['cluster', 'token', ...at('a'), '--join-port', '0', '--valid', '1h'], {}, CLUSTER);
    const token = (await offer.until(/^vfj1-\S+$/m))[0];
    const wrong = await command(['cluster', 'join', `${token.slice(0, -1)}`, ...at('b')]);
    assert.equal(wrong.code, 2);
    // Nothing on standard input either.
    assert.equal((await command(['cluster', 'join', ...at('b')])).code, 2);
    // As a terminal breaks it; not in front of what would be an option.
    let cut = 40;
    while (token[cut] === '-') cut += 1;
    const joined = await command(['cluster', 'join', token.slice(0, cut), token.slice(cut), ...at('b')]);
    assert.equal(joined.code, 0, joined.stderr);
    assert.match(joined.stderr, /^router .*\ncertificate .*\nauthority .*\n\nSettings for this host: complete/s);
    assert.match(
      joined.stdout,
      /^data: ".*\/b"\nvpool:\n {2}name: gold\n {2}backend:\n {4}kind: directory\n {4}path: \/shared\nregistry:\n {2}kind: redis\n/,
    );
    const { code, stdout, stderr } = await offer.finished();
    assert.deepEqual([code, stdout], [0, `${token}\n`]);
    assert.match(stderr, /Waiting at 127\.0\.0\.1:\d+ until 20.*\n[^]*Router [0-9a-f]{32} at 127\.0\.0\.1 has joined\.\n$/);
    assert.doesNotMatch(joined.stdout + joined.stderr + stdout + stderr, /hunter2/);

    const router = /^router {7}(\S+)/.exec((await command(['cluster', 'show', ...at('b')])).stdout)?.[1] ?? '?';
    const renewed = await command(['cluster', 'renew', ...at('b')]);
    assert.deepEqual([renewed.code, renewed.stdout], [2, '']);
    assert.match(
      (await command(['cluster', 'revoke', router, ...at('a')])).stdout,
      /^1 certificate of router .* revoked\.\nCopy .*\/a\/cluster\/crl\.pem to/,
    );
    assert.equal((await command(['cluster', 'revoke', 'x', ...at('a')])).code, 1);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('an offer that is interrupted is taken back with exit code 1; a router on its own offers nothing', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'vferry-certificates-'));
  try {
    const data = ['--data', join(directory, 'a')];
    assert.equal((await command(['cluster', 'init', ...data])).code, 0);
    const alone = await command(['cluster', 'token', ...data]);
    assert.equal(alone.code, 2);
    assert.match(alone.stderr, /set registry\.kind: redis/);
    await using offer = new CommandChild(['cluster', 'token', ...data, '--join-port', '0'], {}, CLUSTER);
    await offer.until(/^vfj1-/m);
    offer.process.kill('SIGINT');
    const { code, stderr } = await offer.finished();
    assert.equal(code, 1);
    assert.match(stderr, /Nobody joined; the token is not good any more\.\n$/);
    for (const wrong of [
      ['--valid', '1 week'],
      ['--uses', '0'],
      ['--join-listen', 'localhost'],
      ['--address', 'x'],
    ]) {
      assert.equal((await command(['cluster', 'token', ...data, ...wrong], {}, CLUSTER)).code, 2, wrong.join(' '));
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});
