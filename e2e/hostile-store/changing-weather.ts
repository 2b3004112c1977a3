import { SeededRandom } from '../random.ts';
import type { HostileFaults, HostileStore } from './hostile-store.ts';
import { HOSTILE_WEATHER } from './weather.ts';

const MIB = 1024 * 1024;

/** What a store goes through in a bad day. `down`: nobody listens. */
const DAYS: readonly { readonly name: string; readonly share: number; readonly faults: HostileFaults | 'down' }[] = [
  { name: 'hostile', share: 6, faults: HOSTILE_WEATHER },
  { name: 'well', share: 2, faults: {} },
  { name: 'slow', share: 1, faults: { store: HOSTILE_WEATHER.store ?? {}, http: { bytesPerSecond: 2 * MIB } } },
  { name: 'unavailable', share: 1, faults: { http: { unavailable: 1, retryAfterSeconds: 2 } } },
  { name: 'no valid token', share: 1, faults: { http: { revokeTokens: 0.5 } } },
  { name: 'stalling', share: 1, faults: { http: { stall: 0.1 } } },
  { name: 'down', share: 1, faults: 'down' },
];

/** Changes the weather of a hostile store every few seconds until it is disposed of, which leaves it listening and well. */
export class ChangingWeather implements AsyncDisposable {
  readonly #store: HostileStore;
  readonly #random: SeededRandom;
  readonly #told: (line: string) => void;
  readonly #over = Promise.withResolvers<void>();
  readonly #running: Promise<void>;
  #ended = false;

  constructor(store: HostileStore, seed: number, told: (line: string) => void) {
    this.#store = store;
    this.#random = new SeededRandom(seed);
    this.#told = told;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const days = DAYS.flatMap((day) => Array.from({ length: day.share }, () => day));
    while (!this.#ended) {
      const day = this.#random.pick(days);
      const lengthMs = this.#random.between(1000, 8000);
      this.#told(`weather: ${day.name} for ${lengthMs} ms`);
      if (day.faults === 'down') await this.#store.server.stopListening();
      else this.#store.setFaults(day.faults);
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, lengthMs);
      await Promise.race([promise, this.#over.promise]);
      clearTimeout(timer);
      await this.#store.server.listen();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    this.#over.resolve();
    await this.#running;
    this.#store.setFaults({});
  }
}
