/**
 * Fuzzing of NFS, MOUNT and port mapper: well-formed calls of every procedure, mutated by a seeded generator, against the in-memory file
 * system. Each must be answered with results that decode, or be refused; nothing else may be thrown, and nothing may grow without bound.
 */
import { assert } from '../core/assert.ts';
import type { Logger } from '../core/logger.ts';
import { silentLogger } from '../core/logger.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { Clock, Random } from '../core/time.ts';
import type { RpcProgram } from '../oncrpc/rpc-program.ts';
import { XdrError } from '../oncrpc/xdr-error.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import { openExport } from './export-rules.ts';
import { FakeCall } from './fake-call.ts';
import type { Caller, Handle } from './file-system.ts';
import { goldenMountCalls, goldenNfsCalls, goldenPortmapCalls } from './golden-calls.ts';
import type { GoldenCall, GoldenObjects } from './golden-calls.ts';
import { MemoryFileSystem } from './memory-file-system.ts';
import { MountProgram } from './mount-program.ts';
import { DEFAULT_NFS_SETTINGS, NfsProgram } from './nfs-program.ts';
import { NFS_PROGRAM, NO_CHANGES } from './nfs-wire.ts';
import { PortTable } from './port-table.ts';
import { PortmapProgram } from './portmap-program.ts';

/** Room of the file system under test: writes beyond are NOSPC. */
const CAPACITY_BYTES = 4 * 1024 * 1024;
/** A fresh file system after this many calls, so that the number of files stays bounded, too. */
const CALLS_PER_WORLD = 5000;
/** No reply is longer than what the programs are told to give at once. */
const REPLY_BYTES_MAX = 256 * 1024 + 1024;

/** What came of the calls: a run whose mutations never got through, or always did, tests nothing. */
export interface FuzzOutcome {
  readonly answered: number;
  /** NFS calls answered with NFS3_OK. */
  readonly succeeded: number;
  /** Refused as GARBAGE_ARGS. */
  readonly garbage: number;
  /** Refused otherwise. */
  readonly refused: number;
}

type Counts = { -readonly [Key in keyof FuzzOutcome]: FuzzOutcome[Key] };

interface Target {
  readonly program: RpcProgram;
  readonly golden: GoldenCall;
}

/** Values at which decoders and sizes break. */
const INTERESTING = [0, 1, 2, 3, 7, 63, 64, 65, 0xff, 0x100, 0xfff, 0x1000, 0x1f_ffff, 0x20_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_ffff];

/** Runs `iterations` mutated calls. Throws when one is handled badly; the same seed repeats it exactly. */
export function fuzzNfsd(seed: number, iterations: number): FuzzOutcome {
  const next = generator(seed);
  const counts = { answered: 0, succeeded: 0, garbage: 0, refused: 0 };
  let targets: Target[] = [];
  for (let i = 0; i < iterations; i++) {
    if (i % CALLS_PER_WORLD === 0) targets = openWorld(next);
    const { program, golden } = targets[next() % targets.length]!;
    const procedure = next() % 64 === 0 ? next() % 30 : golden.procedure;
    const args = cut(mutate(golden.args, targets, next), next);
    const call = new FakeCall({ program: program.program, version: golden.version, procedure, args, xid: i });
    execute(program, golden, call, counts);
  }
  return counts;
}

/** xorshift32: the same everywhere, for ever. */
function generator(seed: number): () => number {
  let state = (seed ^ 0x9e37_79b9) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

function execute(program: RpcProgram, golden: GoldenCall, call: FakeCall, counts: Counts): void {
  let refusal: ReturnType<RpcProgram['dispatch']>;
  try {
    refusal = program.dispatch(call);
  } catch (error) {
    if (!(error instanceof XdrError)) throw error;
    assert(call.reply === null, 'answered, and refused as garbage');
    counts.garbage += 1;
    return;
  }
  assert(!isPending(refusal), 'the in-memory file system answers at once');
  if (refusal !== null) {
    counts.refused += 1;
    return;
  }
  const reply = call.reply;
  assert(reply !== null, 'neither answered nor refused');
  assert(reply.length <= REPLY_BYTES_MAX && reply.length % 4 === 0, `a reply of ${reply.length} bytes`);
  counts.answered += 1;
  if (call.procedure !== golden.procedure) return;
  const results = new XdrReader([reply]);
  golden.decode(results);
  results.assertEnd();
  if (program.program === NFS_PROGRAM && golden.procedure !== 0 && reply.readUInt32BE(0) === 0) counts.succeeded += 1;
}

/** A few changes of the kinds that break decoders: bits, lengths, truncation, growth, pieces of other calls. */
function mutate(golden: Buffer, targets: readonly Target[], next: () => number): Buffer {
  let bytes = Buffer.from(golden);
  for (let changes = next() % 4; changes > 0; changes--) {
    const at = bytes.length === 0 ? 0 : next() % bytes.length;
    const word = at & ~3;
    switch (next() % 6) {
      case 0:
        if (bytes.length > 0) bytes[at] = bytes[at]! ^ (1 << (next() % 8));
        break;
      case 1:
        if (word + 4 <= bytes.length) bytes.writeUInt32BE(INTERESTING[next() % INTERESTING.length]!, word);
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3:
        bytes = Buffer.concat([bytes, Buffer.alloc(next() % 64, next() & 0xff)]);
        break;
      case 4: {
        const other = targets[next() % targets.length]!.golden.args;
        const from = other.length === 0 ? 0 : (next() % other.length) & ~3;
        bytes = Buffer.concat([bytes.subarray(0, word), other.subarray(from)]);
        break;
      }
      default:
        if (word + 4 <= bytes.length) bytes.writeUInt32BE((bytes.readUInt32BE(word) + (next() % 9) - 4) >>> 0, word);
    }
  }
  return bytes;
}

/** The message in one chunk or some: items may lie across their borders. */
function cut(bytes: Buffer, next: () => number): Buffer[] {
  if (bytes.length < 2 || next() % 2 === 0) return [bytes];
  const first = next() % bytes.length;
  const second = first + (next() % (bytes.length - first));
  return [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
}

/** Anything logged as an error is a finding: SERVERFAULT, because the file system threw. */
const findingLogger: Logger = {
  ...silentLogger,
  error(fields) {
    throw 'err' in fields ? fields.err : new Error('logged as an error');
  },
};

function openWorld(next: () => number): Target[] {
  let nowMs = 1_700_000_000_000;
  const clock: Clock = {
    wallMs() {
      nowMs += 1;
      return nowMs;
    },
    monotonicMs: () => nowMs,
    after: () => () => undefined,
    soon: () => undefined,
    sleep: () => Promise.resolve(),
  };
  const random: Random = {
    bytes: (count) => Buffer.from(Array.from({ length: count }, () => next() & 0xff)),
    fraction: () => next() / 2 ** 32,
  };
  const logger = findingLogger;
  const fileSystem = new MemoryFileSystem({ clock, random }, { exportName: 'export', capacityBytes: CAPACITY_BYTES });
  const access = openExport('export');
  const settings = { ...DEFAULT_NFS_SETTINGS, exportName: 'export', readBytesMax: 256 * 1024 };
  const nfs = new NfsProgram({ fileSystem, access, clock, logger, observer: null }, settings);
  const mount = new MountProgram({ fileSystem, access, logger });
  const portmap = new PortmapProgram({ table: new PortTable(), clock }, { advertisedAddress: '127.0.0.1', advertisedAddress6: '::1' });
  return [
    ...goldenNfsCalls(populate(fileSystem)).map((golden) => ({ program: nfs, golden })),
    ...goldenMountCalls('/export/sub').map((golden) => ({ program: mount, golden })),
    ...goldenPortmapCalls().map((golden) => ({ program: portmap, golden })),
  ];
}

/** A directory with a file and a symbolic link in it. */
function populate(fileSystem: MemoryFileSystem): GoldenObjects {
  const caller: Caller = { uid: 0, gid: 0, gids: [], address: '127.0.0.1', operationId: () => 'fuzz', writeIdentity: () => 0 };
  const handleOf = (result: { readonly status: number; readonly handle?: Handle }): Handle => {
    assert(result.status === 0 && result.handle !== undefined, 'made');
    return result.handle;
  };
  const root = handleOf(fileSystem.mount(caller, 'export'));
  const directory = handleOf(fileSystem.mkdir(caller, root, Buffer.from('sub'), NO_CHANGES));
  const file = handleOf(fileSystem.create(caller, directory, Buffer.from('file'), { mode: 'guarded', attributes: NO_CHANGES }));
  const link = handleOf(fileSystem.symlink(caller, directory, Buffer.from('link'), Buffer.from('file'), NO_CHANGES));
  return { directory, file, link };
}
