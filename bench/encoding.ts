/**
 * Micro-benchmark of backends/encoding: `node bench/encoding.ts`. Segments of 16 MiB into memory and out of it, and reads of 4 KiB at random
 * places; one thread, best of five rounds, by the CPU time that it took (so other load on the machine matters little). `stored` is the size after
 * encoding. The memory store's own copies are in all figures: see the rows with nothing.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { EncodedStore } from '../backends/encoding/encoded-store.ts';
import type { EncodingConfig } from '../backends/encoding/encoding-config.ts';
import { parseKeys } from '../backends/encoding/key-file.ts';
import { MemoryStore } from '../backends/memory/memory-store.ts';

const SEGMENT_BYTES = 16 * 2 ** 20;
const READ_BYTES = 4096;
const READS = 2000;
const ROUNDS = 5;

const keys = parseKeys(randomBytes(32).toString('hex'));
const encryptWith = keys[0]?.id ?? null;
const MODES: readonly (readonly [string, EncodingConfig])[] = [
  ['nothing', { compression: 'none', encryptWith: null, keys }],
  ['zstd', { compression: 'zstd', encryptWith: null, keys }],
  ['aes-256-gcm', { compression: 'none', encryptWith, keys }],
  ['zstd, aes-256-gcm', { compression: 'zstd', encryptWith, keys }],
];

/** Code and data of this Node: what a guest's disk may look like. Repeated if it is shorter than a segment. */
const program = readFileSync(process.execPath).subarray(0, SEGMENT_BYTES);
const CONTENTS: readonly (readonly [string, Buffer])[] = [
  ['program', Buffer.concat([program, Buffer.alloc(SEGMENT_BYTES - program.byteLength, program)])],
  ['random', randomBytes(SEGMENT_BYTES)],
];

async function bestSeconds(round: (count: number) => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let count = 0; count < ROUNDS; count += 1) {
    const started = process.cpuUsage();
    await round(count);
    const { user, system } = process.cpuUsage(started);
    best = Math.min(best, (user + system) / 1e6);
  }
  return best;
}

console.log(
  `${'encoding'.padEnd(20)}${'content'.padEnd(10)}${'stored'.padStart(8)}${'encode'.padStart(12)}${'decode'.padStart(12)}${'4 KiB read'.padStart(14)}`,
);
for (const [content, bytes] of CONTENTS) {
  for (const [mode, config] of MODES) {
    const inner = new MemoryStore();
    await inner.createBucket('bench');
    const store = new EncodedStore(inner, config);
    const encode = await bestSeconds(async (count) => {
      await store.delete('bench', `segment-${count - 1}`);
      await store.put('bench', `segment-${count}`, { kind: 'bytes', chunks: [bytes] });
    });
    const name = `segment-${ROUNDS - 1}`;
    const decode = await bestSeconds(async () => {
      await store.get('bench', name);
    });
    const read = await bestSeconds(async (count) => {
      for (let index = 0; index < READS; index += 1) {
        const block = Math.imul(index + count * READS, 2654435761) >>> 0;
        await store.get('bench', name, { offsetBytes: (block * READ_BYTES) % (SEGMENT_BYTES - READ_BYTES), lengthBytes: READ_BYTES });
      }
    });
    const stored = await inner.head('bench', name);
    const percent = stored.kind === 'found' ? `${((100 * stored.sizeBytes) / SEGMENT_BYTES).toFixed(1)} %` : '-';
    const rate = (seconds: number): string => `${(SEGMENT_BYTES / 1e6 / seconds).toFixed(0)} MB/s`;
    const reads = `${((read / READS) * 1e6).toFixed(0)} us`;
    console.log(
      `${mode.padEnd(20)}${content.padEnd(10)}${percent.padStart(8)}${rate(encode).padStart(12)}${rate(decode).padStart(12)}${reads.padStart(14)}`,
    );
  }
}
