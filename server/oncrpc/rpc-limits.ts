/** Bounds of the RPC server. Every queue in it has one; at a bound it stops reading (TCP back-pressure), it does not fail. */
export interface RpcLimits {
  /** Longest record (call message) accepted; a longer one closes the connection before anything is allocated for it. */
  readonly recordBytesMax: number;
  /** Bytes in flight on a connection: call messages being executed and reply buffers held. Reading resumes at half. */
  readonly connectionBytesMax: number;
  /** The same over all connections. A connection below `connectionBytesFloor` is not held back by what others use. */
  readonly serverBytesMax: number;
  readonly connectionBytesFloor: number;
  /** Calls executing on a connection. */
  readonly outstandingCallsMax: number;
  /** Replies queued that the client has not taken; beyond it no more of its calls are executed. */
  readonly unsentBytesMax: number;
  readonly connectionsMax: number;
  /** Bytes of records that have not arrived completely, over all connections; beyond it the connection silent for longest is closed. */
  readonly partialBytesMax: number;
  /** A client that stops in the middle of a record, or takes no reply, for this long is disconnected. An idle one never is. */
  readonly stallTimeoutMs: number;
  /** Calls by UDP executing at once; further datagrams are dropped, as the network may. */
  readonly datagramCallsMax: number;
  /** Unused reply buffers kept. */
  readonly freeBufferBytesMax: number;
}

const MIB = 1024 * 1024;

export const RPC_LIMITS: RpcLimits = {
  recordBytesMax: 4 * MIB + 64 * 1024,
  connectionBytesMax: 48 * MIB,
  serverBytesMax: 512 * MIB,
  connectionBytesFloor: 1 * MIB,
  outstandingCallsMax: 8192,
  unsentBytesMax: 8 * MIB,
  connectionsMax: 1024,
  partialBytesMax: 256 * MIB,
  stallTimeoutMs: 180_000,
  datagramCallsMax: 1024,
  freeBufferBytesMax: 64 * MIB,
};
