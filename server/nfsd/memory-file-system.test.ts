import { fileSystemConformance } from './file-system-conformance.ts';
import { openMemoryServer } from './memory-server.ts';

fileSystemConformance('memory', () => openMemoryServer(), { durable: false, directoryEntries: 20_000, regionBytes: 64 * 1024 * 1024 });
