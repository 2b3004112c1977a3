/** The serving end of one TCP connection of a peer: its streams, their session, and when it was heard of last. */
import type { Socket } from 'node:net';

import type { AssertionError } from '../core/assert.ts';
import type { RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { PeerService } from '../object-router/peer-port.ts';
import { H2Connection } from './h2/h2-connection.ts';
import type { H2Stream } from './h2/h2-connection.ts';
import type { HeaderList } from './h2/hpack.ts';
import type { Hello, HelloAnswer } from './hello.ts';
import { Lag } from './lag.ts';
import { PEER_PATH, STREAMS_MAX } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { ReceivedMemory } from './received-memory.ts';
import { ServedStream } from './served-stream.ts';
import { resetSocket } from './socket-reset.ts';

/** `plain`: without TLS, between loopback addresses. `router` null: the certificate is no router's. */
export type Certified = { readonly kind: 'plain' } | { readonly kind: 'certificate'; readonly router: RouterId | null };

/** What a connection asks of the server that it belongs to. */
export interface ServedHost {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings: PeerSettings;
  readonly onBug: (error: AssertionError) => void;
  /** Judges a hello; when it is welcome the connection belongs to the session, and older ones of that router are gone. */
  admit(hello: Hello, connection: ServedConnection): { readonly answer: HelloAnswer; readonly service: PeerService | null };
  /** Something was received: what was promised for a spinning loop. */
  heard(): void;
  closed(connection: ServedConnection): void;
  /** The peer spoke what is no protocol, or was silent: all connections of its session are to be closed. */
  endSession(connection: ServedConnection, reason: string): void;
}

export class ServedConnection {
  readonly host: ServedHost;
  readonly #socket: Socket;
  readonly #carrier: Socket;
  readonly #h2: H2Connection;
  readonly #streams = new Set<ServedStream>();
  readonly #lag = new Lag();
  readonly #openedMs: number;
  /** Who it is by its certificate. */
  readonly certified: Certified;
  /** Set once, by the first hello. */
  hello: Hello | null = null;
  readonly #memory = new ReceivedMemory();
  #heardMs: number;
  #isClosed = false;
  closeReason = '';

  /** `carrier`: what is spoken on, the socket itself or the TLS around it. */
  constructor(host: ServedHost, carrier: Socket, socket: Socket, certified: Certified) {
    this.host = host;
    this.#carrier = carrier;
    this.#socket = socket;
    this.certified = certified;
    this.#openedMs = this.#heardMs = host.clock.monotonicMs();
    const { windowBytes, maxFrameSizeBytes } = host.settings;
    this.#h2 = new H2Connection(
      'server',
      carrier,
      { windowBytes, frameBytesMax: maxFrameSizeBytes, streamsMax: STREAMS_MAX },
      {
        opened: (stream, headers) => this.#open(stream, headers),
        failed: (reason) => this.close(reason),
      },
    );
    carrier.on('data', (chunk: Buffer) => this.#receive(chunk));
    carrier.on('error', () => {});
    carrier.on('close', () => this.close('closed by the peer'));
    socket.on('error', () => {});
    socket.on('close', () => this.close('closed by the peer'));
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get silentMs(): number {
    return this.host.clock.monotonicMs() - this.#heardMs;
  }

  get ageMs(): number {
    return this.host.clock.monotonicMs() - this.#openedMs;
  }

  /**
   * Something came. False when it must not be looked at: the connection is closed, or was silent for so long that the peer has given it up and what comes
   * now waited in a buffer while this process or the network stood still.
   */
  received(): boolean {
    if (this.#isClosed) return false;
    const nowMs = this.host.clock.monotonicMs();
    if (nowMs - this.#heardMs > this.host.settings.silenceMs) {
      this.host.endSession(this, `silent for ${Math.round(nowMs - this.#heardMs)} ms`);
      return false;
    }
    this.#heardMs = nowMs;
    this.host.heard();
    return true;
  }

  /** Slices of the present chunk live on. */
  keep(): void {
    this.#memory.keep();
  }

  /** False when a frame was under way for too long: then the session is closed. */
  isInTime(sentMs: number): boolean {
    const lagMs = this.#lag.of(sentMs, this.#heardMs);
    if (lagMs <= this.host.settings.lagMsMax) return true;
    this.host.endSession(this, `a frame was under way for ${Math.round(lagMs)} ms`);
    return false;
  }

  admit(hello: Hello): { readonly answer: HelloAnswer; readonly service: PeerService | null } {
    return this.host.admit(hello, this);
  }

  /** The peer does not keep to the protocol. */
  refuse(reason: string): void {
    this.host.endSession(this, reason);
  }

  /** Takes nothing more and closes at once, with whatever is unread. */
  close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.closeReason = reason;
    for (const stream of this.#streams) stream.close();
    this.#h2.close();
    this.#socket.destroy();
    if (this.#carrier !== this.#socket) this.host.clock.soon(() => this.#carrier.destroy());
    this.host.closed(this);
  }

  /** As `close`, and the peer sees a reset: answers that are under way must not arrive. */
  reset(reason: string): void {
    if (this.#isClosed) return;
    resetSocket(this.#socket, this.#carrier);
    this.close(reason);
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosed) return;
    this.#memory.received(chunk);
    this.#h2.receive(chunk);
    for (const stream of this.#streams) stream.flush();
  }

  #open(stream: H2Stream, headers: HeaderList): void {
    if (this.#isClosed) return;
    const field = (name: string): string | undefined => headers.find((one) => one[0] === name)?.[1];
    if (field(':method') !== 'POST' || field(':path') !== PEER_PATH) {
      stream.respond([[':status', '404']]);
      stream.end();
      return;
    }
    this.#streams.add(new ServedStream(this, stream));
  }
}
