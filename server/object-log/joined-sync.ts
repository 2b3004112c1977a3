/** One sync for many: whoever wants one joins the next that starts, since the one under way may have begun before what is to be durable. */
export class JoinedSync {
  readonly #sync: () => Promise<void>;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  /** Resolves, or rejects, with a sync that starts now or later. */
  join(): Promise<void> {
    if (this.#next !== null) return this.#next;
    const start = (): Promise<void> => {
      this.#next = null;
      const sync = this.#sync().finally(() => {
        if (this.#running === sync) this.#running = null;
      });
      this.#running = sync;
      return sync;
    };
    if (this.#running === null) return start();
    const next = this.#running.then(start, start);
    this.#next = next;
    return next;
  }

  /** Resolves when none is under way. */
  async ended(): Promise<void> {
    await this.#next;
    await this.#running;
  }
}
