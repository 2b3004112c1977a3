/** `StoreClient` over the project's own NFSv3 client, and what tests often need of it. */
import { type Attributes, type SetAttributes, Stability, Status } from '../server/nfsd/file-system.ts';
import { NfsClient } from '../server/nfsd/nfs-client.ts';
import type { FileHandle, Found, Listed, NewAttributes, StoreClient } from './store-client.ts';

export interface StoreAddress {
  readonly nfsPort: number;
  readonly vpool: string;
  /** Default 127.0.0.1. */
  readonly listen?: string;
}

/** Connects and mounts. Calls wait for ever (until the connection ends) unless `timeoutMs` is given. */
export async function connectStore(address: StoreAddress, options: { readonly timeoutMs?: number } = {}): Promise<StoreClient> {
  const nfs = await NfsClient.connect({ host: address.listen ?? '127.0.0.1', nfsPort: address.nfsPort, ...options });
  try {
    const mounted = await nfs.mount(`/${address.vpool}`);
    if (mounted.status !== 0) throw new Error(`MNT /${address.vpool}: status ${mounted.status}`);
    return new DatastoreClient(nfs, Uint8Array.from(mounted.handle));
  } catch (error) {
    await nfs.close();
    throw error;
  }
}

class DatastoreClient implements StoreClient {
  readonly root: FileHandle;
  readonly #nfs: NfsClient;

  constructor(nfs: NfsClient, root: FileHandle) {
    this.#nfs = nfs;
    this.root = root;
  }

  async getattr(object: FileHandle): Promise<{ status: number; attributes: Attributes | null }> {
    const result = await this.#nfs.getattr(object);
    return { status: result.status, attributes: result.status === Status.OK ? result.attributes : null };
  }

  async setattr(object: FileHandle, changes: NewAttributes): Promise<{ status: number }> {
    return await this.#nfs.setattr(object, changes);
  }

  async lookup(directory: FileHandle, name: string): Promise<Found> {
    const result = await this.#nfs.lookup(directory, name);
    return result.status === Status.OK ? found(result) : { status: result.status, handle: new Uint8Array(0), attributes: null };
  }

  async read(object: FileHandle, offsetBytes: number, countBytes: number): Promise<{ status: number; data: Buffer; eof: boolean }> {
    const result = await this.#nfs.read(object, offsetBytes, countBytes);
    return result.status === Status.OK ? result : { status: result.status, data: Buffer.alloc(0), eof: false };
  }

  async write(
    object: FileHandle,
    offsetBytes: number,
    data: Uint8Array,
    stability: Stability,
  ): Promise<{ status: number; countBytes: number; committed: Stability; verifier: string }> {
    const result = await this.#nfs.write(object, offsetBytes, data, stability);
    if (result.status !== Status.OK) return { status: result.status, countBytes: 0, committed: Stability.UNSTABLE, verifier: '' };
    return { status: 0, countBytes: result.countBytes, committed: result.committed, verifier: Buffer.from(result.verifier).toString('hex') };
  }

  async commit(object: FileHandle): Promise<{ status: number; verifier: string }> {
    const result = await this.#nfs.commit(object);
    return { status: result.status, verifier: result.status === Status.OK ? Buffer.from(result.verifier).toString('hex') : '' };
  }

  async create(directory: FileHandle, name: string, how: 'guarded' | 'unchecked', attributes: NewAttributes): Promise<Found> {
    const result = await this.#nfs.create(directory, name, { mode: how, attributes: { ...UNCHANGED, ...attributes } });
    return result.status === Status.OK ? found(result) : { status: result.status, handle: new Uint8Array(0), attributes: null };
  }

  async mkdir(directory: FileHandle, name: string): Promise<Found> {
    const result = await this.#nfs.mkdir(directory, name, { mode: 0o755 });
    return result.status === Status.OK ? found(result) : { status: result.status, handle: new Uint8Array(0), attributes: null };
  }

  async remove(directory: FileHandle, name: string): Promise<{ status: number }> {
    return await this.#nfs.remove(directory, name);
  }

  async rmdir(directory: FileHandle, name: string): Promise<{ status: number }> {
    return await this.#nfs.rmdir(directory, name);
  }

  async rename(fromDirectory: FileHandle, fromName: string, toDirectory: FileHandle, toName: string): Promise<{ status: number }> {
    return await this.#nfs.rename(fromDirectory, fromName, toDirectory, toName);
  }

  async link(object: FileHandle, directory: FileHandle, name: string): Promise<{ status: number }> {
    return await this.#nfs.link(object, directory, name);
  }

  async list(directory: FileHandle): Promise<Listed[]> {
    const listed: Listed[] = [];
    let cookie = 0n;
    let verifier: Uint8Array = Buffer.alloc(8);
    for (;;) {
      const page = await this.#nfs.readdirplus(directory, cookie, verifier);
      if (page.status !== Status.OK) throw new Error(`READDIRPLUS: status ${page.status}`);
      for (const entry of page.entries) {
        cookie = entry.cookie;
        const name = entry.name.toString();
        if (name !== '.' && name !== '..') listed.push({ name, fileid: entry.fileid, attributes: entry.attributes });
      }
      verifier = Uint8Array.from(page.cookieVerifier);
      if (page.eof) return listed;
      if (page.entries.length === 0) throw new Error('READDIRPLUS: a page that is empty and not the last');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#nfs.close();
  }
}

const UNCHANGED: SetAttributes = { mode: null, uid: null, gid: null, sizeBytes: null, atime: null, mtime: null };

/** Handles are views of the reply: copied, so that a handle that is kept does not keep a receive buffer. */
function found(result: { readonly handle: FileHandle | null; readonly attributes: Attributes | null }): Found {
  return { status: Status.OK, handle: Uint8Array.from(result.handle ?? []), attributes: result.attributes };
}

/** Makes `directory` in the root with `count` files of `sizeBytes` (zeros), 64 calls under way; returns their names. */
export async function createEmptyFiles(
  address: StoreAddress,
  directory: string,
  count: number,
  options: { readonly suffix?: string; readonly sizeBytes?: number } = {},
): Promise<string[]> {
  await using client = await connectStore(address);
  const made = await client.mkdir(client.root, directory);
  if (made.status !== Status.OK) throw new Error(`MKDIR ${directory}: status ${made.status}`);
  const names = Array.from({ length: count }, (_, index) => `entry-${String(index).padStart(6, '0')}${options.suffix ?? '.vmx'}`);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let name = names[next]; name !== undefined; name = names[next]) {
      next += 1;
      const created = await client.create(made.handle, name, 'guarded', { mode: 0o600 });
      if (created.status !== Status.OK) throw new Error(`CREATE ${name}: status ${created.status}`);
      if (options.sizeBytes === undefined) continue;
      const { status } = await client.setattr(created.handle, { sizeBytes: options.sizeBytes });
      if (status !== Status.OK) throw new Error(`SETATTR ${name}: status ${status}`);
    }
  };
  await Promise.all(Array.from({ length: 64 }, worker));
  return names;
}
