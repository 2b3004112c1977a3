import type { RefusalReason } from './rpc-message.ts';

/** What the RPC server tells about itself; metrics implement it. Called on the hot path: no allocation, no I/O, must not throw. */
export interface RpcObserver {
  connectionOpened(): void;
  connectionClosed(): void;
  /** A connection was refused because there are too many. */
  connectionRefused(): void;
  /** Bytes arrived on / were handed to a socket. */
  received(countBytes: number): void;
  sent(countBytes: number): void;
  /** A call was answered with an error of the RPC layer. */
  refused(reason: RefusalReason): void;
  /** A duplicate joined the running call, or got the remembered reply. */
  duplicate(kind: 'joined' | 'replayed'): void;
  /** A connection met its bound and is not read any more, or goes on. */
  paused(): void;
  resumed(): void;
}

/** Hears nothing. */
export const silentRpcObserver: RpcObserver = {
  connectionOpened() {},
  connectionClosed() {},
  connectionRefused() {},
  received() {},
  sent() {},
  refused() {},
  duplicate() {},
  paused() {},
  resumed() {},
};
