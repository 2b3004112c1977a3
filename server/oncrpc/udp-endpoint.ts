/** Calls by UDP: one datagram, one call; one datagram, one reply (RFC 5531 §10.1 leaves reliability to the client). */
import type { RemoteInfo, Socket } from 'node:dgram';

import type { CallService } from './call-service.ts';
import { CredentialReader } from './rpc-credential.ts';
import type { RpcLimits } from './rpc-limits.ts';
import type { RpcObserver } from './rpc-observer.ts';
import type { RpcProgram } from './rpc-program.ts';
import { SendBuffer } from './send-buffer.ts';
import { RECORD_MARK_BYTES } from './server-call.ts';
import type { ReplyPath, ServerCall } from './server-call.ts';

/** What an endpoint asks of the server that it belongs to. */
export interface DatagramHost {
  readonly service: CallService;
  readonly limits: RpcLimits;
  readonly observer: RpcObserver;
}

/** One bound socket. */
export class UdpEndpoint {
  readonly #host: DatagramHost;
  readonly #programs: readonly RpcProgram[];
  readonly #socket: Socket;
  /** Credentials differ from datagram to datagram, so nothing is gained by remembering more than the last. */
  readonly #credentials = new CredentialReader();
  #outstanding = 0;
  #isClosed = false;

  constructor(host: DatagramHost, programs: readonly RpcProgram[], socket: Socket) {
    this.#host = host;
    this.#programs = programs;
    this.#socket = socket;
    socket.on('message', (message, from) => this.#receive(message, from));
  }

  get outstanding(): number {
    return this.#outstanding;
  }

  /** Unbinds. Running calls finish, their replies go nowhere. */
  close(): Promise<void> {
    this.#isClosed = true;
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }

  #receive(message: Buffer, from: RemoteInfo): void {
    this.#host.observer.received(message.length);
    if (this.#isClosed || this.#outstanding >= this.#host.limits.datagramCallsMax) return;
    const service = this.#host.service;
    const path = new DatagramPath(from, (done, reply) => this.#reply(done, reply, from));
    const call = service.take(path);
    call.load(path, message, 0, message.length, null);
    this.#outstanding += 1;
    // What is no call gets no answer: an answer to anything at all is a reflector for floods.
    if (!service.serve(call, this.#programs, this.#credentials)) {
      this.#outstanding -= 1;
      service.recycle(call);
    }
  }

  #reply(call: ServerCall, reply: Buffer, to: RemoteInfo): void {
    this.#outstanding -= 1;
    // A turn later the program that finished it has let go of the call.
    setImmediate(() => this.#host.service.recycle(call));
    if (this.#isClosed) return;
    this.#socket.send(reply, to.port, to.address, (error) => {
      // A datagram that cannot be sent (EMSGSIZE: the reply fits none) is a datagram lost, as datagrams may be.
      if (error === null) this.#host.observer.sent(reply.length);
    });
  }
}

class DatagramPath implements ReplyPath {
  readonly transport = 'udp';
  readonly clientAddress: string;
  readonly clientPort: number;
  readonly #send: (call: ServerCall, reply: Buffer) => void;

  constructor(from: RemoteInfo, send: (call: ServerCall, reply: Buffer) => void) {
    this.clientAddress = plainAddress(from.address);
    this.clientPort = from.port;
    this.#send = send;
  }

  reserve(call: ServerCall, sizeBytes: number): void {
    call.region = new SendBuffer(Buffer.allocUnsafe(sizeBytes));
    call.regionStart = 0;
    call.regionEnd = sizeBytes;
  }

  cancel(call: ServerCall): void {
    call.region = null;
  }

  send(call: ServerCall): void {
    const reply = call.region!.bytes.subarray(call.regionStart + RECORD_MARK_BYTES, call.replyEnd);
    call.region = null;
    this.#send(call, reply);
  }
}

/** An IPv4 address that came in over an IPv6 socket, without its prefix: the client is the same whichever way it came. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}
