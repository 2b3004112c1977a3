/** The serving end of one stream: takes a hello, then executes calls and answers them in the order in which they are done. */
import { AssertionError } from '../core/assert.ts';
import { ApplianceError, errorCode, isEnvironmentError } from '../core/errors.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { isPending } from '../core/maybe-promise.ts';
import type { PeerService } from '../object-router/peer-port.ts';
import { encodeAnswer, encodeFailure } from './answer-codec.ts';
import type { Answers } from './answer-codec.ts';
import { FrameError } from './frame-error.ts';
import { FrameReader } from './frame-reader.ts';
import { COPY_BYTES_MAX, FrameSender } from './frame-sender.ts';
import { FrameKind } from './frame.ts';
import type { FrameHead } from './frame.ts';
import type { H2Stream } from './h2/h2-connection.ts';
import { getHello, putHelloAnswer, VERSION_READS_WITHOUT_CRC } from './hello.ts';
import { chargeOf, decodeRequest, laneOf, withPayload } from './request-codec.ts';
import type { CallKind, PeerRequest } from './request-codec.ts';
import type { ServedConnection } from './served-connection.ts';
import { WireReader } from './wire-reader.ts';

/** Kept for READs of the same size. */
const READ_BUFFERS_MAX = 64;
/** A frame of answers may exceed what its call was charged for by a piece or a record. */
const UNSENT_SLACK_BYTES = 16 * 1024 * 1024;

export class ServedStream {
  readonly #connection: ServedConnection;
  readonly #stream: H2Stream;
  readonly #sender: FrameSender;
  readonly #reader: FrameReader;
  readonly #args = new WireReader(Buffer.alloc(0));
  #service: PeerService | null = null;
  #lane = -1;
  #request: PeerRequest | null = null;
  #requestId = 0;
  #pingId: number | null = null;
  #outstandingBytes = 0;
  readonly #readBuffers: Buffer[] = [];
  #isClosed = false;

  constructor(connection: ServedConnection, stream: H2Stream) {
    this.#connection = connection;
    this.#stream = stream;
    this.#sender = new FrameSender(stream, connection.host.clock);
    this.#reader = new FrameReader(this);
    stream.host = {
      answered: () => {},
      received: (chunk) => this.#receive(chunk),
      ended: () => {
        // The caller ends nothing but by closing its connection.
        connection.close(this.#reader.isBetweenFrames ? 'the peer ended a stream' : 'the peer ended a stream within a frame');
      },
      reset: (code) => connection.close(`a stream was closed (${code})`),
    };
    stream.respond([
      [':status', '200'],
      ['content-type', 'application/octet-stream'],
    ]);
  }

  /** Takes and sends nothing more. Calls that run go on; their answers go nowhere. */
  close(): void {
    this.#isClosed = true;
    this.#reader.stop();
    this.#sender.close();
    this.#request = null;
  }

  /** What was read of the connection is looked at: what was answered at once leaves now. */
  flush(): void {
    this.#sender.flush();
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosed || !this.#connection.received()) return;
    try {
      this.#reader.push(chunk);
      if (this.#reader.isSliced) this.#connection.keep();
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#connection.refuse(error.message);
    }
  }

  begin(head: FrameHead, bytes: Buffer, start: number, end: number): Buffer | null {
    const args = this.#args;
    args.load(bytes, start, end);
    if (head.isAnswer) throw new FrameError('an answer to a server');
    if (!this.#connection.isInTime(head.sentMs)) return null;
    this.#requestId = head.requestId;
    if (head.kind === FrameKind.HELLO) {
      this.#hello(args, head.payloadBytes);
      return null;
    }
    if (this.#service === null) throw new FrameError('a call before the hello');
    if (head.kind === FrameKind.PING) {
      if (head.payloadBytes > 0) throw new FrameError('a ping with a payload');
      this.#pingId = head.requestId;
      return null;
    }
    const kind: CallKind = head.kind;
    if (laneOf(kind) !== this.#lane) throw new FrameError(`a call of kind ${kind} on lane ${this.#lane}`);
    const request = decodeRequest(kind, args, head.payloadBytes);
    const charge = chargeOf(request);
    if (this.#outstandingBytes > 0 && this.#outstandingBytes + charge > this.#connection.host.settings.creditBytes)
      throw new FrameError(`calls of ${this.#outstandingBytes + charge} bytes at once, beyond the credit`);
    this.#outstandingBytes += charge;
    if (head.ageMs > this.#connection.host.settings.callAgeMsMax) {
      this.#outstandingBytes -= charge;
      this.#fail(
        request,
        head.requestId,
        new ApplianceError('peer-unavailable', `the call was ${head.ageMs} ms old when it was sent`, { retryable: true }),
      );
      this.#request = null;
      return null;
    }
    this.#request = request;
    return null;
  }

  end(_head: FrameHead, payload: readonly Buffer[]): void {
    if (this.#isClosed) return;
    if (this.#pingId !== null) {
      const id = this.#pingId;
      this.#pingId = null;
      this.#sender.open();
      this.#sender.send(FrameKind.PING, true, id, 0, this.#connection.host.clock.monotonicMs(), []);
      return;
    }
    const begun = this.#request;
    if (begun === null) return;
    this.#request = null;
    this.#execute(payload.length > 0 ? withPayload(begun, payload) : begun, this.#requestId);
  }

  #hello(args: WireReader, payloadBytes: number): void {
    if (this.#service !== null) throw new FrameError('a second hello');
    if (payloadBytes > 0) throw new FrameError('a hello with a payload');
    const hello = getHello(args);
    const { answer, service } = this.#connection.admit(hello);
    const writer = this.#sender.open();
    putHelloAnswer(writer, answer);
    this.#sender.send(FrameKind.HELLO, true, this.#requestId, 0, this.#connection.host.clock.monotonicMs(), []);
    this.#sender.flush();
    if (service === null) {
      this.#reader.stop();
      this.#stream.end();
      return;
    }
    this.#service = service;
    this.#lane = hello.lane;
    if (answer.kind === 'welcome') this.#reader.readsHaveCrc = this.#sender.readsHaveCrc = answer.version < VERSION_READS_WITHOUT_CRC;
  }

  #execute(request: PeerRequest, requestId: number): void {
    const into = request.kind === FrameKind.READ ? this.#readBuffer(request.countBytes) : null;
    let answer: MaybePromise<unknown>;
    try {
      answer = callService(this.#service!, request, into);
    } catch (error) {
      this.#finish(request);
      this.#fail(request, requestId, error);
      return;
    }
    if (!isPending(answer)) {
      this.#finish(request);
      this.#answer(request, requestId, answer, into);
      return;
    }
    answer.then(
      (value) => {
        this.#finish(request);
        this.#answer(request, requestId, value, into);
      },
      (error: unknown) => {
        this.#finish(request);
        this.#fail(request, requestId, error);
      },
    );
  }

  #finish(request: PeerRequest): void {
    this.#outstandingBytes -= chargeOf(request);
  }

  #answer(request: PeerRequest, requestId: number, answer: unknown, into: Buffer | null): void {
    if (this.#isClosed) return;
    const payload = encodeAnswer(request.kind, answer as Answers[CallKind], this.#sender.open(), into);
    this.#send(request.kind, requestId, payload);
    // The sender has copied it.
    if (into !== null && into.length <= COPY_BYTES_MAX && this.#readBuffers.length < READ_BUFFERS_MAX) this.#readBuffers.push(into);
  }

  /** Memory for a READ. Small ones are used again: they cost more to allocate than to fill. */
  #readBuffer(countBytes: number): Buffer {
    const last = this.#readBuffers.at(-1);
    if (last === undefined || last.length !== countBytes) return Buffer.allocUnsafe(countBytes);
    this.#readBuffers.pop();
    return last;
  }

  #fail(request: PeerRequest, requestId: number, error: unknown): void {
    const { logger, onBug } = this.#connection.host;
    if (error instanceof AssertionError) onBug(error);
    if (!isEnvironmentError(error)) logger.error({ err: error, kind: request.kind }, 'a call of a peer failed by a bug');
    if (this.#isClosed) return;
    const message = error instanceof Error ? error.message : String(error);
    const code = isEnvironmentError(error) ? errorCode(error) : undefined;
    const failure = error instanceof ApplianceError ? error : new ApplianceError(code ?? 'peer-failed', message);
    encodeFailure(failure, this.#sender.open());
    this.#send(request.kind, requestId, []);
  }

  #send(kind: CallKind, requestId: number, payload: readonly Uint8Array[]): void {
    const { clock, settings } = this.#connection.host;
    this.#sender.send(kind, true, requestId, 0, clock.monotonicMs(), payload);
    if (this.#sender.unsentBytes > settings.creditBytes * 2 + UNSENT_SLACK_BYTES) this.#connection.refuse('the peer takes no answers');
  }
}

function callService(service: PeerService, request: PeerRequest, into: Buffer | null): MaybePromise<unknown> {
  switch (request.kind) {
    case FrameKind.GETATTR:
      return service.getattr(request.target);
    case FrameKind.ATTRIBUTES_OF:
      return service.attributesOf(request.targets);
    case FrameKind.READ:
      return service.read(request.target, request.caller, request.offsetBytes, into!);
    case FrameKind.WRITE:
      return service.write(request.target, request.caller, request.offsetBytes, request.countBytes, request.chunks, request.stability);
    case FrameKind.COMMIT:
      return service.commit(request.target, request.caller);
    case FrameKind.SETATTR:
      return service.setattr(request.target, request.caller, request.changes, request.guardCtime);
    case FrameKind.INODE_CHANGED:
      return service.inodeChanged(request.fileid);
    case FrameKind.MOVE_ASK:
      return service.moveAsk(request.target, request.from, request.nonce, request.reason);
    case FrameKind.MOVE_FETCH:
      return service.moveFetch(request.fileid, request.attempt, request.from, request.bytesMax, request.waitMs);
    case FrameKind.MOVE_FREEZE:
      return service.moveFreeze(request.fileid, request.attempt, request.from);
    case FrameKind.MOVE_CONFIRM:
      return service.moveConfirm(request.fileid, request.attempt, request.lastSequence);
    case FrameKind.MOVE_ABORT:
      return service.moveAbort(request.fileid, request.attempt, request.reason);
    case FrameKind.MOVE_OFFER:
      return service.moveOffer(request.target, request.from, request.reason);
  }
}
