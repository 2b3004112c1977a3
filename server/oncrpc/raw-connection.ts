/** A TCP connection that sends any bytes and collects reply records: for tests of what the server does with bytes that no client sends. */
import { once } from 'node:events';
import net from 'node:net';

import { RecordReader } from './record-reader.ts';

const REPLY_BYTES_MAX = 16 * 1024 * 1024;

export class RawConnection {
  readonly #socket: net.Socket;
  readonly #records = new RecordReader(REPLY_BYTES_MAX);
  /** Replies received, without their record marks, in order of arrival. */
  readonly replies: Buffer[] = [];
  /** `data` events so far: how many reads the replies took. */
  reads = 0;
  #isClosed = false;
  #wake: () => void = () => {};

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.reads += 1;
      this.#records.push(chunk);
      while (this.#records.next() === 'record') {
        const { buffer, start, end, chunks } = this.#records;
        this.replies.push(chunks === null ? Buffer.from(buffer.subarray(start, end)) : Buffer.concat(chunks));
      }
      this.#wake();
    });
    // A reset is one of the ways in which a server may close.
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#isClosed = true;
      this.#wake();
    });
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = net.connect({ host: '127.0.0.1', port, noDelay: true });
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Resolves when the bytes are handed to the system, or the connection is gone. */
  send(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve()));
  }

  /** Says that nothing more will be sent, and goes on reading. */
  half(): void {
    this.#socket.end();
  }

  /** Resolves when there are `count` replies, or the server has closed. */
  async waitForReplies(count: number): Promise<void> {
    while (this.replies.length < count && !this.#isClosed) await this.#change();
  }

  async waitForClose(): Promise<void> {
    while (!this.#isClosed) await this.#change();
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    await this.waitForClose();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
