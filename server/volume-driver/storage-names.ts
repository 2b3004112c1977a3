/**
 * Names on the backend (docs/formats/object-names.md): a volume has a bucket of its own, files share one per vPool in which an object's names
 * begin with its uuid.
 */
import type { ObjectUuid } from '../core/ids.ts';

export interface StorageNames {
  /** Bucket of the object `uuid`; `named` is the bucket of a table row ('' = the object's own). */
  bucket(uuid: ObjectUuid, named: string): string;
  /** Full object name in that bucket. */
  object(uuid: ObjectUuid, named: string, name: string): string;
}

/** Name of the bucket that the files of a vPool share. */
export function filesBucket(vpoolName: string, vpoolUuid: string): string {
  return `vf-${bucketWord(vpoolName)}-${vpoolUuid.slice(0, 8)}-files`;
}

function bucketWord(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '-')
    .slice(0, 16);
}

/** Names of volumes: bucket `vf-<vpool>-<uuid>`. */
export function volumeNames(vpoolName: string): StorageNames {
  return {
    bucket: (uuid, named) => (named === '' ? `vf-${bucketWord(vpoolName)}-${uuid}` : named),
    object: (_uuid, _named, name) => name,
  };
}

/** Names of files: the shared bucket, names `<uuid>.<name>`. */
export function fileNames(shared: string): StorageNames {
  return {
    bucket: (_uuid, named) => (named === '' ? shared : named),
    object: (uuid, _named, name) => `${uuid}.${name}`,
  };
}

/** Name of the bucket that archives namespace changes. */
export function namespaceBucket(vpoolName: string, vpoolUuid: string): string {
  return `vf-${bucketWord(vpoolName)}-${vpoolUuid.slice(0, 8)}-ns`;
}

/** Uuid of the volume whose own bucket this is; null: it is another bucket. */
export function volumeOfBucket(vpoolName: string, bucket: string): string | null {
  const prefix = `vf-${bucketWord(vpoolName)}-`;
  const uuid = bucket.slice(prefix.length);
  return bucket.startsWith(prefix) && /^[0-9a-f]{32}$/.test(uuid) ? uuid : null;
}
