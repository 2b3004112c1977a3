/**
 * One object under load: writes of all sizes and alignments at all stabilities, COMMITs, truncates, reads that are checked, with many requests under way,
 * and its verification after a crash. A slot with a short life removes its object now and then and makes a new one, so that logs, segments and
 * buckets are born and die too.
 */
import { Stability, Status } from '../../server/nfsd/file-system.ts';
import type { SeededRandom } from '../random.ts';
import type { FileHandle, StoreClient } from '../store-client.ts';
import { type Change, ObjectModel } from './object-model.ts';

export type SlotClass = 'volume' | 'file' | 'inline';

export interface SlotOptions {
  readonly id: number;
  readonly slotClass: SlotClass;
  /** Operations until the object is removed and a new one is made; null: it stays. */
  readonly lifeOperations: number | null;
  /** Largest object size. */
  readonly capacityBytes: number;
}

/** How a cycle writes. */
export interface WriteMix {
  /** Share of writes at FILE_SYNC or DATA_SYNC; the others are UNSTABLE. */
  readonly stableShare: number;
  /** Workers of each slot, each with one request under way. */
  readonly outstanding: number;
}

/** What the harness is doing to the router at the moment, told to those who judge its answers. */
export interface Weather {
  /** Its disk or itself is being taken away: an error is no answer, as if the connection had been lost. */
  dying: boolean;
}

interface LiveObject {
  readonly name: string;
  readonly model: ObjectModel;
  handle: FileHandle;
  fileid: number;
  /** Hex; '' when never told. */
  verifier: string;
  /** `creating`: the CREATE (and for a volume the SETATTR of its size) is not answered yet. */
  state: 'creating' | 'live' | 'removing';
  operations: number;
}

const SUFFIX = { volume: '-flat.vmdk', file: '.log', inline: '.lck' } as const;
/** Small ones often; 1 MiB is the largest transfer. */
const VOLUME_SIZES = [512, 4096, 4096, 4096, 4096, 8192, 12_288, 65_536, 65_536, 262_144, 1_048_576];

export class DataSlot {
  readonly options: SlotOptions;
  readonly #random: SeededRandom;
  readonly #violation: (text: string) => void;
  readonly #weather: Weather;
  readonly #reads = new Set<{ readonly offsetBytes: number; readonly countBytes: number }>();
  #object: LiveObject | null = null;
  #generation = 0;
  operations = 0;
  /** How often an end took UNSTABLE data along, as it may: proof that ends can hurt. */
  losses = 0;

  constructor(options: SlotOptions, random: SeededRandom, violation: (text: string) => void, weather: Weather) {
    this.options = options;
    this.#random = random;
    this.#violation = violation;
    this.#weather = weather;
  }

  /** Runs load until `stopped` or until the connection is lost (which is no error). */
  async load(client: StoreClient, mix: WriteMix, stopped: () => boolean): Promise<void> {
    const workers: Promise<void>[] = [];
    for (let index = 0; index < mix.outstanding; index += 1) workers.push(this.#work(client, mix, stopped));
    await Promise.all(workers);
  }

  async #work(client: StoreClient, mix: WriteMix, stopped: () => boolean): Promise<void> {
    while (!stopped()) {
      let sent: Promise<void> | null;
      try {
        sent = this.#next(client, mix);
        if (sent !== null) await sent;
      } catch (error) {
        if (error instanceof HarnessError) throw error;
        return; // no answer: the router is dead
      }
      if (sent === null) await new Promise((resolve) => setImmediate(resolve));
      else this.operations += 1;
    }
  }

  /** Sends one operation, or returns null when what was drawn cannot run beside those under way. */
  #next(client: StoreClient, mix: WriteMix): Promise<void> | null {
    const object = this.#object;
    if (object === null) return this.#create(client);
    if (object.state !== 'live') return null;
    const life = this.options.lifeOperations;
    if (life !== null && object.operations > life) return object.model.idle && this.#reads.size === 0 ? this.#remove(client, object) : null;
    object.operations += 1;
    const roll = this.#random.below(100);
    if (roll < 8) return this.#commit(client, object);
    if (roll < 20) return this.#read(client, object);
    if (roll < 23) return this.#truncate(client, object);
    return this.#write(client, object, mix);
  }

  async #create(client: StoreClient): Promise<void> {
    this.#generation += 1;
    const { id, slotClass, capacityBytes } = this.options;
    const sizeBytes = slotClass === 'volume' ? capacityBytes : 0;
    const object: LiveObject = {
      name: `slot-${id}-${this.#generation}${SUFFIX[slotClass]}`,
      model: new ObjectModel(id, capacityBytes, sizeBytes),
      handle: new Uint8Array(0),
      fileid: 0,
      verifier: '',
      state: 'creating',
      operations: 0,
    };
    this.#object = object;
    const created = await client.create(client.root, object.name, 'guarded', { mode: 0o600 });
    this.#expectOk('CREATE', object, created.status);
    object.handle = created.handle;
    object.fileid = created.attributes?.fileid ?? 0;
    if (sizeBytes > 0) this.#expectOk('SETATTR', object, (await client.setattr(object.handle, { sizeBytes })).status);
    object.state = 'live';
  }

  async #remove(client: StoreClient, object: LiveObject): Promise<void> {
    object.state = 'removing';
    this.#expectOk('REMOVE', object, (await client.remove(client.root, object.name)).status);
    this.#object = null;
  }

  #write(client: StoreClient, object: LiveObject, mix: WriteMix): Promise<void> | null {
    const range = this.#drawRange(object);
    if (range === null || !this.#isFree(object, range.offsetBytes, range.countBytes)) return null;
    const stable = this.#random.chance(mix.stableShare);
    const stability = stable ? this.#random.pick([Stability.FILE_SYNC, Stability.FILE_SYNC, Stability.DATA_SYNC]) : Stability.UNSTABLE;
    const change = object.model.begin(this.#random.chance(0.06) ? 'zeros' : 'write', range.offsetBytes, range.countBytes, stable);
    return this.#sendWrite(client, object, change, stability);
  }

  async #sendWrite(client: StoreClient, object: LiveObject, change: Change, stability: Stability): Promise<void> {
    const answer = await client.write(object.handle, change.offsetBytes, object.model.payload(change), stability);
    this.#expectOk('WRITE', object, answer.status);
    if (answer.countBytes !== change.countBytes) this.#violation(`${object.name}: WRITE of ${change.countBytes} took ${answer.countBytes}`);
    if (answer.committed < stability) this.#violation(`${object.name}: WRITE asked for ${stability}, was answered ${answer.committed}`);
    this.#sawVerifier(object, answer.verifier);
    object.model.answered(change, answer.committed !== Stability.UNSTABLE, answer.verifier);
  }

  async #commit(client: StoreClient, object: LiveObject): Promise<void> {
    const scope = object.model.commitScope();
    const answer = await client.commit(object.handle);
    this.#expectOk('COMMIT', object, answer.status);
    this.#sawVerifier(object, answer.verifier);
    object.model.committed(scope, answer.verifier);
  }

  #truncate(client: StoreClient, object: LiveObject): Promise<void> | null {
    if (!object.model.idle || this.#reads.size > 0) return null;
    const { slotClass, capacityBytes } = this.options;
    // A volume keeps most of its size, or there would be nothing left to damage.
    const sizeBytes = slotClass === 'volume' ? capacityBytes - this.#random.below(capacityBytes / 4) : this.#random.below(capacityBytes);
    const change = object.model.begin('truncate', sizeBytes, 0);
    return (async () => {
      const answer = await client.setattr(object.handle, { sizeBytes });
      this.#expectOk('SETATTR', object, answer.status);
      object.model.answered(change, true, '');
    })();
  }

  #read(client: StoreClient, object: LiveObject): Promise<void> | null {
    const range = this.#drawRange(object);
    if (range === null || !object.model.isFree(range.offsetBytes, range.countBytes)) return null;
    const model = object.model;
    this.#reads.add(range);
    return (async () => {
      try {
        const answer = await client.read(object.handle, range.offsetBytes, range.countBytes);
        this.#expectOk('READ', object, answer.status);
        const wanted = model.current(range.offsetBytes, range.countBytes);
        // The size can grow meanwhile by a write behind this range, so a read near the end may be short; what it has must be right.
        const got = answer.data;
        if (got.length > wanted.length || !got.equals(wanted.subarray(0, got.length))) {
          this.#violation(
            `${object.name}: READ of ${range.countBytes} at ${range.offsetBytes} gave ${got.length} bytes that are not what was written`,
          );
        }
      } finally {
        this.#reads.delete(range);
      }
    })();
  }

  /** A range within the capacity: where and how long depends on the class. */
  #drawRange(object: LiveObject): { readonly offsetBytes: number; readonly countBytes: number } | null {
    const { slotClass, capacityBytes } = this.options;
    const random = this.#random;
    if (slotClass === 'inline') return { offsetBytes: 0, countBytes: random.pick([84, 139, 512, capacityBytes]) };
    if (slotClass === 'file') {
      // Appends mostly, as a log grows: over the inline limit and on.
      const sizeBytes = object.model.idle ? object.model.currentSizeBytes() : random.below(capacityBytes);
      const offsetBytes = random.chance(0.7) ? sizeBytes : random.below(Math.max(1, sizeBytes));
      const countBytes = Math.min(random.pick([20, 100, 700, 4096, 20_000]), capacityBytes - offsetBytes);
      return countBytes > 0 ? { offsetBytes, countBytes } : null;
    }
    const countBytes = Math.min(random.pick(VOLUME_SIZES), capacityBytes / 2);
    const alignment = random.pick([4096, 4096, 4096, 512, 512, 1]);
    const offsetBytes = Math.floor(random.below(capacityBytes - countBytes) / alignment) * alignment;
    return { offsetBytes, countBytes: alignment === 1 ? random.between(1, countBytes) : countBytes };
  }

  #isFree(object: LiveObject, offsetBytes: number, countBytes: number): boolean {
    for (const read of this.#reads) if (read.offsetBytes < offsetBytes + countBytes && offsetBytes < read.offsetBytes + read.countBytes) return false;
    return object.model.isFree(offsetBytes, countBytes);
  }

  #sawVerifier(object: LiveObject, verifier: string): void {
    if (object.verifier !== '' && object.verifier !== verifier) {
      this.#violation(`${object.name}: the write verifier changed from ${object.verifier} to ${verifier} while the router lived`);
    }
    object.verifier = verifier;
  }

  #expectOk(operation: string, object: LiveObject, status: number): void {
    if (status === Status.OK) return;
    if (this.#weather.dying) throw new Error(`${operation}: status ${status} of a dying router`);
    this.#violation(`${object.name}: ${operation} was answered with status ${status}`);
    throw new HarnessError(`${operation} on ${object.name}: status ${status}`);
  }

  /** After a restart: compares what is there with what must be, and goes on from what is there. Rejects when the connection is lost again. */
  async verify(client: StoreClient): Promise<void> {
    const object = this.#object;
    if (object === null) return;
    const found = await client.lookup(client.root, object.name);
    if (found.status === Status.NOENT) {
      if (object.state === 'live') this.#violation(`${object.name} is gone`);
      this.#object = null;
      return;
    }
    this.#expectOk('LOOKUP', object, found.status);
    if (object.state !== 'live') {
      // Its CREATE, SETATTR or REMOVE was under way: it may be there, and goes now.
      this.#expectOk('REMOVE', object, (await client.remove(client.root, object.name)).status);
      this.#object = null;
      return;
    }
    await this.#verifyContent(client, object);
  }

  async #verifyContent(client: StoreClient, object: LiveObject): Promise<void> {
    const { status, attributes } = await client.getattr(object.handle);
    this.#expectOk('GETATTR with the handle from before the crash', object, status);
    if (attributes?.fileid !== object.fileid) this.#violation(`${object.name}: fileid ${attributes?.fileid}, was ${object.fileid}`);
    const committed = await client.commit(object.handle);
    this.#expectOk('COMMIT', object, committed.status);
    const actual = await readAll(client, object.handle, attributes?.sizeBytes ?? 0);
    if (actual === null) {
      this.#violation(`${object.name}: cannot be read to the size that GETATTR says (${attributes?.sizeBytes})`);
      throw new HarnessError(`${object.name}: unreadable`);
    }
    const uncommitted = object.model.hasUncommitted;
    const { violations, lostUnstable } = object.model.verifyAndAdopt(actual);
    for (const violation of violations) this.#violation(`${object.name}: ${violation}`);
    if (lostUnstable) this.losses += 1;
    const changed = committed.verifier !== object.verifier;
    if (object.verifier !== '') {
      if (lostUnstable && !changed) this.#violation(`${object.name}: UNSTABLE data is gone and the verifier did not change`);
      if (changed && !uncommitted) this.#violation(`${object.name}: the verifier changed though everything was stable or committed`);
    }
    object.verifier = committed.verifier;
  }
}

/** A wrong answer, as opposed to none: ends the load at once. */
export class HarnessError extends Error {}

const READ_BYTES = 262_144;

/** The whole object with 8 reads under way, or null when a read fails or is short. */
async function readAll(client: StoreClient, object: FileHandle, sizeBytes: number): Promise<Buffer | null> {
  const content = Buffer.alloc(sizeBytes);
  let next = 0;
  let good = true;
  const reader = async (): Promise<void> => {
    while (next < sizeBytes && good) {
      const offsetBytes = next;
      const countBytes = Math.min(READ_BYTES, sizeBytes - offsetBytes);
      next += countBytes;
      const answer = await client.read(object, offsetBytes, countBytes);
      good &&= answer.status === Status.OK && answer.data.length === countBytes;
      answer.data.copy(content, offsetBytes);
    }
  };
  await Promise.all(Array.from({ length: 8 }, reader));
  return good ? content : null;
}
