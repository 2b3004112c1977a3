import { objectStoreConformance } from '../conformance.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { PrefixLayoutStore } from '../prefix-layout/prefix-layout-store.ts';
import { EncodedStore } from './encoded-store.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { parseKeys } from './key-file.ts';

const [KEY] = parseKeys('000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f');
if (KEY === undefined) throw new Error('no key');
const MODES: Readonly<Record<string, EncodingConfig>> = {
  nothing: { compression: 'none', encryptWith: null, keys: [] },
  zstd: { compression: 'zstd', encryptWith: null, keys: [] },
  'AES-256-GCM': { compression: 'none', encryptWith: KEY.id, keys: [KEY] },
  'zstd and AES-256-GCM': { compression: 'zstd', encryptWith: KEY.id, keys: [KEY] },
};
for (const [mode, config] of Object.entries(MODES)) {
  objectStoreConformance(`EncodedStore with ${mode}`, () =>
    Promise.resolve({ store: new EncodedStore(new MemoryStore(), config), close: () => Promise.resolve() }),
  );
  objectStoreConformance(
    `EncodedStore with ${mode} over one bucket`,
    () =>
      Promise.resolve({ store: new EncodedStore(new PrefixLayoutStore(new MemoryStore(), 'the-bucket'), config), close: () => Promise.resolve() }),
    { bucketsAreReal: false },
  );
}
