/** SwiftStore over real OpenStack Swift: conformance, and what a client meets when parts of the cluster fail. */

import { after, before } from 'node:test';

import { type Scratch, scratchDirectory } from '../../e2e/scratch.ts';
import { SwiftService } from '../../e2e/services/swift.ts';
import { objectStoreConformance } from '../conformance.ts';
import type { SwiftStoreConfig } from './swift-config.ts';
import { SwiftStore } from './swift-store.ts';

let scratch: Scratch;
let swift: SwiftService;
before(async () => {
  scratch = await scratchDirectory('swift');
  swift = await SwiftService.start({ directory: scratch.path });
});
after(async () => {
  await swift[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

function config(change: Partial<SwiftStoreConfig> = {}): SwiftStoreConfig {
  const auth = { version: 1, url: swift.authUrl, user: swift.user, key: swift.key } as const;
  return { kind: 'swift', auth, region: null, endpointInterface: 'public', storageUrl: null, caFile: swift.caFile, ...change };
}

objectStoreConformance('SwiftStore', async () => {
  const store = new SwiftStore(config());
  return { store, close: () => store.close() };
});
