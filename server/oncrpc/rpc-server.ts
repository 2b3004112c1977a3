/** ONC RPC server (RFC 5531) on TCP and UDP. */
import dgram from 'node:dgram';
import net from 'node:net';

import type { AssertionError } from '../core/assert.ts';
import { assert } from '../core/assert.ts';
import { ApplianceError, errorCode } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Clock } from '../core/time.ts';
import { CallService } from './call-service.ts';
import { DUPLICATE_REQUEST_CACHE_LIMITS, DuplicateRequestCache } from './duplicate-request-cache.ts';
import type { DuplicateRequestCacheLimits } from './duplicate-request-cache.ts';
import { LoopSpin } from './loop-spin.ts';
import { ReceiveSlab } from './receive-slab.ts';
import { RPC_LIMITS } from './rpc-limits.ts';
import type { RpcLimits } from './rpc-limits.ts';
import { silentRpcObserver } from './rpc-observer.ts';
import type { RpcObserver } from './rpc-observer.ts';
import type { RpcProgram } from './rpc-program.ts';
import { SendBufferPool } from './send-buffer.ts';
import { TcpConnection } from './tcp-connection.ts';
import type { ConnectionHost } from './tcp-connection.ts';
import { plainAddress, UdpEndpoint } from './udp-endpoint.ts';

/**
 * Probes of an idle connection: the first after a minute, then eight within two minutes. Long enough to outlive a network outage that
 * clients outlive, too; the system's ten probes a second apart would not.
 */
const KEEPALIVE_DELAY_MS = 60_000;
const KEEPALIVE_INTERVAL_MS = 15_000;
const KEEPALIVE_PROBES = 8;
const SWEEPS_PER_STALL = 4;

export interface RpcServerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly observer?: RpcObserver;
  readonly limits?: Partial<RpcLimits>;
  readonly duplicates?: Partial<DuplicateRequestCacheLimits>;
  /** How long the event loop goes on turning after the last message, see LoopSpin; default 0: it sleeps at once. */
  readonly spinMs?: number;
  /** Told of an AssertionError of a program, after its call was answered. Default: throws it, which ends the process. */
  readonly onBug?: (error: AssertionError) => void;
}

/** Where to listen; port 0 takes a free one. Programs may be served on several ports. */
export interface RpcListen {
  readonly host: string;
  readonly port: number;
  readonly programs: readonly RpcProgram[];
}

export interface RpcAddress {
  readonly host: string;
  readonly port: number;
}

/** What the server holds at this moment. */
export interface RpcServerUsage {
  readonly connections: number;
  readonly outstandingCalls: number;
  /** Call messages being executed and send buffers held by connections. */
  readonly inFlightBytes: number;
  /** Records that have not arrived completely. */
  readonly partialBytes: number;
  readonly freeBufferBytes: number;
  readonly duplicateEntries: number;
  readonly duplicateReplyBytes: number;
}

export class RpcServer {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: RpcLimits;
  readonly #observer: RpcObserver;
  readonly #pool: SendBufferPool;
  readonly #duplicates: DuplicateRequestCache;
  readonly #service: CallService;
  readonly #host: ConnectionHost;
  readonly #spin: LoopSpin;

  readonly #listeners: net.Server[] = [];
  readonly #endpoints: UdpEndpoint[] = [];
  readonly #connections = new Set<TcpConnection>();
  #scheduled: TcpConnection[] = [];
  #isTurnScheduled = false;
  readonly #endTurn = (): void => this.#runTurn();
  #inFlightBytes = 0;
  #partialBytes = 0;
  /** Connections held back by the server-wide bound. */
  readonly #heldBack = new Set<TcpConnection>();
  #silentSweeps = new Map<TcpConnection, number>();
  #cancelSweep: (() => void) | null = null;
  #closing: Promise<void> | null = null;
  #onDrained: (() => void) | null = null;

  constructor(options: RpcServerOptions) {
    this.#clock = options.clock;
    this.#logger = options.logger;
    this.#observer = options.observer ?? silentRpcObserver;
    this.#limits = { ...RPC_LIMITS, ...options.limits };
    assert(this.#limits.connectionBytesMax >= this.#limits.connectionBytesFloor, 'RpcLimits: the floor is above the bound of a connection');
    this.#pool = new SendBufferPool(this.#limits.freeBufferBytesMax);
    this.#duplicates = new DuplicateRequestCache({ ...DUPLICATE_REQUEST_CACHE_LIMITS, ...options.duplicates }, options.clock);
    this.#service = new CallService({
      duplicates: this.#duplicates,
      observer: this.#observer,
      logger: this.#logger,
      onBug: options.onBug ?? throwLater,
    });
    this.#host = {
      service: this.#service,
      pool: this.#pool,
      limits: this.#limits,
      observer: this.#observer,
      outstandingCalls: 0,
      atEndOfTurn: (connection) => this.#atEndOfTurn(connection),
      charge: (bytes) => this.#charge(bytes),
      isOverloaded: (connection) => this.#isOverloaded(connection),
      chargePartial: (bytes) => this.#chargePartial(bytes),
      closed: (connection, reason) => this.#closed(connection, reason),
    };
    this.#spin = new LoopSpin(options.clock, options.spinMs ?? 0, () => this.#host.outstandingCalls > 0);
    this.#scheduleSweep();
  }

  get usage(): RpcServerUsage {
    let outstandingCalls = 0;
    for (const connection of this.#connections) outstandingCalls += connection.outstanding;
    for (const endpoint of this.#endpoints) outstandingCalls += endpoint.outstanding;
    return {
      connections: this.#connections.size,
      outstandingCalls,
      inFlightBytes: this.#inFlightBytes,
      partialBytes: this.#partialBytes,
      freeBufferBytes: this.#pool.freeBytes,
      duplicateEntries: this.#duplicates.entries,
      duplicateReplyBytes: this.#duplicates.replyBytes,
    };
  }

  /** Connections by client address. */
  clients(): { readonly address: string; readonly connections: number }[] {
    const counts = new Map<string, number>();
    for (const { clientAddress } of this.#connections) counts.set(clientAddress, (counts.get(clientAddress) ?? 0) + 1);
    return [...counts].map(([address, connections]) => ({ address, connections }));
  }

  /** Serves programs on a TCP port. @throws ApplianceError with the system's code (EADDRINUSE, EACCES ...). */
  listenTcp(listen: RpcListen): Promise<RpcAddress> {
    const listener = net.createServer({
      // The accepted socket must not read anything before it is exchanged for one with a receive slab.
      pauseOnConnect: true,
      allowHalfOpen: true,
      noDelay: true,
    });
    listener.on('connection', (socket) => this.#accept(socket, listen.programs));
    return new Promise((resolve, reject) => {
      listener.once('error', (error) => reject(listenError('TCP', listen, error)));
      listener.listen({ host: listen.host, port: listen.port, backlog: 1024 }, () => {
        listener.removeAllListeners('error');
        // Accepting fails when file descriptors run out: existing clients go on, new ones are accepted again later.
        listener.on('error', (error) => this.#logger.error({ err: error, port: listen.port }, 'accepting an RPC connection failed'));
        this.#listeners.push(listener);
        resolve({ host: listen.host, port: (listener.address() as net.AddressInfo).port });
      });
    });
  }

  /** Serves programs on a UDP port. @throws ApplianceError with the system's code (EADDRINUSE, EACCES ...). */
  listenUdp(listen: RpcListen): Promise<RpcAddress> {
    const socket = dgram.createSocket(listen.host.includes(':') ? 'udp6' : 'udp4');
    return new Promise((resolve, reject) => {
      socket.once('error', (error) => {
        socket.close();
        reject(listenError('UDP', listen, error));
      });
      socket.bind({ address: listen.host, port: listen.port }, () => {
        socket.removeAllListeners('error');
        // ICMP errors of earlier replies surface here; the datagrams are lost, as datagrams may be.
        socket.on('error', (error) => this.#logger.warn({ err: error, port: listen.port }, 'UDP socket reported an error'));
        this.#endpoints.push(new UdpEndpoint(this.#host, listen.programs, socket));
        resolve({ host: listen.host, port: socket.address().port });
      });
    });
  }

  /**
   * Stops accepting connections and executing calls, lets running calls finish for at most `deadlineMs`, then closes whatever is left.
   * Resolves when every socket is closed. Called again it only waits for the same.
   */
  close(deadlineMs: number): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  async #close(deadlineMs: number): Promise<void> {
    this.#cancelSweep?.();
    const listenersClosed = this.#listeners.map((listener) => new Promise<void>((resolve) => listener.close(() => resolve())));
    await Promise.all(this.#endpoints.map((endpoint) => endpoint.close()));
    if (this.#connections.size > 0) {
      const drained = new Promise<void>((resolve) => {
        this.#onDrained = resolve;
      });
      for (const connection of this.#connections) connection.end();
      const cancelDeadline = this.#clock.after(deadlineMs, () => {
        for (const connection of this.#connections) connection.destroy('server shut down, deadline passed');
      });
      await drained;
      cancelDeadline();
    }
    await Promise.all(listenersClosed);
  }

  #accept(accepted: net.Socket, programs: readonly RpcProgram[]): void {
    const address = accepted.remoteAddress;
    const port = accepted.remotePort;
    if (address === undefined || port === undefined || this.#closing !== null) {
      // Gone again already.
      accepted.destroy();
      return;
    }
    if (this.#connections.size >= this.#limits.connectionsMax) {
      accepted.destroy();
      this.#observer.connectionRefused();
      this.#logger.warn({ client: address, limit: this.#limits.connectionsMax }, 'RPC connection refused: too many connections');
      return;
    }
    const slab = new ReceiveSlab();
    const socket = exchangeSocket(accepted, slab, (chunk) => {
      const goesOn = connection.receive(chunk);
      this.#spin.extend();
      return goesOn;
    });
    const connection = new TcpConnection(this.#host, programs, socket, plainAddress(address), port);
    this.#connections.add(connection);
    this.#observer.connectionOpened();
    this.#logger.debug({ client: address, port }, 'RPC connection opened');
  }

  #closed(connection: TcpConnection, reason: string): void {
    this.#connections.delete(connection);
    this.#heldBack.delete(connection);
    this.#silentSweeps.delete(connection);
    this.#observer.connectionClosed();
    this.#logger.debug({ client: connection.clientAddress, port: connection.clientPort, reason }, 'RPC connection closed');
    if (this.#connections.size === 0) this.#onDrained?.();
  }

  #atEndOfTurn(connection: TcpConnection): void {
    if (connection.isTurnScheduled) return;
    connection.isTurnScheduled = true;
    this.#scheduled.push(connection);
    if (this.#isTurnScheduled) return;
    this.#isTurnScheduled = true;
    setImmediate(this.#endTurn);
  }

  #runTurn(): void {
    this.#isTurnScheduled = false;
    const connections = this.#scheduled;
    this.#scheduled = [];
    for (let i = 0; i < connections.length; i++) connections[i]!.turn();
    this.#spin.extend();
  }

  #charge(bytes: number): void {
    this.#inFlightBytes += bytes;
    if (this.#heldBack.size === 0 || this.#inFlightBytes > this.#limits.serverBytesMax / 2) return;
    for (const connection of this.#heldBack) this.#atEndOfTurn(connection);
    this.#heldBack.clear();
  }

  #isOverloaded(connection: TcpConnection): boolean {
    if (this.#inFlightBytes < this.#limits.serverBytesMax || connection.inFlightBytes < this.#limits.connectionBytesFloor) return false;
    this.#heldBack.add(connection);
    return true;
  }

  #chargePartial(bytes: number): void {
    this.#partialBytes += bytes;
    if (bytes <= 0 || this.#partialBytes <= this.#limits.partialBytesMax) return;
    let victim: TcpConnection | null = null;
    let victimSilence = 0;
    for (const connection of this.#connections) {
      const silence = this.#silentSweeps.get(connection) ?? 0;
      if (connection.isBlocked || connection.partialBytes === 0) continue;
      if (victim === null || silence > victimSilence || (silence === victimSilence && connection.partialBytes > victim.partialBytes)) {
        victim = connection;
        victimSilence = silence;
      }
    }
    if (victim === null) return;
    this.#logger.warn(
      { client: victim.clientAddress, bytes: victim.partialBytes },
      'too many incomplete RPC records: closing the most silent connection',
    );
    victim.destroy('too many incomplete records');
  }

  #scheduleSweep(): void {
    this.#cancelSweep = this.#clock.after(this.#limits.stallTimeoutMs / SWEEPS_PER_STALL, () => {
      this.#sweep();
      this.#scheduleSweep();
    });
  }

  /** Finds clients that stopped in the middle of a record or of a reply. Counting sweeps spares the hot path from reading a clock. */
  #sweep(): void {
    for (const connection of this.#connections) {
      const isReceiveStalled = connection.isMidRecord && !connection.isBlocked && !connection.hasReceived;
      const isSendStalled = connection.isSending && !connection.hasSent;
      connection.hasReceived = false;
      connection.hasSent = false;
      if (!isReceiveStalled && !isSendStalled) {
        this.#silentSweeps.delete(connection);
        continue;
      }
      const sweeps = (this.#silentSweeps.get(connection) ?? 0) + 1;
      this.#silentSweeps.set(connection, sweeps);
      if (sweeps < SWEEPS_PER_STALL) continue;
      const reason = isReceiveStalled ? 'stopped in the middle of a record' : 'took no reply';
      this.#logger.warn({ client: connection.clientAddress, stallTimeoutMs: this.#limits.stallTimeoutMs }, `RPC client ${reason}: connection closed`);
      connection.destroy(reason);
    }
  }
}

/**
 * Exchanges an accepted socket for one that receives into slabs. Node offers `onread` only to sockets that it connects itself, so the
 * handle moves to a new Socket; destroying the empty one keeps the listener's books right. Measured (toolchain.md 7): `data` events
 * allocate 64 KiB a read, which costs small calls most, and a process with a big heap everything.
 */
function exchangeSocket(accepted: net.Socket, slab: ReceiveSlab, receive: (chunk: Buffer) => boolean): net.Socket {
  const holder = accepted as unknown as { _handle: net.BoundSocket | null };
  const handle = holder._handle;
  assert(handle !== null && handle !== undefined, 'net.Socket: no handle to take; this Node version is not the one that was tested');
  holder._handle = null;
  accepted.destroy();
  const options: net.SocketConstructorOpts = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: () => slab.room(),
      callback: (countBytes) => receive(slab.taken(countBytes)),
    },
  };
  const socket = new net.Socket(options);
  socket.setKeepAlive(true, KEEPALIVE_DELAY_MS, KEEPALIVE_INTERVAL_MS, KEEPALIVE_PROBES);
  return socket;
}

function listenError(transport: string, listen: RpcListen, error: Error): ApplianceError {
  const code = errorCode(error) ?? 'listen-failed';
  const advice = code === 'EACCES' ? ': ports below 1024 need root or CAP_NET_BIND_SERVICE' : code === 'EADDRINUSE' ? ': another process has it' : '';
  return new ApplianceError(code, `cannot listen on ${transport} ${listen.host} port ${listen.port} (${code})${advice}`, { cause: error });
}

function throwLater(error: AssertionError): void {
  setImmediate(() => {
    throw error;
  });
}
