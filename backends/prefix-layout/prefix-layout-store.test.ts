import { objectStoreConformance } from '../conformance.ts';
import { MemoryStore } from '../memory/memory-store.ts';
import { PrefixLayoutStore } from './prefix-layout-store.ts';

objectStoreConformance(
  'PrefixLayoutStore over memory',
  () => Promise.resolve({ store: new PrefixLayoutStore(new MemoryStore(), 'the-bucket'), close: () => Promise.resolve() }),
  { bucketsAreReal: false },
);
