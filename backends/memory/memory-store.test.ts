import { objectStoreConformance } from '../conformance.ts';
import { MemoryStore } from './memory-store.ts';

objectStoreConformance('MemoryStore', () => Promise.resolve({ store: new MemoryStore(), close: () => Promise.resolve() }));
