/**
 * What this router gave away, durable before the registry is asked to change the owner (design sections 5 and 10 [!]): a registry that forgets the change must
 * not make it serve an old term again (docs/formats/data-directory.md, ceded.log).
 *
 * Records of fixed size in a preallocated file, each with its CRC, overwritten in place after the last valid one: a sync costs no change of size. Once
 * the file is nearly full what counts goes to a new one: per object the newest.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import type { Disk, DiskFile } from '../../core/disk.ts';
import { ApplianceError, errorCode, isEnvironmentError } from '../../core/errors.ts';
import type { FileId, ObjectUuid, RouterId, Term } from '../../core/ids.ts';
import { compareEpoch } from '../../core/ids.ts';
import type { Logger } from '../../core/logger.ts';

const MAGIC = 0x56466365;
const VERSION = 1;
export const CEDED_RECORD_BYTES = 128;
const CRC_AT = CEDED_RECORD_BYTES - 4;
const RECORDS_MIN = 2048;
/** Objects that are remembered; the ones that were given away longest ago are forgotten first. */
const OBJECTS_MAX = 65_536;
/** With fewer left the next file is made, so that no move waits for it. */
const SPARE_RECORDS = 16;
const FILE_NAME = 'ceded.log';

/**
 * `ceding`: the change of owner may have happened. `moved`: it has. `kept`: it has not and cannot any more, since a later term was claimed here.
 * `from` is never served again in any of them.
 */
export type CededState = 'ceding' | 'moved' | 'kept';
const STATES: readonly CededState[] = ['ceding', 'moved', 'kept'];

export interface CededEntry {
  readonly fileid: FileId;
  readonly uuid: ObjectUuid;
  readonly from: Term;
  readonly to: Term;
  readonly router: RouterId;
  readonly state: CededState;
  /** Wall clock. */
  readonly atMs: number;
}

function isForgotten(entry: CededEntry, term: Term | null): boolean {
  return entry.state === 'moved' && (term === null || compareEpoch(term, entry.to) < 0);
}

/** 128 bytes, docs/formats/data-directory.md. */
export function encodeCeded(entry: CededEntry): Buffer {
  const bytes = Buffer.alloc(CEDED_RECORD_BYTES);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt8(VERSION, 4);
  bytes.writeUInt8(STATES.indexOf(entry.state), 5);
  bytes.writeDoubleLE(entry.fileid, 8);
  bytes.write(entry.uuid, 16, 'hex');
  writeTerm(bytes, 32, entry.from);
  writeTerm(bytes, 56, entry.to);
  bytes.write(entry.router, 80, 'hex');
  bytes.writeDoubleLE(entry.atMs, 96);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}

/** Null: these bytes are no record. */
export function decodeCeded(bytes: Buffer): CededEntry | null {
  if (bytes.length !== CEDED_RECORD_BYTES || bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt8(4) !== VERSION) return null;
  if (bytes.readUInt32LE(CRC_AT) !== crc32(bytes.subarray(0, CRC_AT))) return null;
  const state = STATES[bytes.readUInt8(5)];
  const fileid = bytes.readDoubleLE(8);
  const from = readTerm(bytes, 32);
  const to = readTerm(bytes, 56);
  if (state === undefined || !Number.isSafeInteger(fileid) || fileid <= 0 || from === null || to === null) return null;
  return {
    fileid: fileid as FileId,
    uuid: bytes.toString('hex', 16, 32) as ObjectUuid,
    from,
    to,
    router: bytes.toString('hex', 80, 96) as RouterId,
    state,
    atMs: bytes.readDoubleLE(96),
  };
}

function writeTerm(bytes: Buffer, at: number, term: Term): void {
  bytes.writeDoubleLE(term.generation, at);
  bytes.writeDoubleLE(term.counter, at + 8);
  bytes.write(term.nonce, at + 16, 'hex');
}

function readTerm(bytes: Buffer, at: number): Term | null {
  const generation = bytes.readDoubleLE(at);
  const counter = bytes.readDoubleLE(at + 8);
  if (!Number.isSafeInteger(generation) || generation < 0 || !Number.isSafeInteger(counter) || counter < 0) return null;
  return { generation, counter, nonce: bytes.toString('hex', at + 16, at + 24) };
}

export class CededJournal {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #logger: Logger;
  /** In the order in which they were given away. */
  readonly #entries = new Map<number, CededEntry>();
  #file: DiskFile | null = null;
  #used = 0;
  #records = 0;
  /** Writes go one after another. */
  #last: Promise<void> = Promise.resolve();

  private constructor(disk: Disk, directory: string, logger: Logger) {
    this.#disk = disk;
    this.#directory = directory;
    this.#logger = logger;
  }

  /** Reads what earlier lives of this router wrote into `directory`. @throws ApplianceError `ceded-damaged` when something of it is lost. */
  static async open(disk: Disk, directory: string, logger: Logger): Promise<CededJournal> {
    const journal = new CededJournal(disk, directory, logger);
    await journal.#load();
    await journal.#prepare();
    return journal;
  }

  /** The new term of this object must be above this counter; 0: nothing is known. For `claim`. */
  cededCounter(fileid: FileId): number {
    return this.#entries.get(fileid)?.to.counter ?? 0;
  }

  entry(fileid: FileId): CededEntry | undefined {
    return this.#entries.get(fileid);
  }

  /**
   * Before a claim that ends term `expected` (null: no record). @throws ApplianceError `object-recovering` when this router gave the object away in a later term: the
   * registry has forgotten that, and what the receiver acknowledged since then only the receiver has. It puts its record back when it is there again.
   */
  checkClaim(fileid: FileId, expected: Term | null): void {
    const entry = this.#entries.get(fileid);
    if (entry === undefined || !isForgotten(entry, expected)) return;
    throw new ApplianceError(
      'object-recovering',
      `object ${fileid} was moved to router ${entry.router} (term ${entry.to.generation}.${entry.to.counter}), which the registry has forgotten; ` +
        'it goes on by itself when that router is back',
      { retryable: true },
    );
  }

  /** Whether a record of that term is older than a move away from here. */
  hasForgotten(fileid: FileId, term: Term): boolean {
    const entry = this.#entries.get(fileid);
    return entry !== undefined && isForgotten(entry, term);
  }

  /** Null: the object was not given away, as far as is remembered. */
  fileidOf(uuid: ObjectUuid): FileId | null {
    for (const entry of this.#entries.values()) if (entry.uuid === uuid) return entry.fileid;
    return null;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Durable when it resolves. After a failure the entry may be durable or not. Rejects with system errors of the disk. */
  write(entry: CededEntry): Promise<void> {
    const written = this.#last.then(() => this.#write(entry));
    this.#last = written.then(
      () => (this.#used + SPARE_RECORDS > this.#records ? this.#prepare() : undefined),
      () => undefined,
    );
    return written;
  }

  async close(): Promise<void> {
    await this.#last;
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  get #path(): string {
    return join(this.#directory, FILE_NAME);
  }

  async #load(): Promise<void> {
    let file: DiskFile;
    try {
      file = await this.#disk.open(this.#path, 'read');
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return;
      throw error;
    }
    try {
      const bytes = Buffer.alloc(await file.size());
      if ((await readAll(file, bytes)) !== bytes.length)
        throw new ApplianceError('ceded-damaged', `${this.#path} ended while it was read`, { retryable: true });
      let bad = -1;
      for (let at = 0; at + CEDED_RECORD_BYTES <= bytes.length; at += CEDED_RECORD_BYTES) {
        const record = bytes.subarray(at, at + CEDED_RECORD_BYTES);
        if (record.readUInt32LE(0) === 0 && record.every((byte) => byte === 0)) continue;
        const entry = decodeCeded(record);
        if (entry === null) {
          if (bad < 0) bad = at;
          continue;
        }
        if (bad >= 0) {
          throw new ApplianceError(
            'ceded-damaged',
            `${this.#path} is damaged at byte ${bad}, before valid records: which objects were given away is not known for sure. Look at the disk; ` +
              'to go on all the same, remove the file while the other routers of the vPool run',
          );
        }
        this.#keep(entry);
      }
      // A torn last record: nobody was told anything that rests on it.
    } finally {
      await file.close();
    }
  }

  #keep(entry: CededEntry): void {
    this.#entries.delete(entry.fileid);
    this.#entries.set(entry.fileid, entry);
    if (this.#entries.size <= OBJECTS_MAX) return;
    const [oldest] = this.#entries.keys();
    if (oldest !== undefined) this.#entries.delete(oldest);
  }

  async #write(entry: CededEntry): Promise<void> {
    // Each life of the router begins with a file of its own: what it finds may never have been synced by the one before.
    if (this.#file === null || this.#used >= this.#records) await this.#begin();
    const file = this.#file as unknown as DiskFile;
    const at = this.#used * CEDED_RECORD_BYTES;
    this.#used += 1;
    try {
      await written(file, at, encodeCeded(entry));
      await synced(file);
    } catch (error) {
      // Nothing is known of this file any more: the next entry goes into a new one.
      this.#file = null;
      await file.close().catch((cause: unknown) => this.#logger.warn({ err: cause, path: file.path }, 'a file that failed could not be closed'));
      throw error;
    }
    this.#keep(entry);
  }

  /** Ahead of the next write, for which somebody's I/O is held. If it fails, that write tries again. */
  async #prepare(): Promise<void> {
    try {
      await this.#begin();
    } catch (error) {
      if (!isEnvironmentError(error)) throw error;
      this.#logger.warn({ err: error, path: this.#path }, 'the journal of what was given away could not be begun anew; the next move tries again');
    }
  }

  async #begin(): Promise<void> {
    const old = this.#file;
    this.#file = null;
    await old?.close();
    const temporary = `${this.#path}.tmp`;
    try {
      await this.#disk.unlink(temporary);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
    }
    this.#records = Math.max(RECORDS_MIN, this.#entries.size * 2);
    const file = await this.#disk.create(temporary);
    try {
      const bytes = Buffer.alloc(this.#records * CEDED_RECORD_BYTES);
      let at = 0;
      for (const entry of this.#entries.values()) at += encodeCeded(entry).copy(bytes, at);
      await written(file, 0, bytes);
      await synced(file);
      await this.#disk.rename(temporary, this.#path);
      await this.#disk.syncDirectory(this.#directory);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    this.#used = this.#entries.size;
  }
}

function written(file: DiskFile, offsetBytes: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => file.write(offsetBytes, [bytes], (error) => (error === null ? resolve() : reject(error))));
}

function synced(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => file.sync((error) => (error === null ? resolve() : reject(error))));
}

function readAll(file: DiskFile, into: Buffer): Promise<number> {
  if (into.length === 0) return Promise.resolve(0);
  return new Promise((resolve, reject) => file.read(0, into, (error, bytesRead) => (error === null ? resolve(bytesRead) : reject(error))));
}
