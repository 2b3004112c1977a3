#!/usr/bin/env node
// Starts server/main.ts on Node 24, whatever Node started this file. Plain JavaScript: the system's Node 20 cannot run TypeScript.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

const PARENT_CHECK_MS = 250;

const main = fileURLToPath(new URL('../server/main.ts', import.meta.url));

/** The running Node if it is new enough, else the one that npm installed with vferry. */
function node24() {
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath;
  try {
    return createRequire(import.meta.url).resolve(`node-linux-${process.arch}/bin/node`);
  } catch {
    console.error(`vferry needs Node 24: the package node-linux-${process.arch} is not installed (npm ci without --omit=optional).`);
    process.exit(2);
  }
}

const child = spawn(node24(), [main, ...process.argv.slice(2)], { stdio: 'inherit' });
child.on('error', (error) => {
  console.error(`vferry cannot start Node 24: ${error.message}`);
  process.exit(2);
});
// On a terminal the child gets Ctrl-C from both; it takes signals that come together for one.
for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM', 'SIGUSR2']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));

// A signal to npx goes no further than the shell that npx put between (toolchain.md 1): that dies, and a router nobody sees would live on.
if (process.env.npm_command === 'exec') {
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    child.kill('SIGTERM');
  }, PARENT_CHECK_MS);
}
