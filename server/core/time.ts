/** Time as a port: the engine runs under a virtual clock in simulation, so nothing below main.ts reads the ambient one. */
export interface Clock {
  /** Wall clock, milliseconds since 1970 with a fraction of microsecond resolution. May jump. */
  wallMs(): number;
  /** Monotonic milliseconds with a fraction; for deadlines and ages. */
  monotonicMs(): number;
  /** Runs `callback` once after `delayMs`. Does not keep the process alive. Returns a function that cancels it. */
  after(delayMs: number, callback: () => void): () => void;
  /** Runs `callback` after the I/O callbacks of this loop turn: what one socket read brought is batched. */
  soon(callback: () => void): void;
  /** Resolves after `delayMs`. Does not keep the process alive. */
  sleep(delayMs: number): Promise<void>;
}

/** Randomness as a port, for the same reason. */
export interface Random {
  /** `count` random bytes, owned by the caller. */
  bytes(count: number): Buffer;
  /** Uniform in [0, 1). */
  fraction(): number;
}

/** nfstime3: what goes over the wire and into records. Immutable. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** `wallMs` as a timestamp with microsecond resolution. */
export function timestampOf(wallMs: number): Timestamp {
  const seconds = Math.floor(wallMs / 1000);
  return { seconds, nanoseconds: Math.floor((wallMs - seconds * 1000) * 1000) * 1000 };
}

/** Negative when `a` is earlier than `b`. */
export function compareTimestamp(a: Timestamp, b: Timestamp): number {
  return a.seconds - b.seconds || a.nanoseconds - b.nanoseconds;
}

/** Times never run backwards: `max(previous + 1 ns, now)` (design section 5). The last time that nfstime3 can say stays as it is: a client may set it. */
export function laterThan(previous: Timestamp, now: Timestamp): Timestamp {
  if (compareTimestamp(now, previous) > 0) return now;
  if (previous.seconds >= 0xffff_ffff && previous.nanoseconds >= 999_999_999) return previous;
  return previous.nanoseconds >= 999_999_999
    ? { seconds: previous.seconds + 1, nanoseconds: 0 }
    : { seconds: previous.seconds, nanoseconds: previous.nanoseconds + 1 };
}
