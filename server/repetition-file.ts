/**
 * RepetitionJournal in a file of the data directory: a ring of fixed records in a preallocated file, written without sync (docs/formats/data-directory.md). What
 * a killed process wrote is in the page cache. After a power cut or reboot the file's boot id is another one: then only what is proven to be in the logs is believed
 * (repetition-belief.ts), and the router waits until the machine has been up for longer than any copy of a call of its former life can be under way.
 *
 * A record is at the place of its running number modulo the ring's size, so that what of several laps is on the disk after a power cut has its order.
 */
import { closeSync, fdatasync, fdatasyncSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import { errorCode } from './core/errors.ts';
import { JoinedSync } from './object-log/joined-sync.ts';
import { REPETITION_WINDOW_MS } from './object-router/peer-port.ts';
import { believedCalls } from './object-router/repetition-belief.ts';
import type { RingRecord } from './object-router/repetition-belief.ts';
import { JOURNAL_ENTRY_BYTES } from './object-router/repetitions.ts';
import type { CallWords, RememberedCall, RepetitionJournal } from './object-router/repetitions.ts';

const FILE_NAME = 'repetitions.ring';
const MAGIC = Buffer.from('VFREP003');
const HEADER_BYTES = 64;
const BOOT_ID_BYTES = 36;
/** Where the header says with which number the records of its boot begin; flags (u16) follow, and its CRC-32 at the end. */
const FIRST_AT = 48;
const FLAGS_AT = FIRST_AT + 6;
/** A power cut or reboot was before, and not all objects are recovered yet. */
const LOST = 1;
/** Entry, kind (u16), running number (u48), seconds since the machine's boot and one (u32), CRC-32 of all before. */
const RECORD_BYTES = JOURNAL_ENTRY_BYTES + 16;
const KIND_AT = JOURNAL_ENTRY_BYTES;
const NUMBER_AT = KIND_AT + 2;
const SECONDS_AT = NUMBER_AT + 6;
const CRC_AT = SECONDS_AT + 4;
const RECORDS = 2 ** 19;
const CALL = 0;
/** Its entry: from and before (u48 each), zero, fileid. */
const PROVEN = 1;
/** Of what is believed after a power cut the newest, written down anew; its copies lie on nothing that is copied. */
const BELIEVED_MAX = RECORDS / 4;
const WINDOW_SECONDS = Math.ceil(REPETITION_WINDOW_MS / 1000) + 1;

export interface RepetitionFileOptions {
  /** Of the machine, by default. */
  readonly bootId?: string;
  /** Makes what was written durable. */
  readonly sync?: (fd: number) => Promise<void>;
  /** Told once that syncing the file failed. */
  readonly failed?: (error: Error) => void;
}

export class RepetitionFile implements RepetitionJournal, Disposable {
  readonly #fd: number;
  readonly #sinceBootMs: () => number;
  readonly #remembered: RememberedCall[] = [];
  readonly #syncing: JoinedSync;
  readonly #failed: (error: Error) => void;
  /** How long the router has to wait before it serves anything: what its former life completed is not known. */
  readonly waitMs: number;
  /** An earlier life wrote it before a power cut or a reboot, and no life since has `settled`. */
  readonly isLost: boolean;
  readonly #bootId: string;
  /** Numbers of this boot begin with it. */
  #first = 1;
  #end = 1;
  #problem: Error | null = null;
  #syncs = 0;
  #closed = false;

  private constructor(
    fd: number,
    existed: boolean,
    bootId: string,
    sinceBootMs: () => number,
    uptimeMs: () => number,
    options: RepetitionFileOptions,
  ) {
    this.#fd = fd;
    this.#bootId = bootId;
    this.#sinceBootMs = sinceBootMs;
    const sync = options.sync ?? dataSync;
    this.#syncing = new JoinedSync(() => sync(fd));
    this.#failed = options.failed ?? (() => undefined);
    const header = Buffer.alloc(HEADER_BYTES);
    readSync(fd, header, 0, HEADER_BYTES, 0);
    const isOfVersion = header.subarray(0, 8).equals(MAGIC) && header.readUInt32LE(HEADER_BYTES - 4) === crc32(header.subarray(0, HEADER_BYTES - 4));
    const isOurs = existed && isOfVersion && header.toString('latin1', 8, 8 + BOOT_ID_BYTES) === bootId;
    if (isOfVersion) this.#first = header.readUIntLE(FIRST_AT, 6);
    // The life that found it to be of another boot may have been killed while it waited.
    this.isLost = isOurs ? (header.readUInt16LE(FLAGS_AT) & LOST) !== 0 : existed;
    if (isOurs) this.#load();
    else if (existed && isOfVersion) this.#takeOver();
    else this.#begin(existed);
    // Of another version, or damaged: the machine may have been up all the time.
    this.waitMs = this.isLost ? Math.max(0, REPETITION_WINDOW_MS - (isOfVersion ? uptimeMs() : 0)) : 0;
  }

  /**
   * Opens or makes the file. `sinceBootMs`: a clock that all processes of one boot share and nobody sets: by the wall clock, a step back would put the calls in a
   * wrong order, and one forward make them too old. `uptimeMs`: how long the machine has been up. Throws system errors.
   */
  static open(
    directory: string,
    sinceBootMs = monotonicMs,
    uptimeMs = (): number => os.uptime() * 1000,
    options: RepetitionFileOptions = {},
  ): RepetitionFile {
    const path = join(directory, FILE_NAME);
    const bootId = options.bootId ?? readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    let fd: number;
    let existed = true;
    try {
      fd = openSync(path, 'r+');
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      fd = openSync(path, 'wx+', 0o600);
      existed = false;
      syncDirectory(directory);
    }
    try {
      return new RepetitionFile(fd, existed, bootId, sinceBootMs, uptimeMs, options);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  load(): Iterable<RememberedCall> {
    return this.#remembered.splice(0);
  }

  get end(): number {
    return this.#end;
  }

  /** Why what is written here does not outlive a power cut; null: it does. */
  get problem(): Error | null {
    return this.#problem;
  }

  append(entries: Buffer): void {
    this.#append(entries, CALL);
  }

  prove(fileid: number, end: number): void {
    this.#mark(fileid, this.#first, end);
  }

  /**
   * A sync that failed is never repeated: the next one would say that all is well although the pages are lost. From then on nothing waits for one: what is proven in the
   * ring is true as before, there is only less of it after a power cut.
   */
  async sync(): Promise<void> {
    if (this.#problem !== null || this.#closed) return;
    this.#syncs += 1;
    try {
      await this.#syncing.join();
    } catch (error) {
      if (this.#problem === null) this.#failed(error as Error);
      this.#problem ??= error as Error;
    } finally {
      this.#syncs -= 1;
      if (this.#closed && this.#syncs === 0) closeSync(this.#fd);
    }
  }

  /** All objects are recovered: what their logs said of calls is written down here, and the next life on this boot need not look for it again. */
  settled(): void {
    if (this.isLost && !this.#closed) this.#writeHeader(0);
  }

  #mark(fileid: number, from: number, before: number): void {
    const entry = Buffer.alloc(JOURNAL_ENTRY_BYTES);
    entry.writeUIntLE(from, 0, 6);
    entry.writeUIntLE(before, 6, 6);
    entry.writeDoubleLE(fileid, 16);
    this.#append(entry, PROVEN);
  }

  #append(entries: Buffer, kind: number): void {
    const count = entries.length / JOURNAL_ENTRY_BYTES;
    const bytes = Buffer.allocUnsafe(count * RECORD_BYTES);
    const seconds = this.#seconds();
    for (let index = 0; index < count; index += 1) {
      const at = index * RECORD_BYTES;
      entries.copy(bytes, at, index * JOURNAL_ENTRY_BYTES, (index + 1) * JOURNAL_ENTRY_BYTES);
      bytes.writeUInt16LE(kind, at + KIND_AT);
      bytes.writeUIntLE(this.#end + index, at + NUMBER_AT, 6);
      bytes.writeUInt32LE(seconds, at + SECONDS_AT);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + CRC_AT)), at + CRC_AT);
    }
    // The ring's end may lie in the middle.
    const place = this.#end % RECORDS;
    const first = Math.min(count, RECORDS - place);
    this.#write(bytes.subarray(0, first * RECORD_BYTES), place);
    if (first < count) this.#write(bytes.subarray(first * RECORD_BYTES), 0);
    this.#end += count;
  }

  #seconds(): number {
    return Math.floor(this.#sinceBootMs() / 1000) + 1;
  }

  #write(bytes: Buffer, place: number): void {
    for (let done = 0; done < bytes.length;)
      done += writeSync(this.#fd, bytes, done, bytes.length - done, HEADER_BYTES + place * RECORD_BYTES + done);
  }

  /** A new file, or one of which nothing counts. */
  #begin(existed: boolean): void {
    const zeros = Buffer.alloc(1024 * 1024);
    const total = HEADER_BYTES + RECORDS * RECORD_BYTES;
    for (let at = 0; at < total; at += zeros.length) writeSync(this.#fd, zeros, 0, Math.min(zeros.length, total - at), at);
    // What of another version lay there must not be met under the new header.
    if (existed) fdatasyncSync(this.#fd);
    this.#first = 1;
    this.#writeHeader(existed ? LOST : 0);
  }

  #writeHeader(flags: number): void {
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.write(this.#bootId, 8, BOOT_ID_BYTES, 'latin1');
    header.writeUIntLE(this.#first, FIRST_AT, 6);
    header.writeUInt16LE(flags, FLAGS_AT);
    header.writeUInt32LE(crc32(header.subarray(0, HEADER_BYTES - 4)), HEADER_BYTES - 4);
    // Durable with the first sync: until then nothing is proven.
    writeSync(this.#fd, header, 0, HEADER_BYTES, 0);
  }

  /** Of a former boot: what is believed is written down anew before anything says that it is of this one; another power cut finds it in either place. */
  #takeOver(): void {
    const ring = new RingBytes(this.#fd);
    this.#end = Math.max(ring.end, this.#first);
    const first = this.#end;
    // How long ago they were is unknown; those that were too old when the last one was written are so now.
    const sinceSeconds = ring.newestSeconds(this.#first) - WINDOW_SECONDS;
    const inReach = Math.max(this.#first, this.#end - RECORDS / 2);
    const believed = believedCalls(ring.records(inReach, sinceSeconds)).slice(-BELIEVED_MAX);
    const entries = Buffer.alloc(believed.length * JOURNAL_ENTRY_BYTES);
    believed.forEach(({ fileid, call }, index) => {
      const at = index * JOURNAL_ENTRY_BYTES;
      call.forEach((word, place) => entries.writeUInt32LE(word, at + place * 4));
      entries.writeDoubleLE(fileid, at + 16);
      this.#remembered.push({ fileid, words: call });
    });
    this.#append(entries, CALL);
    this.#mark(0, first, this.#end);
    fdatasyncSync(this.#fd);
    this.#first = first;
    this.#writeHeader(LOST);
  }

  #load(): void {
    const ring = new RingBytes(this.#fd);
    this.#end = Math.max(ring.end, this.#first);
    const calls: { number: number; fileid: number; call: CallWords }[] = [];
    for (const record of ring.records(this.#first, this.#seconds() - WINDOW_SECONDS)) if (!('proven' in record)) calls.push(record);
    calls.sort((a, b) => a.number - b.number);
    for (const { fileid, call } of calls) this.#remembered.push({ fileid, words: call });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    // A descriptor that is synced would be another file's.
    if (this.#syncs === 0) closeSync(this.#fd);
  }
}

/** What is written in the file. */
class RingBytes {
  readonly #bytes = Buffer.alloc(RECORDS * RECORD_BYTES);
  /** By place; 0: nothing right is there. */
  readonly #numbers = new Float64Array(RECORDS);
  /** Behind the highest number. */
  readonly end: number;

  constructor(fd: number) {
    const bytes = this.#bytes;
    const count = Math.floor(readSync(fd, bytes, 0, bytes.length, HEADER_BYTES) / RECORD_BYTES);
    let end = 0;
    for (let place = 0, at = 0; place < count; place += 1, at += RECORD_BYTES) {
      const number = bytes.readUIntLE(at + NUMBER_AT, 6);
      if (number === 0 || number % RECORDS !== place || bytes.readUInt32LE(at + CRC_AT) !== crc32(bytes.subarray(at, at + CRC_AT))) continue;
      this.#numbers[place] = number;
      if (number >= end) end = number + 1;
    }
    this.end = end;
  }

  /** When the newest of the records from number `from` on was written; 0: there is none. */
  newestSeconds(from: number): number {
    let newest = 0;
    for (let place = 0; place < RECORDS; place += 1)
      if ((this.#numbers[place] as number) >= Math.max(1, from))
        newest = Math.max(newest, this.#bytes.readUInt32LE(place * RECORD_BYTES + SECONDS_AT));
    return newest;
  }

  /** Those with numbers from `from` on that are not older, in the order of their places. */
  *records(from: number, sinceSeconds: number): Generator<RingRecord<CallWords>> {
    const bytes = this.#bytes;
    for (let place = 0, at = 0; place < RECORDS; place += 1, at += RECORD_BYTES) {
      const number = this.#numbers[place] as number;
      if (number === 0 || number < from || bytes.readUInt32LE(at + SECONDS_AT) < sinceSeconds) continue;
      const fileid = bytes.readDoubleLE(at + 16);
      if (bytes.readUInt16LE(at + KIND_AT) === PROVEN) {
        yield { number, fileid, proven: { from: bytes.readUIntLE(at, 6), before: bytes.readUIntLE(at + 6, 6) } };
        continue;
      }
      const call = new Uint32Array(4);
      for (let word = 0; word < 4; word += 1) call[word] = bytes.readUInt32LE(at + word * 4);
      yield { number, fileid, call };
    }
  }
}

/** The name of a new file is durable from then on. */
function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function dataSync(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fdatasync(fd, (error) => (error === null ? resolve() : reject(error))));
}

/** CLOCK_MONOTONIC: unlike the uptime it is the machine's in a container, too. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
