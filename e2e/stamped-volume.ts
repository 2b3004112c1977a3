/** A volume with a memory of what was acknowledged: writes are stamped, and everything can be read back and judged at any time. */
import { type Stability, Status } from '../server/nfsd/file-system.ts';
import { type Change, ObjectModel } from './crash/object-model.ts';
import type { FileHandle, StoreClient } from './store-client.ts';

const READ_BYTES = 262_144;

export class StampedVolume {
  readonly name: string;
  readonly handle: FileHandle;
  readonly model: ObjectModel;
  readonly sizeBytes: number;
  /** Hex, of the last answer that had one. */
  verifier = '';

  private constructor(name: string, handle: FileHandle, model: ObjectModel, sizeBytes: number) {
    this.name = name;
    this.handle = handle;
    this.model = model;
    this.sizeBytes = sizeBytes;
  }

  /** Creates a volume of zeros; `id` is in its stamps. */
  static async create(client: StoreClient, id: number, sizeBytes: number): Promise<StampedVolume> {
    const name = `volume-${id}-flat.vmdk`;
    const created = await client.create(client.root, name, 'guarded', { mode: 0o600 });
    if (created.status !== Status.OK) throw new Error(`CREATE ${name}: status ${created.status}`);
    const { status } = await client.setattr(created.handle, { sizeBytes });
    if (status !== Status.OK) throw new Error(`SETATTR ${name}: status ${status}`);
    return new StampedVolume(name, created.handle, new ObjectModel(id, sizeBytes, sizeBytes), sizeBytes);
  }

  /** One write; returns its status. Rejects when no answer came (the write stays one that may have happened). */
  async write(client: StoreClient, offsetBytes: number, countBytes: number, stability: Stability): Promise<number> {
    const change: Change = this.model.begin('write', offsetBytes, countBytes, stability !== 0);
    const answer = await client.write(this.handle, offsetBytes, this.model.payload(change), stability);
    if (answer.status !== Status.OK) return answer.status;
    if (answer.countBytes !== countBytes) throw new Error(`WRITE of ${countBytes} took ${answer.countBytes}`);
    this.verifier = answer.verifier;
    this.model.answered(change, answer.committed !== 0, answer.verifier);
    return Status.OK;
  }

  /** COMMIT of everything; returns its status. */
  async commit(client: StoreClient): Promise<number> {
    const scope = this.model.commitScope();
    const answer = await client.commit(this.handle);
    if (answer.status !== Status.OK) return answer.status;
    this.verifier = answer.verifier;
    this.model.committed(scope, answer.verifier);
    return Status.OK;
  }

  /** Reads all of it. `statuses` are those of READs that were not OK; their ranges are zeros in `content`. */
  async read(client: StoreClient): Promise<{ readonly content: Buffer; readonly statuses: readonly number[] }> {
    const content = Buffer.alloc(this.sizeBytes);
    const statuses: number[] = [];
    let next = 0;
    const reader = async (): Promise<void> => {
      while (next < this.sizeBytes) {
        const offsetBytes = next;
        const countBytes = Math.min(READ_BYTES, this.sizeBytes - offsetBytes);
        next += countBytes;
        const answer = await client.read(this.handle, offsetBytes, countBytes);
        if (answer.status === Status.OK) answer.data.copy(content, offsetBytes);
        else statuses.push(answer.status);
      }
    };
    await Promise.all(Array.from({ length: 8 }, reader));
    return { content, statuses };
  }

  /** Reads and judges all of it: what must not be, in words. A READ that fails is a violation. */
  async verify(client: StoreClient): Promise<string[]> {
    const { content, statuses } = await this.read(client);
    if (statuses.length > 0) return statuses.map((status) => `${this.name}: READ was answered with status ${status}`);
    return [...this.model.judge(content).violations];
  }
}
