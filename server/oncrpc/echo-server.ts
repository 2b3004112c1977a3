/** A server with an echo program on a free port, for tests. */
import { silentLogger } from '../core/logger.ts';
import { systemClock } from '../core/node-time.ts';
import { EchoProgram } from './echo-program.ts';
import { silentRpcObserver } from './rpc-observer.ts';
import type { RpcObserver } from './rpc-observer.ts';
import { RpcServer } from './rpc-server.ts';
import type { RpcServerOptions } from './rpc-server.ts';

/** Counts what the server tells. */
export class CountingObserver implements RpcObserver {
  readonly counts: Record<string, number> = {};

  readonly connectionOpened = (): void => this.#count('opened');
  readonly connectionClosed = (): void => this.#count('closed');
  readonly connectionRefused = (): void => this.#count('refused connection');
  readonly received = silentRpcObserver.received;
  readonly sent = (): void => this.#count('writes');
  readonly refused = (reason: string): void => this.#count(reason);
  readonly duplicate = (kind: string): void => this.#count(kind);
  readonly paused = (): void => this.#count('paused');
  readonly resumed = (): void => this.#count('resumed');

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }
}

export interface EchoServer {
  readonly server: RpcServer;
  readonly program: EchoProgram;
  readonly observer: CountingObserver;
  readonly port: number;
  readonly udpPort: number;
}

/** Runs `body` against a fresh server and closes it, whatever happens. */
export async function withEchoServer(body: (echo: EchoServer) => Promise<void>, options: Partial<RpcServerOptions> = {}): Promise<void> {
  const observer = new CountingObserver();
  const server = new RpcServer({ clock: systemClock, logger: silentLogger, observer, ...options });
  const program = new EchoProgram();
  try {
    const { port } = await server.listenTcp({ host: '127.0.0.1', port: 0, programs: [program] });
    const udp = await server.listenUdp({ host: '127.0.0.1', port: 0, programs: [program] });
    await body({ server, program, observer, port, udpPort: udp.port });
  } finally {
    await server.close(0);
  }
}

/** Resolves when `condition` holds, asking again every few milliseconds. @throws Error with the condition when it does not in four minutes. */
export async function until(condition: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + 240_000;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`never: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
