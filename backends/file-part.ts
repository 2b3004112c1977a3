/**
 * A part of a local file on its way into an object, for stores that send it over a network from a worker: read in steps, so that sixteen segments
 * of 16 MiB that are uploaded at a time do not lie in memory; and with synchronous calls, because libuv's pool belongs to the segment log.
 */
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { Readable } from 'node:stream';

import { fileBodyError, fileBodyShort } from './object-body.ts';
import type { ObjectBody } from './object-store.ts';

/** Some 2 ms of MD5, between which other calls of the thread get their turn. */
const STEP_BYTES = 1024 * 1024;
/** What a stream reads at a time. */
const STREAM_STEP_BYTES = 256 * 1024;

export type FileBody = Extract<ObjectBody, { kind: 'file' }>;

export class FilePart {
  readonly #body: FileBody;
  readonly #fd: number;

  /** Opens the file; `close` belongs to the caller. @throws StoreError `corrupt` when there is none, `denied` or `retry` when it cannot be opened. */
  constructor(body: FileBody) {
    this.#body = body;
    this.#fd = inFile(body.path, () => fs.openSync(body.path, 'r'));
  }

  /** MD5 of the part. @throws StoreError `corrupt` when the file ends before it does, `retry` when it cannot be read. */
  async md5(): Promise<Buffer> {
    const hash = createHash('md5');
    const step = Buffer.allocUnsafeSlow(Math.min(STEP_BYTES, Math.max(1, this.#body.lengthBytes)));
    for (let done = 0; done < this.#body.lengthBytes;) {
      const read = this.#read(step, done);
      hash.update(step.subarray(0, read));
      done += read;
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    return hash.digest();
  }

  /** The bytes. Fails with the errors of `md5`. To be destroyed before `close`. */
  stream(): Readable {
    return Readable.from(this.#steps(), { objectMode: false, highWaterMark: STREAM_STEP_BYTES });
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  *#steps(): Generator<Buffer> {
    for (let done = 0; done < this.#body.lengthBytes;) {
      // A new one each time: the socket may still hold the last.
      const step = Buffer.allocUnsafeSlow(Math.min(STREAM_STEP_BYTES, this.#body.lengthBytes - done));
      const read = this.#read(step, done);
      yield step.subarray(0, read);
      done += read;
    }
  }

  /** Bytes read into `target` from `done` bytes behind the beginning of the part: at least one. */
  #read(target: Buffer, done: number): number {
    const { path, offsetBytes, lengthBytes } = this.#body;
    const want = Math.min(target.byteLength, lengthBytes - done);
    const read = inFile(path, () => fs.readSync(this.#fd, target, 0, want, offsetBytes + done));
    if (read === 0) throw fileBodyShort(path, offsetBytes, lengthBytes, done);
    return read;
  }
}

function inFile<T>(path: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw fileBodyError(path, error);
  }
}
