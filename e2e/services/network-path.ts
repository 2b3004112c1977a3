/**
 * The way from a router to a service, for tests to cut: a relay that hands bytes on in both directions. Cut, it is a cable that was pulled: nothing
 * arrives, nothing is refused, connections stay and go on when it is plugged in again; new ones get no answer.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type ListenOptions, type NetConnectOpts, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

import type { NetworkNamespace } from '../network-namespace.ts';
import { scratchDirectory } from '../scratch.ts';
import { Daemon } from './daemon.ts';

/** An address and a port of it. */
export interface Place {
  readonly host: string;
  readonly port: number;
}

/** A process of its own with a relay in it, for networks that this process is not in; it serves a moment later. `prefix`: what to put in front of its command. */
export function startRelay(prefix: readonly string[], listen: Place, target: Place, logFile: string): Daemon {
  const places = [listen.host, String(listen.port), target.host, String(target.port)];
  const daemon = new Daemon({
    name: 'relay',
    command: [...prefix, process.execPath, join(import.meta.dirname, 'relay-main.ts'), ...places],
    logFile,
  });
  daemon.start();
  return daemon;
}

interface Pair {
  readonly near: Socket;
  far: Socket | null;
}

export class NetworkPath implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: NetConnectOpts;
  readonly #pairs = new Set<Pair>();
  readonly #stack = new AsyncDisposableStack();
  /** Where it listens on 127.0.0.1. */
  #port = 0;
  #isCut = false;
  #isDeaf = false;

  private constructor(target: NetConnectOpts) {
    this.#target = target;
    this.#server = createServer({ allowHalfOpen: true }, (near) => this.#accept(near));
  }

  /** A free port of 127.0.0.1 that leads to `servicePort`. */
  static async to(servicePort: number, host = '127.0.0.1'): Promise<NetworkPath> {
    const path = new NetworkPath({ port: servicePort, host });
    await path.#listen({ port: 0, host: '127.0.0.1' });
    path.#port = (path.#server.address() as AddressInfo).port;
    return path;
  }

  /** `servicePort` of this machine's loopback, to be found at the same port of the loopback of a private network. */
  static async into(network: NetworkNamespace, servicePort: number): Promise<NetworkPath> {
    const path = new NetworkPath({ port: servicePort, host: '127.0.0.1' });
    try {
      // A socket file is no part of any network: it leads from one to the other.
      const scratch = path.#stack.use(await scratchDirectory('network-path')).path;
      const socketFile = join(scratch, 'socket');
      await path.#listen({ path: socketFile });
      const inner = new Daemon({
        name: 'relay',
        command: [...network.prefix, process.execPath, join(import.meta.dirname, 'relay-main.ts'), String(servicePort), socketFile],
        logFile: join(scratch, 'log'),
      });
      path.#stack.defer(() => inner.kill());
      inner.start();
      await inner.waitUntil(async () => (await readText(join(scratch, 'log'))).includes('listening'));
    } catch (error) {
      await path[Symbol.asyncDispose]();
      throw error;
    }
    path.#port = servicePort;
    return path;
  }

  /** The end inside a private network: listens on a port, leads to a socket file. Lives as long as the process. */
  static async fromSocketFile(port: number, socketFile: string): Promise<void> {
    await new NetworkPath({ path: socketFile }).#listen({ port, host: '127.0.0.1' });
  }

  /** Between two places that this process reaches. Lives as long as the process. */
  static async between(listen: Place, target: Place): Promise<void> {
    await new NetworkPath(target).#listen(listen);
  }

  get port(): number {
    return this.#port;
  }

  cut(): void {
    this.#isCut = true;
    for (const { near, far } of this.#pairs) {
      for (const socket of [near, far]) {
        socket?.unpipe();
        socket?.pause();
      }
    }
  }

  restore(): void {
    this.#isCut = false;
    for (const pair of this.#pairs) this.#join(pair);
  }

  /** Answers are lost from now on: what is asked still arrives and is done. Until `breakAll`. */
  deafen(): void {
    this.#isDeaf = true;
    for (const { near, far } of this.#pairs) if (far !== null) loseAnswers(near, far);
  }

  /** All connections end, as at a restart of what lies between; new ones are as ever. */
  breakAll(): void {
    this.#isDeaf = false;
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far?.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far?.destroy();
    }
    if (this.#server.listening) {
      this.#server.close();
      await once(this.#server, 'close');
    }
    await this.#stack.disposeAsync();
  }

  async #listen(where: ListenOptions): Promise<void> {
    this.#server.listen(where);
    await once(this.#server, 'listening');
  }

  #accept(near: Socket): void {
    const pair: Pair = { near, far: null };
    this.#pairs.add(pair);
    near.pause();
    this.#ends(near, pair);
    if (!this.#isCut) this.#join(pair);
  }

  #join(pair: Pair): void {
    if (pair.far === null) {
      pair.far = connect({ ...this.#target, allowHalfOpen: true });
      this.#ends(pair.far, pair);
    }
    pair.near.pipe(pair.far);
    if (this.#isDeaf) loseAnswers(pair.near, pair.far);
    else pair.far.pipe(pair.near);
  }

  /** Whoever breaks, breaks the other one too: a service that was killed must look so. */
  #ends(socket: Socket, pair: Pair): void {
    // 'close' follows, which is all that counts here: the other end breaks too.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#pairs.delete(pair);
      if (pair.near !== socket) pair.near.destroy();
      else pair.far?.destroy();
    });
  }
}

function loseAnswers(near: Socket, far: Socket): void {
  far.unpipe(near);
  // Read by nobody: thrown away.
  far.resume();
}

/** Empty while there is no such file. */
async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
