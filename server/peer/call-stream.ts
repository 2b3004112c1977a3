/** The calling end of one stream: sends calls as far as the credit goes, hands answers to those who wait for them. */
import { ApplianceError } from '../core/errors.ts';
import type { Clock } from '../core/time.ts';
import { decodeAnswer, decodeAnswerPayload } from './answer-codec.ts';
import type { DecodedAnswer } from './answer-codec.ts';
import { CallTable } from './call-table.ts';
import { FrameError } from './frame-error.ts';
import { FrameReader } from './frame-reader.ts';
import { FrameSender } from './frame-sender.ts';
import { FrameKind } from './frame.ts';
import type { FrameHead } from './frame.ts';
import type { H2Stream } from './h2/h2-connection.ts';
import { getHelloAnswer, putHello, VERSION_READS_WITHOUT_CRC } from './hello.ts';
import type { Hello, HelloAnswer } from './hello.ts';
import type { PeerCall } from './peer-call.ts';
import type { PeerSettings } from './peer-settings.ts';
import { encodeRequest } from './request-codec.ts';
import { WireReader } from './wire-reader.ts';

/** What a stream tells the link that it belongs to. */
export interface CallStreamHost {
  readonly clock: Clock;
  readonly settings: PeerSettings;
  /** The answer to the hello. */
  greeted(answer: HelloAnswer): void;
  ponged(roundTripMs: number): void;
  /** The stream is of no use any more. */
  lost(reason: string): void;
}

export class CallStream {
  readonly #host: CallStreamHost;
  readonly #sender: FrameSender;
  readonly #reader: FrameReader;
  readonly #args = new WireReader(Buffer.alloc(0));
  readonly #calls = new CallTable();
  #waiting: PeerCall[] = [];
  #waitingFrom = 0;
  #waitingBytes = 0;
  #creditBytes = 0;
  #outstandingBytes = 0;
  /** When the pings were sent that are not answered yet. */
  readonly #pingsMs: number[] = [];
  #isClosed = false;

  /** The frame being received. */
  #call: PeerCall | null = null;
  #decoded: DecodedAnswer | null = null;
  #payload: Buffer | null = null;
  #hello: HelloAnswer | null = null;
  #pongMs = -1;

  constructor(host: CallStreamHost, stream: H2Stream, hello: Hello) {
    this.#host = host;
    this.#sender = new FrameSender(stream, host.clock);
    this.#reader = new FrameReader(this);
    stream.host = {
      answered: (headers) => {
        const status = headers.find(([name]) => name === ':status')?.[1];
        if (status !== '200') host.lost(`it answered with status ${status}`);
      },
      received: (chunk) => this.#receive(chunk),
      ended: () => host.lost(this.#reader.isBetweenFrames ? 'it ended the stream' : 'it ended the stream within a frame'),
      reset: (code) => host.lost(`it closed the stream (${code})`),
    };
    putHello(this.#sender.open(), hello);
    this.#sender.send(FrameKind.HELLO, false, 0, 0, host.clock.monotonicMs(), []);
    this.#sender.flush();
  }

  /** Bytes of calls that wait for credit. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Sends a call, now or when there is credit. */
  call(call: PeerCall): void {
    if (this.#isClosed) {
      call.fail(lostError('the connection is closed'));
      return;
    }
    if (this.#waiting.length === 0 && this.#mayBeSent(call)) {
      this.#send(call);
      return;
    }
    this.#waiting.push(call);
    this.#waitingBytes += call.chargeBytes;
  }

  /** Sent also while earlier ones are not answered: the server must hear something even when its answers are slow to arrive. */
  ping(): void {
    if (this.#isClosed) return;
    const nowMs = this.#host.clock.monotonicMs();
    this.#pingsMs.push(nowMs);
    this.#sender.open();
    this.#sender.send(FrameKind.PING, false, 0, 0, nowMs, []);
  }

  /** Ends the stream: all calls that were not answered fail. */
  close(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#reader.stop();
    this.#sender.close();
    const error = lostError(reason);
    const calls = [...this.#calls.list(), ...this.#waiting.slice(this.#waitingFrom)];
    // Half of its answer came.
    if (this.#call !== null) calls.push(this.#call);
    this.#calls.clear();
    this.#waiting = [];
    this.#waitingFrom = 0;
    this.#waitingBytes = 0;
    for (const call of calls) call.fail(error);
  }

  /** Fails calls that waited for credit or for an answer for too long. The latter keep their credit until the answer comes. */
  expire(nowMs: number): void {
    const { callTimeoutMs, callAgeMsMax } = this.#host.settings;
    for (const call of this.#calls.list()) if (nowMs - call.madeMs > callTimeoutMs) call.fail(lostError(`no answer within ${callTimeoutMs} ms`));
    for (let i = this.#waitingFrom; i < this.#waiting.length; i++) {
      const call = this.#waiting[i]!;
      if (nowMs - call.madeMs <= callAgeMsMax) break;
      call.fail(lostError(`the call waited for more than ${callAgeMsMax} ms before it could be sent`));
    }
  }

  #mayBeSent(call: PeerCall): boolean {
    return this.#outstandingBytes === 0 || this.#outstandingBytes + call.chargeBytes <= this.#creditBytes;
  }

  #send(call: PeerCall): void {
    if (call.isSettled) return;
    const nowMs = this.#host.clock.monotonicMs();
    const ageMs = nowMs - call.madeMs;
    if (ageMs > this.#host.settings.callAgeMsMax) {
      call.fail(lostError(`the call waited for ${Math.round(ageMs)} ms before it could be sent`));
      return;
    }
    const { request } = call;
    // First: what cannot be encoded takes no credit.
    const payload = encodeRequest(request, this.#sender.open());
    this.#outstandingBytes += call.chargeBytes;
    this.#calls.add(call);
    this.#sender.send(request.kind, false, call.id, Math.min(Math.ceil(ageMs), 0xffff), nowMs, payload, call.payloadCrc);
  }

  #receive(chunk: Buffer): void {
    if (this.#isClosed) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#host.lost(`it sent ${error.message}`);
    }
  }

  begin(head: FrameHead, bytes: Buffer, start: number, end: number): Buffer | null {
    const args = this.#args;
    args.load(bytes, start, end);
    if (!head.isAnswer) throw new FrameError('a call to a caller');
    if (head.kind === FrameKind.HELLO || head.kind === FrameKind.PING) {
      if (head.payloadBytes > 0) throw new FrameError('a payload where none belongs');
      if (head.kind === FrameKind.HELLO) {
        if (this.#creditBytes > 0) throw new FrameError('a second hello');
        this.#hello = getHelloAnswer(args);
        args.assertEnd();
      } else {
        args.assertEnd();
        const sentMs = this.#pingsMs.shift();
        if (sentMs === undefined) throw new FrameError('an answer to no ping');
        this.#pongMs = this.#host.clock.monotonicMs() - sentMs;
      }
      return null;
    }
    const call = this.#calls.get(head.requestId);
    if (call === null || call.request.kind !== head.kind) throw new FrameError(`an answer to no call (${head.requestId})`);
    this.#decoded = decodeAnswer(head.kind, args, head.payloadBytes, call.into?.length ?? 0);
    this.#calls.remove(call);
    this.#call = call;
    if (head.payloadBytes === 0) return null;
    // A call that timed out has given its buffer back: what comes for it goes nowhere.
    this.#payload = call.into !== null && !call.isSettled ? call.into : Buffer.allocUnsafe(head.payloadBytes);
    return this.#payload;
  }

  end(head: FrameHead): void {
    if (this.#hello !== null) {
      const answer = this.#hello;
      this.#hello = null;
      if (answer.kind === 'welcome') {
        this.#creditBytes = answer.creditBytes;
        this.#reader.readsHaveCrc = this.#sender.readsHaveCrc = answer.version < VERSION_READS_WITHOUT_CRC;
      }
      this.#host.greeted(answer);
      return;
    }
    if (this.#pongMs >= 0) {
      const roundTripMs = this.#pongMs;
      this.#pongMs = -1;
      this.#host.ponged(roundTripMs);
      return;
    }
    const call = this.#call!;
    const decoded = this.#decoded!;
    let answer: unknown = null;
    if (decoded.kind === 'answer') answer = decoded.answer;
    else if (decoded.kind === 'payload') {
      // May throw: then the call still is the one being received, and fails with the stream.
      const payload = (this.#payload ?? Buffer.alloc(0)).subarray(0, head.payloadBytes);
      answer = decodeAnswerPayload(call.request.kind, payload, call.targetsCount);
    }
    this.#call = null;
    this.#decoded = null;
    this.#payload = null;
    this.#outstandingBytes -= call.chargeBytes;
    if (this.#waitingFrom < this.#waiting.length) this.#sendWaiting();
    // Last: who hears of it may call again.
    if (decoded.kind === 'failed') call.fail(decoded.error);
    else call.succeed(answer);
  }

  #sendWaiting(): void {
    while (this.#waitingFrom < this.#waiting.length && this.#mayBeSent(this.#waiting[this.#waitingFrom]!)) {
      const call = this.#waiting[this.#waitingFrom]!;
      this.#waitingFrom += 1;
      this.#waitingBytes -= call.chargeBytes;
      this.#send(call);
    }
    if (this.#waitingFrom === 0) return;
    if (this.#waitingFrom === this.#waiting.length) {
      this.#waiting = [];
      this.#waitingFrom = 0;
    } else if (this.#waitingFrom > 1024) {
      this.#waiting = this.#waiting.slice(this.#waitingFrom);
      this.#waitingFrom = 0;
    }
  }
}

function lostError(reason: string): ApplianceError {
  return new ApplianceError('peer-unavailable', `the peer cannot be reached: ${reason}`, { retryable: true });
}
