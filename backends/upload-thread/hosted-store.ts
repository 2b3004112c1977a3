import type { DirectoryStoreConfig } from '../directory/directory-store.ts';

/** What a worker can host, as plain data: it is sent to the worker, which makes the store (`worker.ts`). */
export type HostedStoreConfig = DirectoryStoreConfig;

/** What the proxy on the main thread must know of the store without having it. */
export function describeHostedStore(config: HostedStoreConfig): { description: string; putIsAtomic: boolean } {
  return { description: `directory:${config.path}`, putIsAtomic: true };
}
