/**
 * What the main thread and the thread of the lease share: plain numbers in one buffer, each written by one side only. Doubles are aligned, and a plain load or store of
 * one is one instruction on the machines that we run on (x64, arm64). Times are of `monotonicNow`, which all threads of a process share.
 */
export class LeaseMemory {
  readonly buffer: SharedArrayBuffer;
  readonly #doubles: Float64Array;
  readonly #integers: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(64)) {
    this.buffer = buffer;
    this.#doubles = new Float64Array(buffer, 0, 4);
    this.#integers = new Int32Array(buffer, 32, 8);
  }

  /** Main: turns of its loop, so to speak; while it does not move nothing is renewed. */
  get heartbeat(): number {
    return Atomics.load(this.#integers, 0);
  }

  beat(): void {
    Atomics.add(this.#integers, 0, 1);
  }

  /** Lease thread: point of the shared monotonic clock at which the lease lapses; 0 before it was granted. */
  get deadlineMs(): number {
    return this.#doubles[0] ?? 0;
  }

  set deadlineMs(value: number) {
    this.#doubles[0] = value;
  }

  /** Lease thread: send time of its last confirmed renewal; 0: none. */
  get confirmedAtMs(): number {
    return this.#doubles[1] ?? 0;
  }

  set confirmedAtMs(value: number) {
    this.#doubles[1] = value;
  }

  /** Main: the generation that renewals carry. */
  get generation(): number {
    return this.#doubles[2] ?? 0;
  }

  set generation(value: number) {
    this.#doubles[2] = value;
  }

  /** Lease thread: CRC-32 of the identity of the primary that it renewed on. */
  get identityCrc(): number {
    return Atomics.load(this.#integers, 1);
  }

  set identityCrc(value: number) {
    Atomics.store(this.#integers, 1, value);
  }

  /** Either: the lease is over for good. */
  get isOver(): boolean {
    return Atomics.load(this.#integers, 2) !== 0;
  }

  end(): void {
    Atomics.store(this.#integers, 2, 1);
  }
}
