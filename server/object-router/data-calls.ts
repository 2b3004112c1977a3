/** READ, WRITE, COMMIT: inline files in their registry record, everything else through its open object. */
import { inlineVerifier } from '../../registry/inode.ts';
import type { Inode } from '../../registry/inode.ts';
import { errorCode, isEnvironmentError } from '../core/errors.ts';
import { failPoint } from '../core/fail-points.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Caller, Handle, Later, ReadAnswer, Stability, Wcc, WccResult, WriteAnswer } from '../nfsd/file-system.ts';
import { Stability as How, Status } from '../nfsd/file-system.ts';
import { ForwardedRead, ForwardedWrite } from './forwarded-io.ts';
import { mayDoIo, Permission, preAttributesOf } from './inode-attributes.ts';
import type { Rights } from './inode-attributes.ts';
import type { ServedObject } from './open-objects.ts';
import { peerCaller, PeerCallers } from './peer-caller.ts';
import { hexOfWords } from './repetitions.ts';
import type { CallWords, Repetitions } from './repetitions.ts';
import type { RouterCore } from './router-core.ts';
import { NO_WCC } from './router-core.ts';

type CommitAnswer = WccResult<{ verifier: Uint8Array }>;

export interface DataSettings {
  readonly fileSizeMaxBytes: number;
  readonly allWritesStable: boolean;
}

export class DataCalls {
  readonly #core: RouterCore;
  readonly #settings: DataSettings;
  /** Of the WRITE that is being looked at: used before anything waits. */
  readonly #words = new Uint32Array(4);
  readonly #callers = new PeerCallers();

  constructor(core: RouterCore, settings: DataSettings) {
    this.#core = core;
    this.#settings = settings;
  }

  /** Null: `later` is told. */
  read(caller: Caller, handle: Handle, offsetBytes: number, target: Buffer, later: Later<ReadAnswer> | null): MaybePromise<ReadAnswer> | null {
    const served = this.#core.served(handle);
    if (served !== null) {
      served.ownIo.reads += 1;
      const answer = this.readServed(caller, served, offsetBytes, target);
      if (!isPending(answer) && answer !== null) return answer;
      const moved = Buffer.from(handle);
      return Promise.resolve(answer).then((read) => read ?? this.readSlowly(caller, moved, offsetBytes, target));
    }
    const remote = later === null ? null : this.#core.remote(handle);
    if (later === null || remote === null || remote.peer.startRead === undefined)
      return this.readSlowly(caller, Buffer.from(handle), offsetBytes, target);
    const from = this.#callers.of(caller);
    remote.peer.startRead(remote.target, from, offsetBytes, target, new ForwardedRead(this, this.#core, remote, caller, offsetBytes, target, later));
    return null;
  }

  /** READ of an object that is open here. Null: it went to another router meanwhile, which is the one to answer. */
  readServed(caller: Rights, served: ServedObject, offsetBytes: number, target: Buffer): MaybePromise<ReadAnswer | null> {
    if (served.unlinked) return { status: Status.STALE, attributes: null };
    if (!mayDoIo(served.inode, caller, Permission.READ) && !mayDoIo(served.inode, caller, Permission.EXECUTE)) {
      return { status: Status.ACCES, attributes: served.attributes() };
    }
    const bytesRead = served.driven.read(offsetBytes, target);
    if (!isPending(bytesRead)) return readDone(served, offsetBytes, bytesRead);
    served.users += 1;
    return bytesRead
      .then(
        (count): ReadAnswer => (this.#core.places.lease.valid ? readDone(served, offsetBytes, count) : { status: Status.JUKEBOX, attributes: null }),
        (error: unknown): ReadAnswer => ({ status: this.#core.failure(error), attributes: served.attributes() }),
      )
      .finally(() => {
        served.users -= 1;
      });
  }

  /** Looks for the object first, and follows it. */
  async readSlowly(caller: Caller, handle: Handle, offsetBytes: number, target: Buffer): Promise<ReadAnswer> {
    const answer = await this.#core.anywhere<ReadAnswer>(handle, {
      here: (served) => {
        served.ownIo.reads += 1;
        return this.readServed(caller, served, offsetBytes, target);
      },
      there: async (remote) => {
        const forwarded = await remote.peer.read(remote.target, peerCaller(caller, ''), offsetBytes, target);
        if (forwarded.kind === 'done') this.#core.places.cluster?.forwarded(remote.target, 'read', remote.hint);
        return forwarded;
      },
      record: (inode) => this.#readRecord(caller, inode, offsetBytes, target),
    });
    return typeof answer === 'number' ? { status: answer, attributes: null } : answer;
  }

  #readRecord(caller: Caller, inode: Inode, offsetBytes: number, target: Buffer): ReadAnswer {
    const attributes = this.#core.attributes({ inode, served: null });
    if (inode.type !== 'file') return { status: Status.INVAL, attributes };
    if (!mayDoIo(inode, caller, Permission.READ) && !mayDoIo(inode, caller, Permission.EXECUTE)) return { status: Status.ACCES, attributes };
    const size = inode.sizeBytes;
    const bytesRead = Math.max(0, Math.min(target.length, size - offsetBytes));
    if (bytesRead > 0) {
      target.fill(0, 0, bytesRead);
      if (inode.inlineBytes !== null) target.set(inode.inlineBytes.subarray(offsetBytes, offsetBytes + bytesRead));
    }
    return { status: Status.OK, bytesRead, eof: offsetBytes + bytesRead >= size, attributes };
  }

  /** Null: `later` is told. */
  write(
    caller: Caller,
    handle: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    later: Later<WriteAnswer> | null,
  ): MaybePromise<WriteAnswer> | null {
    const served = this.#core.served(handle);
    let words: CallWords | null = null;
    let crc = 0;
    if (this.#core.places.cluster !== null) {
      words = this.#words;
      crc = caller.writeIdentity(offsetBytes, countBytes, chunks, words);
    }
    const remote = served === null ? this.#core.remote(handle) : null;
    // The operation id hashes the received call: before the first wait. What is open here never needs it.
    if (served === null && remote === null) caller.operationId();
    const kept = words === null ? null : Uint32Array.from(words);
    // Its age counts from here, also when it waited in the object that is open here until that was given away (ObjectPlaces).
    const startedMs = words === null && served !== null ? 0 : this.#core.clock.monotonicMs();
    if (served === null) {
      if (remote === null || kept === null || later === null || remote.peer.startWrite === undefined)
        return this.writeSlowly(caller, Buffer.from(handle), offsetBytes, countBytes, chunks, stability, kept, startedMs);
      const end = new ForwardedWrite(this, this.#core, remote, caller, offsetBytes, countBytes, chunks, stability, kept, startedMs, later);
      remote.peer.startWrite(remote.target, peerCaller(caller, hexOfWords(kept)), offsetBytes, countBytes, chunks, stability, crc, end);
      return null;
    }
    served.ownIo.writes += 1;
    const written = this.writeServed(caller, served, offsetBytes, countBytes, chunks, stability, kept);
    if (words === null) return written as MaybePromise<WriteAnswer>;
    const key = Buffer.from(handle);
    // Given away before it was in the log: not executed, and executed where the object is then.
    const elsewhere = (answer: WriteAnswer | null): MaybePromise<WriteAnswer> =>
      answer ?? this.writeSlowly(caller, key, offsetBytes, countBytes, chunks, stability, kept, startedMs);
    return isPending(written) ? written.then(elsewhere) : elsewhere(written);
  }

  /** WRITE of an object that is open here. Null: not executed, because the object is being given away. */
  writeServed(
    caller: Rights,
    served: ServedObject,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    words: CallWords | null,
  ): MaybePromise<WriteAnswer | null> {
    if (served.unlinked) return { status: Status.STALE, wcc: NO_WCC };
    if (!mayDoIo(served.inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc: unchanged(served) };
    if (countBytes === 0) {
      return { status: Status.OK, wcc: unchanged(served), countBytes: 0, committed: How.FILE_SYNC, verifier: served.driven.verifier };
    }
    if (offsetBytes + countBytes > this.#settings.fileSizeMaxBytes) return { status: Status.FBIG, wcc: unchanged(served) };
    const stable = stability !== How.UNSTABLE || this.#settings.allWritesStable;
    const repetitions = this.#core.places.cluster?.repetitions ?? null;
    if (repetitions === null || words === null) return this.#writeDriven(served, offsetBytes, countBytes, chunks, stable, null, null);
    const { fileid } = served.driven;
    const running = repetitions.running<WriteAnswer | null>(fileid, words);
    if (running !== null) return running;
    if (repetitions.isDone(fileid, words)) {
      const committed = stable ? How.FILE_SYNC : How.UNSTABLE;
      return answeredAgain(this.#core, served, repetitions, words, () => ({
        status: Status.OK,
        wcc: unchanged(served),
        countBytes,
        committed,
        verifier: stable ? served.driven.verifier : verifierOfNoCommit(served.driven.verifier),
      }));
    }
    return repetitions.run(fileid, words, this.#writeDriven(served, offsetBytes, countBytes, chunks, stable, words, repetitions));
  }

  async #writeDriven(
    served: ServedObject,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stable: boolean,
    words: CallWords | null,
    repetitions: Repetitions | null,
  ): Promise<WriteAnswer | null> {
    served.users += 1;
    served.changers += 1;
    const change = await served.driven.write(offsetBytes, countBytes, chunks, stable, this.#core.now(), words);
    // Before it counts as ended: a move hands the memory of calls over as soon as no change is under way. Also without a lease: what is durable the log may say to be
    // so from here on, and then the next life of this process does not look for its name there.
    if (change.kind !== 'refused' && words !== null) repetitions?.remember(served.driven.fileid, words);
    served.users -= 1;
    served.changers -= 1;
    if (change.kind === 'refused')
      return errorCode(change.error) === 'object-held' ? null : { status: this.#core.failure(change.error), wcc: unchanged(served) };
    // Durable, but no longer this router's to say so: whoever takes the object over has it, and the client asks there.
    if (!this.#core.places.lease.valid) return this.#core.places.noAnswer();
    const wcc = { before: preAttributesOf(change.before), after: served.attributes() };
    return { status: Status.OK, wcc, countBytes, committed: change.stable ? How.FILE_SYNC : How.UNSTABLE, verifier: served.driven.verifier };
  }

  /** Looks for the object first, and follows it. `startedMs`: when the client's call came (ObjectPlaces.run). */
  async writeSlowly(
    caller: Caller,
    handle: Handle,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
    stability: Stability,
    words: CallWords | null,
    startedMs: number,
  ): Promise<WriteAnswer> {
    const answer = await this.#core.anywhere<WriteAnswer>(
      handle,
      {
        isChange: true,
        here: (served) => {
          served.ownIo.writes += 1;
          return this.writeServed(caller, served, offsetBytes, countBytes, chunks, stability, words);
        },
        there: async (remote) => {
          const from = peerCaller(caller, words === null ? '' : hexOfWords(words));
          const forwarded = await remote.peer.write(remote.target, from, offsetBytes, countBytes, chunks, stability);
          if (forwarded.kind === 'done') this.#core.places.cluster?.forwarded(remote.target, 'write', remote.hint);
          return forwarded;
        },
        record: (inode) => this.#writeRecord(caller, inode, offsetBytes, countBytes, chunks),
      },
      true,
      startedMs,
    );
    return typeof answer === 'number' ? { status: answer, wcc: NO_WCC } : answer;
  }

  /** Null: the file is not inline any more, look again. */
  async #writeRecord(
    caller: Caller,
    inode: Inode,
    offsetBytes: number,
    countBytes: number,
    chunks: readonly Uint8Array[],
  ): Promise<WriteAnswer | null> {
    const wcc = this.#core.unchanged({ inode, served: null });
    if (inode.type !== 'file') return { status: Status.INVAL, wcc };
    if (!mayDoIo(inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc };
    if (countBytes === 0) return { status: Status.OK, wcc, countBytes, committed: How.FILE_SYNC, verifier: inlineVerifier(inode) };
    if (offsetBytes + countBytes > this.#settings.fileSizeMaxBytes) return { status: Status.FBIG, wcc };
    const { namespace } = this.#core.registry;
    if (offsetBytes + countBytes > namespace.inlineBytesMax) return this.#flip(inode);
    const outcome = await this.#core.guard(() =>
      namespace.writeInline(this.#core.mutation(caller, '|w'), inode.fileid, offsetBytes, Buffer.concat(chunks, countBytes)),
    );
    if (typeof outcome === 'number') return { status: outcome, wcc };
    switch (outcome.kind) {
      case 'written':
        return {
          status: Status.OK,
          wcc: this.#core.wcc(outcome.before, outcome.after),
          countBytes,
          committed: How.FILE_SYNC,
          verifier: inlineVerifier(inode),
        };
      case 'too-large':
        return this.#flip(outcome.inode);
      case 'class-changed':
        return null;
      case 'stale':
        return { status: Status.STALE, wcc: NO_WCC };
    }
  }

  async #flip(inode: Inode): Promise<WriteAnswer | null> {
    const status = await flipToFile(this.#core, inode);
    return status === null ? null : { status, wcc: this.#core.unchangedInode(inode) };
  }

  commit(caller: Caller, handle: Handle): MaybePromise<CommitAnswer> {
    const served = this.#core.served(handle);
    if (served === null) return this.#commitSlowly(caller, Buffer.from(handle));
    const committed = this.commitServed(caller, served);
    if (!isPending(committed) && committed !== null) return committed;
    const key = Buffer.from(handle);
    return Promise.resolve(committed).then((answer) => answer ?? this.#commitSlowly(caller, key));
  }

  /** COMMIT of an object that is open here. Null: not executed, because the object is being given away. */
  commitServed(caller: Rights, served: ServedObject): MaybePromise<CommitAnswer | null> {
    if (served.unlinked) return { status: Status.STALE, wcc: NO_WCC };
    if (!mayDoIo(served.inode, caller, Permission.WRITE)) return { status: Status.ACCES, wcc: unchanged(served) };
    const committed = served.driven.commit(this.#core.now());
    if (!isPending(committed)) return this.#committed(served, committed);
    served.users += 1;
    served.changers += 1;
    return committed
      .then((outcome) => this.#committed(served, outcome))
      .finally(() => {
        served.users -= 1;
        served.changers -= 1;
      });
  }

  #committed(served: ServedObject, outcome: null | { error: Error }): CommitAnswer | null {
    const wcc: Wcc = unchanged(served);
    if (outcome !== null) return errorCode(outcome.error) === 'object-held' ? null : { status: this.#core.failure(outcome.error), wcc };
    if (!this.#core.places.lease.valid) return { status: Status.JUKEBOX, wcc: NO_WCC };
    return { status: Status.OK, wcc, verifier: served.driven.verifier };
  }

  async #commitSlowly(caller: Caller, handle: Handle): Promise<CommitAnswer> {
    const answer = await this.#core.anywhere<CommitAnswer>(handle, {
      here: (served) => this.commitServed(caller, served),
      there: (remote) => remote.peer.commit(remote.target, peerCaller(caller, '')),
      record: (inode) => {
        const wcc = this.#core.unchanged({ inode, served: null });
        return inode.type === 'file' ? { status: Status.OK, wcc, verifier: inlineVerifier(inode) } : { status: Status.INVAL, wcc };
      },
    });
    return typeof answer === 'number' ? { status: answer, wcc: NO_WCC } : answer;
  }
}

function readDone(served: ServedObject, offsetBytes: number, bytesRead: number): ReadAnswer {
  const attributes = served.attributes();
  return { status: Status.OK, bytesRead, eof: offsetBytes + bytesRead >= attributes.sizeBytes, attributes };
}

function unchanged(served: ServedObject): Wcc {
  const after = served.attributes();
  return { before: preAttributesOf(after), after };
}

/**
 * For an UNSTABLE write that is answered once more: what it wrote may be gone since it was done, by a fault of the log's disk and a kill, and that the verifier
 * was renewed then tells only who had an answer. So its COMMIT tells the client to send it again, as a call of its own.
 */
function verifierOfNoCommit(verifier: Uint8Array): Uint8Array {
  return verifier.map((byte) => byte ^ 0xff);
}

/**
 * The answer to a change that was done before. It is remembered anew, and the object rests anew: until this answer the client may have sent copies, and each of
 * them may be under way for as long as the first. Null: look for the object again, it may be another router's.
 */
export function answeredAgain<T>(
  core: RouterCore,
  served: ServedObject,
  repetitions: Repetitions,
  words: CallWords,
  answer: () => T,
): MaybePromise<T | null> {
  const { driven } = served;
  repetitions.remember(driven.fileid, words);
  const confirmed = driven.repeated();
  if (!isPending(confirmed)) return answer();
  served.users += 1;
  return confirmed
    .then(
      () => (core.places.lease.valid ? answer() : core.places.noAnswer()),
      (error: unknown) => {
        if (!isEnvironmentError(error)) throw error;
        return null;
      },
    )
    .finally(() => {
      served.users -= 1;
    });
}

/** Makes an inline file an object of class file. Null when it is one now, else the status of the failure. */
export async function flipToFile(core: RouterCore, inode: Inode): Promise<ReturnType<RouterCore['failure']> | null> {
  const flipped = await core.guard(() => core.registry.namespace.flipToFile(core.mutation(null), inode.fileid));
  if (typeof flipped === 'number') return flipped;
  failPoint('flip.after-registry');
  return flipped.kind === 'stale' ? Status.STALE : null;
}
