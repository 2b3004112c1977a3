/** The calling end of one TCP connection to a peer: one lane of a session. */
import net from 'node:net';
import type { Socket } from 'node:net';
import tls from 'node:tls';

import { errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import type { Clock } from '../core/time.ts';
import { CallStream } from './call-stream.ts';
import { H2Connection } from './h2/h2-connection.ts';
import type { Hello, HelloAnswer, Refusal } from './hello.ts';
import { isLoopbackAddress } from './loopback.ts';
import { certifiedRouter, tlsOptions } from './peer-identity.ts';
import type { PeerTls } from './peer-identity.ts';
import { LANES, PEER_PATH, STREAMS_MAX } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { ReceivedMemory } from './received-memory.ts';
import { resetSocket } from './socket-reset.ts';

const RECEIVE_BYTES = 128 * 1024;

export interface LaneHost {
  readonly clock: Clock;
  readonly settings: PeerSettings;
  readonly tls: PeerTls | null;
  heard(): void;
  /** All streams of the lane were welcomed. */
  ready(): void;
  /** It does not want this router, or is not the one that was called. Then the lane is closed by its host. */
  refused(refusal: Refusal, message: string): void;
  ponged(roundTripMs: number): void;
  /** Called once; not after `close`. */
  lost(reason: string): void;
}

export class LaneConnection {
  readonly streams: readonly CallStream[] = [];
  readonly #host: LaneHost;
  readonly #socket: Socket;
  readonly #carrier: Socket;
  #h2: H2Connection | null = null;
  readonly #memory = new ReceivedMemory();
  #heardMs: number;
  #welcomed = 0;
  #isClosed = false;

  /** Connects; `hello` is said on each stream, with its number. */
  constructor(host: LaneHost, address: { readonly host: string; readonly port: number }, router: RouterId, hello: Omit<Hello, 'stream'>) {
    this.#host = host;
    this.#heardMs = host.clock.monotonicMs();
    const raw = net.connect({
      host: address.host,
      port: address.port,
      noDelay: true,
      // TLS reads from the socket itself.
      ...(host.tls === null ? { onread: this.#ownMemory() } : {}),
    });
    this.#socket = raw;
    raw.on('error', (error) => this.#lost(error.message));
    raw.on('close', () => this.#lost('it closed the connection'));
    if (host.tls === null) {
      this.#carrier = raw;
      raw.on('connect', () => {
        if (isLoopbackAddress(raw.remoteAddress ?? '')) this.#open(hello);
        else this.#lost('plain text is for loopback addresses only');
      });
      return;
    }
    const secure = tls.connect({
      socket: raw,
      ...tlsOptions(host.tls),
      ALPNProtocols: ['h2'],
      // Addresses change, and certificates name routers, not hosts.
      checkServerIdentity: () => undefined,
    });
    this.#carrier = secure;
    secure.on('error', (error) => {
      if (isTlsRefusal(error) && !this.#isClosed) host.refused('certificate', `TLS: ${error.message}`);
      else this.#lost(error.message);
    });
    secure.on('close', () => this.#lost('it closed the connection'));
    secure.on('secureConnect', () => {
      const named = certifiedRouter(secure.getPeerX509Certificate());
      if (named !== router) host.refused('certificate', `its certificate is of ${named === null ? 'no router' : `router ${named}`}`);
      else if (secure.alpnProtocol !== 'h2') this.#lost('it does not speak HTTP/2');
      else this.#open(hello);
    });
  }

  get silentMs(): number {
    return this.#host.clock.monotonicMs() - this.#heardMs;
  }

  close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // First: what is unsent in the kernel is thrown away as well, as it must not be executed after its callers were told that it failed.
    resetSocket(this.#socket, this.#carrier);
    this.#h2?.close();
    for (const stream of this.streams) stream.close(reason);
    // TLS is told a turn later: it may be what calls this, and does not survive to be thrown away in the middle.
    if (this.#carrier !== this.#socket) this.#host.clock.soon(() => this.#carrier.destroy());
  }

  /** The connection is there: opens its streams. */
  #open(hello: Omit<Hello, 'stream'>): void {
    if (this.#isClosed) return;
    const host = this.#host;
    const { settings, tls: isSecure } = host;
    const h2 = new H2Connection(
      'client',
      this.#carrier,
      { windowBytes: settings.windowBytes, frameBytesMax: settings.maxFrameSizeBytes, streamsMax: STREAMS_MAX },
      { opened: () => {}, failed: (reason) => this.#lost(reason) },
    );
    this.#h2 = h2;
    if (isSecure !== null)
      this.#carrier.on('data', (chunk: Buffer) => {
        this.#memory.received(chunk);
        this.#receive(chunk);
      });
    const streams: CallStream[] = [];
    for (let stream = 0; stream < LANES[hello.lane]!.streams; stream++) {
      const carried = h2.request([
        [':method', 'POST'],
        [':scheme', isSecure === null ? 'http' : 'https'],
        [':path', PEER_PATH],
        [':authority', 'peer'],
      ]);
      streams.push(
        new CallStream(
          {
            clock: host.clock,
            settings,
            greeted: (answer) => this.#greeted(answer),
            ponged: (roundTripMs) => host.ponged(roundTripMs),
            lost: (reason) => this.#lost(reason),
          },
          carried,
          { ...hello, stream },
        ),
      );
    }
    (this as { streams: readonly CallStream[] }).streams = streams;
  }

  /** What is received goes to the callers' memory at once, so the same is used again and again. */
  #ownMemory(): net.OnReadOpts {
    const buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
    return {
      buffer,
      callback: (bytes) => {
        this.#receive(buffer.subarray(0, bytes));
        return true;
      },
    };
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosed) return;
    this.#heardMs = this.#host.clock.monotonicMs();
    this.#h2?.receive(chunk);
    this.#host.heard();
  }

  #lost(reason: string): void {
    if (this.#isClosed) return;
    this.#host.lost(reason);
    this.close(reason);
  }

  #greeted(answer: HelloAnswer): void {
    if (answer.kind === 'refused') {
      this.#host.refused(answer.refusal, `it refuses (${answer.refusal}): ${answer.message}`);
      return;
    }
    this.#welcomed += 1;
    if (this.#welcomed === this.streams.length) this.#host.ready();
  }
}

/** True for what TLS itself finds wrong, false for what happens to the connection below it. */
function isTlsRefusal(error: Error): boolean {
  return !('syscall' in error) && errorCode(error)?.startsWith('ECONN') !== true;
}
