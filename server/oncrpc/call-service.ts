/** From a call message to its reply, whatever it arrived on: header, credential, program, duplicates, refusals (RFC 5531 §9). */
import { AssertionError } from '../core/assert.ts';
import type { Logger } from '../core/logger.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { DuplicateRequestCache } from './duplicate-request-cache.ts';
import { keyOf } from './duplicate-request-cache.ts';
import type { CredentialReader } from './rpc-credential.ts';
import { AUTH_TOOWEAK, MSG_CALL, REFUSAL_BYTES_MAX, RPC_VERSION, writeRefusal } from './rpc-message.ts';
import type { Refusal } from './rpc-message.ts';
import type { RpcObserver } from './rpc-observer.ts';
import type { DispatchRefusal, RpcProgram } from './rpc-program.ts';
import { RECORD_MARK_BYTES, ServerCall } from './server-call.ts';
import type { ReplyListener, ReplyPath } from './server-call.ts';
import { XdrError } from './xdr-error.ts';

/** Call objects kept for the next call. */
const FREE_CALLS_MAX = 4096;

const RPC_MISMATCH: Refusal = { reason: 'rpc-mismatch' };
const PROGRAM_UNAVAILABLE: Refusal = { reason: 'program-unavailable' };
const PROCEDURE_UNAVAILABLE: Refusal = { reason: 'procedure-unavailable' };
const GARBAGE_ARGS: Refusal = { reason: 'garbage-args' };
const SYSTEM_ERROR: Refusal = { reason: 'system-error' };
const TOO_WEAK: Refusal = { reason: 'auth-error', stat: AUTH_TOOWEAK };

export interface CallServiceOptions {
  readonly duplicates: DuplicateRequestCache;
  readonly observer: RpcObserver;
  readonly logger: Logger;
  /** Told of an AssertionError of a program, after its call was answered with SYSTEM_ERR: the process should stop. */
  readonly onBug: (error: AssertionError) => void;
}

/** Executes calls. One for all listeners of a server, so that a duplicate is recognised on whatever socket it comes. */
export class CallService implements ReplyListener {
  readonly #duplicates: DuplicateRequestCache;
  readonly #observer: RpcObserver;
  readonly #logger: Logger;
  readonly #onBug: (error: AssertionError) => void;
  readonly #freeCalls: ServerCall[] = [];

  constructor(options: CallServiceOptions) {
    this.#duplicates = options.duplicates;
    this.#observer = options.observer;
    this.#logger = options.logger;
    this.#onBug = options.onBug;
  }

  /** A call object that `path` is about to load a message into. */
  take(path: ReplyPath): ServerCall {
    return this.#freeCalls.pop() ?? new ServerCall(path, this);
  }

  /** Takes a finished call back. Nobody may touch it any more, unless a promise still does: then it is left to the garbage collector. */
  recycle(call: ServerCall): void {
    if (call.isAwaited) return;
    call.free();
    if (this.#freeCalls.length < FREE_CALLS_MAX) this.#freeCalls.push(call);
  }

  /**
   * Executes a loaded call: its reply goes to its path, now or later. Returns false when the message is no RPC call at all, so that
   * there is no xid to answer to.
   */
  serve(call: ServerCall, programs: readonly RpcProgram[], credentials: CredentialReader): boolean {
    const args = call.args;
    if (args.remaining < 8) return false;
    call.xid = args.uint32();
    if (args.uint32() !== MSG_CALL) return false;
    if (args.remaining < 16) {
      this.#refuse(call, args.remaining >= 4 && args.uint32() !== RPC_VERSION ? RPC_MISMATCH : GARBAGE_ARGS);
      return true;
    }
    if (args.uint32() !== RPC_VERSION) {
      this.#refuse(call, RPC_MISMATCH);
      return true;
    }
    call.program = args.uint32();
    call.version = args.uint32();
    call.procedure = args.uint32();
    const credential = credentials.read(args);
    if (typeof credential === 'number') {
      this.#refuse(call, { reason: 'auth-error', stat: credential });
      return true;
    }
    call.credential = credential;
    for (let i = 0; i < programs.length; i++) {
      const program = programs[i]!;
      if (program.program === call.program && call.version >= program.versionFirst && call.version <= program.versionLast) {
        this.#admit(call, program);
        return true;
      }
    }
    this.#refuse(call, refusalWithoutProgram(call.program, programs));
    return true;
  }

  /** Remembers the reply of a cached call and answers the duplicates that joined it. */
  replyReady(call: ServerCall): void {
    const key = call.key!;
    call.key = null;
    const reply = call.replyMessage();
    for (const joiner of this.#duplicates.complete(key, reply)) replay(joiner, reply);
  }

  #admit(call: ServerCall, program: RpcProgram): void {
    if (program.isCached(call.version, call.procedure)) {
      const key = keyOf(call);
      const verdict = this.#duplicates.admit(call, key);
      if (verdict.kind !== 'run') {
        this.#observer.duplicate(verdict.kind === 'joined' ? 'joined' : 'replayed');
        if (verdict.kind === 'replay') replay(call, verdict.reply);
        return;
      }
      call.key = key;
    }
    this.#dispatch(call, program);
  }

  #dispatch(call: ServerCall, program: RpcProgram): void {
    let outcome: DispatchRefusal | Promise<DispatchRefusal>;
    try {
      outcome = program.dispatch(call);
    } catch (error) {
      this.#failed(call, program, error);
      return;
    }
    if (outcome === null) return;
    if (isPending(outcome)) {
      call.isAwaited = true;
      void this.#settle(call, program, outcome);
    } else {
      this.#refuseAsTold(call, outcome);
    }
  }

  async #settle(call: ServerCall, program: RpcProgram, outcome: Promise<DispatchRefusal>): Promise<void> {
    try {
      const refusal = await outcome;
      if (refusal !== null) this.#refuseAsTold(call, refusal);
    } catch (error) {
      this.#failed(call, program, error);
    } finally {
      call.isAwaited = false;
    }
  }

  #refuseAsTold(call: ServerCall, refusal: Exclude<DispatchRefusal, null>): void {
    switch (refusal) {
      case 'procedure-unavailable':
        this.#refuse(call, PROCEDURE_UNAVAILABLE);
        return;
      case 'garbage-args':
        this.#refuse(call, GARBAGE_ARGS);
        return;
      case 'auth-too-weak':
        this.#refuse(call, TOO_WEAK);
        return;
      case 'system-error':
        this.#refuse(call, SYSTEM_ERROR);
    }
  }

  #failed(call: ServerCall, program: RpcProgram, error: unknown): void {
    if (error instanceof XdrError) {
      this.#refuse(call, GARBAGE_ARGS);
      return;
    }
    const fields = { err: error, program: program.name, procedure: program.procedureName(call.version, call.procedure), client: call.clientAddress };
    this.#logger.error(fields, 'RPC call failed with an unexpected error: answered with SYSTEM_ERR; please report this');
    // Finished and failed afterwards: the client has its answer already.
    if (call.phase !== 'finished') this.#refuse(call, SYSTEM_ERROR);
    if (error instanceof AssertionError) this.#onBug(error);
  }

  #refuse(call: ServerCall, refusal: Refusal): void {
    this.#observer.refused(refusal.reason);
    // Only answers of the program are remembered: a refusal did nothing that a retransmission could do twice.
    const joiners = call.key === null ? [] : this.#duplicates.forget(call.key);
    call.key = null;
    for (const one of [call, ...joiners]) {
      const writer = one.beginMessage(REFUSAL_BYTES_MAX);
      writeRefusal(writer, one.xid, refusal);
      one.finishAt(writer.endOffset);
    }
  }
}

/** Answers a duplicate with the message that the first call was answered with: the xid is the same, too. */
function replay(call: ServerCall, message: Buffer): void {
  const writer = call.beginMessage(message.length);
  writer.reserve(message.length).set(message);
  call.finishAt(call.regionStart + RECORD_MARK_BYTES + message.length);
}

/** RFC 5531 §9: PROG_UNAVAIL for an unknown program, PROG_MISMATCH with the lowest and highest version of a known one. */
function refusalWithoutProgram(number: number, programs: readonly RpcProgram[]): Refusal {
  const versions = programs.filter((program) => program.program === number);
  if (versions.length === 0) return PROGRAM_UNAVAILABLE;
  return {
    reason: 'program-mismatch',
    low: Math.min(...versions.map((program) => program.versionFirst)),
    high: Math.max(...versions.map((program) => program.versionLast)),
  };
}
