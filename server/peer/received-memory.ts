/**
 * Gives back the memory that HTTP/2 received into as soon as its bytes were looked at. Node allocates 64 KiB for each read of a connection and leaves them to
 * the garbage collector: page faults and collections that cost more than all else (13 us of 64 KiB, decision 0030). A transfer of nothing frees them at once.
 */
import { isMarkedAsUntransferable } from 'node:worker_threads';

export class ReceivedMemory {
  #last: ArrayBuffer | null = null;
  #isKept = false;

  /**
   * A chunk of the connection came, on whichever of its streams. The chunks of one read follow one another, so those of earlier reads are not looked at any
   * more, and their memory is freed unless it is kept.
   */
  received(chunk: Buffer): void {
    const memory = chunk.buffer as ArrayBuffer;
    if (memory === this.#last) return;
    const last = this.#last;
    // Node's pool of small Buffers is not ours to free.
    if (last !== null && !this.#isKept && !isMarkedAsUntransferable(last)) last.transfer(0);
    this.#last = memory;
    this.#isKept = false;
  }

  /** Slices of the present chunk live on. */
  keep(): void {
    this.#isKept = true;
  }
}
