/** What a vPool has on its backend, seen past the router. */
import type { ObjectStore } from '../backends/object-store.ts';

export interface StoredName {
  readonly bucket: string;
  readonly name: string;
}

/** All objects whose bucket is named after the vPool, in buckets of their own or in the one of layout prefix. */
export async function objectsOf(store: ObjectStore, vpool: string): Promise<StoredName[]> {
  const objects: StoredName[] = [];
  for (const bucket of (await store.listBuckets('', 1000)).names.filter((name) => name.startsWith(`vf-${vpool}-`))) {
    for (let after = '', more = true; more;) {
      const page = await store.list(bucket, '', after, 1000);
      for (const name of page.names) objects.push({ bucket, name });
      after = page.names.at(-1) ?? after;
      more = page.more;
    }
  }
  return objects;
}

/** Sizes of those that `known` does not have yet, by bucket and name; they are added to it. */
export async function addSizes(store: ObjectStore, vpool: string, known: Map<string, number>): Promise<void> {
  for (const { bucket, name } of await objectsOf(store, vpool)) {
    const key = `${bucket}/${name}`;
    if (known.has(key)) continue;
    const found = await store.head(bucket, name);
    if (found.kind === 'found') known.set(key, found.sizeBytes);
  }
}
