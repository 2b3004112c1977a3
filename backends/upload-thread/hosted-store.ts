import type { DirectoryStoreConfig } from '../directory/directory-store.ts';
import type { EncodingConfig } from '../encoding/encoding-config.ts';
import type { S3StoreConfig } from '../s3/s3-config.ts';
import type { SwiftStoreConfig } from '../swift/swift-config.ts';

/** The store itself. */
export type BareStoreConfig = DirectoryStoreConfig | SwiftStoreConfig | S3StoreConfig;

/** What a worker can host, as plain data: it is sent to the worker, which makes the store (`make-store.ts`). */
export interface HostedStoreConfig {
  readonly store: BareStoreConfig;
  /** buckets: as the caller names them. prefix: all in this one bucket, names begin with the caller's bucket (prefix-layout/). */
  readonly layout: { readonly kind: 'buckets' } | { readonly kind: 'prefix'; readonly bucket: string };
  /** null: no object of this vPool was ever compressed or encrypted; bytes pass untouched. */
  readonly encoding: EncodingConfig | null;
}

/** What the proxy on the main thread must know of the store without having it. */
export interface HostedStoreFacts {
  /** No secret is in it. */
  readonly description: string;
  readonly putIsAtomic: boolean;
  /** Its calls block their thread until they are done. */
  readonly blocks: boolean;
}

export function describeHostedStore(config: HostedStoreConfig): HostedStoreFacts {
  const { store } = config;
  switch (store.kind) {
    case 'directory':
      return { description: `directory:${store.path}`, putIsAtomic: true, blocks: true };
    case 'swift':
      return { description: `swift:${withoutUserInfo(store.storageUrl ?? store.auth.url)}`, putIsAtomic: false, blocks: false };
    case 's3': {
      const where = withoutUserInfo(store.endpoint ?? `https://s3.${store.region}.amazonaws.com`);
      return {
        description: config.layout.kind === 'prefix' ? `s3:${where}/${config.layout.bucket}` : `s3:${where}`,
        putIsAtomic: store.conditionalPut,
        blocks: false,
      };
    }
  }
}

function withoutUserInfo(url: string): string {
  const parsed = new URL(url);
  parsed.username = '';
  parsed.password = '';
  parsed.search = '';
  return parsed.href.replace(/\/$/, '');
}
