/**
 * What an object may contain, by cells of 64 bytes: the dumb model that the engine is compared with. It knows only what a client knows: when it
 * sent a write, whether and when it was answered, with which verifier, and when a crash came.
 */
import assert from 'node:assert/strict';

export const CELL_BYTES = 64;

export interface ModelWrite {
  readonly value: number;
  readonly firstCell: number;
  readonly lastCell: number;
  /** Sent as UNSTABLE. */
  readonly unstable: boolean;
  readonly issued: number;
  /** When its outcome was known; Infinity while it is under way. */
  done: number;
  /** It was answered OK: readers must see it. */
  visible: boolean;
  durable: boolean;
  /** What the answer said, hex; '' for none. */
  verifier: string;
}

const NOTHING: ModelWrite = {
  value: 0,
  firstCell: 0,
  lastCell: 0,
  unstable: false,
  issued: -1,
  done: -1,
  visible: true,
  durable: true,
  verifier: '',
};

export class BlockModel {
  readonly #cells = new Map<number, ModelWrite[]>();
  #writes: ModelWrite[] = [];
  #now = 0;
  /** The size is between these. */
  sizeMin = 0;
  sizeMax = 0;
  /** What is surely there after a crash. */
  #durableSize = 0;
  #unknownResizeAt = -1;
  /** UNSTABLE writes that a resize made durable: no COMMIT said so. */
  #uncommitted = false;

  /** A write is sent. */
  begin(offsetBytes: number, countBytes: number, value: number, unstable: boolean): ModelWrite {
    const write: ModelWrite = {
      value,
      firstCell: offsetBytes / CELL_BYTES,
      lastCell: (offsetBytes + countBytes) / CELL_BYTES - 1,
      unstable,
      issued: this.#tick(),
      done: Infinity,
      visible: false,
      durable: false,
      verifier: '',
    };
    assert.ok(Number.isInteger(write.firstCell) && Number.isInteger(write.lastCell), 'whole cells');
    this.#writes.push(write);
    this.sizeMax = Math.max(this.sizeMax, offsetBytes + countBytes);
    for (let cell = write.firstCell; cell <= write.lastCell; cell += 1) this.#entries(cell).push(write);
    return write;
  }

  /** It was answered OK. */
  answered(write: ModelWrite, stable: boolean, verifier: string): void {
    write.done = this.#tick();
    write.visible = true;
    write.verifier = verifier;
    const end = (write.lastCell + 1) * CELL_BYTES;
    this.sizeMin = Math.max(this.sizeMin, end);
    if (stable) this.#makeDurable(write);
  }

  /** It was refused: nobody knows whether it took effect. */
  refused(write: ModelWrite): void {
    write.done = this.#tick();
  }

  /** It was surely not executed: to be sent again, as another write. */
  withdrawn(write: ModelWrite): void {
    for (let cell = write.firstCell; cell <= write.lastCell; cell += 1) {
      const entries = this.#entries(cell);
      entries.splice(entries.indexOf(write), 1);
    }
    this.#writes.splice(this.#writes.indexOf(write), 1);
    // Nothing that was sent reaches as far any more. What a resize of unknown outcome may have left stays possible.
    if (this.#unknownResizeAt < 0) this.sizeMax = this.#writes.reduce((max, other) => Math.max(max, (other.lastCell + 1) * CELL_BYTES), this.sizeMin);
  }

  /** Nobody was told, but a router that died had done it: a recovery says so. To be called after `crashed`. */
  happened(write: ModelWrite): void {
    write.visible = true;
    this.sizeMin = Math.max(this.sizeMin, (write.lastCell + 1) * CELL_BYTES);
    this.#makeDurable(write);
  }

  /** Moment to be given to `committed`: what was answered before it is committed. */
  now(): number {
    return this.#tick();
  }

  /** A COMMIT that was sent at `issued` was answered with `verifier`: what that client still holds as un-synced under it is durable. */
  committed(issued: number, verifier: string): void {
    this.#uncommitted = false;
    for (const write of this.#writes) if (write.visible && write.done < issued && write.verifier === verifier) this.#makeDurable(write);
  }

  #makeDurable(write: ModelWrite): void {
    write.durable = true;
    // A shrink of which nobody knows whether it took effect: what was written before it may be cut off.
    if (write.issued > this.#unknownResizeAt) this.#durableSize = Math.max(this.#durableSize, (write.lastCell + 1) * CELL_BYTES);
  }

  /** Whether any UNSTABLE write is not committed: only then may a crash change the verifier. */
  get undecided(): boolean {
    return this.#uncommitted || this.#writes.some((write) => write.unstable && !write.durable);
  }

  /** SETATTR of a size was answered OK; nothing else was under way. */
  resized(sizeBytes: number): void {
    const now = this.#tick();
    // The record is durable, and so is everything that was logged before it.
    this.#uncommitted ||= this.undecided;
    for (const write of this.#writes) if (write.visible) write.durable = true;
    this.#writes = [];
    for (const cell of this.#cells.keys()) {
      if (cell * CELL_BYTES >= sizeBytes) this.#cells.set(cell, [{ ...NOTHING, issued: now, done: now }]);
    }
    this.sizeMin = this.sizeMax = this.#durableSize = sizeBytes;
  }

  /** SETATTR of a size was refused or cut off by a crash. */
  resizeUnknown(sizeBytes: number): void {
    const now = this.#tick();
    for (const cell of this.#cells.keys()) {
      if (cell * CELL_BYTES >= sizeBytes) this.#entries(cell).push({ ...NOTHING, issued: now, done: Infinity, visible: false, durable: false });
    }
    this.#unknownResizeAt = now;
    this.sizeMax = Math.max(this.sizeMax, sizeBytes);
    this.sizeMin = Math.min(this.sizeMin, sizeBytes);
    this.#durableSize = Math.min(this.#durableSize, sizeBytes);
  }

  /** The router died; the object has this verifier now. What was answered under the same one must still be there. */
  crashed(verifier: string): void {
    const now = this.#tick();
    for (const write of this.#writes) {
      if (write.visible && write.verifier === verifier) this.#makeDurable(write);
      if (write.done === Infinity) write.done = now;
      write.visible = write.durable;
    }
    this.sizeMin = this.#durableSize;
  }

  /** Bytes read at `issued`: every cell must be one value, and one that it may have. */
  check(offsetBytes: number, bytes: Uint8Array, issued: number, what: string): void {
    for (let at = 0; at < bytes.length; at += CELL_BYTES) {
      const cell = (offsetBytes + at) / CELL_BYTES;
      const value = bytes[at] as number;
      for (let index = 1; index < CELL_BYTES; index += 1)
        if (bytes[at + index] !== value) assert.fail(`${what}: cell ${cell} is torn: ${value} and ${bytes[at + index]}`);
      const possible = this.#possible(cell, issued);
      if (!possible.has(value))
        assert.fail(`${what}: cell ${cell} (block ${Math.floor(cell / 64)}) is ${value}, allowed is ${[...possible].join(', ')}`);
    }
  }

  /** After a recovery, with nothing under way: what was read is what is there, and durable. */
  adopt(offsetBytes: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += CELL_BYTES) {
      const cell = (offsetBytes + at) / CELL_BYTES;
      if (!this.#cells.has(cell)) continue;
      const now = this.#tick();
      this.#cells.set(cell, [{ ...NOTHING, value: bytes[at] as number, issued: now, done: now }]);
    }
  }

  /** All cells were adopted and this is the size. */
  adopted(sizeBytes: number): void {
    assert.ok(sizeBytes >= this.sizeMin && sizeBytes <= this.sizeMax, `size ${sizeBytes} is not in ${this.sizeMin} to ${this.sizeMax}`);
    const now = this.#tick();
    for (const cell of this.#cells.keys()) if (cell * CELL_BYTES >= sizeBytes) this.#cells.set(cell, [{ ...NOTHING, issued: now, done: now }]);
    this.#writes = [];
    this.#uncommitted = false;
    this.sizeMin = this.sizeMax = this.#durableSize = sizeBytes;
  }

  #possible(cell: number, issued: number): Set<number> {
    const entries = this.#cells.get(cell) ?? [];
    const all = [NOTHING, ...entries];
    const possible = new Set<number>();
    for (const entry of all) {
      const superseded = all.some((later) => later.visible && later.done < issued && later.issued > entry.done);
      if (!superseded) possible.add(entry.value);
    }
    return possible;
  }

  #entries(cell: number): ModelWrite[] {
    let entries = this.#cells.get(cell);
    if (entries === undefined) {
      entries = [];
      this.#cells.set(cell, entries);
    }
    return entries;
  }

  #tick(): number {
    this.#now += 1;
    return this.#now;
  }
}
