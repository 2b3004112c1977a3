/** Calls under way on one stream, by the number that names each in its frames: place in a table, and how often that was used. */
import type { PeerCall } from './peer-call.ts';

const PLACE_BITS = 16;
const PLACES_MAX = 2 ** PLACE_BITS;

export class CallTable {
  readonly #calls: (PeerCall | null)[] = [];
  readonly #free: number[] = [];
  #uses = 0;

  /** Gives the call its `id`, which no other one has that is under way, nor one of the last 65,536. */
  add(call: PeerCall): void {
    const place = this.#free.pop() ?? this.#calls.length;
    this.#uses = (this.#uses + 1) % PLACES_MAX;
    call.id = this.#uses * PLACES_MAX + place;
    this.#calls[place] = call;
  }

  /** The call of that number; null when none is under way. */
  get(id: number): PeerCall | null {
    const call = this.#calls[id % PLACES_MAX];
    return call === undefined || call === null || call.id !== id ? null : call;
  }

  /** Ends a call that is under way. */
  remove(call: PeerCall): void {
    const place = call.id % PLACES_MAX;
    this.#calls[place] = null;
    this.#free.push(place);
  }

  list(): PeerCall[] {
    return this.#calls.filter((call) => call !== null);
  }

  clear(): void {
    this.#calls.length = 0;
    this.#free.length = 0;
  }
}
