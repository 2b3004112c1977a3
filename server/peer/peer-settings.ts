/** Limits and times of the connections between routers. Both ends of a session should have the same. */
import { HEAD_BYTES } from './frame.ts';

export interface PeerSettings {
  /** A connection that has not said hello by then is given up. */
  readonly connectTimeoutMs: number;
  /** Calls made while a connection is being made wait for it at most this long. */
  readonly connectWaitMs: number;
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  readonly pingIntervalMs: number;
  /** A session of which nothing came for this long is closed by either end. */
  readonly silenceMs: number;
  /** A call that waited longer than this is not sent any more, and not executed. */
  readonly callAgeMsMax: number;
  /** A frame that was under way this much longer than the fastest is not executed: the session is closed. */
  readonly lagMsMax: number;
  /** A call without an answer for this long fails; its session stays. */
  readonly callTimeoutMs: number;
  /** Bytes of calls that may wait for credit towards one router; one more is refused. */
  readonly queueBytesMax: number;
  /**
   * Bytes of requests and of the answers that they may bring, outstanding on one stream. Both data streams together must pass a slow network well within
   * `lagMsMax`: 32 MiB take 2.7 s at 100 Mbit/s.
   */
  readonly creditBytes: number;
  /** HTTP/2 windows of a stream; above the credit, so that they never hold anything back. */
  readonly windowBytes: number;
  readonly maxFrameSizeBytes: number;
  /** Connections that a server accepts. */
  readonly connectionsMax: number;
}

export const PEER_SETTINGS: PeerSettings = {
  connectTimeoutMs: 3000,
  connectWaitMs: 1000,
  backoffMsMin: 50,
  backoffMsMax: 2000,
  pingIntervalMs: 1000,
  silenceMs: 3000,
  callAgeMsMax: 5000,
  lagMsMax: 3000,
  callTimeoutMs: 30_000,
  queueBytesMax: 128 * 1024 * 1024,
  creditBytes: 16 * 1024 * 1024,
  windowBytes: 64 * 1024 * 1024,
  maxFrameSizeBytes: 1024 * 1024,
  connectionsMax: 1024,
};

/** Streams of a lane; each has a credit and an order of its own. */
export interface LaneShape {
  readonly name: 'control' | 'data' | 'bulk';
  readonly streams: number;
}

/** Each lane is a TCP connection of its own: metadata does not wait for data, data does not wait for moves. */
export const LANES: readonly LaneShape[] = [
  { name: 'control', streams: 1 },
  // Small and large transfers.
  { name: 'data', streams: 2 },
  { name: 'bulk', streams: 1 },
];
export const CONTROL_LANE = 0;
export const DATA_LANE = 1;
export const BULK_LANE = 2;
/** Streams that a caller may open on one connection. */
export const STREAMS_MAX = 8;
/** Where the streams of the protocol are, by POST. */
export const PEER_PATH = '/vferry/peer';
/** READs and WRITEs up to this size go on the first data stream. */
export const SMALL_IO_BYTES_MAX = 64 * 1024;

/** What a frame and its answer cost besides their payloads, at least. */
export const CALL_BYTES = 2 * HEAD_BYTES + 968;
