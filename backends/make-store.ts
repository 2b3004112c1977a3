/** Makes the store that a configuration describes: in the worker threads, in tools, in tests. */
import { DirectoryStore } from './directory/directory-store.ts';
import { EncodedStore } from './encoding/encoded-store.ts';
import type { ObjectStore } from './object-store.ts';
import { PrefixLayoutStore } from './prefix-layout/prefix-layout-store.ts';
import type { BareStoreConfig, HostedStoreConfig } from './upload-thread/hosted-store.ts';

/** A store and the connections it keeps open. */
export interface MadeStore extends AsyncDisposable {
  readonly store: ObjectStore;
}

/** Opens nothing: the first call connects. SDKs are loaded only for the kind that needs them. */
export async function makeStore(config: HostedStoreConfig): Promise<MadeStore> {
  const bare = await makeBareStore(config.store);
  let store = bare.store;
  if (config.layout.kind === 'prefix') store = new PrefixLayoutStore(store, config.layout.bucket);
  if (config.encoding !== null) store = new EncodedStore(store, config.encoding);
  return { store, [Symbol.asyncDispose]: () => bare[Symbol.asyncDispose]() };
}

async function makeBareStore(config: BareStoreConfig): Promise<MadeStore> {
  switch (config.kind) {
    case 'directory':
      return { store: new DirectoryStore(config), async [Symbol.asyncDispose]() {} };
    case 'swift': {
      const { SwiftStore } = await import('./swift/swift-store.ts');
      const store = new SwiftStore(config);
      return { store, [Symbol.asyncDispose]: () => store.close() };
    }
    case 's3': {
      const { S3Store } = await import('./s3/s3-store.ts');
      const store = new S3Store(config);
      return { store, [Symbol.asyncDispose]: () => store.close() };
    }
  }
}
