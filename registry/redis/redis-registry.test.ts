import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after } from 'node:test';

import { scratchDirectory } from '../../e2e/scratch.ts';
import { RedisService } from '../../e2e/services/redis.ts';
import { registryConformance } from '../conformance.ts';
import { LinkedRegistry } from './testing/linked-registry.ts';

const scratch = await scratchDirectory('redis', existsSync('/dev/shm') ? '/dev/shm' : tmpdir());
const redis = await RedisService.start({ directory: scratch.path });
after(async () => {
  await redis.stop();
  await scratch[Symbol.asyncDispose]();
});

registryConformance('redis with its link', () => LinkedRegistry.open(redis.primary.port));
