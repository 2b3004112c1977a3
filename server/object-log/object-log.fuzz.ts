/**
 * Fuzzing of what is read at the opening of an object: segment files, sealed and open, of several terms, with changed, cut, doubled, exchanged and
 * missing bytes and files. Finding the end of the log must end in an answer or an environment error; what it finds must be records that were
 * written, in sequence; a copy with a seal must say the same as what it was made of.
 */
import { seededRandom, VirtualClock } from '../../backends/virtual-clock.ts';
import type { Root } from '../../registry/ports.ts';
import { assert, AssertionError } from '../core/assert.ts';
import { errorCode } from '../core/errors.ts';
import { silentLogger } from '../core/logger.ts';
import type { Random } from '../core/time.ts';
import { findLogEnd } from './recovery.ts';
import type { LogEnd } from './recovery.ts';
import { decodeFooter, decodeIndex, decodeRecord, decodeSegmentHeader } from './segment-codec.ts';
import { SegmentFiles } from './segment-files.ts';
import { scanBytes, scanLocalSegment, sealByCopy } from './segment-scan.ts';
import { FaultyDisk } from './testing/faulty-disk.ts';
import { buildSegment, DIRECTORY, placeSegment, termOf, UUID } from './testing/segment-builder.ts';
import type { BuiltSegment } from './testing/segment-builder.ts';

export interface LogFuzzOutcome {
  /** Logs whose end was found, whole or cut; reported as damaged; refused with an error. */
  found: number;
  damaged: number;
  refused: number;
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/** Reads `iterations` damaged logs. The same seed repeats it exactly. */
export async function fuzzObjectLog(seed: number, iterations: number): Promise<LogFuzzOutcome> {
  const random = seededRandom(seed);
  const int = (below: number): number => Math.floor(random.fraction() * below);
  const outcome: LogFuzzOutcome = { found: 0, damaged: 0, refused: 0 };
  for (let iteration = 0; iteration < iterations; iteration += 1) {
    const disk = new FaultyDisk(random).process();
    for (const place of ['log', 'cache', 'pool']) await disk.makeDirectory(`${DIRECTORY}/${place}`);
    const { segments, root } = history(int);
    const written = segments.map((segment) => ({ segment, bytes: buildSegment(segment).bytes }));
    for (const { segment, bytes } of written) {
      if (int(12) === 0) continue;
      const other = written[int(written.length)]!.bytes;
      await placeSegment(disk, segment.number, segment.term, mutate(bytes, other, int), int(6) === 0 ? 'cache' : 'log');
    }
    try {
      const files = await SegmentFiles.openToRead({ disk, clock: new VirtualClock(), logger: silentLogger }, DIRECTORY);
      const owner = segments.at(-1)?.term ?? termOf(1);
      const end = await findLogEnd(
        { disk, files, remote: { open: () => Promise.reject(Object.assign(new Error('not here'), { code: 'absent' })) } },
        { uuid: UUID, ownerTerm: owner, root },
        { segment: 1, sequence: 0, unstableOpen: int(2) === 0 },
      );
      if (end.kind === 'damaged') outcome.damaged += 1;
      else {
        outcome.found += 1;
        check(end, segments);
        await copyOne(disk, files, end, random, int);
      }
    } catch (error) {
      if (error instanceof AssertionError || errorCode(error) === undefined) throw error;
      outcome.refused += 1;
    }
    decodeNoise(
      written.map((entry) => entry.bytes),
      int,
    );
  }
  return outcome;
}

/** One to three terms of one to three segments each. */
function history(int: (below: number) => number): { segments: BuiltSegment[]; root: Root } {
  const segments: BuiltSegment[] = [];
  const closedEpochs: { term: BuiltSegment['term']; lastSegment: number; lastSequence: number }[] = [];
  let number = 1;
  let base = 1;
  const terms = 1 + int(3);
  for (let counter = 1; counter <= terms; counter += 1) {
    const count = 1 + int(3);
    for (let index = 0; index < count; index += 1) {
      const blocks = Array.from({ length: int(4) }, () => int(3));
      const last = index + 1 === count;
      segments.push({
        number,
        term: termOf(counter),
        base,
        blocks,
        sealed: !last || int(2) === 0,
        durable: Math.max(0, base - 1 - int(2)),
        unstable: int(2) === 0,
      });
      number += 1;
      base += blocks.length;
    }
    if (counter < terms) closedEpochs.push({ term: termOf(counter), lastSegment: number - 1, lastSequence: base - 1 });
  }
  return { segments, root: { checkpoint: null, uploadedSegment: 0, uploadedSequence: 0, closedEpochs } };
}

function mutate(from: Buffer, other: Buffer, int: (below: number) => number): Buffer {
  let bytes = Buffer.from(from);
  for (let changes = int(4); changes > 0; changes -= 1) {
    // Half of the changes go where the structure is.
    const at = int(2) === 0 ? int(Math.min(bytes.length, 300)) : int(bytes.length + 1);
    switch (int(6)) {
      case 0:
        if (at < bytes.length) bytes[at] = bytes[at]! ^ (1 << int(8));
        break;
      case 1:
        if (at + 4 <= bytes.length) bytes.writeUInt32LE(INTERESTING[int(INTERESTING.length)]!, at & ~3);
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3:
        bytes = Buffer.concat([bytes, other.subarray(int(other.length))]);
        break;
      case 4:
        bytes.fill(0, at & ~511, Math.min(bytes.length, (at & ~511) + 512));
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(at)]);
    }
  }
  return bytes;
}

/** Records that count are those that were written under their sequence, in order. */
function check(end: LogEnd & { kind: 'found' }, segments: readonly BuiltSegment[]): void {
  let next = 1;
  for (const segment of end.segments) {
    for (const record of segment.records) {
      assert(record.sequence === next, `record ${record.sequence} where ${next} should be`);
      const origin = segments.find((built) => built.number === segment.number);
      const blocks = origin?.blocks[record.sequence - origin.base];
      assert(blocks === record.blockCount, `record ${record.sequence} has ${record.blockCount} blocks, ${blocks} were written`);
      next += 1;
    }
  }
  assert(end.lastSequence === next - 1, `the end is said to be ${end.lastSequence}, ${next - 1} records were found`);
}

async function copyOne(
  disk: ReturnType<FaultyDisk['process']>,
  files: SegmentFiles,
  end: LogEnd & { kind: 'found' },
  random: Random,
  int: (below: number) => number,
): Promise<void> {
  const one = end.segments[int(end.segments.length)];
  if (one === undefined || one.local === null) return;
  const scan = await scanLocalSegment(disk, files, one.local);
  await sealByCopy({ disk, files, random, vpoolUuid: 'f'.repeat(32) }, one.local, scan, one.lastSequence);
  const after = await scanLocalSegment(disk, files, one.local);
  assert(after.sealed, 'a copy with a seal is sealed');
  const expected = scan.records.filter((record) => record.sequence <= one.lastSequence).map((record) => record.sequence);
  assert(JSON.stringify(after.records.map((record) => record.sequence)) === JSON.stringify(expected), 'the copy has the records that count');
}

/** Decoders on bytes that begin and end anywhere. */
function decodeNoise(parts: readonly Buffer[], int: (below: number) => number): void {
  const part = parts[int(parts.length)]!;
  const from = int(part.length);
  const bytes = mutate(part.subarray(from, from + int(2000)), part, int);
  decodeSegmentHeader(bytes);
  decodeFooter(bytes, int(2 ** 31));
  decodeIndex(bytes, int(50));
  decodeRecord(bytes, int(bytes.length + 10), termOf(1), 7919 + 1);
  scanBytes(bytes, { uuid: UUID, number: 1, term: termOf(1) });
}
