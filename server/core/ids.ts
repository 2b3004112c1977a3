/** Branded identifiers. A brand exists at compile time only. */
declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** Number of an inode: above 63, below 2^53 (design section 5), so it is exact as a number and can key typed arrays and Maps. */
export type FileId = Brand<number, 'FileId'>;

/** A router's identity: random, drawn once, kept in its data directory. 32 lower-case hex digits. */
export type RouterId = Brand<string, 'RouterId'>;

/** Drawn anew at every start of a router process. 32 lower-case hex digits. */
export type Incarnation = Brand<string, 'Incarnation'>;

/** Identity of an object's data: names its bucket; drawn at CREATE, never derived from the fileid. 32 lower-case hex digits. */
export type ObjectUuid = Brand<string, 'ObjectUuid'>;

/**
 * A term of ownership: epoch = (registry generation, counter), raised at every change of owner or incarnation, and a random
 * nonce (16 lower-case hex digits) drawn when it is claimed. The fencing token of everything that the owner stores.
 */
export interface Term {
  readonly generation: number;
  readonly counter: number;
  readonly nonce: string;
}

/** Orders terms by epoch; the nonce does not take part. Negative when `a` is older. */
export function compareEpoch(a: Term, b: Term): number {
  return a.generation - b.generation || a.counter - b.counter;
}

/** Same epoch and same nonce. */
export function sameTerm(a: Term, b: Term): boolean {
  return a.generation === b.generation && a.counter === b.counter && a.nonce === b.nonce;
}
