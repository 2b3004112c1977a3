import { after } from 'node:test';

import { registryConformance } from '../conformance.ts';
import { RedisProcess } from './testing/redis-process.ts';
import { TestRegistry } from './testing/test-registry.ts';

const redis = await RedisProcess.start();
after(() => redis[Symbol.asyncDispose]());

registryConformance('redis', () => TestRegistry.open(redis.port));
