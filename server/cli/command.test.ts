import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import manifest from '../../package.json' with { type: 'json' };
import type { StatusReport } from '../admin/admin-server.ts';
import { CommandChild, command } from './testing/child.ts';

test('version prints the version of package.json', async () => {
  for (const args of [['version'], ['--version']]) {
    assert.deepEqual(await command(args), { code: 0, signal: null, stdout: `${manifest.version}\n`, stderr: '' });
  }
});

test('help names the commands and the flags', async () => {
  const help = await command(['--help']);
  assert.equal(help.code, 0);
  for (const name of ['serve', 'config', 'status', 'fsck', 'version']) assert.match(help.stdout, new RegExp(`^  ${name}`, 'm'));
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
  assert.match(status.stdout, /^dirty {7}5MiB not on the backend yet$/m);
  assert.match(status.stdout, /^problem {5}backend-unreachable: The backend does not answer\.$/m);
  const json = JSON.parse((await command(['status', '--json', '--admin-port', port])).stdout) as StatusReport;
  assert.equal(json.router?.vpool, 'vpool1');
  assert.equal(json.phase, 'running');
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
