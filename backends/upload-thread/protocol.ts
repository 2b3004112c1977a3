/** Messages between a ThreadedStore and its workers. Both ends are the same build: they are trusted and carry no version. */
import type { ByteRange, ObjectBody, StoreErrorClass } from '../object-store.ts';

/** A call of ObjectStore without its signal. */
export type StoreCall =
  | { readonly kind: 'create-bucket' | 'delete-bucket'; readonly bucket: string }
  | { readonly kind: 'list-buckets'; readonly after: string; readonly limit: number }
  | { readonly kind: 'put'; readonly bucket: string; readonly name: string; readonly body: ObjectBody }
  | { readonly kind: 'get'; readonly bucket: string; readonly name: string; readonly range: ByteRange | undefined }
  | { readonly kind: 'head' | 'delete'; readonly bucket: string; readonly name: string }
  | { readonly kind: 'delete-many'; readonly bucket: string; readonly names: readonly string[] }
  | { readonly kind: 'list'; readonly bucket: string; readonly prefix: string; readonly after: string; readonly limit: number };

/** To the worker. `close` lets it end when it has answered what it got before. */
export type ToWorker =
  | { readonly kind: 'call'; readonly id: number; readonly call: StoreCall }
  | { readonly kind: 'abort'; readonly id: number }
  | { readonly kind: 'close' };

/** From the worker: `ready` once, when it takes calls; then exactly one reply for each call. */
export type FromWorker = { readonly kind: 'ready' } | Reply;

/** `value` is what the method of ObjectStore resolved with. */
export type Reply =
  | { readonly kind: 'done'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly class: StoreErrorClass; readonly message: string }
  | { readonly kind: 'bug'; readonly id: number; readonly message: string };
