import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { withDirectory } from '../conformance.ts';

const fixture = fileURLToPath(new URL('./mount-faults.fixture.ts', import.meta.url));

/** Runs a scenario in namespaces of its own: its mounts are seen by nobody else and end with it. */
function passes(scenario: string): Promise<void> {
  return withDirectory(async (directory) => {
    const child = spawn('unshare', ['--map-root-user', '--mount', process.execPath, fixture, scenario, directory], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()));
    const code = await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    assert.equal(code, 0, output);
  });
}

test('a full file system is class no-space, keeps every object whole, leaves no half one, and works again when there is space', () => passes('full'));

test('a file system without free inodes is class no-space', () => passes('inodes'));

test('a read-only file system is class denied for changes and goes on serving reads', () => passes('read-only'));

test('an unmounted backend is class retry, its bare mount point stays empty, and it works again when it is mounted', () => passes('unmounted'));
