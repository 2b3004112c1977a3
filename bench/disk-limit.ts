/**
 * The disk's own limit: 4 KiB records appended to a preallocated file, any number outstanding, each "acknowledged" by the fdatasync that
 * covers it; everything queued during one fdatasync goes out with the next.
 */
import * as fs from 'node:fs';

import { LatencyHistogram } from './latency-histogram.ts';

const FILE_BYTES = 256 << 20;
const RECORD_BYTES = 4160;

export interface DiskLimit {
  readonly operationsPerSecond: number;
  readonly histogram: LatencyHistogram;
}

/** Runs for `seconds` on a scratch file at `path`, which it makes (written twice: fresh blocks and fresh page cache are slow) and removes. */
export async function measureDiskLimit(path: string, outstanding: number, seconds: number): Promise<DiskLimit> {
  const fd = fs.openSync(path, 'w+');
  try {
    const filler = Buffer.alloc(1 << 20, 0x5a);
    for (let pass = 0; pass < 2; pass++) for (let at = 0; at < FILE_BYTES; at += filler.length) fs.writeSync(fd, filler, 0, filler.length, at);
    fs.fsyncSync(fd);
    const record = Buffer.alloc(RECORD_BYTES, 0xa5);
    const histogram = new LatencyHistogram();
    let [at, count] = [0, 0];
    const startMs = performance.now();
    const endMs = startMs + seconds * 1000;
    while (performance.now() < endMs) {
      const batch = Array.from({ length: outstanding }, () => record);
      const batchBytes = outstanding * RECORD_BYTES;
      if (at + batchBytes > FILE_BYTES) at = 0;
      const sentMs = performance.now();
      fs.writevSync(fd, batch, at);
      at += batchBytes;
      await new Promise<void>((resolve, reject) => fs.fdatasync(fd, (error) => (error === null ? resolve() : reject(error))));
      const latencyMs = performance.now() - sentMs;
      for (let i = 0; i < outstanding; i++) histogram.record(latencyMs);
      count += outstanding;
    }
    return { operationsPerSecond: (count / (performance.now() - startMs)) * 1000, histogram };
  } finally {
    fs.closeSync(fd);
    fs.unlinkSync(path);
  }
}
