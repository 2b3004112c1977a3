/** A router without anything local to answer from. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { metric } from '../metrics-page.ts';
import type { RouterProcess } from '../router-process.ts';

/** Waits until everything acknowledged is on the backend. @throws Error with what it says of itself when that takes longer than `timeoutMs`. */
export async function drained(router: RouterProcess, timeoutMs = 240_000): Promise<void> {
  const started = performance.now();
  for (;;) {
    const page = (await router.http('/metrics')).body;
    if (metric(page, 'vferry_dirty_bytes') === 0) return;
    if (performance.now() - started > timeoutMs) {
      throw new Error(`${metric(page, 'vferry_dirty_bytes')} bytes are not uploaded after ${timeoutMs} ms\n${router.logTail()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Drains the router, stops it, deletes what it has cached, and starts it: whatever it reads now comes from the backend. */
export async function coldRestart(router: RouterProcess): Promise<void> {
  await drained(router);
  await router.stop();
  const local = join(router.dataDirectory, 'vpools', router.vpool);
  await rm(join(local, 'cache'), { recursive: true });
  const left = await readdir(join(local, 'log'));
  if (left.length > 0) throw new Error(`${left.join(', ')} in log/ though nothing was dirty`);
  await router.start();
}

/** Bytes that this run of the router has read from its backend. */
export async function bytesFromBackend(router: RouterProcess): Promise<number> {
  return metric((await router.http('/metrics')).body, 'vferry_backend_read_bytes_total');
}
