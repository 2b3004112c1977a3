/**
 * What a store gives when nothing is in the way: all objects with the data of a vPool, whole, 16 at a time, with the same store library that
 * routers use and nothing of a router. In a process of its own; prints one line of JSON (`PlainDownload`).
 *
 * Usage: plain-download.ts CONFIG, the JSON of a `BareStoreConfig`, in the variable BENCH_STORE.
 */
import { makeStore } from '../backends/make-store.ts';
import type { BareStoreConfig } from '../backends/upload-thread/hosted-store.ts';
import { objectsOf } from './vpool-objects.ts';

const AT_ONCE = 16;
/** Segments, in a bucket of their own or behind a prefix. */
const DATA_NAME = /(^|\.)seg-/;

export interface PlainDownload {
  readonly objects: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}

/** `vpool`: objects whose bucket or name begins with `vf-<vpool>-`. */
async function download(config: BareStoreConfig, vpool: string): Promise<PlainDownload> {
  await using made = await makeStore({ store: config, layout: { kind: 'buckets' }, encoding: null });
  const { store } = made;
  const objects = (await objectsOf(store, vpool)).filter(({ name }) => DATA_NAME.test(name));
  let next = 0;
  let bytes = 0;
  const worker = async (): Promise<void> => {
    for (let object = objects[next]; object !== undefined; object = objects[next]) {
      next += 1;
      const got = await store.get(object.bucket, object.name);
      if (got.kind === 'absent') throw new Error(`${object.bucket}/${object.name} is absent`);
      bytes += got.bytes.length;
    }
  };
  const startMs = performance.now();
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { objects: objects.length, bytes, elapsedMs: performance.now() - startMs };
}

const config = process.env['BENCH_STORE'];
const [vpool] = process.argv.slice(2);
if (config === undefined || vpool === undefined) throw new Error('usage: BENCH_STORE=JSON plain-download.ts VPOOL');
process.stdout.write(`${JSON.stringify(await download(JSON.parse(config) as BareStoreConfig, vpool))}\n`);
