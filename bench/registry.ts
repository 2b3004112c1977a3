/**
 * Speed of the SQLite registry: changes per second at 1 and 32 outstanding, reads per second; one line each.
 * Run: `node bench/registry.ts [directory]`. The directory (default: a temporary one) decides which disk is measured.
 */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Mutation } from '../registry/ports.ts';
import { openSqliteRegistry } from '../registry/sqlite/sqlite-registry.ts';
import type { FileId, Incarnation, RouterId } from '../server/core/ids.ts';
import { silentLogger } from '../server/core/logger.ts';
import { systemClock, systemRandom } from '../server/core/node-time.ts';
import { timestampOf } from '../server/core/time.ts';
import { measure } from './call-rate.ts';

const directory = fs.mkdtempSync(join(process.argv[2] ?? tmpdir(), 'vferry-bench-registry-'));
const router = 'a'.repeat(32) as RouterId;
const incarnation = 'b'.repeat(32) as Incarnation;
let operations = 0;

function mutation(): Mutation {
  operations += 1;
  return { operationId: `10.0.0.1|esx1|${operations}`, incarnation, now: timestampOf(systemClock.wallMs()), notAfterMs: Infinity };
}

function measureSync(label: string, count: number, call: (index: number) => unknown): void {
  const start = performance.now();
  for (let index = 0; index < count; index += 1) call(index);
  const elapsedMs = performance.now() - start;
  console.log(
    `${label.padEnd(34)} ${Math.round((count / elapsedMs) * 1000)
      .toString()
      .padStart(8)}/s  ${((elapsedMs / count) * 1000).toFixed(1)} us`,
  );
}

try {
  await using registry = await openSqliteRegistry({
    path: join(directory, 'registry.db'),
    vpoolName: 'bench',
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  const { namespace, ownership, membership } = registry;
  await membership.join(router, incarnation, [], 'bench');
  const file = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null } as const;
  const name = (index: number): Uint8Array => Buffer.from(`file-${index}`);
  const root = namespace.root;

  await measure('warm-up', 500, 32, (index) => namespace.createFile(mutation(), root, Buffer.from(`warm-${index}`), file));
  await measure('createFile, 1 outstanding', 3_000, 1, (index) => namespace.createFile(mutation(), root, name(index), file));
  await measure('createFile, 32 outstanding', 30_000, 32, (index) => namespace.createFile(mutation(), root, name(10_000 + index), file));
  await measure('createFile, 256 outstanding', 30_000, 256, (index) => namespace.createFile(mutation(), root, name(100_000 + index), file));
  const contents = Buffer.alloc(84, 1);
  const target = 70 as FileId;
  await measure('writeInline 84 B, 1 outstanding', 3_000, 1, () => namespace.writeInline(mutation(), target, 0, contents));
  await measure('writeInline 84 B, 32 outstanding', 20_000, 32, () => namespace.writeInline(mutation(), target, 0, contents));
  await measure('remove, 32 outstanding', 20_000, 32, (index) => namespace.remove(mutation(), root, name(100_000 + index)));
  const volume = await namespace.createFile(mutation(), root, Buffer.from('volume'), { ...file, class: 'volume' });
  const fileid = volume.kind === 'created' ? volume.inode.fileid : root;
  await ownership.claim({ ...mutation(), operationId: null }, fileid, router, null, null, 'c'.repeat(16));

  measureSync('inode', 200_000, (index) => namespace.inode((66 + (index % 20_000)) as FileId, null));
  measureSync('lookup', 100_000, (index) => namespace.lookup(root, name(10_000 + (index % 20_000))));
  measureSync('owner', 50_000, () => ownership.owner(fileid));
  measureSync('entries, 100 of a big directory', 1_000, (index) => namespace.entries(root, 3 + index * 20, 100));
  measureSync('usage', 100_000, () => namespace.usage());
  const started = performance.now();
  const problems: string[] = [];
  for await (const problem of registry.verify()) problems.push(problem);
  console.log(`verify: ${(performance.now() - started).toFixed(0)} ms, ${problems.length} problems ${problems.slice(0, 3).join('; ')}`);
  for (const entry of fs.readdirSync(directory)) console.log(`${entry}: ${(fs.statSync(join(directory, entry)).size / 1e6).toFixed(1)} MB`);
} finally {
  fs.rmSync(directory, { recursive: true });
}
