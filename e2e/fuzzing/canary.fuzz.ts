/** A decoder with a bug that only the right bytes show: a fuzzing run that does not find it finds nothing. */
import { SeededRandom } from '../random.ts';

/** Reads a length and that many bytes behind it, and forgets that the length may lie. */
function brokenDecoder(bytes: Buffer): number {
  const length = bytes.readUInt8(0);
  return bytes.readUInt8(length);
}

export function fuzz(seed: number, iterations: number): void {
  const random = new SeededRandom(seed);
  for (let iteration = 0; iteration < iterations; iteration += 1) {
    const bytes = Buffer.from([3, 1, 2, 3]);
    bytes[random.below(bytes.length)] = random.below(256);
    brokenDecoder(bytes);
  }
}
