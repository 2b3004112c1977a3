/**
 * An HTTP server that is as bad as a store can be while its data is right: connections that break, answers that never come or come torn, wrong bytes
 * under a right ETag, tokens that die, storms of 401, 429, 498 and 503, a wire of a few megabytes a second, stalls. Seeded, switched at run time.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

import { SeededRandom } from '../random.ts';
import type { SwiftAnswer, SwiftAnswers } from './swift-answers.ts';

/** Probabilities are per request, 0 to 1. Everything is off by default. */
export interface HttpFaults {
  /** Each PUT of at least `putDelayFromBytes` waits so long before it has its effect; those that wait already, too, when it changes. No probability. */
  readonly putDelayMs: number;
  readonly putDelayFromBytes: number;
  /** The connection is reset before the request has an effect; after a part of its body was read, if it has one. */
  readonly resetRequest: number;
  /** The request has its effect; the connection is reset instead of an answer. */
  readonly loseAnswer: number;
  /** The connection is reset in the middle of the answer's body. */
  readonly resetBody: number;
  /** The answer says more bytes than it has, and the connection ends in good order. */
  readonly shortBody: number;
  /** One bit of the answer's body is wrong; its ETag is right. */
  readonly flipBody: number;
  /** One bit of the request's body is wrong when it arrives. */
  readonly flipRequest: number;
  /** No token is valid any more. */
  readonly revokeTokens: number;
  /** 498, and 429 or 503 with `Retry-After: retryAfterSeconds`. */
  readonly rateLimit: number;
  readonly tooMany: number;
  readonly unavailable: number;
  readonly retryAfterSeconds: number;
  /** The answer stops in the middle of its body, or never begins, until the client goes. */
  readonly stall: number;
  /** Of all bodies together, both ways; 0: as fast as it goes. */
  readonly bytesPerSecond: number;
}

/** How soon PUTs that wait see that they need not any more. */
const PUT_LOOK_MS = 100;

const NO_FAULTS: HttpFaults = {
  putDelayMs: 0,
  putDelayFromBytes: 0,
  resetRequest: 0,
  loseAnswer: 0,
  resetBody: 0,
  shortBody: 0,
  flipBody: 0,
  flipRequest: 0,
  revokeTokens: 0,
  rateLimit: 0,
  tooMany: 0,
  unavailable: 0,
  retryAfterSeconds: 1,
  stall: 0,
  bytesPerSecond: 0,
};

/** One request as it ended. `status` 0: it got no answer, or none that was whole. */
export interface SeenRequest {
  readonly atMs: number;
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly bodyBytes: number;
  readonly answerBytes: number;
}

/** Remembered requests. */
const SEEN_MAX = 200_000;
/** Steps in which a slow wire takes bytes. */
const STEP_BYTES = 16 * 1024;

export class HostileServer implements AsyncDisposable {
  readonly #answers: SwiftAnswers;
  readonly #random: SeededRandom;
  #faults: HttpFaults = NO_FAULTS;
  #server: Server | null = null;
  readonly #host: string;
  #port: number;
  #wireFreeMs = 0;
  #seen: SeenRequest[] = [];
  readonly #counts = new Map<string, number>();
  #bodyBytes = 0;
  #answerBytes = 0;
  #underWay = 0;
  readonly #bugs: Error[] = [];
  /** Abort what is stalled when the server goes. */
  #closing = new AbortController();

  /** `listen`: default is a free port of loopback. */
  constructor(answers: SwiftAnswers, seed: number, listen: { readonly host: string; readonly port: number } = { host: '127.0.0.1', port: 0 }) {
    this.#answers = answers;
    this.#host = listen.host;
    this.#port = listen.port;
    this.#random = new SeededRandom(seed);
  }

  get origin(): string {
    return `http://${this.#host}:${this.#port}`;
  }

  /** The last requests, oldest first. */
  get seen(): readonly SeenRequest[] {
    return this.#seen;
  }

  /** Requests by method, with or without an answer. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  get bodyBytes(): number {
    return this.#bodyBytes;
  }

  get answerBytes(): number {
    return this.#answerBytes;
  }

  get underWay(): number {
    return this.#underWay;
  }

  /** Replaces all faults; what is not named is off. */
  setFaults(faults: Partial<HttpFaults>): void {
    this.#faults = { ...NO_FAULTS, ...faults };
    this.#wireFreeMs = 0;
  }

  forgetSeen(): void {
    this.#seen = [];
    this.#counts.clear();
    this.#bodyBytes = 0;
    this.#answerBytes = 0;
  }

  /** Listens: where no port was given on a free one, later on the same. */
  async listen(): Promise<void> {
    if (this.#server !== null) return;
    this.#closing = new AbortController();
    const server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        // The client went away in the middle: a socket error is its business, anything else is a bug of ours.
        const expected = (error as NodeJS.ErrnoException).code !== undefined || error instanceof Gone;
        if (!expected) this.#bugs.push(error as Error);
        request.destroy();
      });
    });
    server.keepAliveTimeout = 30_000;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    server.listen(this.#port, this.#host, resolve);
    await promise;
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** Nobody listens any more; connections break. */
  async stopListening(): Promise<void> {
    const server = this.#server;
    if (server === null) return;
    this.#server = null;
    this.#closing.abort();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    server.closeAllConnections();
    await promise;
  }

  /** @throws AggregateError when the server itself did something wrong. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopListening();
    if (this.#bugs.length > 0) throw new AggregateError(this.#bugs, 'the hostile server failed by itself');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const atMs = performance.now();
    const method = request.method ?? '';
    // The request forgets its socket when its body is left unread.
    const { socket } = request;
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    request.on('error', () => gone.abort());
    response.on('error', () => gone.abort());
    const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
    this.#underWay += 1;
    this.#counts.set(method, (this.#counts.get(method) ?? 0) + 1);
    let [status, bodyBytes, answerBytes] = [0, 0, 0];
    try {
      const faults = this.#faults;
      const body = await this.#receive(request, socket, this.#happens(faults.resetRequest), signal);
      if (body === null) return;
      bodyBytes = body.length;
      const answer = await this.#answer(request, body, signal);
      if (this.#happens(faults.loseAnswer)) {
        socket.resetAndDestroy();
        return;
      }
      answerBytes = await this.#send(socket, method, response, answer, signal);
      if (answerBytes === answer.body.length || method === 'HEAD') status = answer.status;
    } finally {
      this.#underWay -= 1;
      this.#bodyBytes += bodyBytes;
      this.#answerBytes += answerBytes;
      this.#seen.push({ atMs, method, url: request.url ?? '', status, bodyBytes, answerBytes });
      if (this.#seen.length > SEEN_MAX) this.#seen = this.#seen.slice(-SEEN_MAX / 2);
    }
  }

  /** The request's body; null when the connection was reset on the way. */
  async #receive(request: IncomingMessage, socket: Socket, reset: boolean, signal: AbortSignal): Promise<Buffer | null> {
    const lengthBytes = Number(request.headers['content-length'] ?? 0);
    const resetAt = reset ? this.#random.below(Math.max(1, lengthBytes)) : Infinity;
    const chunks: Buffer[] = [];
    let received = 0;
    if (resetAt > 0 || !reset)
      for await (const chunk of request as AsyncIterable<Buffer>) {
        chunks.push(chunk);
        received += chunk.length;
        if (received > resetAt) break;
        await this.#wire(chunk.length, signal);
      }
    if (reset) {
      socket.resetAndDestroy();
      return null;
    }
    if (!request.complete) throw new Gone();
    const body = Buffer.concat(chunks);
    if (body.length > 0 && this.#happens(this.#faults.flipRequest)) this.#flip(body);
    return body;
  }

  async #answer(request: IncomingMessage, body: Buffer, signal: AbortSignal): Promise<SwiftAnswer> {
    const faults = this.#faults;
    const refusal = (status: number): SwiftAnswer => ({
      status,
      headers: { 'content-type': 'text/plain', ...(status === 498 ? {} : { 'retry-after': String(faults.retryAfterSeconds) }) },
      body: Buffer.from(`${status}\n`),
    });
    if (request.method === 'PUT') await this.#delayPut(body.length, signal);
    if (this.#happens(faults.revokeTokens)) this.#answers.revokeTokens();
    if (this.#happens(faults.rateLimit)) return refusal(498);
    if (this.#happens(faults.tooMany)) return refusal(429);
    if (this.#happens(faults.unavailable)) return refusal(503);
    return await this.#answers.answer({ method: request.method ?? '', url: request.url ?? '/', headers: request.headers, body, signal }, this.origin);
  }

  async #delayPut(bodyBytes: number, signal: AbortSignal): Promise<void> {
    const beganMs = performance.now();
    for (;;) {
      const { putDelayMs, putDelayFromBytes } = this.#faults;
      const leftMs = bodyBytes < putDelayFromBytes ? 0 : beganMs + putDelayMs - performance.now();
      if (leftMs <= 0) return;
      await delay(Math.min(leftMs, PUT_LOOK_MS), undefined, { signal });
    }
  }

  /** Bytes of the body that were sent. */
  async #send(socket: Socket, method: string, response: ServerResponse, answer: SwiftAnswer, signal: AbortSignal): Promise<number> {
    const faults = this.#faults;
    const hasBody = method !== 'HEAD' && answer.status !== 204;
    const length = answer.status === 204 ? {} : { 'content-length': String(answer.bodyBytes ?? answer.body.length) };
    const stall = this.#happens(faults.stall);
    if (stall && (!hasBody || this.#happens(0.5))) await untilAborted(signal);
    response.writeHead(answer.status, { date: new Date().toUTCString(), 'x-trans-id': `tx${this.#seen.length}`, ...answer.headers, ...length });
    if (!hasBody) {
      response.end();
      return 0;
    }
    const body = Buffer.from(answer.body);
    if (body.length > 0 && this.#happens(faults.flipBody)) this.#flip(body);
    const reset = this.#happens(faults.resetBody);
    const short = this.#happens(faults.shortBody);
    const end = reset || short || stall ? this.#random.below(Math.max(1, body.length)) : body.length;
    for (let at = 0; at < end; at += STEP_BYTES) {
      const step = body.subarray(at, Math.min(end, at + STEP_BYTES));
      await this.#wire(step.length, signal);
      if (!response.write(step)) await drained(response, signal);
    }
    if (stall) await untilAborted(signal);
    if (reset) socket.resetAndDestroy();
    else if (short) socket.end();
    else response.end();
    return end;
  }

  /** Waits until the wire has taken `bytes` behind what it took before. */
  async #wire(bytes: number, signal: AbortSignal): Promise<void> {
    const { bytesPerSecond } = this.#faults;
    if (bytesPerSecond === 0) return;
    const nowMs = performance.now();
    this.#wireFreeMs = Math.max(nowMs, this.#wireFreeMs) + (bytes / bytesPerSecond) * 1000;
    const waitMs = this.#wireFreeMs - nowMs;
    // Timers of a millisecond would add up to more than they are.
    if (waitMs > 5) await Promise.race([new Promise((resolve) => setTimeout(resolve, waitMs)), untilAborted(signal)]);
  }

  #flip(bytes: Buffer): void {
    const bit = this.#random.below(bytes.length * 8);
    bytes[bit >>> 3] = (bytes[bit >>> 3] as number) ^ (1 << (bit & 7));
  }

  #happens(probability: number): boolean {
    return probability > 0 && this.#random.chance(probability);
  }
}

/** The client is not there any more, or the server is to end. */
class Gone extends Error {}

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(new Gone());
    else signal.addEventListener('abort', () => reject(new Gone()), { once: true });
  });
}

async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once('drain', resolve);
  await Promise.race([promise, untilAborted(signal)]);
}
