/**
 * RepetitionJournal in a file of the data directory: a ring of fixed records in a preallocated file, written without sync (docs/formats/data-directory.md). What
 * a killed process wrote is in the page cache. A power cut or reboot loses it: then the file's boot id is another one, and the router waits until
 * the machine has been up for longer than any copy of a call of its former life can be under way.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import { errorCode } from './core/errors.ts';
import { REPETITION_WINDOW_MS } from './object-router/peer-port.ts';
import { JOURNAL_ENTRY_BYTES } from './object-router/repetitions.ts';
import type { RememberedCall, RepetitionJournal } from './object-router/repetitions.ts';

const FILE_NAME = 'repetitions.ring';
const MAGIC = Buffer.from('VFREP002');
const HEADER_BYTES = 64;
/** Entry, seconds since the machine's boot and one (u32), CRC-32 of both. */
const RECORD_BYTES = JOURNAL_ENTRY_BYTES + 8;
const RECORDS = 2 ** 19;

export class RepetitionFile implements RepetitionJournal, Disposable {
  readonly #fd: number;
  readonly #sinceBootMs: () => number;
  readonly #remembered: RememberedCall[] = [];
  /** How long the router has to wait before it serves anything: what its former life completed is not known. */
  readonly waitMs: number;
  /** An earlier life wrote it, and it is of before a power cut or a reboot. */
  readonly isLost: boolean;
  #next = 0;

  private constructor(fd: number, existed: boolean, bootId: string, sinceBootMs: () => number, uptimeMs: () => number) {
    this.#fd = fd;
    this.#sinceBootMs = sinceBootMs;
    const header = Buffer.alloc(HEADER_BYTES);
    readSync(fd, header, 0, HEADER_BYTES, 0);
    const isOfVersion = header.subarray(0, 8).equals(MAGIC);
    const isOurs = existed && isOfVersion && header.toString('latin1', 8, 8 + bootId.length) === bootId;
    if (isOurs) this.#load();
    else this.#begin(bootId);
    this.isLost = existed && !isOurs;
    // Of another version, or damaged: the machine may have been up all the time.
    this.waitMs = !existed || isOurs ? 0 : Math.max(0, REPETITION_WINDOW_MS - (isOfVersion ? uptimeMs() : 0));
  }

  /**
   * Opens or makes the file. `sinceBootMs`: a clock that all processes of one boot share and nobody sets: by the wall clock, a step back would put the calls in a
   * wrong order, and one forward make them too old. `uptimeMs`: how long the machine has been up. Throws system errors.
   */
  static open(directory: string, sinceBootMs = monotonicMs, uptimeMs = (): number => os.uptime() * 1000): RepetitionFile {
    const path = join(directory, FILE_NAME);
    const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    let fd: number;
    let existed = true;
    try {
      fd = openSync(path, 'r+');
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error;
      fd = openSync(path, 'wx+', 0o600);
      existed = false;
    }
    try {
      return new RepetitionFile(fd, existed, bootId, sinceBootMs, uptimeMs);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  load(): Iterable<RememberedCall> {
    return this.#remembered.splice(0);
  }

  append(entries: Buffer): void {
    const count = entries.length / JOURNAL_ENTRY_BYTES;
    const bytes = Buffer.allocUnsafe(count * RECORD_BYTES);
    const seconds = this.#seconds();
    for (let index = 0; index < count; index += 1) {
      const at = index * RECORD_BYTES;
      entries.copy(bytes, at, index * JOURNAL_ENTRY_BYTES, (index + 1) * JOURNAL_ENTRY_BYTES);
      bytes.writeUInt32LE(seconds, at + JOURNAL_ENTRY_BYTES);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + JOURNAL_ENTRY_BYTES + 4)), at + JOURNAL_ENTRY_BYTES + 4);
    }
    // The ring's end may lie in the middle.
    const first = Math.min(count, RECORDS - this.#next);
    this.#write(bytes.subarray(0, first * RECORD_BYTES), this.#next);
    if (first < count) this.#write(bytes.subarray(first * RECORD_BYTES), 0);
    this.#next = (this.#next + count) % RECORDS;
  }

  #seconds(): number {
    return Math.floor(this.#sinceBootMs() / 1000) + 1;
  }

  #write(bytes: Buffer, record: number): void {
    for (let done = 0; done < bytes.length;)
      done += writeSync(this.#fd, bytes, done, bytes.length - done, HEADER_BYTES + record * RECORD_BYTES + done);
  }

  #begin(bootId: string): void {
    const zeros = Buffer.alloc(1024 * 1024);
    const total = HEADER_BYTES + RECORDS * RECORD_BYTES;
    for (let at = 0; at < total; at += zeros.length) writeSync(this.#fd, zeros, 0, Math.min(zeros.length, total - at), at);
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.write(bootId, 8, 'latin1');
    writeSync(this.#fd, header, 0, HEADER_BYTES, 0);
  }

  #load(): void {
    const bytes = Buffer.alloc(RECORDS * RECORD_BYTES);
    const read = readSync(this.#fd, bytes, 0, bytes.length, HEADER_BYTES);
    const sinceSeconds = this.#seconds() - Math.ceil(REPETITION_WINDOW_MS / 1000) - 1;
    /** By place; 0: nothing is there. */
    const seconds = new Uint32Array(RECORDS);
    let newest = 0;
    for (let place = 0, at = 0; at + RECORD_BYTES <= read; place += 1, at += RECORD_BYTES) {
      if (bytes.readUInt32LE(at + JOURNAL_ENTRY_BYTES + 4) !== crc32(bytes.subarray(at, at + JOURNAL_ENTRY_BYTES + 4))) continue;
      seconds[place] = bytes.readUInt32LE(at + JOURNAL_ENTRY_BYTES);
      newest = Math.max(newest, seconds[place] as number);
    }
    // The ring's end may lie in the middle of the newest second: they end where something older follows.
    for (let place = 0; place < RECORDS && newest > 0; place += 1)
      if (seconds[place] === newest && seconds[(place + 1) % RECORDS] !== newest) this.#next = (place + 1) % RECORDS;
    for (let index = 0; index < RECORDS; index += 1) {
      const place = (this.#next + index) % RECORDS;
      const endedAt = seconds[place] as number;
      if (endedAt === 0 || endedAt < sinceSeconds) continue;
      const at = place * RECORD_BYTES;
      const words = Uint32Array.from({ length: 4 }, (_, word) => bytes.readUInt32LE(at + word * 4));
      this.#remembered.push({ fileid: bytes.readDoubleLE(at + 16), words });
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/** CLOCK_MONOTONIC: unlike the uptime it is the machine's in a container, too. */
function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
