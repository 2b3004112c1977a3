/**
 * READs and WRITEs that were sent to the owner of their object and are not answered yet: one object each, which hears of the answer, in place of a chain of
 * promises. What is not answered with a result goes the slow way: looked for, sent again, waited for.
 */
import { isEnvironmentError } from '../core/errors.ts';
import type { Caller, Later, ReadAnswer, Stability, WriteAnswer } from '../nfsd/file-system.ts';
import type { DataCalls } from './data-calls.ts';
import type { Remote } from './object-places.ts';
import type { CallEnd, Forwarded } from './peer-port.ts';
import type { CallWords } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';

abstract class ForwardedIo<T> implements CallEnd<Forwarded<T>> {
  protected readonly data: DataCalls;
  protected readonly core: RouterCore;
  protected readonly remote: Remote;
  readonly #kind: 'read' | 'write';
  readonly #later: Later<T>;

  constructor(data: DataCalls, core: RouterCore, remote: Remote, kind: 'read' | 'write', later: Later<T>) {
    this.data = data;
    this.core = core;
    this.remote = remote;
    this.#kind = kind;
    this.#later = later;
  }

  answered(answer: Forwarded<T>): void {
    const { places } = this.core;
    if (answer.kind === 'not-owner') {
      places.notOwner(this.remote, answer.hint);
      this.#goSlowly();
      return;
    }
    places.cluster?.forwarded(this.remote.target, this.#kind, this.remote.hint);
    this.#later.settle(answer.result);
  }

  failed(error: Error): void {
    if (!isEnvironmentError(error)) {
      this.#later.broken(error);
      return;
    }
    // It may have been executed: it is asked for again as the same call, wherever the object is.
    this.core.places.notOwner(this.remote, null);
    this.#goSlowly();
  }

  protected abstract slowly(): Promise<T>;

  #goSlowly(): void {
    const later = this.#later;
    // Not within the network's own turn: it may be closing what the next attempt goes through.
    Promise.resolve()
      .then(() => this.slowly())
      .then(
        (answer) => later.settle(answer),
        (error: unknown) => later.broken(error),
      );
  }
}

/** A READ under way: the answer goes to `later`. */
export class ForwardedRead extends ForwardedIo<ReadAnswer> {
  readonly #caller: Caller;
  readonly #offsetBytes: number;
  readonly #target: Buffer;

  constructor(data: DataCalls, core: RouterCore, remote: Remote, caller: Caller, offsetBytes: number, target: Buffer, later: Later<ReadAnswer>) {
    super(data, core, remote, 'read', later);
    this.#caller = caller;
    this.#offsetBytes = offsetBytes;
    this.#target = target;
  }

  protected slowly(): Promise<ReadAnswer> {
    return this.data.readSlowly(this.#caller, this.core.handleOf(this.remote.target), this.#offsetBytes, this.#target);
  }
}

/** A WRITE under way, with all that it takes to send it again as the same call. */
export class ForwardedWrite extends ForwardedIo<WriteAnswer> {
  readonly #caller: Caller;
  readonly #offsetBytes: number;
  readonly #countBytes: number;
  readonly #chunks: readonly Uint8Array[];
  readonly #stability: Stability;
  readonly #words: CallWords;
  readonly #startedMs: number;

  constructor(
    data: DataCalls,
    core: RouterCore,
    remote: Remote,
    caller: Caller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    words: CallWords,
    startedMs: number,
    later: Later<WriteAnswer>,
  ) {
    super(data, core, remote, 'write', later);
    this.#caller = caller;
    this.#offsetBytes = offsetBytes;
    this.#countBytes = countBytes;
    this.#chunks = chunks;
    this.#stability = stability;
    this.#words = words;
    this.#startedMs = startedMs;
  }

  protected slowly(): Promise<WriteAnswer> {
    const handle = this.core.handleOf(this.remote.target);
    return this.data.writeSlowly(
      this.#caller,
      handle,
      this.#offsetBytes,
      this.#countBytes,
      this.#chunks,
      this.#stability,
      this.#words,
      this.#startedMs,
    );
  }
}
