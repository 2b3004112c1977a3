/**
 * One end of an HTTP/2 connection (RFC 9113), as far as streams between routers need it: no push, no priorities, no trailers; everything else that a conforming
 * peer may send is understood or ends the connection with the code that the protocol has for it. The socket belongs to who made it: bytes come by `receive`.
 *
 * In place of node:http2 because that sends only at the end of a turn of the event loop: here a write is on its way when it returns.
 */
import type { Duplex } from 'node:stream';

import { H2Code, H2Error } from './h2-error.ts';
import {
  Flag,
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  FRAME_HEAD_BYTES,
  frameOf,
  FrameType,
  numberFrame,
  PREFACE,
  SettingId,
  settingsFrame,
  WINDOW_BYTES_DEFAULT,
  WINDOW_BYTES_MAX,
} from './h2-frame.ts';
import { H2Sender } from './h2-sender.ts';
import type { DataPart, Outgoing } from './h2-sender.ts';
import { encodeHeaders, HeaderDecoder } from './hpack.ts';
import type { HeaderList } from './hpack.ts';

/** Of one frame that is no DATA, and of a header block. */
const CONTROL_BYTES_MAX = 16 * 1024;
const NO_BYTES = Buffer.alloc(0);

export interface H2Settings {
  /** What this end takes of a stream, and of all together, before it has looked at it. */
  readonly windowBytes: number;
  readonly frameBytesMax: number;
  /** Streams that the peer may have open. */
  readonly streamsMax: number;
}

export interface H2Host {
  /** The peer opened a stream (only at a server). It gets a `host` now, or is of no interest. */
  opened(stream: H2Stream, headers: HeaderList): void;
  /** The connection is over: what was received is no HTTP/2, or the peer says goodbye. Told once; the socket is to be closed. */
  failed(reason: string): void;
}

/** Who uses a stream. */
export interface H2StreamHost {
  /** The answer's headers (only at a client). */
  answered(headers: HeaderList): void;
  /** A piece of DATA, of any size; valid as long as what `receive` was given. */
  received(chunk: Buffer): void;
  /** The peer sends nothing more. */
  ended(): void;
  /** The peer has thrown the stream away. */
  reset(code: number): void;
}

export class H2Stream {
  readonly id: number;
  host: H2StreamHost | null = null;
  readonly #connection: H2Connection;
  readonly #sender: H2Sender;
  readonly outgoing: Outgoing;
  /** What the peer may still send. */
  windowBytes: number;
  isAnswered = false;
  /** The peer sends nothing more. */
  isEnded = false;

  constructor(connection: H2Connection, sender: H2Sender, id: number, windowBytes: number) {
    this.#connection = connection;
    this.#sender = sender;
    this.id = id;
    this.outgoing = sender.open(id);
    this.windowBytes = windowBytes;
  }

  /** The answer's headers (at a server, once, within `opened`). */
  respond(headers: HeaderList): void {
    this.#connection.sendAnswer(this.id, headers);
  }

  /**
   * Sends `bytes` bytes: those of `parts` behind `FRAME_HEAD_BYTES` of room in the first, which are written here. They must not change until `sent`, which may
   * be called before this returns. One write at a time.
   */
  write(parts: readonly DataPart[], bytes: number, sent: () => void): void {
    this.#sender.write(this.outgoing, parts, bytes, sent);
  }

  /** Sends nothing more, behind what is under way. */
  end(): void {
    this.#sender.end(this.outgoing);
    this.#connection.endedHere(this);
  }
}

export class H2Connection {
  readonly #isServer: boolean;
  readonly #socket: Duplex;
  readonly #settings: H2Settings;
  readonly #host: H2Host;
  readonly #sender: H2Sender;
  readonly #decoder = new HeaderDecoder();
  readonly #streams = new Map<number, H2Stream>();
  #nextId = 1;
  #lastPeerId = 0;
  #windowBytes: number;
  #isOver = false;
  #hasSettings = false;

  /** Bytes of the preface that did not come yet. */
  #prefaceLeft: number;
  /** The head of a frame that lies in more than one chunk. */
  readonly #head = Buffer.alloc(FRAME_HEAD_BYTES);
  #headBytes = 0;
  /** The frame being received. */
  #type = 0;
  #flags = 0;
  #id = 0;
  #stream: H2Stream | null = null;
  #isPadded = false;
  #dataLeft = 0;
  #skipLeft = 0;
  #isInFrame = false;
  /** The payload of a frame that is no DATA, as far as it came. */
  #control: Buffer[] = [];
  #controlLeft = 0;
  /** A header block that goes on in the next frame. */
  #block: Buffer[] | null = null;
  #blockBytes = 0;
  #blockFlags = 0;
  #blockId = 0;

  /** Begins to speak on a connected socket. `client` opens streams, `server` takes them. */
  constructor(role: 'client' | 'server', socket: Duplex, settings: H2Settings, host: H2Host) {
    this.#isServer = role === 'server';
    this.#socket = socket;
    this.#settings = settings;
    this.#host = host;
    this.#sender = new H2Sender(socket);
    this.#prefaceLeft = this.#isServer ? PREFACE.length : 0;
    this.#windowBytes = settings.windowBytes;
    const mine = settingsFrame([
      ...(this.#isServer ? [] : [[SettingId.ENABLE_PUSH, 0] as const]),
      [SettingId.MAX_CONCURRENT_STREAMS, settings.streamsMax],
      [SettingId.INITIAL_WINDOW_SIZE, settings.windowBytes],
      [SettingId.MAX_FRAME_SIZE, settings.frameBytesMax],
    ]);
    const window = numberFrame(FrameType.WINDOW_UPDATE, 0, settings.windowBytes - WINDOW_BYTES_DEFAULT);
    this.#sender.control(Buffer.concat([this.#isServer ? NO_BYTES : PREFACE, mine, window]));
  }

  /** Opens a stream (only at a client). */
  request(headers: HeaderList): H2Stream {
    const stream = new H2Stream(this, this.#sender, this.#nextId, this.#settings.windowBytes);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    this.#sender.control(headersFrame(stream.id, headers));
    return stream;
  }

  /** @throws H2Error when the peer opens streams and does not take the answers. */
  sendAnswer(id: number, headers: HeaderList): void {
    this.#sender.answer(headersFrame(id, headers));
  }

  /** A stream's own direction has ended. */
  endedHere(stream: H2Stream): void {
    if (stream.isEnded) this.#streams.delete(stream.id);
  }

  /** Takes and sends nothing more. */
  close(): void {
    this.#isOver = true;
    this.#sender.close();
  }

  /** What came on the socket, in order. */
  receive(chunk: Buffer): void {
    try {
      let at = 0;
      if (this.#prefaceLeft > 0) at = this.#takePreface(chunk);
      while (at < chunk.length && !this.#isOver) at = this.#take(chunk, at);
    } catch (error) {
      if (!(error instanceof H2Error)) throw error;
      this.#fail(error);
    }
  }

  #fail(error: H2Error): void {
    if (this.#isOver) return;
    const payload = Buffer.alloc(8);
    payload.writeUInt32BE(this.#lastPeerId);
    payload.writeUInt32BE(error.code, 4);
    this.#socket.write(frameOf(FrameType.GOAWAY, 0, 0, payload));
    this.close();
    this.#host.failed(`HTTP/2: ${error.message}`);
  }

  #takePreface(chunk: Buffer): number {
    const count = Math.min(this.#prefaceLeft, chunk.length);
    const from = PREFACE.length - this.#prefaceLeft;
    if (PREFACE.compare(chunk, 0, count, from, from + count) !== 0) throw protocolError('no preface');
    this.#prefaceLeft -= count;
    return count;
  }

  /** Takes something of `chunk` from `at`; answers where it goes on. */
  #take(chunk: Buffer, at: number): number {
    if (!this.#isInFrame) return this.#takeHead(chunk, at);
    const available = chunk.length - at;
    if (this.#isPadded) {
      const padding = chunk[at]!;
      this.#isPadded = false;
      this.#dataLeft -= 1 + padding;
      this.#skipLeft = padding;
      if (this.#dataLeft < 0) throw protocolError('more padding than there is data');
      if (this.#dataLeft + this.#skipLeft === 0) this.#endFrame();
      return at + 1;
    }
    if (this.#dataLeft > 0) {
      const count = Math.min(this.#dataLeft, available);
      this.#dataLeft -= count;
      this.#stream!.host?.received(chunk.subarray(at, at + count));
      if (this.#dataLeft + this.#skipLeft === 0) this.#endFrame();
      return at + count;
    }
    if (this.#skipLeft > 0) {
      const count = Math.min(this.#skipLeft, available);
      this.#skipLeft -= count;
      if (this.#skipLeft === 0) this.#endFrame();
      return at + count;
    }
    const count = Math.min(this.#controlLeft, available);
    if (count > 0) this.#control.push(Buffer.from(chunk.subarray(at, at + count)));
    this.#controlLeft -= count;
    if (this.#controlLeft === 0) this.#endFrame();
    return at + count;
  }

  #takeHead(chunk: Buffer, from: number): number {
    let head = chunk;
    let start = from;
    let at = from + FRAME_HEAD_BYTES;
    if (this.#headBytes > 0 || chunk.length - from < FRAME_HEAD_BYTES) {
      const count = Math.min(FRAME_HEAD_BYTES - this.#headBytes, chunk.length - from);
      chunk.copy(this.#head, this.#headBytes, from, from + count);
      this.#headBytes += count;
      at = from + count;
      if (this.#headBytes < FRAME_HEAD_BYTES) return at;
      this.#headBytes = 0;
      head = this.#head;
      start = 0;
    }
    const length = (head[start]! << 16) | (head[start + 1]! << 8) | head[start + 2]!;
    this.#type = head[start + 3]!;
    this.#flags = head[start + 4]!;
    this.#id = ((head[start + 5]! & 0x7f) << 24) | (head[start + 6]! << 16) | (head[start + 7]! << 8) | head[start + 8]!;
    this.#beginFrame(length);
    return at;
  }

  #beginFrame(length: number): void {
    const type = this.#type;
    if (length > this.#settings.frameBytesMax) throw new H2Error(H2Code.FRAME_SIZE_ERROR, `a frame of ${length} bytes`);
    if (!this.#hasSettings && type !== FrameType.SETTINGS) throw protocolError('no settings first');
    if (this.#block !== null && type !== FrameType.CONTINUATION) throw protocolError('headers that do not go on');
    this.#isInFrame = true;
    if (type === FrameType.DATA) this.#beginData(length);
    else if (type > FrameType.CONTINUATION) {
      // Kinds of frames that a later version of the protocol has.
      this.#skipLeft = length;
      if (length === 0) this.#endFrame();
    } else {
      if (length > CONTROL_BYTES_MAX) throw new H2Error(H2Code.ENHANCE_YOUR_CALM, `a frame of kind ${type} with ${length} bytes`);
      this.#controlLeft = length;
      if (length === 0) this.#endFrame();
    }
  }

  #beginData(length: number): void {
    const stream = this.#streams.get(this.#id) ?? null;
    if (stream === null || stream.isEnded || (!this.#isServer && !stream.isAnswered))
      throw protocolError(`data of stream ${this.#id}, which is not open`);
    this.#stream = stream;
    this.#windowBytes -= length;
    stream.windowBytes -= length;
    if (this.#windowBytes < 0 || stream.windowBytes < 0) throw new H2Error(H2Code.FLOW_CONTROL_ERROR, 'more data than the window has');
    const { windowBytes } = this.#settings;
    if (this.#windowBytes < windowBytes / 2) {
      this.#sender.control(numberFrame(FrameType.WINDOW_UPDATE, 0, windowBytes - this.#windowBytes));
      this.#windowBytes = windowBytes;
    }
    if (stream.windowBytes < windowBytes / 2) {
      this.#sender.control(numberFrame(FrameType.WINDOW_UPDATE, stream.id, windowBytes - stream.windowBytes));
      stream.windowBytes = windowBytes;
    }
    this.#isPadded = (this.#flags & Flag.PADDED) !== 0;
    if (this.#isPadded && length === 0) throw protocolError('padding without its length');
    this.#dataLeft = length;
    if (length === 0) this.#endFrame();
  }

  /** The frame is whole. */
  #endFrame(): void {
    this.#isInFrame = false;
    if (this.#type === FrameType.DATA) {
      const stream = this.#stream!;
      this.#stream = null;
      if ((this.#flags & Flag.END_STREAM) !== 0) this.#ended(stream);
      return;
    }
    if (this.#type > FrameType.CONTINUATION) return;
    const control = this.#control;
    this.#control = [];
    const payload = control.length === 1 ? control[0]! : Buffer.concat(control);
    switch (this.#type) {
      case FrameType.HEADERS:
        this.#headers(payload);
        break;
      case FrameType.CONTINUATION:
        this.#continued(payload);
        break;
      case FrameType.SETTINGS:
        this.#applySettings(payload);
        break;
      case FrameType.PING:
        this.#sized(payload, 8, false);
        if ((this.#flags & Flag.ACK) === 0) this.#sender.answer(frameOf(FrameType.PING, Flag.ACK, 0, payload));
        break;
      case FrameType.GOAWAY:
        if (this.#id !== 0 || payload.length < 8) throw protocolError('a goodbye of a wrong form');
        this.close();
        this.#host.failed(`it says goodbye (${payload.readUInt32BE(4)})`);
        break;
      case FrameType.WINDOW_UPDATE:
        this.#grant(payload);
        break;
      case FrameType.RST_STREAM:
        this.#reset(payload);
        break;
      case FrameType.PRIORITY:
        this.#sized(payload, 5, true);
        break;
      default:
        throw protocolError('a push, which is switched off');
    }
  }

  #sized(payload: Buffer, bytes: number, isOfStream: boolean): void {
    if (payload.length !== bytes) throw new H2Error(H2Code.FRAME_SIZE_ERROR, `a frame of kind ${this.#type} with ${payload.length} bytes`);
    if ((this.#id !== 0) !== isOfStream) throw protocolError(`a frame of kind ${this.#type} for stream ${this.#id}`);
  }

  #headers(payload: Buffer): void {
    if (this.#id === 0) throw protocolError('headers of no stream');
    let start = 0;
    let end = payload.length;
    if ((this.#flags & Flag.PADDED) !== 0) {
      end -= payload[0] ?? 0;
      start += 1;
    }
    if ((this.#flags & Flag.PRIORITY) !== 0) start += 5;
    if (start > end) throw protocolError('headers with more padding than there is');
    this.#block = [];
    this.#blockBytes = 0;
    this.#blockFlags = this.#flags;
    this.#blockId = this.#id;
    this.#continued(payload.subarray(start, end));
  }

  #continued(piece: Buffer): void {
    const block = this.#block;
    if (block === null || this.#id !== this.#blockId) throw protocolError('headers that go on where none began');
    block.push(piece);
    this.#blockBytes += piece.length;
    // An empty piece counts as well: they could go on for ever.
    if (this.#blockBytes > CONTROL_BYTES_MAX || block.length > 64) throw new H2Error(H2Code.ENHANCE_YOUR_CALM, 'headers that are too long');
    if ((this.#flags & Flag.END_HEADERS) === 0) return;
    this.#block = null;
    this.#headersCame(this.#decoder.decode(Buffer.concat(block)), (this.#blockFlags & Flag.END_STREAM) !== 0);
  }

  #headersCame(headers: HeaderList, isEnd: boolean): void {
    let stream = this.#streams.get(this.#id) ?? null;
    if (stream === null) {
      if (!this.#isServer || this.#id % 2 === 0 || this.#id <= this.#lastPeerId)
        throw protocolError(`headers of stream ${this.#id}, which is not open`);
      this.#lastPeerId = this.#id;
      if (this.#streams.size >= this.#settings.streamsMax)
        throw new H2Error(H2Code.ENHANCE_YOUR_CALM, `more than ${this.#settings.streamsMax} streams`);
      stream = new H2Stream(this, this.#sender, this.#id, this.#settings.windowBytes);
      this.#streams.set(stream.id, stream);
      this.#host.opened(stream, headers);
    } else if (!this.#isServer && !stream.isAnswered) {
      // 1xx: the answer comes later.
      stream.isAnswered = headers.every(([name, value]) => name !== ':status' || !value.startsWith('1'));
      if (stream.isAnswered) stream.host?.answered(headers);
    } else if (!isEnd || stream.isEnded) throw protocolError('headers in the middle of a stream');
    if (isEnd && !this.#isOver) this.#ended(stream);
  }

  #ended(stream: H2Stream): void {
    stream.isEnded = true;
    if (stream.outgoing.isEnding) this.#streams.delete(stream.id);
    stream.host?.ended();
  }

  #reset(payload: Buffer): void {
    this.#sized(payload, 4, true);
    const stream = this.#streams.get(this.#id);
    if (stream === undefined) {
      if (this.#id > (this.#isServer ? this.#lastPeerId : this.#nextId)) throw protocolError(`a reset of stream ${this.#id}, which was never open`);
      return;
    }
    this.#streams.delete(stream.id);
    this.#sender.forget(stream.outgoing);
    stream.host?.reset(payload.readUInt32BE());
  }

  #grant(payload: Buffer): void {
    if (payload.length !== 4) throw new H2Error(H2Code.FRAME_SIZE_ERROR, 'a window of a wrong form');
    const bytes = payload.readUInt32BE() & 0x7fff_ffff;
    if (bytes === 0) throw protocolError('a window of nothing');
    if (this.#id === 0) this.#sender.grant(null, bytes);
    else {
      // Of a stream that is over it may still come.
      const stream = this.#streams.get(this.#id);
      if (stream === undefined) return;
      this.#sender.grant(stream.outgoing, bytes);
    }
    this.#sender.pump();
  }

  #applySettings(payload: Buffer): void {
    if (this.#id !== 0) throw protocolError('settings of a stream');
    const isAck = (this.#flags & Flag.ACK) !== 0;
    if (payload.length % 6 !== 0 || (isAck && payload.length > 0)) throw new H2Error(H2Code.FRAME_SIZE_ERROR, 'settings of a wrong size');
    if (isAck) {
      if (!this.#hasSettings) throw protocolError('no settings first');
      return;
    }
    this.#hasSettings = true;
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      switch (payload.readUInt16BE(at)) {
        case SettingId.ENABLE_PUSH:
          if (value > 1) throw protocolError(`push ${value}`);
          break;
        case SettingId.INITIAL_WINDOW_SIZE:
          if (value > WINDOW_BYTES_MAX) throw new H2Error(H2Code.FLOW_CONTROL_ERROR, `a window of ${value} bytes`);
          this.#sender.initialWindow(
            value,
            [...this.#streams.values()].map((stream) => stream.outgoing),
          );
          break;
        case SettingId.MAX_FRAME_SIZE:
          if (value < FRAME_BYTES_MIN || value > FRAME_BYTES_MAX) throw protocolError(`frames of ${value} bytes`);
          this.#sender.frameSize(value);
          break;
        default:
        // The table of headers is not used, streams are not opened against the peer's wish, and what is unknown means nothing.
      }
    }
    this.#sender.answer(frameOf(FrameType.SETTINGS, Flag.ACK, 0, NO_BYTES));
    this.#sender.pump();
  }
}

function headersFrame(id: number, headers: HeaderList): Buffer {
  return frameOf(FrameType.HEADERS, Flag.END_HEADERS, id, encodeHeaders(headers));
}

function protocolError(what: string): H2Error {
  return new H2Error(H2Code.PROTOCOL_ERROR, what);
}
