/** A peer that speaks the protocol by hand, well or badly. */
import http2 from 'node:http2';

import { FrameReader } from '../frame-reader.ts';
import { FrameKind } from '../frame.ts';
import { putHello, getHelloAnswer } from '../hello.ts';
import type { Hello, HelloAnswer } from '../hello.ts';
import { PEER_PATH } from '../peer-settings.ts';
import { encodeRequest } from '../request-codec.ts';
import type { PeerRequest } from '../request-codec.ts';
import { WireReader } from '../wire-reader.ts';
import { WireWriter } from '../wire-writer.ts';
import { frameBytes } from './collected-frames.ts';
import type { CollectedFrame } from './collected-frames.ts';
import { until } from './stepped-clock.ts';
import { INCARNATION_A, INCARNATION_B, ROUTER_A, ROUTER_B, VPOOL } from './two-ends.ts';

export class RawPeer {
  readonly #session: http2.ClientHttp2Session;
  readonly #stream: http2.ClientHttp2Stream;
  readonly frames: CollectedFrame[] = [];
  readonly #reader: FrameReader;
  #readsHaveCrc = true;
  isClosed = false;

  constructor(port: number) {
    this.#session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 16 * 1024 * 1024, enablePush: false } });
    this.#session.on('error', () => {});
    this.#session.on('close', () => {
      this.isClosed = true;
    });
    this.#stream = this.#session.request({ ':method': 'POST', ':path': PEER_PATH }, { endStream: false });
    this.#stream.on('error', () => {});
    let args = Buffer.alloc(0);
    this.#reader = new FrameReader({
      begin: (_head, bytes, start, end) => {
        args = Buffer.from(bytes.subarray(start, end));
        return null;
      },
      end: (head, payload) => void this.frames.push({ head: { ...head }, args, payload: Buffer.concat(payload) }),
    });
    this.#stream.on('data', (chunk: Buffer) => this.#reader.push(chunk));
  }

  /** READs without CRCs, as from version 2 on. */
  leaveCrcsOut(): void {
    this.#readsHaveCrc = this.#reader.readsHaveCrc = false;
  }

  /** Answers are not read any more. */
  stopReading(): void {
    this.#stream.pause();
  }

  send(bytes: Uint8Array): void {
    this.#stream.write(bytes);
  }

  call(requestId: number, request: PeerRequest, times: { readonly ageMs?: number; readonly sentMs?: number } = {}): void {
    this.send(requestBytes(requestId, request, { ...times, readsHaveCrc: this.#readsHaveCrc }));
  }

  /** Says hello as router A to router B, but for `changes`; resolves with the answer, or null when the connection was closed instead. */
  async hello(changes: Partial<Hello> = {}): Promise<HelloAnswer | null> {
    const args = new WireWriter();
    putHello(args, {
      versionFirst: 1,
      versionLast: 1,
      vpoolUuid: VPOOL,
      router: ROUTER_A,
      incarnation: INCARNATION_A,
      toRouter: ROUTER_B,
      toIncarnation: INCARNATION_B,
      session: 1,
      lane: 0,
      stream: 0,
      ...changes,
    });
    this.send(frameBytes({ kind: FrameKind.HELLO, isAnswer: false, requestId: 0, ageMs: 0, sentMs: 0 }, args.written(), []));
    const before = this.frames.length;
    await until(() => this.frames.length > before || this.isClosed, 'a hello was answered');
    const frame = this.frames[before];
    return frame === undefined ? null : getHelloAnswer(new WireReader(frame.args));
  }

  /** Resolves when the other end closed the connection. */
  async closed(): Promise<void> {
    await until(() => this.isClosed, 'the connection was closed');
  }

  close(): void {
    this.#session.destroy();
  }
}

/** A request as one frame. */
export function requestBytes(requestId: number, request: PeerRequest, { ageMs = 0, sentMs = 0, readsHaveCrc = true } = {}): Buffer {
  const args = new WireWriter();
  const payload = encodeRequest(request, args);
  return frameBytes({ kind: request.kind, isAnswer: false, requestId, ageMs, sentMs }, args.written(), payload, readsHaveCrc);
}
