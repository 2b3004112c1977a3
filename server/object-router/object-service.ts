/**
 * What this router does for others on the objects that it owns (PeerService without the moves): the same code as for its own clients runs behind the check of
 * ownership, so attributes, verifiers and errors are the same on both ways. Executed only in the very term that the caller names.
 */
import type { FileId, Incarnation, RouterId } from '../core/ids.ts';
import { sameTerm } from '../core/ids.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Timestamp } from '../core/time.ts';
import { Status } from '../nfsd/file-system.ts';
import type { Attributes, ReadAnswer, Result, SetAttributes, Stability, WccResult, WriteAnswer } from '../nfsd/file-system.ts';
import type { AttributeCalls } from './attribute-calls.ts';
import type { DataCalls } from './data-calls.ts';
import type { ServedObject } from './open-objects.ts';
import { forwardedCaller } from './peer-caller.ts';
import type { Forwarded, ObjectTarget, OwnerHint, PeerCaller, PeerService } from './peer-port.ts';
import { wordsOfHex, wordsOfText } from './repetitions.ts';
import type { CallWords } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';

type Moves = 'moveAsk' | 'moveFetch' | 'moveFreeze' | 'moveConfirm' | 'moveAbort' | 'moveOffer';

/** A hold of a move is shorter. Far less than what a memory of completed calls has beyond the life of a call (REPETITION_WINDOW_MS). */
const SOON_MS_MAX = 1_000;

export class ObjectService implements Omit<PeerService, Moves> {
  readonly #core: RouterCore;
  readonly #data: DataCalls;
  readonly #attributes: AttributeCalls;
  readonly #self: { readonly router: RouterId; readonly incarnation: Incarnation };

  constructor(components: { core: RouterCore; data: DataCalls; attributes: AttributeCalls }, self: { router: RouterId; incarnation: Incarnation }) {
    this.#core = components.core;
    this.#data = components.data;
    this.#attributes = components.attributes;
    this.#self = self;
  }

  getattr(target: ObjectTarget): MaybePromise<Forwarded<Result<{ attributes: Attributes }>>> {
    return this.#here<Result<{ attributes: Attributes }>>(target, (served) =>
      served.unlinked ? { status: Status.STALE } : { status: Status.OK, attributes: served.attributes() },
    );
  }

  attributesOf(targets: readonly ObjectTarget[]): readonly (Attributes | null)[] {
    return targets.map((target) => {
      const served = this.#served(target);
      return served === null || served.unlinked ? null : served.attributes();
    });
  }

  read(target: ObjectTarget, caller: PeerCaller, offsetBytes: number, into: Buffer): MaybePromise<Forwarded<ReadAnswer>> {
    const served = this.#served(target);
    if (served === null) return this.#soon(target, (now) => this.#readServed(now, caller, offsetBytes, into));
    return this.#settled(target, this.#readServed(served, caller, offsetBytes, into));
  }

  #readServed(served: ServedObject, caller: PeerCaller, offsetBytes: number, into: Buffer): MaybePromise<ReadAnswer | null> {
    served.peerIo.reads += 1;
    return this.#data.readServed(caller, served, offsetBytes, into);
  }

  write(
    target: ObjectTarget,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
  ): MaybePromise<Forwarded<WriteAnswer>> {
    const words = new Uint32Array(4);
    const named = wordsOfHex(caller.operationId, words) ? words : wordsOfText(caller.operationId);
    const served = this.#served(target);
    if (served === null) return this.#soon(target, (now) => this.#writeServed(now, caller, offsetBytes, countBytes, chunks, stability, named));
    return this.#settled(target, this.#writeServed(served, caller, offsetBytes, countBytes, chunks, stability, named));
  }

  #writeServed(
    served: ServedObject,
    caller: PeerCaller,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    words: CallWords,
  ): MaybePromise<WriteAnswer | null> {
    served.peerIo.writes += 1;
    return this.#data.writeServed(caller, served, offsetBytes, countBytes, chunks, stability, words);
  }

  commit(target: ObjectTarget, caller: PeerCaller): MaybePromise<Forwarded<WccResult<{ verifier: Uint8Array }>>> {
    return this.#here<WccResult<{ verifier: Uint8Array }>>(target, (served) => this.#data.commitServed(caller, served));
  }

  setattr(target: ObjectTarget, caller: PeerCaller, changes: SetAttributes, guardCtime: Timestamp | null): MaybePromise<Forwarded<WccResult>> {
    const words = wordsOfText(caller.operationId);
    return this.#here<WccResult>(target, (served) => this.#attributes.changeServed(forwardedCaller(caller), served, changes, guardCtime, words));
  }

  async inodeChanged(fileid: FileId): Promise<void> {
    const { objects, registry } = this.#core;
    // One that is just arriving must not miss it.
    for (let held = objects.held(fileid); held !== null; held = objects.held(fileid)) await held;
    const inode = await registry.namespace.inode(fileid, null);
    if (inode === null) await objects.unlink(fileid);
    else objects.observe(inode);
  }

  /** The object, if it is served here in this term, now. */
  #served(target: ObjectTarget): ServedObject | null {
    const served = this.#core.objects.get(target.fileid);
    if (served === undefined || !served.ready || !this.#core.places.lease.valid) return null;
    return served.inode.inodeGeneration === target.inodeGeneration && sameTerm(served.driven.term, target.term) ? served : null;
  }

  #here<T>(target: ObjectTarget, work: (served: ServedObject) => MaybePromise<T | null>): MaybePromise<Forwarded<T>> {
    const served = this.#served(target);
    return served === null ? this.#soon(target, work) : this.#settled(target, work(served));
  }

  /**
   * Not served at this moment. What is sent to a new owner right behind the change mostly meets it while it activates its copy: it is done there as soon as it can
   * be, and not sent once more. But not what waited for long: by then the caller may look for it elsewhere.
   */
  async #soon<T>(target: ObjectTarget, work: (served: ServedObject) => MaybePromise<T | null>): Promise<Forwarded<T>> {
    const { objects, clock } = this.#core;
    const startedMs = clock.monotonicMs();
    const elsewhere = objects.held(target.fileid) === null ? null : await this.#elsewhere<T>(target);
    const served = elsewhere === null || clock.monotonicMs() - startedMs > SOON_MS_MAX ? null : this.#served(target);
    return served === null ? (elsewhere ?? (await this.#elsewhere<T>(target))) : await this.#settled(target, work(served));
  }

  #settled<T>(target: ObjectTarget, answer: MaybePromise<T | null>): MaybePromise<Forwarded<T>> {
    if (isPending(answer)) return answer.then((result) => (result === null ? this.#elsewhere(target) : { kind: 'done', result }));
    return answer === null ? this.#elsewhere(target) : { kind: 'done', result: answer };
  }

  /** Not executed: who owns it is said once that is settled. One of ours that is not open is opened, so that the caller finds it. */
  async #elsewhere<T>(target: ObjectTarget): Promise<Forwarded<T>> {
    const nobodyKnows: Forwarded<T> = { kind: 'not-owner', hint: null };
    try {
      const place = await this.#core.places.find(target, true);
      if (typeof place === 'number' || place.kind === 'record') return nobodyKnows;
      return { kind: 'not-owner', hint: place.kind === 'there' ? place.remote.hint : this.#ownHint(place.served) };
    } catch (error) {
      // Why it cannot be served is told by whoever asks the registry: a client's status, not a frame's.
      this.#core.failure(error);
      return nobodyKnows;
    }
  }

  #ownHint(served: ServedObject): OwnerHint {
    return { router: this.#self.router, incarnation: this.#self.incarnation, term: served.driven.term };
  }
}
