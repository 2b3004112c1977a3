/**
 * Puts objects on the backend and reads them back (backends/put-verified.ts); holds bodies that are produced in pieces, in RAM while they are small
 * and in a local file when they are not.
 */
import { join } from 'node:path';

import type { ObjectBody, ObjectStore } from '../../backends/object-store.ts';
import { putVerified } from '../../backends/put-verified.ts';
import type { Disk } from '../core/disk.ts';
import { ApplianceError } from '../core/errors.ts';
import type { Clock, Random } from '../core/time.ts';

const IN_RAM_BYTES_MAX = 8 * 1024 * 1024;

export interface CollectedBody extends AsyncDisposable {
  readonly body: ObjectBody;
  readonly sizeBytes: number;
}

export class StoredWriter {
  readonly #components: { store: ObjectStore; clock: Clock; random: Random; disk: Disk };
  readonly #directory: string;
  #counter = 0;

  /** `directory` exists and is for temporary files of this writer only. */
  constructor(components: { store: ObjectStore; clock: Clock; random: Random; disk: Disk }, directory: string) {
    this.#components = components;
    this.#directory = directory;
  }

  /** @throws StoreError; ApplianceError `object-conflict` when the name holds something else: a broken fence or a damaged store. */
  async put(bucket: string, name: string, body: ObjectBody): Promise<void> {
    const outcome = await putVerified(this.#components, bucket, name, body);
    if (outcome.kind === 'conflict')
      throw new ApplianceError('object-conflict', `${outcome.reason}: another writer used this name, or the backend is damaged`);
  }

  /** Gathers a body that comes in chunks; dispose of it when it was put. */
  async collect(chunks: AsyncIterable<Uint8Array>): Promise<CollectedBody> {
    const { disk } = this.#components;
    const inRam: Uint8Array[] = [];
    let sizeBytes = 0;
    let file: Awaited<ReturnType<Disk['create']>> | null = null;
    const write = (at: number, parts: readonly Uint8Array[]): Promise<void> =>
      new Promise((resolve, reject) => file?.write(at, parts, (error) => (error === null ? resolve() : reject(error))));
    try {
      for await (const chunk of chunks) {
        if (file === null && sizeBytes + chunk.length > IN_RAM_BYTES_MAX) {
          this.#counter += 1;
          file = await disk.create(join(this.#directory, `body-${this.#counter}.tmp`));
          await write(0, inRam);
          inRam.length = 0;
        }
        if (file === null) inRam.push(chunk);
        else await write(sizeBytes, [chunk]);
        sizeBytes += chunk.length;
      }
    } catch (error) {
      if (file !== null) {
        await file.close();
        await disk.unlink(file.path);
      }
      throw error;
    }
    if (file === null) return { body: { kind: 'bytes', chunks: inRam }, sizeBytes, async [Symbol.asyncDispose]() {} };
    const { path } = file;
    await file.close();
    return {
      body: { kind: 'file', path, offsetBytes: 0, lengthBytes: sizeBytes },
      sizeBytes,
      async [Symbol.asyncDispose]() {
        await disk.unlink(path);
      },
    };
  }
}
