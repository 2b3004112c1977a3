/** One call to a peer: what is asked, since when, and who waits for the answer. */
import type { ApplianceError } from '../core/errors.ts';
import type { CallEnd } from '../object-router/peer-port.ts';
import { FrameKind } from './frame.ts';
import { chargeOf } from './request-codec.ts';
import type { PeerRequest } from './request-codec.ts';

export class PeerCall {
  readonly request: PeerRequest;
  /** Where READ's bytes go; null for all others. */
  readonly into: Buffer | null;
  /** Monotonic clock when the call was made. */
  readonly madeMs: number;
  readonly chargeBytes: number;
  /** CRC-32 of the request's payload, where somebody knew it; null: to be computed. */
  readonly payloadCrc: number | null;
  /** Names it on its stream while it is under way there. */
  id = 0;
  readonly #end: CallEnd<unknown>;
  #isSettled = false;

  constructor(request: PeerRequest, into: Buffer | null, madeMs: number, end: CallEnd<unknown>, payloadCrc: number | null = null) {
    this.request = request;
    this.into = into;
    this.madeMs = madeMs;
    this.chargeBytes = chargeOf(request);
    this.#end = end;
    this.payloadCrc = payloadCrc;
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  get targetsCount(): number {
    return this.request.kind === FrameKind.ATTRIBUTES_OF ? this.request.targetsCount : 0;
  }

  succeed(answer: unknown): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#end.answered(answer);
  }

  fail(error: ApplianceError): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#end.failed(error);
  }
}
