/** Why a message did not decode (RFC 4506). Callers branch on it; the RPC server answers GARBAGE_ARGS whatever it is. */
export type XdrErrorReason =
  /** The message ends before the item does. */
  | 'truncated'
  /** A counted item is longer than its declared maximum. */
  | 'too-long'
  /** A 64-bit number above 2^53-1 where a JavaScript number was asked for. */
  | 'unsafe-integer'
  /** A boolean that is neither 0 nor 1. */
  | 'bad-bool'
  /** A union or enum value that the type does not have; thrown by the decoders built on XdrReader. */
  | 'bad-discriminant'
  /** Bytes are left behind the last item. */
  | 'trailing-bytes';

/** Input that does not decode. Hostile input is normal: it is never logged as an error. */
export class XdrError extends Error {
  readonly reason: XdrErrorReason;

  constructor(reason: XdrErrorReason) {
    super(`XDR: ${reason}`);
    this.name = 'XdrError';
    this.reason = reason;
  }
}
