/** Micro-benchmark of cache/block-cache.ts: `node bench/block-cache.ts [MiB]`. Prints nanoseconds per operation, best of five rounds. */
import { BLOCK_BYTES, BlockCache } from '../cache/block-cache.ts';

const cacheBytes = Number(process.argv[2] ?? 512) * 1024 * 1024;
const blocks = cacheBytes / BLOCK_BYTES;
const operations = 1_000_000;
const source = Buffer.alloc(BLOCK_BYTES, 1);
const target = Buffer.alloc(1024 * 1024, 1);
const cache = new BlockCache({ limitBytes: cacheBytes });
for (let block = 0; block < blocks; block += 1) cache.put(block >>> 10, 64 + (block & 1023) * 4096, source, 0);

function measure(name: string, perRound: number, round: () => void): void {
  let bestNs = Infinity;
  for (let count = 0; count < 5; count += 1) {
    const started = process.hrtime.bigint();
    round();
    bestNs = Math.min(bestNs, Number(process.hrtime.bigint() - started) / perRound);
  }
  console.log(`${name.padEnd(46)} ${bestNs.toFixed(1).padStart(8)} ns`);
}

let seed = 1;
function nextBlock(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * blocks);
}
let found = 0;

console.log(`${blocks} blocks, ${cacheBytes / 1024 / 1024} MiB`);
measure('has, random', operations, () => {
  for (let count = 0; count < operations; count += 1) {
    const block = nextBlock();
    if (cache.has(block >>> 10, 64 + (block & 1023) * 4096)) found += 1;
  }
});
measure('get 4 KiB, random', operations, () => {
  for (let count = 0; count < operations; count += 1) {
    const block = nextBlock();
    if (cache.get(block >>> 10, 64 + (block & 1023) * 4096, target, (count & 255) * 4096, 0, 4096)) found += 1;
  }
});
const plain = Array.from({ length: Math.ceil(cacheBytes / 2 ** 26) }, () => Buffer.alloc(2 ** 26, 1));
measure('for comparison: copy 4 KiB, random', operations, () => {
  for (let count = 0; count < operations; count += 1) {
    const block = nextBlock();
    const start = (block & 16383) * 4096;
    found += (plain[block >>> 14] as Buffer).copy(target, (count & 255) * 4096, start, start + 4096);
  }
});
measure('get 4 KiB, the same 256 blocks', operations, () => {
  for (let count = 0; count < operations; count += 1) {
    if (cache.get(0, 64 + (count & 255) * 4096, target, (count & 255) * 4096, 0, 4096)) found += 1;
  }
});
measure('get 256 sequential blocks (1 MiB)', 2000, () => {
  for (let count = 0; count < 2000; count += 1) {
    const first = nextBlock() & ~255;
    for (let block = first; block < first + 256; block += 1) {
      if (cache.get(block >>> 10, 64 + (block & 1023) * 4096, target, (block & 255) * 4096, 0, 4096)) found += 1;
    }
  }
});
measure('get, miss', operations, () => {
  for (let count = 0; count < operations; count += 1) if (cache.get(0xffffffff, count * 4096, target, 0, 0, 4096)) found += 1;
});
let segmentId = 1_000_000;
measure('put 4 KiB with an eviction', operations, () => {
  segmentId += 1000;
  for (let count = 0; count < operations; count += 1) cache.put(segmentId + (count >>> 10), (count & 1023) * 4096, source, 0);
});
if (found === 0) throw new Error('nothing was found');
console.log(JSON.stringify(cache.statistics()));
