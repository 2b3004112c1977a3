import { after } from 'node:test';

import { registryConformance } from '../conformance.ts';
import { LinkedRegistry } from './testing/linked-registry.ts';
import { RedisProcess } from './testing/redis-process.ts';

const redis = await RedisProcess.start();
after(() => redis[Symbol.asyncDispose]());

registryConformance('redis with its link', () => LinkedRegistry.open(redis.port));
