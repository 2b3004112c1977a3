/**
 * Speed of the registry in Redis, with a replica that has every change before it is answered and an outbox log that is synced: changes per second at 1, 32 and 256
 * outstanding, reads per second; one line each. Run: `node bench/registry-redis.ts [directory]`. The directory (default: a temporary one) decides which disk is
 * measured.
 */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { RedisService } from '../e2e/services/redis.ts';
import type { Mutation } from '../registry/ports.ts';
import { openRedisRegistry } from '../registry/redis/redis-registry.ts';
import { redisSettings } from '../registry/redis/testing/linked-registry.ts';
import type { FileId, Incarnation, RouterId } from '../server/core/ids.ts';
import { silentLogger } from '../server/core/logger.ts';
import { systemClock, systemRandom } from '../server/core/node-time.ts';
import { timestampOf } from '../server/core/time.ts';
import { measure } from './call-rate.ts';

const directory = fs.mkdtempSync(join(process.argv[2] ?? tmpdir(), 'vferry-bench-redis-'));
const router = 'a'.repeat(32) as RouterId;
const incarnation = 'b'.repeat(32) as Incarnation;
let operations = 0;

function mutation(): Mutation {
  operations += 1;
  const operationId = `10.0.0.1|esx1|${operations}`;
  return { operationId, incarnation, now: timestampOf(systemClock.wallMs()), notAfterMs: systemClock.wallMs() + 20_000 };
}

try {
  await using redis = await RedisService.start({ directory: join(directory, 'redis'), replicas: 1 });
  await using registry = await openRedisRegistry({
    vpoolName: 'bench',
    whenEmpty: 'create',
    directory: join(directory, 'router'),
    router,
    incarnation,
    settings: redisSettings([redis.primary.port], { replicasMin: 1 }),
    inlineBytesMax: 4_096,
    owned: () => [],
    lapsed: (error) => console.error(`the lease lapsed: ${error.message}`),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  const { namespace, ownership, membership } = registry;
  await membership.join(router, incarnation, [], 'bench');
  const file = { class: 'inline', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, atime: null, mtime: null, exclusiveVerifier: null } as const;
  const name = (index: number): Uint8Array => Buffer.from(`file-${index}`);
  const { root } = namespace;

  await measure('warm-up', 500, 32, (index) => namespace.createFile(mutation(), root, Buffer.from(`warm-${index}`), file));
  await measure('createFile, 1 outstanding', 1_000, 1, (index) => namespace.createFile(mutation(), root, name(index), file));
  await measure('createFile, 32 outstanding', 10_000, 32, (index) => namespace.createFile(mutation(), root, name(10_000 + index), file));
  await measure('createFile, 256 outstanding', 20_000, 256, (index) => namespace.createFile(mutation(), root, name(100_000 + index), file));
  const contents = Buffer.alloc(84, 1);
  const target = 70 as FileId;
  await measure('writeInline 84 B, 1 outstanding', 1_000, 1, () => namespace.writeInline(mutation(), target, 0, contents));
  await measure('writeInline 84 B, 32 outstanding', 10_000, 32, () => namespace.writeInline(mutation(), target, 0, contents));
  await measure('remove, 32 outstanding', 10_000, 32, (index) => namespace.remove(mutation(), root, name(100_000 + index)));
  const volume = await namespace.createFile(mutation(), root, Buffer.from('volume'), { ...file, class: 'volume' });
  const fileid = volume.kind === 'created' ? volume.inode.fileid : root;
  await ownership.claim({ ...mutation(), operationId: null }, fileid, router, null, null, 'c'.repeat(16));

  for (const outstanding of [1, 32]) {
    const of = `, ${outstanding} outstanding`;
    const count = outstanding === 1 ? 5_000 : 40_000;
    await measure(`inode${of}`, count, outstanding, async (index) => namespace.inode((66 + (index % 10_000)) as FileId, null));
    await measure(`lookup${of}`, count, outstanding, async (index) => namespace.lookup(root, name(10_000 + (index % 10_000))));
    await measure(`owner${of}`, count, outstanding, async () => ownership.owner(fileid));
    await measure(`entries, 100 each${of}`, count / 20, outstanding, async (index) => namespace.entries(root, 3 + (index % 100) * 20, 100));
  }
  const started = performance.now();
  const problems: string[] = [];
  for await (const problem of registry.verify()) problems.push(problem);
  console.log(`verify: ${(performance.now() - started).toFixed(0)} ms, ${problems.length} problems ${problems.slice(0, 3).join('; ')}`);
} finally {
  fs.rmSync(directory, { recursive: true });
}
