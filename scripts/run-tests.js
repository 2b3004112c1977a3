// `npm test`: node --test over globs. On its own it exits 0 when a glob matches nothing, and uses one core of two (toolchain.md 3).
// Usage: node scripts/run-tests.js CONCURRENCY GLOB... [-- NODE_TEST_FLAG...]
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';

/** A file of tests that takes longer hangs. */
const TEST_MS_MAX = 20 * 60 * 1000;

const [concurrency = '', ...rest] = process.argv.slice(2);
const split = rest.indexOf('--');
const globs = split === -1 ? rest : rest.slice(0, split);
const flags = split === -1 ? [] : rest.slice(split + 1);

if (!/^[1-9]\d*$/.test(concurrency) || globs.length === 0) {
  console.error('usage: node scripts/run-tests.js CONCURRENCY GLOB... [-- FLAG...]');
  process.exit(2);
}
for (const glob of globs) {
  if (globSync(glob).length > 0) continue;
  console.error(`no test file matches ${glob}: a moved folder would pass unseen`);
  process.exit(1);
}

const child = spawn(process.execPath, ['--test', `--test-concurrency=${concurrency}`, `--test-timeout=${TEST_MS_MAX}`, ...flags, ...globs], {
  stdio: 'inherit',
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code) => process.exit(code ?? 1));
