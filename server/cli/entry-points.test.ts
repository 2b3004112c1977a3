import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import manifest from '../../package.json' with { type: 'json' };

const ROOT = join(import.meta.dirname, '../..');

/** Runs a script of the project with this Node, outside the checkout's directory unless `cwd` says so. */
function run(args: readonly string[], cwd = tmpdir()): { code: number | null; output: string } {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(VFERRY|NODE)_/.test(name)));
  const child = spawnSync(process.execPath, args, { cwd, env: environment, encoding: 'utf8', timeout: 60_000 });
  return { code: child.status, output: child.stdout + child.stderr };
}

test('bin/vferry.js runs the command from anywhere and passes arguments, output and exit code through', () => {
  const bin = join(ROOT, 'bin/vferry.js');
  assert.deepEqual(run([bin, 'version']), { code: 0, output: `${manifest.version}\n` });
  const wrong = run([bin, 'config', 'check', '--nfs-port', 'x']);
  assert.equal(wrong.code, 2);
  assert.match(wrong.output, /^--nfs-port: nfs\.port is "x"/);
});

test('the test runner fails when a glob matches nothing, when a test fails, and without a concurrency', () => {
  const runner = join(ROOT, 'scripts/run-tests.js');
  const directory = mkdtempSync(join(tmpdir(), 'vferry-runner-'));
  try {
    writeFileSync(join(directory, 'good.test.mjs'), "import { test } from 'node:test';\ntest('good', () => {});\n");
    writeFileSync(join(directory, 'bad.test.mjs'), "import { test } from 'node:test';\ntest('bad', () => { throw new Error('bad'); });\n");
    assert.equal(run([runner, '1', 'good.*.mjs'], directory).code, 0);
    assert.equal(run([runner, '1', 'bad.*.mjs'], directory).code, 1);
    const none = run([runner, '1', 'good.*.mjs', 'moved/*.test.mjs'], directory);
    assert.equal(none.code, 1);
    assert.match(none.output, /no test file matches moved\/\*\.test\.mjs/);
    assert.equal(run([runner, 'good.*.mjs'], directory).code, 2);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('test services: nothing is done when all is there; what is missing is named to those who may not install it', () => {
  const script = join(ROOT, 'scripts/install-test-services.sh');
  const directory = mkdtempSync(join(tmpdir(), 'vferry-services-'));
  try {
    const tool = (name: string, body: string): void => writeFileSync(join(directory, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    const install = () => spawnSync('sh', [script], { env: { PATH: `${directory}:${process.env['PATH']}` }, encoding: 'utf8' });
    tool('apt-get', 'echo apt-get was called; exit 1');
    tool('id', 'echo 1000');
    tool('dpkg-query', 'printf installed');
    assert.deepEqual([install().status, install().stdout], [0, '']);
    tool('dpkg-query', 'for last; do :; done; case $last in cpio|kmod) exit 1;; seabios) printf config-files;; *) printf installed;; esac');
    const refused = install();
    assert.equal(refused.status, 1);
    assert.equal(refused.stdout, '');
    assert.match(
      refused.stderr,
      /need the Debian packages: seabios cpio kmod\n.*needs root: sudo apt-get install --no-install-recommends seabios cpio kmod/,
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('package.json: exact versions only, and the scripts that continuous integration and people call', () => {
  for (const dependencies of [manifest.dependencies, manifest.devDependencies, manifest.optionalDependencies]) {
    for (const [name, version] of Object.entries(dependencies)) assert.match(version, /^\d+\.\d+\.\d+$/, name);
  }
  for (const name of ['start', 'check', 'test', 'bench', 'fuzz', 'soak:crash']) assert.ok(name in manifest.scripts, name);
  assert.match(manifest.scripts.start, /^exec node /, 'npm does not pass SIGTERM through a shell (toolchain.md 1)');
  assert.match(readFileSync(join(ROOT, '.ci/run'), 'utf8'), /timeout .*npm ci && npm run check && npm test/);
});
