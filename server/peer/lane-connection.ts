/** The calling end of one TCP connection to a peer: one lane of a session. */
import http2 from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';
import net from 'node:net';
import type { Socket } from 'node:net';
import tls from 'node:tls';

import { errorCode } from '../core/errors.ts';
import type { RouterId } from '../core/ids.ts';
import type { Clock } from '../core/time.ts';
import { CallStream } from './call-stream.ts';
import type { Hello, HelloAnswer, Refusal } from './hello.ts';
import { isLoopbackAddress } from './loopback.ts';
import { certifiedRouter, tlsOptions } from './peer-identity.ts';
import type { PeerTls } from './peer-identity.ts';
import { LANES, PEER_PATH } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { ReceivedMemory } from './received-memory.ts';
import { resetSocket } from './socket-reset.ts';

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
  readonly #session: ClientHttp2Session;
  readonly #memory = new ReceivedMemory();
  #heardMs: number;
  #welcomed = 0;
  #isClosed = false;

  /** Connects; `hello` is said on each stream, with its number. */
  constructor(host: LaneHost, address: { readonly host: string; readonly port: number }, router: RouterId, hello: Omit<Hello, 'stream'>) {
    this.#host = host;
    this.#heardMs = host.clock.monotonicMs();
    const { settings } = host;
    const raw = net.connect({ host: address.host, port: address.port, noDelay: true });
    this.#socket = raw;
    raw.on('error', (error) => this.#lost(error.message));
    raw.on('close', () => this.#lost('it closed the connection'));
    let carrier: Socket = raw;
    if (host.tls !== null) {
      const secure = tls.connect({
        socket: raw,
        ...tlsOptions(host.tls),
        ALPNProtocols: ['h2'],
        // Addresses change, and certificates name routers, not hosts.
        checkServerIdentity: () => undefined,
      });
      secure.on('error', (error) => {
        if (isTlsRefusal(error) && !this.#isClosed) host.refused('certificate', `TLS: ${error.message}`);
        else this.#lost(error.message);
      });
      secure.on('secureConnect', () => {
        const named = certifiedRouter(secure.getPeerX509Certificate());
        if (named !== router) host.refused('certificate', `its certificate is of ${named === null ? 'no router' : `router ${named}`}`);
      });
      carrier = secure;
    } else {
      raw.on('connect', () => {
        if (!isLoopbackAddress(raw.remoteAddress ?? '')) this.#lost('plain text is for loopback addresses only');
      });
    }
    const session = http2.connect('http://peer', {
      createConnection: () => carrier,
      maxSessionMemory: 512,
      settings: { initialWindowSize: settings.windowBytes, maxFrameSize: settings.maxFrameSizeBytes, enablePush: false },
    });
    this.#session = session;
    session.on('error', (error) => this.#lost(error.message));
    session.on('close', () => this.#lost('it closed the connection'));
    session.on('goaway', () => this.#lost('it says goodbye'));
    session.on('connect', () => {
      if (this.#isClosed) return;
      session.setLocalWindowSize(settings.windowBytes);
      const streams: CallStream[] = [];
      for (let stream = 0; stream < LANES[hello.lane]!.streams; stream++) {
        const carried = session.request({ ':method': 'POST', ':path': PEER_PATH }, { endStream: false });
        streams.push(
          new CallStream(
            {
              clock: host.clock,
              settings,
              heard: (chunk) => {
                this.#memory.received(chunk);
                this.#heardMs = host.clock.monotonicMs();
                host.heard();
              },
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
    });
  }

  get silentMs(): number {
    return this.#host.clock.monotonicMs() - this.#heardMs;
  }

  close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const stream of this.streams) stream.close(reason);
    // What is unsent in the kernel is thrown away as well: it must not be executed after its callers were told that it failed.
    resetSocket(this.#socket);
    this.#session.destroy();
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
