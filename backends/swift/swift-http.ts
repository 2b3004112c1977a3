/**
 * One HTTP exchange with Swift or Keystone over node:http(s): kept connections, no redirects, every answer bounded, a silent peer given up,
 * an abort ends the socket. Knows nothing of tokens.
 */
import * as http from 'node:http';
import * as https from 'node:https';
import * as tls from 'node:tls';

import { errorCode } from '../../server/core/errors.ts';
import type { Clock } from '../../server/core/time.ts';
import { abortedError, throwIfAborted } from '../abort.ts';
import { StoreError } from '../object-store.ts';

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Body; `Content-Length` is set from it. Borrowed until the promise settles. */
  readonly chunks?: readonly Uint8Array[];
  /** Sends the body only after the server said that it wants it, or said nothing for a second (RFC 9110, section 10.1.1). Default false. */
  readonly expectContinue?: boolean;
  /** A good answer with a larger body is refused. */
  readonly answerBytesMax: number;
  readonly signal?: AbortSignal | undefined;
  /** For messages: `put bucket/name`. */
  readonly what: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Memory of its own, owned by the caller. Of an answer that is not 2xx: empty, nobody reads what a stranger wrote into an error page. */
  readonly body: Buffer;
}

export interface HttpSettings {
  /** A connection or peer without a byte of progress for this long is given up. Longer than the 10 s after which Swift's proxy gives up itself. */
  readonly silenceMsMax: number;
  /** PEM text of the CAs to trust; null: those of Node and of the system. */
  readonly ca: string | null;
}

/** An idle connection is closed by us before the server's usual 60 s are over: a request on a connection that just dies is lost. */
const IDLE_CONNECTION_MS = 20_000;
const AGENT_OPTIONS = { keepAlive: true, timeout: IDLE_CONNECTION_MS, scheduling: 'lifo' } as const;
/** A body goes out in steps of this size; each that the kernel took counts as progress. */
const STEP_BYTES = 256 * 1024;
/** More of an error page than this is not read to keep its connection. */
const ERROR_PAGE_BYTES_MAX = 64 * 1024;
const CONTINUE_WAIT_MS = 1000;
/** What kernels may hold of a body that was sent, and how slowly it may leave them: meanwhile nothing shows progress. */
const HELD_BYTES_MAX = 8 * 1024 * 1024;
const HELD_BYTES_PER_MS_MIN = 400;

/** What a peer's certificate can be wrong with: an operator has to act. */
const CERTIFICATE_CODES =
  /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_(GET|VERIFY)_|HOSTNAME_MISMATCH|INVALID_(CA|PURPOSE)|PATH_LENGTH_)/;

export class HttpConnections {
  readonly #clock: Clock;
  readonly #settings: HttpSettings;
  readonly #plain: http.Agent;
  #tls: https.Agent | null = null;

  constructor(clock: Clock, settings: HttpSettings) {
    this.#clock = clock;
    this.#settings = settings;
    this.#plain = new http.Agent(AGENT_OPTIONS);
  }

  /**
   * Resolves with any final status. @throws StoreError `retry` when there is no whole answer (refused, reset, cut, silent, aborted), `denied` when
   * the peer's certificate is not good.
   */
  exchange(request: HttpRequest): Promise<HttpAnswer> {
    const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>();
    try {
      throwIfAborted(request.signal, request.what);
      const agent = request.url.protocol === 'https:' ? this.#tlsAgent() : this.#plain;
      new Exchange(request, this.#clock, this.#settings.silenceMsMax, resolve, reject).start(agent);
    } catch (error) {
      reject(error);
    }
    return promise;
  }

  /** Ends all connections, those in use too: their calls reject with class `retry`. */
  close(): void {
    this.#plain.destroy();
    this.#tls?.destroy();
  }

  /** One context for all connections: reading the lists of CAs takes a tenth of a second. */
  #tlsAgent(): https.Agent {
    if (this.#tls !== null) return this.#tls;
    // Node's own list, and what the operator added to the system's.
    const ca = this.#settings.ca ?? [...tls.getCACertificates('default'), ...tls.getCACertificates('system')];
    this.#tls = new https.Agent({ ...AGENT_OPTIONS, secureContext: tls.createSecureContext({ ca }) });
    return this.#tls;
  }
}

class Exchange {
  readonly #request: HttpRequest;
  readonly #clock: Clock;
  readonly #silenceMsMax: number;
  readonly #resolve: (answer: HttpAnswer) => void;
  readonly #reject: (error: StoreError) => void;
  #outgoing: http.ClientRequest | null = null;
  #settled = false;
  #progressMs = 0;
  #cancelTimer: () => void = () => undefined;
  #cancelContinue: () => void = () => undefined;
  /** Where the body has got to. */
  #chunk = 0;
  #offset = 0;
  #bodyBytes = 0;
  #sending = false;
  #sent = false;

  constructor(request: HttpRequest, clock: Clock, silenceMsMax: number, resolve: (answer: HttpAnswer) => void, reject: (error: StoreError) => void) {
    this.#request = request;
    this.#clock = clock;
    this.#silenceMsMax = silenceMsMax;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(agent: http.Agent | https.Agent): void {
    const { method, url, headers, chunks, expectContinue, signal } = this.#request;
    for (const chunk of chunks ?? []) this.#bodyBytes += chunk.byteLength;
    const outgoing = (url.protocol === 'https:' ? https : http).request(url, {
      method,
      agent,
      headers: {
        ...headers,
        ...(chunks === undefined ? {} : { 'Content-Length': String(this.#bodyBytes) }),
        ...(expectContinue === true ? { Expect: '100-continue' } : {}),
      },
    });
    this.#outgoing = outgoing;
    outgoing.on('error', (error) => this.#fail(connectionError(this.#request, error)));
    outgoing.once('response', (response) => this.#onResponse(response));
    outgoing.on('drain', () => this.#send());
    outgoing.once('close', () => this.#fail(new StoreError('retry', `${this.#request.what}: ${url.host} closed the connection`)));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#progressMs = this.#clock.monotonicMs();
    this.#watch(this.#silenceMsMax);
    if (expectContinue === true) {
      outgoing.once('continue', () => this.#send());
      this.#cancelContinue = this.#clock.after(CONTINUE_WAIT_MS, () => this.#send());
      outgoing.flushHeaders();
    } else {
      this.#send();
    }
  }

  readonly #onAbort = (): void => {
    const { signal, what } = this.#request;
    if (signal !== undefined) this.#fail(abortedError(signal, what));
  };

  /** Writes until the kernel has enough; goes on at `drain`. */
  #send(): void {
    const outgoing = this.#outgoing;
    if (outgoing === null || this.#settled || this.#sent || this.#sending) return;
    this.#cancelContinue();
    this.#progress();
    this.#sending = true;
    const { chunks = [] } = this.#request;
    let wantsMore = true;
    while (wantsMore && this.#chunk < chunks.length) {
      const chunk = chunks[this.#chunk];
      if (chunk === undefined || this.#offset >= chunk.byteLength) {
        this.#chunk += 1;
        this.#offset = 0;
        continue;
      }
      const end = Math.min(chunk.byteLength, this.#offset + STEP_BYTES);
      wantsMore = outgoing.write(chunk.subarray(this.#offset, end));
      this.#offset = end;
    }
    this.#sending = false;
    if (!wantsMore) return;
    this.#sent = true;
    outgoing.end();
  }

  #onResponse(response: http.IncomingMessage): void {
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) this.#readBody(response, status);
    else this.#skipErrorPage(response, status);
  }

  #readBody(response: http.IncomingMessage, status: number): void {
    const { what, answerBytesMax, method } = this.#request;
    const header = response.headers['content-length'];
    const expectedBytes = header === undefined || method === 'HEAD' ? null : Number(header);
    const tooLarge = (bytes: number): void =>
      this.#fail(new StoreError('retry', `${what}: the answer has ${bytes} bytes, more than the ${answerBytesMax} that it may have`));
    if (expectedBytes !== null && expectedBytes > answerBytesMax) {
      tooLarge(expectedBytes);
      return;
    }
    // The length is known almost always: one buffer, no second copy.
    const whole = expectedBytes === null ? null : Buffer.allocUnsafeSlow(expectedBytes);
    const pieces: Buffer[] = [];
    let gotBytes = 0;
    response.on('data', (piece: Buffer) => {
      this.#progress();
      if (gotBytes + piece.byteLength > (whole?.byteLength ?? answerBytesMax)) {
        tooLarge(gotBytes + piece.byteLength);
        return;
      }
      if (whole === null) pieces.push(piece);
      else whole.set(piece, gotBytes);
      gotBytes += piece.byteLength;
    });
    response.once('error', (error) => this.#fail(connectionError(this.#request, error)));
    response.once('end', () => {
      if (whole !== null && gotBytes !== whole.byteLength) {
        this.#fail(new StoreError('retry', `${what}: the answer ended after ${gotBytes} of ${whole.byteLength} bytes`));
        return;
      }
      this.#finish({ status, headers: response.headers, body: whole ?? Buffer.concat(pieces) });
    });
  }

  /** The status is the answer; the page is read only so that the connection can be used again. */
  #skipErrorPage(response: http.IncomingMessage, status: number): void {
    const answer = { status, headers: response.headers, body: Buffer.alloc(0) };
    let gotBytes = 0;
    response.on('data', (piece: Buffer) => {
      this.#progress();
      gotBytes += piece.byteLength;
      if (gotBytes > ERROR_PAGE_BYTES_MAX) this.#finish(answer, true);
    });
    response.once('error', () => this.#finish(answer, true));
    response.once('end', () => this.#finish(answer));
  }

  #progress(): void {
    this.#progressMs = this.#clock.monotonicMs();
  }

  #watch(delayMs: number): void {
    this.#cancelTimer = this.#clock.after(delayMs, () => {
      const silentMs = this.#clock.monotonicMs() - this.#progressMs;
      const silenceMsMax = this.#silenceMsMax + this.#heldMs();
      if (silentMs < silenceMsMax) {
        this.#watch(silenceMsMax - silentMs);
        return;
      }
      this.#fail(new StoreError('retry', `${this.#request.what}: ${this.#request.url.host} was silent for ${Math.round(silentMs)} ms`));
    });
  }

  /** How long a body that was handed to the kernel may take to get out of it. */
  #heldMs(): number {
    return this.#sent ? Math.min(this.#bodyBytes, HELD_BYTES_MAX) / HELD_BYTES_PER_MS_MIN : 0;
  }

  #finish(answer: HttpAnswer, endConnection = false): void {
    if (!this.#settle()) return;
    // An answer before the whole body was sent: what the server would read next is the rest of it, so this connection is of no more use.
    if (endConnection || !this.#sent) this.#outgoing?.destroy();
    this.#resolve(answer);
  }

  #fail(error: StoreError): void {
    if (!this.#settle()) return;
    this.#outgoing?.destroy();
    this.#reject(error);
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.#cancelTimer();
    this.#cancelContinue();
    this.#request.signal?.removeEventListener('abort', this.#onAbort);
    return true;
  }
}

/** The error itself is no cause to hand on: a parser's holds the bytes of the answer, with a token in it. */
function connectionError({ what, url }: HttpRequest, error: Error): StoreError {
  const code = errorCode(error);
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const reason = first instanceof Error && first.message !== '' ? (first.message.split(';')[0] ?? '') : (code ?? 'connection failed');
  if (code !== undefined && CERTIFICATE_CODES.test(code)) {
    return new StoreError('denied', `${what}: the certificate of ${url.host} is not good: ${reason} (${code}); is the right CA file set?`);
  }
  return new StoreError('retry', `${what}: ${url.host}: ${reason}`);
}

/** Milliseconds since 1970 of a date in HTTP's or ISO 8601's form; NaN for anything else. */
export function dateMs(text: unknown): number {
  // oxlint-disable-next-line no-restricted-globals -- parsing reads no clock.
  return typeof text === 'string' ? Date.parse(text) : Number.NaN;
}
