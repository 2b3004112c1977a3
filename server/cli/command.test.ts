import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import manifest from '../../package.json' with { type: 'json' };
import type { StatusReport } from '../admin/admin-server.ts';
import type { BackendUsage } from '../router-port.ts';
import { CommandChild, command } from './testing/child.ts';

test('version prints the version of package.json', async () => {
  for (const args of [['version'], ['--version']]) {
    assert.deepEqual(await command(args), { code: 0, signal: null, stdout: `${manifest.version}\n`, stderr: '' });
  }
});

test('help names the commands and the flags', async () => {
  const help = await command(['--help']);
  assert.equal(help.code, 0);
  for (const name of ['serve', 'config', 'status', 'fsck', 'vpool', 'backend', 'cluster', 'router', 'volume', 'move', 'key', 'version'])
    assert.match(help.stdout, new RegExp(`^  ${name}`, 'm'));
  const serve = await command(['serve', '--help']);
  for (const flag of ['--data', '--listen', '--nfs-port', '--mount-port', '--admin-port', '--vpool', '--no-portmap', '--config', '--log-level']) {
    assert.ok(serve.stdout.includes(flag), flag);
  }
});

test('wrong usage is exit code 2 with a hint', async () => {
  const unknown = await command(['serve', '--nfs-prot', '1']);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /unknown option '--nfs-prot'\s+\(Did you mean --nfs-port\?\)/);
  assert.equal((await command(['serv'])).code, 2);
  assert.equal((await command([])).code, 2);
});

test('flags win over environment, environment over file, file over defaults', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'vferry-cli-'));
  try {
    const file = join(directory, 'vferry.yaml');
    writeFileSync(file, 'nfs: { port: 1001, mountPort: 1002, connectionsMax: 7 }\nadmin: { port: 1003 }\ndata: store\n');
    const printed = await command(
      ['config', 'print', '--json', '--config', file, '--nfs-port', '3001'],
      {},
      { VFERRY_NFS_PORT: '2001', VFERRY_ADMIN_PORT: '2003' },
    );
    assert.equal(printed.stderr, '');
    const settings = JSON.parse(printed.stdout) as { data: string; nfs: object; admin: { port: number }; cache: { mapBytes: number } };
    assert.deepEqual(settings.nfs, {
      listen: '127.0.0.1',
      port: 3001,
      mountPort: 1002,
      portmap: 'auto',
      inflightBytesMaxPerConnection: 64 * 2 ** 20,
      connectionsMax: 7,
    });
    assert.equal(settings.admin.port, 2003);
    assert.equal(settings.cache.mapBytes, 256 * 2 ** 20);
    assert.equal(settings.data, join(directory, 'store'));

    const yaml = await command(['config', 'print', '--config', file, '--no-portmap']);
    assert.match(yaml.stdout, new RegExp(`^  port: 1001 # ${file}:1:8$`, 'm'));
    assert.match(yaml.stdout, /^ {2}portmap: off # --no-portmap$/m);
    writeFileSync(file, yaml.stdout);
    assert.deepEqual(JSON.parse((await command(['config', 'print', '--json', '--config', file])).stdout), {
      ...settings,
      nfs: { ...settings.nfs, port: 1001, portmap: 'off' },
      admin: { ...settings.admin, port: 1003 },
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('config check says what is wrong, line by line, with exit code 2', async () => {
  assert.deepEqual(await command(['config', 'check']), { code: 0, signal: null, stdout: 'The settings are valid.\n', stderr: '' });
  const wrong = await command(['config', 'check', '--nfs-port', 'x', '--vpool', '../etc'], {}, { VFERRY_LOG_LEVL: 'info' });
  assert.equal(wrong.code, 2);
  assert.deepEqual(wrong.stderr.split('\n'), [
    'VFERRY_LOG_LEVL: unknown environment variable (did you mean VFERRY_LOG_LEVEL?)',
    '--vpool: vpool.name is "../etc"; it must be a name of 1 to 63 letters, digits, ".", "_" and "-" that begins with a letter or digit',
    '--nfs-port: nfs.port is "x"; it must be a port from 0 (any free one) to 65535',
    '',
  ]);
  assert.equal((await command(['serve', '--nfs-port', 'x'])).code, 2);
});

test('status shows a running router and its problems; its exit code is readiness', async () => {
  const problems = [{ code: 'backend-unreachable', message: 'The backend does not answer.' }];
  await using child = new CommandChild(['serve', '--nfs-port', '0', '--admin-port', '0', '--log-format', 'json'], { ready: false, problems });
  const port = (await child.until(/"admin":"http:\/\/127\.0\.0\.1:(\d+)"/))[1] ?? '';
  const status = await command(['status', '--admin-port', port]);
  assert.equal(status.code, 1);
  assert.match(status.stdout, /^state {7}NOT READY$/m);
  assert.match(status.stdout, /^storage {5}all in bucket vms, fence registry, zstd, encrypted with key 0123456789abcdef$/m);
  assert.match(status.stdout, /^dirty {7}5MiB not on the backend yet$/m);
  assert.match(status.stdout, /^backend {5}directory:somewhere, slow since 2026-01-01T00:00:00.000Z \(a get has had no answer for 1250 ms\)$/m);
  assert.match(
    status.stdout,
    /^traffic {5}64 PUT, 40 GET, 2 of them failed, 256MiB written, 4KiB read, 0\.0123 USD so far, 1\.5 USD a month at this pace$/m,
  );
  assert.match(status.stdout, /^problem {5}backend-unreachable: The backend does not answer\.$/m);
  const json = JSON.parse((await command(['status', '--json', '--admin-port', port])).stdout) as StatusReport;
  assert.equal(json.router?.vpool, 'vpool1');
  assert.equal(json.phase, 'running');
});

test('backend usage shows what each volume costs', async () => {
  await using child = new CommandChild(['serve', '--nfs-port', '0', '--admin-port', '0', '--log-format', 'json'], {});
  const port = (await child.until(/"admin":"http:\/\/127\.0\.0\.1:(\d+)"/))[1] ?? '';
  await child.until(/"msg":"ready"/);
  const usage = await command(['backend', 'usage', '--admin-port', port]);
  assert.equal(usage.code, 0);
  assert.match(usage.stdout, /^backend {5}directory:somewhere, slow since /m);
  assert.match(usage.stdout, /^stored {6}1TiB, 25\.3 USD a month$/m);
  assert.match(usage.stdout, /^\/vm1\/vm1-flat\.vmdk {2}64 PUT, .* 0\.0123 USD so far/m);
  assert.match(usage.stdout, /^files {7}64 PUT, 40 GET, 2 of them failed, 256MiB written, 4KiB read$/m);
  assert.match(usage.stdout, /^5 others {4}no requests$/m);
  const json = JSON.parse((await command(['backend', 'usage', '--json', '--admin-port', port])).stdout) as BackendUsage;
  assert.equal(json.buckets[0]?.path, '/vm1/vm1-flat.vmdk');
  const nothing = await command(['backend', 'usage', '--admin-port', '1']);
  assert.equal(nothing.code, 2);
  assert.match(nothing.stderr, /No router answers at http:\/\/127\.0\.0\.1:1\/backend\/usage: .*ECONNREFUSED/);
});

test('status of nothing is exit code 2', async () => {
  const status = await command(['status', '--admin-port', '1']);
  assert.equal(status.code, 2);
  assert.match(status.stderr, /No router answers at http:\/\/127\.0\.0\.1:1\/status: .*ECONNREFUSED/);
});

test('fsck exits 0 when clean, 1 on damage, 2 when it cannot run, 70 on a bug', async () => {
  const warning = { kind: 'finding', severity: 'warning', where: 'bucket/x', message: 'nothing names it' } as const;
  const clean = await command(['fsck'], { findings: [{ kind: 'phase', name: 'segments', total: 2 }, warning] });
  assert.equal(clean.code, 0);
  assert.equal(clean.stdout, 'warning bucket/x: nothing names it\nchecked 3 inodes, 2 segments\nclean, 1 warnings\n');
  assert.equal(clean.stderr, 'segments (2)\n');

  const damaged = await command(['fsck'], { findings: [{ ...warning, severity: 'damage', message: 'CRC mismatch at 4096' }] });
  assert.equal(damaged.code, 1);
  assert.match(damaged.stdout, /^DAMAGE bucket\/x: CRC mismatch at 4096$/m);

  for (const fsckFails of ['environment', 'system'] as const) {
    const refused = await command(['fsck'], { fsckFails });
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /^fsck cannot run: /);
  }
  const bug = await command(['fsck'], { fsckFails: 'bug' });
  assert.equal(bug.code, 70);
  assert.match(bug.stderr, /This is a bug in vferry: TypeError/);
});

test('vpool create prints the verdict; exit codes: 0 made, 1 unfit or there already, 2 not possible', async () => {
  const made = await command(['vpool', 'create', '--vpool', 'gold']);
  assert.equal(made.code, 0);
  assert.equal(made.stderr, 'trying, full\n');
  assert.match(made.stdout, /^fit\nfence {7}registry: /);
  assert.match(made.stdout, /^latency {5}7\.3 ms put, 3\.0 ms get \(4 KiB, median\)\nthroughput {2}100 MB\/s up, 200 MB\/s down$/m);
  assert.match(made.stdout, /^vPool gold \((ab){16}\) is made on directory somewhere; vferry serve serves it\.$/m);
  const json = JSON.parse((await command(['vpool', 'create', '--json'])).stdout) as { vpool: string; report: { verdict: string } };
  assert.deepEqual([json.vpool, json.report.verdict], ['vpool1', 'fit']);
  for (const [createFails, code] of [
    ['backend-unfit', 1],
    ['vpool-exists', 1],
    ['data-locked', 2],
  ] as const) {
    const refused = await command(['vpool', 'create'], { createFails });
    assert.equal(refused.code, code, createFails);
    assert.equal(refused.stderr, 'trying, full\nit must not be\n');
  }
});

test('backend test takes a URL, or the settings; exit codes: 0 fit, 1 unfit, 2 wrong usage', async () => {
  const environment = { ST_USER: 'test:tester', ST_KEY: 'testing' };
  const named = await command(['backend', 'test', 'swift+http://127.0.0.1:8080/auth/v1.0', '--json'], {}, environment);
  assert.equal(named.code, 0);
  const report = JSON.parse(named.stdout) as { findings: { text: string }[] };
  const backend = JSON.parse(report.findings[0]?.text ?? '') as { kind: string; swift: { user: string; key: string } };
  assert.deepEqual([backend.kind, backend.swift.user, backend.swift.key], ['swift', 'test:tester', 'testing']);
  assert.match((await command(['backend', 'test'])).stdout, /^note {8}\{"kind":"directory"/m);
  const unfit = await command(['backend', 'test', '/srv/b', '--quick'], { verdict: 'unfit' });
  assert.equal(unfit.code, 1);
  assert.equal(unfit.stderr, 'trying, quick\n');
  assert.match(unfit.stdout, /^unfit, because \{"kind":"directory",.*"path":"\/srv\/b"/);
  const missing = await command(['backend', 'test', 'swift+http://127.0.0.1:8080/auth/v1.0']);
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /swift\.user must be set/);
  assert.equal((await command(['backend', 'test', 'nonsense'])).code, 2);
});

test('key generate prints a key and nothing else', async () => {
  assert.deepEqual(await command(['key', 'generate']), { code: 0, signal: null, stdout: 'a key\n', stderr: '' });
});
