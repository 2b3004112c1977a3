/**
 * What the harness writes: every aligned 16 bytes say which write put them there, for which object and position, with a check word:
 *   u32 sequence | u32 object << 24 ^ position >> 36 | u32 position / 16 | u32 check
 * So a block can be recognised wherever it turns up, a torn sector shows two sequences, and the expected bytes of any range of any write are a
 * pure function (writes need not be aligned to the 16).
 */

/** Fills `target` with the bytes that write `sequence` of object `object` puts at `offsetBytes`. */
export function fillStamp(target: Buffer, object: number, sequence: number, offsetBytes: number): void {
  const head = offsetBytes % 16;
  const firstGranule = Math.floor(offsetBytes / 16);
  const granules = Math.ceil((head + target.length) / 16);
  // Words are in the machine's order, which is little-endian wherever Node 24 runs here (x64, arm64).
  const direct = head === 0 && target.length % 16 === 0 && target.byteOffset % 4 === 0;
  const words = direct ? new Uint32Array(target.buffer, target.byteOffset, granules * 4) : new Uint32Array(granules * 4);
  for (let index = 0; index < granules; index += 1) {
    const granule = firstGranule + index;
    const low = granule >>> 0;
    const second = ((object << 24) ^ Math.floor(granule / 0x1_0000_0000)) >>> 0;
    const at = index * 4;
    words[at] = sequence;
    words[at + 1] = second;
    words[at + 2] = low;
    words[at + 3] = check(sequence, second, low);
  }
  if (!direct) Buffer.from(words.buffer).copy(target, 0, head, head + target.length);
}

function check(first: number, second: number, third: number): number {
  let mixed = Math.imul(first ^ 0x85ebca6b, 0x9e3779b1) ^ second;
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35) ^ third;
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0x27d4eb2f);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Says in words what stands in `content`, which lies at `offsetBytes` (a multiple of 16) of an object. For messages about a mismatch. */
export function explainStamps(content: Buffer, offsetBytes: number): string {
  const runs: string[] = [];
  let previous = '';
  for (let at = 0; at + 16 <= content.length; at += 16) {
    const what = explainGranule(content, at, offsetBytes + at);
    if (what !== previous) runs.push(`+${at}: ${what}`);
    previous = what;
  }
  return runs.slice(0, 12).join(', ');
}

function explainGranule(content: Buffer, at: number, position: number): string {
  const [first, second, third, fourth] = [0, 4, 8, 12].map((offset) => content.readUInt32LE(at + offset)) as [number, number, number, number];
  if ((first | second | third | fourth) === 0) return 'zeros';
  if (check(first, second, third) !== fourth) return 'no stamp';
  const granule = third + (second & 0xff_ffff) * 0x1_0000_0000;
  const place = granule * 16 === position ? '' : ` of offset ${granule * 16}`;
  return `write ${first} of object ${second >>> 24}${place}`;
}
