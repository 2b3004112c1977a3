/**
 * Serves a router's PeerService to the other routers over HTTP/2 (docs/PEER-PROTOCOL.md).
 *
 * A session is one peer incarnation's set of connections with one number. A newer one ends the older before anything of it is executed; silence, bytes that are
 * no protocol and frames that were under way for too long end it as well. Nothing of an ended session is executed any more, whatever is in buffers.
 */
import net from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import tls from 'node:tls';
import type { TLSSocket } from 'node:tls';

import type { AssertionError } from '../core/assert.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { Incarnation, RouterId } from '../core/ids.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import type { PeerService } from '../object-router/peer-port.ts';
import { isLaneStream, VERSION_FIRST, VERSION_LAST } from './hello.ts';
import type { Hello, HelloAnswer, Refusal } from './hello.ts';
import { isLoopbackAddress } from './loopback.ts';
import type { PeerSelf, PeerTls } from './peer-identity.ts';
import { certifiedRouter, tlsOptions } from './peer-identity.ts';
import { PEER_SETTINGS } from './peer-settings.ts';
import type { PeerSettings } from './peer-settings.ts';
import { ServedConnection } from './served-connection.ts';
import type { ServedHost } from './served-connection.ts';

const SWEEPS_PER_SILENCE = 6;
/** Incarnations that were replaced are remembered, per router. */
const RETIRED_MAX = 64;

export interface PeerServerComponents {
  /** The service for a peer, asked once per stream. */
  readonly service: (from: RouterId) => PeerService;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Null: plain text, which is allowed between loopback addresses only. */
  readonly tls: PeerTls | null;
  readonly self: PeerSelf;
  /** Called after something came from a peer (a loop that spins for a moment, see oncrpc). */
  readonly heard?: () => void;
  /** Told of assertions that failed in a call; default: thrown, so that the process stops. */
  readonly onBug?: (error: AssertionError) => void;
}

interface Session {
  readonly incarnation: Incarnation;
  readonly number: number;
  readonly connections: Set<ServedConnection>;
  /** `lane/stream` that said hello. */
  readonly taken: Set<string>;
  /** It lost a connection: nothing joins it any more. */
  isOver: boolean;
}

export class PeerServer {
  readonly #components: PeerServerComponents;
  readonly #settings: PeerSettings;
  readonly #host: ServedHost;
  readonly #server: net.Server;
  readonly #connections = new Set<ServedConnection>();
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Map<RouterId, Session>();
  readonly #retired = new Map<RouterId, Incarnation[]>();
  #cancelSweep: (() => void) | null = null;
  #isClosed = false;

  constructor(components: PeerServerComponents, settings: Partial<PeerSettings> = {}) {
    this.#components = components;
    this.#settings = { ...PEER_SETTINGS, ...settings };
    this.#host = {
      clock: components.clock,
      logger: components.logger,
      settings: this.#settings,
      onBug:
        components.onBug ??
        ((error) => {
          queueMicrotask(() => {
            throw error;
          });
        }),
      admit: (hello, connection) => this.#admit(hello, connection),
      heard: components.heard ?? (() => {}),
      closed: (connection) => this.#closed(connection),
      endSession: (connection, reason) => this.#endSession(connection, reason),
    };
    this.#server =
      components.tls === null
        ? net.createServer({ noDelay: true })
        : tls.createServer({
            ...tlsOptions(components.tls),
            requestCert: true,
            ALPNProtocols: ['h2'],
            handshakeTimeout: this.#settings.connectTimeoutMs,
            noDelay: true,
          });
    // Before TLS's own listener.
    this.#server.prependListener('connection', (socket: Socket) => this.#accept(socket));
    this.#server.on('secureConnection', (secure: TLSSocket) => this.#greet(secure));
    this.#server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
      components.logger.warn({ err: error, peer: socket.remoteAddress }, 'a connection of a peer was refused: TLS');
      socket.destroy();
    });
    this.#server.on('error', (error: Error) => components.logger.error({ err: error }, 'accepting a connection of a peer failed'));
  }

  /** Peers with a living session. */
  get peers(): readonly RouterId[] {
    return [...this.#sessions].filter(([, session]) => !session.isOver).map(([router]) => router);
  }

  /** Begins to listen. Port 0 takes a free one; resolves with the real one. @throws ApplianceError with the system's code. */
  listen(host: string, port: number): Promise<{ host: string; port: number }> {
    if (this.#components.tls === null && !isLoopbackAddress(host))
      return Promise.reject(
        new ApplianceError(
          'peer-plain-text',
          `peers without certificates must listen on a loopback address, not on ${host}: see "vferry cluster init"`,
        ),
      );
    const server = this.#server;
    return new Promise((resolve, reject) => {
      const failed = (error: Error): void =>
        reject(
          new ApplianceError(errorCode(error) ?? 'listen-failed', `cannot listen for peers on ${host} port ${port}: ${error.message}`, {
            cause: error,
          }),
        );
      server.once('error', failed);
      server.listen({ host, port, backlog: 256 }, () => {
        server.removeListener('error', failed);
        this.#sweepLater();
        resolve({ host, port: (server.address() as AddressInfo).port });
      });
    });
  }

  /**
   * Closes every socket at once: what is unread is never read, what runs is not answered. For a lapse of the lease. Then as `close`.
   */
  lapse(): void {
    this.#isClosed = true;
    for (const connection of this.#connections) connection.reset('the lease lapsed');
    // In their TLS handshake: there is nothing unread of a peer's that could be executed. One of them that said goodbye is being ended by the TLS around it, of which
    // nothing is known here, and would stay open for ever if it were reset (see resetSocket).
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Stops listening and closes all connections. Calls that run finish, without an answer. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelSweep?.();
    for (const connection of this.#connections) connection.close('this router stops');
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    const local = socket.localAddress ?? '';
    const remote = socket.remoteAddress ?? '';
    if (this.#isClosed || this.#sockets.size >= this.#settings.connectionsMax) {
      socket.destroy();
      return;
    }
    if (this.#components.tls === null && !(isLoopbackAddress(local) && isLoopbackAddress(remote))) {
      this.#components.logger.warn({ peer: remote }, 'a connection of a peer was refused: plain text from another machine');
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    socket.on('error', () => {});
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    if (this.#components.tls === null) this.#connections.add(new ServedConnection(this.#host, socket, socket, { kind: 'plain' }));
  }

  #greet(secure: TLSSocket): void {
    const { remoteAddress, remotePort } = secure;
    let socket: Socket | null = null;
    for (const candidate of this.#sockets) if (candidate.remoteAddress === remoteAddress && candidate.remotePort === remotePort) socket = candidate;
    if (socket === null || this.#isClosed || secure.alpnProtocol !== 'h2') {
      secure.destroy();
      return;
    }
    const router = certifiedRouter(secure.getPeerX509Certificate());
    this.#connections.add(new ServedConnection(this.#host, secure, socket, { kind: 'certificate', router }));
  }

  #admit(hello: Hello, connection: ServedConnection): { answer: HelloAnswer; service: PeerService | null } {
    const refusal = this.#judge(hello, connection);
    if (refusal !== null) {
      const [kind, message] = refusal;
      this.#components.logger.warn({ router: hello.router, refusal: kind }, `a peer was refused: ${message}`);
      return { answer: { kind: 'refused', refusal: kind, message }, service: null };
    }
    let session = this.#sessions.get(hello.router);
    if (session === undefined || session.incarnation !== hello.incarnation || session.number < hello.session) {
      if (session !== undefined) this.#replace(hello.router, session, hello);
      session = { incarnation: hello.incarnation, number: hello.session, connections: new Set(), taken: new Set(), isOver: false };
      this.#sessions.set(hello.router, session);
      this.#components.logger.info({ router: hello.router, session: hello.session }, 'a peer opened a session');
    }
    session.connections.add(connection);
    session.taken.add(`${hello.lane}/${hello.stream}`);
    connection.hello ??= hello;
    const version = Math.min(hello.versionLast, VERSION_LAST);
    return { answer: { kind: 'welcome', version, creditBytes: this.#settings.creditBytes }, service: this.#components.service(hello.router) };
  }

  /** What is wrong with a hello, or null. */
  #judge(hello: Hello, connection: ServedConnection): readonly [Refusal, string] | null {
    const { self } = this.#components;
    if (hello.versionFirst > VERSION_LAST || hello.versionLast < VERSION_FIRST)
      return [
        'version',
        `router ${hello.router} speaks versions ${hello.versionFirst} to ${hello.versionLast} of the peer protocol, this one ${VERSION_FIRST} to ${VERSION_LAST}`,
      ];
    if (hello.vpoolUuid !== self.vpoolUuid)
      return ['vpool', `router ${hello.router} belongs to vPool ${hello.vpoolUuid}, this one to ${self.vpoolUuid}`];
    const { certified } = connection;
    if (certified.kind === 'certificate' && certified.router !== hello.router)
      return [
        'certificate',
        `the certificate is of ${certified.router === null ? 'no router' : `router ${certified.router}`}, the hello of ${hello.router}`,
      ];
    if (hello.toRouter !== self.router || hello.toIncarnation !== self.incarnation)
      return ['not-me', `this is router ${self.router} in incarnation ${self.incarnation}, not ${hello.toRouter} in ${hello.toIncarnation}`];
    if (hello.router === self.router) return ['not-me', 'this is the router itself'];
    if (!isLaneStream(hello.lane, hello.stream)) return ['version', `there is no stream ${hello.stream} on lane ${hello.lane}`];
    const { hello: first } = connection;
    if (
      first !== null &&
      (first.router !== hello.router || first.incarnation !== hello.incarnation || first.session !== hello.session || first.lane !== hello.lane)
    )
      return ['stale', 'the streams of a connection belong to one session and lane'];
    if (this.#retired.get(hello.router)?.includes(hello.incarnation) === true)
      return ['stale', `incarnation ${hello.incarnation} of router ${hello.router} was replaced`];
    const session = this.#sessions.get(hello.router);
    if (session === undefined || session.incarnation !== hello.incarnation) return null;
    if (hello.session < session.number) return ['stale', `session ${hello.session} is older than ${session.number}`];
    if (hello.session === session.number && session.isOver) return ['stale', `session ${hello.session} is over`];
    if (hello.session === session.number && session.taken.has(`${hello.lane}/${hello.stream}`))
      return ['stale', `session ${hello.session} has that stream already`];
    return null;
  }

  #replace(router: RouterId, session: Session, hello: Hello): void {
    if (session.incarnation !== hello.incarnation) {
      const retired = this.#retired.get(router) ?? [];
      retired.push(session.incarnation);
      if (retired.length > RETIRED_MAX) retired.shift();
      this.#retired.set(router, retired);
    }
    for (const connection of [...session.connections]) connection.close(`session ${session.number} was replaced by ${hello.session}`);
  }

  #endSession(connection: ServedConnection, reason: string): void {
    const { hello } = connection;
    this.#components.logger.warn({ router: hello?.router, session: hello?.session, reason }, 'the session of a peer is closed');
    const session = hello === null ? undefined : this.#sessions.get(hello.router);
    if (session?.connections.has(connection) === true) for (const one of [...session.connections]) one.close(reason);
    connection.close(reason);
  }

  #closed(connection: ServedConnection): void {
    this.#connections.delete(connection);
    const { hello } = connection;
    const session = hello === null ? undefined : this.#sessions.get(hello.router);
    if (hello === null || session?.connections.delete(connection) !== true) return;
    this.#components.logger.debug({ router: hello.router, lane: hello.lane, reason: connection.closeReason }, 'a connection of a peer was closed');
    // The peer makes a new one, with a higher number.
    session.isOver = true;
    for (const one of [...session.connections]) one.close(connection.closeReason);
  }

  #sweepLater(): void {
    this.#cancelSweep = this.#components.clock.after(this.#settings.silenceMs / SWEEPS_PER_SILENCE, () => {
      const { silenceMs, connectTimeoutMs } = this.#settings;
      for (const connection of [...this.#connections]) {
        if (connection.silentMs > silenceMs) this.#endSession(connection, `silent for ${Math.round(connection.silentMs)} ms`);
        else if (connection.hello === null && connection.ageMs > connectTimeoutMs)
          this.#endSession(connection, `no hello within ${connectTimeoutMs} ms`);
      }
      this.#sweepLater();
    });
  }
}
