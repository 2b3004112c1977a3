/** What reading ahead may hold and ask for at a time, all objects of a vPool together. */

/** An object that reads ahead, as the budget sees it. */
export interface BudgetMember {
  /** Streams that it reads ahead for. */
  readonly streamCount: number;
  /** Room for requests is there again. */
  startQueued(): void;
  /** Gives back what is kept for streams that rest since `sinceMs`. */
  releaseIdle(sinceMs: number): void;
}

export interface ReadAheadSettings {
  /** Bytes that were read ahead, or are on their way, and not read yet. 0: no reading ahead. */
  readonly bytesMax: number;
  /** Requests under way: fewer than the backend takes, so that a read of something else finds room. */
  readonly requestsMax: number;
}

/** A stream that rests for so long gives way to one that needs the room. */
const RESTING_MS = 1000;

export class ReadAheadBudget {
  readonly bytesMax: number;
  readonly #requestsMax: number;
  readonly #members = new Set<BudgetMember>();
  readonly #waiting = new Set<BudgetMember>();
  #bytes = 0;
  #requests = 0;

  constructor(settings: ReadAheadSettings) {
    this.bytesMax = settings.bytesMax;
    this.#requestsMax = settings.requestsMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Most bytes ahead for one stream: all of them share. */
  get shareBytes(): number {
    let streams = 0;
    for (const member of this.#members) streams += member.streamCount;
    return this.bytesMax / Math.max(1, streams);
  }

  enter(member: BudgetMember): void {
    this.#members.add(member);
  }

  leave(member: BudgetMember): void {
    this.#members.delete(member);
    this.#waiting.delete(member);
  }

  /** Room for `bytes` more, taken from streams that rest if need be. */
  takeBytes(bytes: number, nowMs: number): boolean {
    if (this.#bytes + bytes > this.bytesMax) for (const member of this.#members) member.releaseIdle(nowMs - RESTING_MS);
    if (this.#bytes + bytes > this.bytesMax) return false;
    this.#bytes += bytes;
    return true;
  }

  giveBytes(bytes: number): void {
    this.#bytes -= bytes;
  }

  /** Room for one request; else `member.startQueued` is called when there is. `forced`: a reader waits for it. */
  takeRequest(member: BudgetMember, forced: boolean): boolean {
    if (this.#requests >= this.#requestsMax && !forced) {
      this.#waiting.add(member);
      return false;
    }
    this.#requests += 1;
    return true;
  }

  giveRequest(): void {
    this.#requests -= 1;
    // Objects take turns: whoever is called and still waits is at the end then.
    const [member] = this.#waiting;
    if (member === undefined || this.#requests >= this.#requestsMax) return;
    this.#waiting.delete(member);
    member.startQueued();
  }
}
