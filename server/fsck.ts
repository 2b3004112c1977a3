/**
 * `vferry fsck`: verifies a data directory and its backend while no router runs on it (fsck-port.ts). Every record of the registry against every other,
 * every object's checkpoint, log and segment table, and every mapped block against its CRC. Nothing is changed.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import { makeStore } from '../backends/make-store.ts';
import type { GetOutcome, ObjectStore } from '../backends/object-store.ts';
import { RetryingStore } from '../backends/retrying-store.ts';
import type { OwnerRecord, Registry } from '../registry/ports.ts';
import { openSqliteRegistry, SQLITE_REGISTRY_DEFAULTS } from '../registry/sqlite/sqlite-registry.ts';
import { ApplianceError, errorCode } from './core/errors.ts';
import type { FileId, ObjectUuid, RouterId } from './core/ids.ts';
import type { Logger } from './core/logger.ts';
import { nodeDisk } from './core/node-disk.ts';
import { systemClock, systemRandom } from './core/node-time.ts';
import { lockDirectory, readVpoolFile } from './data-directory.ts';
import type { FsckEvent, FsckReport } from './fsck-port.ts';
import { SegmentFiles } from './object-log/segment-files.ts';
import type { Settings } from './settings/settings.ts';
import { BackendReads } from './volume-driver/backend-reads.ts';
import type { Look } from './volume-driver/backend-reads.ts';
import { BLOCK_BYTES } from './volume-driver/extent-map.ts';
import type { ExtentMap } from './volume-driver/extent-map.ts';
import { ObjectLoader } from './volume-driver/object-loader.ts';
import { PagePool } from './volume-driver/page-pool.ts';
import { countingRowIds } from './volume-driver/segment-table.ts';
import type { SegmentTable } from './volume-driver/segment-table.ts';
import { fileNames, filesBucket, volumeNames } from './volume-driver/storage-names.ts';
import type { StorageNames } from './volume-driver/storage-names.ts';
import { recordedStoreConfig } from './vpool-backend.ts';
import { requireIdentity } from './vpool-identity.ts';

const PAGE = 500;
/** Blocks looked up and verified at a time. */
const BATCH_BLOCKS = 16_384;
const RUN_BYTES_MAX = 4 * 1024 * 1024;
const UNREACHABLE_MS_MAX = 10_000;
/** After so many damages what is not right is looked at once only. */
const PATIENT_DAMAGES_MAX = 20;

class Report {
  damages = 0;
  warnings = 0;
  readonly checked: Record<string, number> = { inodes: 0, objects: 0, blocks: 0, bytes: 0 };
  readonly event: (event: FsckEvent) => void;

  constructor(event: (event: FsckEvent) => void) {
    this.event = event;
  }

  damage(where: string, message: string): void {
    this.damages += 1;
    this.event({ kind: 'finding', severity: 'damage', where, message });
  }

  count(noun: string, by = 1): void {
    this.checked[noun] = (this.checked[noun] ?? 0) + by;
  }
}

/** See FsckDataDirectory (fsck-port.ts). */
export async function fsckDataDirectory(settings: Settings, logger: Logger, event: (event: FsckEvent) => void): Promise<FsckReport> {
  if (settings.registry.kind === 'redis') {
    // An old or empty registry of its own would be found clean.
    throw new ApplianceError(
      'registry-shared',
      'the registry of this vPool is in Redis: fsck verifies routers on their own; a cluster checks every record and block when it is read',
    );
  }
  const directory = join(settings.data, 'vpools', settings.vpool.name);
  const known = existsSync(join(directory, 'registry.db')) ? readVpoolFile(directory) : null;
  if (known === null)
    throw new ApplianceError('data-absent', `${settings.data} holds no vPool ${settings.vpool.name}; name another with --data or --vpool`);
  await using stack = new AsyncDisposableStack();
  const lock = lockDirectory(settings.data);
  stack.defer(() => lock.close());
  const clock = systemClock;
  const random = systemRandom;
  const report = new Report(event);
  const registry = stack.use(
    await openSqliteRegistry({
      path: join(directory, 'registry.db'),
      vpoolName: settings.vpool.name,
      clock,
      random,
      logger,
      settings: { ...SQLITE_REGISTRY_DEFAULTS, inlineBytesMax: settings.vpool.inlineBytesMax },
    }),
  );
  event({ kind: 'phase', name: 'registry', total: null });
  for await (const message of registry.verify()) report.damage('registry', message);
  report.count('inodes', (await registry.namespace.usage()).inodes);

  const config = recordedStoreConfig(settings, known);
  if (known.identity) {
    // Of a backend that is not this vPool's everything would be damage.
    await using plain = await makeStore({ ...config, encoding: null });
    await requireIdentity(plain.store, { settings, uuid: known.uuid }, clock, { unreachableMs: UNREACHABLE_MS_MAX });
  }
  const made = stack.use(await makeStore(config));
  // A backend that is busy for a moment is not damaged.
  const store = new RetryingStore({ inner: made.store, clock, random: systemRandom });
  await store.listBuckets('', 1);
  const files = await SegmentFiles.openToRead({ disk: nodeDisk, clock, logger }, directory);
  stack.defer(() => files.close());
  // The map's spill file goes elsewhere: the data directory stays as it is.
  const scratch = mkdtempSync(join(tmpdir(), 'vferry-fsck-'));
  stack.defer(() => rmSync(scratch, { recursive: true }));
  const pool = await PagePool.open(
    { disk: nodeDisk, spillPath: join(scratch, 'spill'), yieldToLoop: () => new Promise((resolve) => clock.soon(resolve)) },
    { bytesMax: settings.cache.mapBytes },
  );
  stack.defer(() => pool.close());
  // What stays wrong or absent over some looks is damage: nobody comes back later.
  const reads = new BackendReads({ clock, logger }, { damagedAfterMs: 0 });
  const loader = new ObjectLoader({ disk: nodeDisk, files, store, pool, rowIds: countingRowIds(), clock, reads });
  const names = { volume: volumeNames(settings.vpool.name), file: fileNames(filesBucket(settings.vpool.name, known.uuid)) };

  const owners: OwnerRecord[] = await allOwners(registry);
  event({ kind: 'phase', name: 'objects', total: owners.length });
  let done = 0;
  for (const owner of owners) {
    const inode = await registry.namespace.inode(owner.fileid, null);
    if (inode !== null && (inode.class === 'file' || inode.class === 'volume')) {
      try {
        await checkObject({ loader, files, store, reads, report }, inode, owner, names[inode.class]);
      } catch (error) {
        if (errorCode(error) === undefined && (error as Error).name !== 'StoreError') throw error;
        report.damage(`object ${owner.fileid}`, (error as Error).message);
      }
      report.count('objects');
    }
    done += 1;
    event({ kind: 'progress', done });
  }
  return { damages: report.damages, warnings: report.warnings, checked: report.checked };
}

async function allOwners(registry: Registry): Promise<OwnerRecord[]> {
  const owners: OwnerRecord[] = [];
  const routers = new Set<RouterId>((await registry.membership.routers()).map((router) => router.id));
  for (const router of routers) {
    let after = 0 as FileId;
    for (;;) {
      const page = await registry.ownership.ownedBy(router, after, PAGE);
      owners.push(...page);
      after = page.at(-1)?.fileid ?? after;
      if (page.length < PAGE) break;
    }
  }
  return owners;
}

interface Check {
  readonly loader: ObjectLoader;
  readonly files: SegmentFiles;
  readonly store: ObjectStore;
  readonly reads: BackendReads;
  readonly report: Report;
}

async function checkObject(check: Check, inode: Parameters<ObjectLoader['load']>[0], owner: OwnerRecord, names: StorageNames): Promise<void> {
  const { report } = check;
  const where = `object ${inode.fileid} (${owner.uuid})`;
  const loaded = await check.loader.load(inode, owner.uuid, names, owner);
  try {
    const end = await check.loader.findEnd(owner.uuid, names, owner, loaded);
    if (end.kind === 'damaged') {
      report.damage(where, end.reason);
      return;
    }
    const { state } = await check.loader.apply(loaded, end);
    for (const problem of await loaded.map.verify()) report.damage(where, problem);
    await checkBlocks(check, where, owner.uuid, names, loaded.map, loaded.table, state.sizeBytes);
  } finally {
    loaded.map.close();
  }
}

async function checkBlocks(
  check: Check,
  where: string,
  uuid: ObjectUuid,
  names: StorageNames,
  map: ExtentMap,
  table: SegmentTable,
  sizeBytes: number,
): Promise<void> {
  const batch = {
    block: new Float64Array(BATCH_BLOCKS),
    row: new Uint32Array(BATCH_BLOCKS),
    offset: new Uint32Array(BATCH_BLOCKS),
    crc: new Uint32Array(BATCH_BLOCKS),
  };
  const blocks = Math.ceil(sizeBytes / BLOCK_BYTES);
  for await (const count of mappedBatches(map, batch, blocks, (block) =>
    check.report.damage(where, `block ${block} is mapped behind the end at ${sizeBytes}`),
  )) {
    const order = Array.from({ length: count }, (_, index) => index).sort(
      (a, b) => (batch.row[a] as number) - (batch.row[b] as number) || (batch.offset[a] as number) - (batch.offset[b] as number),
    );
    let from = 0;
    for (let index = 1; index <= order.length; index += 1) {
      const first = order[from] as number;
      const before = order[index - 1] as number;
      const next = order[index];
      if (
        next !== undefined &&
        batch.row[next] === batch.row[first] &&
        (batch.offset[next] as number) - (batch.offset[before] as number) <= 2 * BLOCK_BYTES &&
        (batch.offset[next] as number) + BLOCK_BYTES - (batch.offset[first] as number) <= RUN_BYTES_MAX
      ) {
        continue;
      }
      await checkRun(check, where, uuid, names, table, batch, order.slice(from, index));
      from = index;
    }
    check.report.count('blocks', count);
  }
}

type Batch = { block: Float64Array; row: Uint32Array; offset: Uint32Array; crc: Uint32Array };

/** Fills `batch` again and again; yields how many entries it has. */
async function* mappedBatches(map: ExtentMap, batch: Batch, blocks: number, behindEnd: (block: number) => void): AsyncGenerator<number> {
  const pending: number[][] = [];
  let finished = false;
  let failure: unknown = null;
  let wake: () => void = () => undefined;
  // The walk hands over entries as fast as it finds them; they are few bytes each, and pages are walked eight at a time.
  const walk = map
    .forEachMapped((block, row, offset, crc) => {
      if (block >= blocks) behindEnd(block);
      pending.push([block, row, offset, crc]);
      if (pending.length >= BATCH_BLOCKS) wake();
    })
    .then(
      () => undefined,
      (error: unknown) => {
        failure = error;
      },
    )
    .finally(() => {
      finished = true;
      wake();
    });
  while (!finished || pending.length > 0) {
    if (pending.length === 0) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (finished || pending.length > 0) resolve();
      });
      continue;
    }
    const part = pending.splice(0, BATCH_BLOCKS);
    part.forEach(([block = 0, row = 0, offset = 0, crc = 0], index) => {
      batch.block[index] = block;
      batch.row[index] = row;
      batch.offset[index] = offset;
      batch.crc[index] = crc;
    });
    yield part.length;
  }
  await walk;
  if (failure !== null) throw failure;
}

async function checkRun(
  check: Check,
  where: string,
  uuid: ObjectUuid,
  names: StorageNames,
  table: SegmentTable,
  batch: Batch,
  run: readonly number[],
): Promise<void> {
  const firstIndex = run[0] as number;
  const row = batch.row[firstIndex] as number;
  const base = batch.offset[firstIndex] as number;
  const lengthBytes = (batch.offset[run.at(-1) as number] as number) + BLOCK_BYTES - base;
  const owner = (table.objectUuid(row) === '' ? uuid : table.objectUuid(row)) as ObjectUuid;
  const local = table.kind(row) === 'segment' ? check.files.segment(owner, table.number(row), table.term(row)) : null;
  const copies: { name: string; bytes: Buffer | null }[] = [];
  if (local !== null) {
    const bytes = Buffer.alloc(lengthBytes);
    copies.push({ name: local.path, bytes: (await check.files.read(local, base, bytes)) === lengthBytes ? bytes : null });
  }
  // What is not released yet is only here; everything else must be on the backend, whether it is cached or not.
  if (local === null || local.place === 'cache') {
    const bucket = names.bucket(owner, table.bucket(row));
    const name = names.object(owner, table.bucket(row), table.objectName(row));
    copies.push({
      name: `${bucket}/${name}`,
      bytes: await storedRun(
        check,
        `${bucket}/${name}`,
        () => check.store.get(bucket, name, { offsetBytes: base, lengthBytes }),
        lengthBytes,
        (bytes) => run.every((index) => matches(batch, index, bytes, base)),
      ),
    });
  }
  for (const copy of copies) {
    if (copy.bytes === null) {
      check.report.damage(copy.name, `${where}: bytes ${base} to ${base + lengthBytes} are missing`);
      continue;
    }
    for (const index of run) {
      if (!matches(batch, index, copy.bytes, base)) {
        check.report.damage(copy.name, `${where}: block ${batch.block[index]} at ${batch.offset[index]} does not match its CRC`);
      }
    }
    check.report.count('bytes', copy.bytes.length);
  }
}

function matches(batch: Batch, index: number, bytes: Buffer, base: number): boolean {
  const at = (batch.offset[index] as number) - base;
  return crc32(bytes.subarray(at, at + BLOCK_BYTES)) === batch.crc[index];
}

/** The bytes of a run, as they came at the last of some looks if they were never right; null when they are not there, or short. */
async function storedRun(
  check: Check,
  name: string,
  get: () => Promise<GetOutcome>,
  lengthBytes: number,
  isRight: (bytes: Buffer) => boolean,
): Promise<Buffer | null> {
  let last: Buffer | null = null;
  let answered = false;
  const look = async (): Promise<Look<Buffer>> => {
    answered = false;
    const answer = await get();
    answered = true;
    last = answer.kind === 'found' && answer.bytes.length === lengthBytes ? answer.bytes : null;
    if (answer.kind === 'absent') return answer;
    return last !== null && isRight(last) ? { kind: 'right', value: last } : { kind: 'wrong', message: 'is wrong' };
  };
  // Where much is gone, waiting for every piece of it would take for ever.
  if (check.report.damages >= PATIENT_DAMAGES_MAX) {
    await look();
    return last;
  }
  try {
    return await check.reads.ask(name, 'block-corrupt', look);
  } catch (error) {
    // No answer says nothing about the bytes.
    if (!answered) throw error;
    return last;
  }
}
