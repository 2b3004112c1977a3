/** A real Linux NFS client: Debian's kernel in QEMU mounts the datastore and does what people do with files. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { link, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { run } from '../command.ts';
import { createEmptyFiles } from '../datastore-client.ts';
import { RouterProcess } from '../router-process.ts';
import { scratchFor } from '../scratch.ts';
import { bootGuest } from './guest/boot-guest.ts';
import { kernelClientScript } from './kernel-client-script.ts';

const LISTED_FILES = 20_000;

/** Several hundred files of all sizes, directories, symbolic and hard links, and the `sha256sum -c` list of the files. */
async function makeTree(root: string): Promise<{ readonly files: number; readonly checksums: string }> {
  const lines: string[] = [];
  for (let directory = 0; directory < 24; directory += 1) {
    const path = `tree/level-${directory % 4}/directory-${directory}`;
    await mkdir(join(root, path), { recursive: true });
    for (let index = 0; index < 16; index += 1) {
      const name = `${path}/file ${index} äé`;
      // 0 bytes, inline, just over the inline limit, some blocks and one of more than a transfer of 1 MiB.
      const sizeBytes = [0, 1, 139, 4095, 4097, 20_001, 70_000][(directory * 16 + index) % 7] ?? 0;
      const content = Buffer.alloc(directory === 3 && index === 3 ? 2_500_000 : sizeBytes, `${name} content. `);
      await writeFile(join(root, name), content);
      lines.push(`${createHash('sha256').update(content).digest('hex')}  ${name}`);
    }
    await symlink(`../../level-0/target-${directory}`, join(root, path, 'symbolic'));
    await link(join(root, path, 'file 2 äé'), join(root, path, 'hard'));
  }
  return { files: lines.length, checksums: `${lines.join('\n')}\n` };
}

test('a Linux kernel client unpacks, renames, truncates, lists 20,000 files and finds the same checksums after a remount and a kill -9', async (t) => {
  const router = await RouterProcess.forTest(t);
  const scratch = await scratchFor(t, 'kernel-client');
  const { checksums, files } = await makeTree(scratch);
  await run(['tar', '-cf', join(scratch, 'archive.tar'), '-C', scratch, 'tree']);
  const names = await createEmptyFiles(router, 'twenty-thousand', LISTED_FILES);

  const seen: string[] = [];
  let restarted: Promise<void> | null = null;
  const result = await bootGuest({
    script: kernelClientScript({ nfsPort: router.nfsPort, mountPort: router.nfsPort, vpool: router.vpool, listedFiles: LISTED_FILES }),
    files: [
      { kind: 'file', path: 'job/archive.tar', content: await readFile(join(scratch, 'archive.tar')) },
      { kind: 'file', path: 'job/checksums', content: checksums },
      { kind: 'file', path: 'job/names', content: `${names.toSorted().join('\n')}\n` },
    ],
    timeoutS: 600,
    onLine: (line, send) => {
      seen.push(line);
      if (line === 'please kill the router') {
        restarted = (async () => {
          await router.kill();
          await router.start();
          send('killed and started');
        })();
        // Judged below, when the guest is done; a router that does not come back makes the guest's mount hang until its deadline.
        restarted.catch(() => undefined);
      }
    },
  });
  assert.equal(result.status, 0, `${result.lines.slice(-30).join('\n')}\n${result.console.slice(-2000)}`);
  assert.ok(restarted !== null);
  await restarted;
  for (const step of ['mounted', 'unpacked', 'renamed', 'truncated', 'listed', 'remounted', 'survived', 'removed']) {
    assert.ok(seen.includes(`ok ${step}`), `the guest did not say "ok ${step}":\n${seen.join('\n')}`);
  }
  assert.equal(files, 384);
});
