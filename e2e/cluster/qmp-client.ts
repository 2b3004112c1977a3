/** QEMU's machine protocol, as much of it as a live migration takes: one JSON object a line over a unix socket. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class QmpClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #rest = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString()).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) this.#receive(JSON.parse(line) as Record<string, unknown>);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('QEMU closed its socket'));
    });
  }

  /** Connects as soon as QEMU listens there. @throws Error when it does not within 10 s. */
  static async connect(path: string): Promise<QmpClient> {
    for (let attempt = 0; ; attempt += 1) {
      const socket = connect(path);
      try {
        await once(socket, 'connect');
        const client = new QmpClient(socket);
        await client.execute('qmp_capabilities');
        return client;
      } catch (error) {
        socket.destroy();
        if (attempt >= 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** @throws Error with QEMU's description when it refuses. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.push({ resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#socket.destroy();
    await once(this.#socket, 'close');
  }

  /** Greeting and events are no answers. */
  #receive(message: Record<string, unknown>): void {
    if ('return' in message) this.#waiting.shift()?.resolve(message['return']);
    else if ('error' in message) this.#waiting.shift()?.reject(new Error((message['error'] as { desc: string }).desc));
  }
}
