import net from 'node:net';

/** A way between two ends that tests can hold, and cut anywhere. Connections are numbered in the order in which they came. */
export class TcpRelay {
  readonly #target: number;
  readonly #server: net.Server;
  readonly #pairs: RelayedConnection[] = [];

  constructor(targetPort: number) {
    this.#target = targetPort;
    this.#server = net.createServer({ noDelay: true, pauseOnConnect: true }, (client) => {
      this.#pairs.push(new RelayedConnection(client, this.#target));
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as net.AddressInfo).port;
  }

  get connections(): readonly RelayedConnection[] {
    return this.#pairs;
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) pair.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

export class RelayedConnection {
  readonly #client: net.Socket;
  readonly #server: net.Socket;
  /** Bytes that still pass towards the server or the client before the connection is cut. */
  #leftToServer = Infinity;
  #leftToClient = Infinity;
  #held: { readonly socket: net.Socket; readonly chunk: Buffer }[] = [];
  #holdsToServer = false;
  #holdsToClient = false;

  constructor(client: net.Socket, targetPort: number) {
    this.#client = client;
    this.#server = net.connect({ host: '127.0.0.1', port: targetPort, noDelay: true });
    for (const [from, to] of [
      [client, this.#server],
      [this.#server, client],
    ] as const) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
      from.on('data', (chunk: Buffer) => this.#pass(to, chunk));
    }
    client.resume();
  }

  get isClosed(): boolean {
    return this.#client.destroyed && this.#server.destroyed;
  }

  /** Keeps what is sent towards one end, without reading more than what the kernel holds from the other. */
  hold(towards: 'server' | 'client'): void {
    if (towards === 'server') this.#holdsToServer = true;
    else {
      this.#holdsToClient = true;
      this.#server.pause();
    }
  }

  release(): void {
    this.#holdsToServer = false;
    this.#holdsToClient = false;
    for (const { socket, chunk } of this.#held.splice(0)) this.#pass(socket, chunk);
    this.#server.resume();
  }

  /** Lets `bytes` more pass towards one end, then cuts the connection. */
  cutAfter(towards: 'server' | 'client', bytes: number): void {
    if (towards === 'server') this.#leftToServer = bytes;
    else this.#leftToClient = bytes;
  }

  cut(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  #pass(to: net.Socket, chunk: Buffer): void {
    const isToServer = to === this.#server;
    if (isToServer ? this.#holdsToServer : this.#holdsToClient) {
      this.#held.push({ socket: to, chunk });
      return;
    }
    const left = isToServer ? this.#leftToServer : this.#leftToClient;
    const passed = chunk.subarray(0, Math.min(chunk.length, left));
    if (isToServer) this.#leftToServer -= passed.length;
    else this.#leftToClient -= passed.length;
    const isOver = passed.length === left;
    to.write(passed, () => {
      if (isOver) this.cut();
    });
  }
}
