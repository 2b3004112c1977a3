/** The ways in which people start a router, and that SIGTERM and SIGINT reach it through each (toolchain.md 1). */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

import { freePorts } from './free-port.ts';
import { scratchFor } from './scratch.ts';

const ROOT = join(import.meta.dirname, '..');

const WAYS: readonly (readonly [string, readonly string[]])[] = [
  ['npm start', ['npm', 'start', '--']],
  ['npx vferry serve', ['npx', 'vferry', 'serve']],
  ['bin/vferry.js serve', [process.execPath, 'bin/vferry.js', 'serve']],
  ['node server/main.ts serve', [process.execPath, 'server/main.ts', 'serve']],
];

/** Polls until the admin port answers 200; fails with the output when the process ends before. */
async function untilReady(child: ChildProcess, url: string, output: () => string): Promise<void> {
  for (;;) {
    const status = await fetch(`${url}/readyz`).then(
      (response) => response.status,
      () => 0,
    );
    if (status === 200) return;
    if (child.exitCode !== null) throw new Error(`ended with ${child.exitCode}:\n${output()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Nobody listens there any more. */
async function isGone(url: string): Promise<boolean> {
  return await fetch(`${url}/healthz`).then(
    () => false,
    () => true,
  );
}

for (const [name, command] of WAYS) {
  // A SIGINT to npx alone ends at a shell that waits; Ctrl-C goes to the whole group and gets through.
  for (const signal of name.startsWith('npx') ? (['SIGTERM'] as const) : (['SIGTERM', 'SIGINT'] as const)) {
    test(`${name} gets ready, and ${signal} to it ends the router cleanly`, { timeout: 600_000 }, async (t) => {
      const directory = await scratchFor(t, 'start');
      const [nfsPort, adminPort] = await freePorts(2);
      const url = `http://127.0.0.1:${adminPort}`;
      const [program = '', ...args] = command;
      const flags = ['--data', join(directory, 'data'), '--nfs-port', String(nfsPort), '--admin-port', String(adminPort), '--no-portmap'];
      const environment = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^(VFERRY|NODE)_|^npm_/.test(key)));
      const child = spawn(program, [...args, ...flags], { cwd: ROOT, env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
      child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
      const closed = once(child, 'close');
      // The whole group: a router that outlived its wrapper must not stay behind.
      t.after(() => {
        try {
          process.kill(-(child.pid ?? 0), 'SIGKILL');
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, 'ESRCH');
        }
      });
      await untilReady(child, url, () => output);
      child.kill(signal);
      await closed;
      // npx itself dies of its signal; what counts is that the router does not live on.
      if (program !== 'npx') assert.deepEqual([child.exitCode, child.signalCode], [0, null], output);
      assert.match(output, /"msg":"stopped"/);
      assert.ok(await isGone(url));
    });
  }
}
