/** Both roles against Node's own HTTP/2, and against bytes that are none. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { Duplex } from 'node:stream';
import { test } from 'node:test';

import fc from 'fast-check';

import { until } from '../testing/stepped-clock.ts';
import { H2Connection } from './h2-connection.ts';
import type { H2Stream } from './h2-connection.ts';
import { FRAME_HEAD_BYTES, frameOf, FrameType, numberFrame, PREFACE, settingsFrame } from './h2-frame.ts';
import type { HeaderList } from './hpack.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SETTINGS = { windowBytes: MIB, frameBytesMax: 64 * KIB, streamsMax: 8 };

/** Collects what a stream receives. */
class Collected {
  readonly stream: H2Stream;
  readonly chunks: Buffer[] = [];
  answer: HeaderList | null = null;
  isEnded = false;
  resetCode: number | null = null;

  constructor(stream: H2Stream) {
    this.stream = stream;
    stream.host = {
      answered: (headers) => (this.answer = headers),
      received: (chunk) => void this.chunks.push(Buffer.from(chunk)),
      ended: () => (this.isEnded = true),
      reset: (code) => (this.resetCode = code),
    };
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  /** Sends a copy; resolves when it is on its way. */
  send(...pieces: readonly Uint8Array[]): Promise<void> {
    const parts = pieces.map((bytes, index) => ({ bytes: Buffer.concat([Buffer.alloc(index === 0 ? FRAME_HEAD_BYTES : 0), bytes]) }));
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    return new Promise((resolve) => this.stream.write(parts, bytes, resolve));
  }
}

function pattern(bytes: number, seed: number): Buffer {
  const data = Buffer.allocUnsafe(bytes);
  for (let i = 0; i < bytes; i++) data[i] = (i * 31 + (i >> 8) * 7 + seed) & 0xff;
  return data;
}

interface Served {
  readonly connection: H2Connection;
  readonly opened: { readonly collected: Collected; readonly headers: HeaderList }[];
  readonly failures: string[];
}

/** A server of this code; `use` is given its port. */
async function withServer(use: (port: number, served: Served[]) => Promise<void>, settings = SETTINGS): Promise<void> {
  const served: Served[] = [];
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    const one: Omit<Served, 'connection'> = { opened: [], failures: [] };
    const connection = new H2Connection('server', socket, settings, {
      opened: (stream, headers) => void one.opened.push({ collected: new Collected(stream), headers }),
      failed: (reason) => {
        one.failures.push(reason);
        socket.end();
      },
    });
    served.push({ ...one, connection });
    socket.on('data', (chunk: Buffer) => connection.receive(chunk));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use((server.address() as AddressInfo).port, served);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

/** A client of this code on a server of Node. */
async function withNodeServer(
  options: http2.ServerOptions,
  use: (connection: H2Connection, streams: http2.ServerHttp2Stream[], failures: string[], server: http2.Http2Server) => Promise<void>,
): Promise<void> {
  const server = http2.createServer(options);
  const streams: http2.ServerHttp2Stream[] = [];
  const sessions: http2.ServerHttp2Session[] = [];
  server.on('session', (session) => sessions.push(session));
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    assert.deepEqual([headers[':method'], headers[':path'], headers[':authority']], ['POST', '/some/where', 'peer']);
    streams.push(stream);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = net.connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  socket.on('error', () => {});
  await once(socket, 'connect');
  const failures: string[] = [];
  const connection = new H2Connection('client', socket, SETTINGS, { opened: () => {}, failed: (reason) => void failures.push(reason) });
  socket.on('data', (chunk: Buffer) => connection.receive(chunk));
  try {
    await use(connection, streams, failures, server);
    assert.deepEqual(failures, []);
  } finally {
    socket.destroy();
    for (const session of sessions) session.destroy();
    server.close();
  }
}

const REQUEST = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/some/where'],
  [':authority', 'peer'],
] as const;

test("Node's client: requests with any header, bytes of all sizes in both directions, ends", async () => {
  await withServer(async (port, served) => {
    const session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 100_000, maxFrameSize: 20_000 } });
    try {
      // Every character that a value may have goes through Node's Huffman code.
      const odd = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('');
      for (const [index, text] of ['/vferry/peer', '/vferry/peer', `/${encodeURIComponent(odd)}`].entries()) {
        const stream = session.request({ ':method': 'POST', ':path': text, odd: `x${odd}x` }, { endStream: false });
        const received: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => received.push(chunk));
        const sent = pattern(3 * MIB + index, index);
        stream.write(sent);
        await until(() => served[0]?.opened.length === index + 1, 'the stream is there');
        const { collected, headers } = served[0]!.opened[index]!;
        assert.deepEqual(
          headers.filter(([name]) => name === ':path' || name === 'odd'),
          [
            [':path', text],
            ['odd', `x${odd}x`],
          ],
        );
        collected.stream.respond([
          [':status', '200'],
          ['content-type', 'application/octet-stream'],
        ]);
        const [answer] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
        assert.deepEqual([answer[':status'], answer['content-type']], [200, 'application/octet-stream']);
        await until(() => collected.bytes.length === sent.length, 'all bytes came');
        assert.ok(collected.bytes.equals(sent));
        const back = [pattern(10, 1), pattern(2 * MIB, 2), pattern(70_000, 3)];
        await collected.send(...back);
        await collected.send(pattern(5, 4));
        collected.stream.end();
        await once(stream, 'end');
        assert.ok(Buffer.concat(received).equals(Buffer.concat([...back, pattern(5, 4)])));
        stream.end();
        await until(() => collected.isEnded, 'the stream was ended');
      }
      assert.deepEqual(served[0]!.failures, []);
      // More streams one after another than may be open at once.
      for (let i = 0; i < 20; i++) {
        const stream = session.request({ ':method': 'POST', ':path': '/' }, { endStream: true });
        await until(() => served[0]!.opened.length === 4 + i, 'the stream is there');
        served[0]!.opened[3 + i]!.collected.stream.respond([[':status', '404']]);
        served[0]!.opened[3 + i]!.collected.stream.end();
        stream.resume();
        await once(stream, 'close');
      }
      const pings = await new Promise((resolve) => session.ping(Buffer.from('12345678'), (_error, _ms, payload) => resolve(payload)));
      assert.equal(String(pings), '12345678');
    } finally {
      session.destroy();
    }
  });
});

test("Node's server: two streams at once, windows far smaller than what is sent, both directions", async () => {
  await withNodeServer({ settings: { initialWindowSize: 1000 } }, async (connection, streams) => {
    const mine = [new Collected(connection.request(REQUEST)), new Collected(connection.request(REQUEST))];
    await until(() => streams.length === 2, 'both streams are there');
    const received: Buffer[][] = [[], []];
    for (const [index, stream] of streams.entries()) {
      stream.respond({ ':status': 200 });
      stream.on('data', (chunk: Buffer) => received[index]!.push(chunk));
      stream.write(pattern(2 * MIB, 10 + index));
    }
    await Promise.all(mine.map((one, index) => one.send(pattern(100 + index, index), pattern(MIB, index))));
    await until(() => received.every((chunks) => chunks.reduce((sum, chunk) => sum + chunk.length, 0) > MIB), 'all arrived');
    for (const [index, chunks] of received.entries())
      assert.ok(
        Buffer.concat(chunks)
          .subarray(0, MIB + 100 + index)
          .equals(Buffer.concat([pattern(100 + index, index), pattern(MIB, index)])),
      );
    for (const [index, one] of mine.entries()) {
      await until(() => one.bytes.length === 2 * MIB, 'the answer arrived');
      assert.ok(one.bytes.equals(pattern(2 * MIB, 10 + index)));
      assert.ok(one.answer?.some(([name, value]) => name === ':status' && value === '200'));
    }
    streams[0]!.end();
    await until(() => mine[0]!.isEnded, 'the end came');
    streams[1]!.close(http2.constants.NGHTTP2_CANCEL);
    await until(() => mine[1]!.resetCode === 8, 'the reset came');
  });
});

for (const [window, bytes] of [
  [50_000, 60_000],
  [5000, 8000],
] as const)
  test(`[!] a peer whose window of ${window} bytes is used up is sent nothing until it takes more, and the other stream goes on`, async () => {
    await withNodeServer({ settings: { initialWindowSize: window } }, async (connection, streams) => {
      const [held, free] = [new Collected(connection.request(REQUEST)), new Collected(connection.request(REQUEST))];
      await until(() => streams.length === 2, 'both streams are there');
      for (const stream of streams) stream.respond({ ':status': 200 });
      await until(() => held.answer !== null && free.answer !== null, 'the settings came');
      let isSent = false;
      const sent = held.send(pattern(bytes, 1)).then(() => (isSent = true));
      const received: Buffer[] = [];
      streams[1]!.on('data', (chunk: Buffer) => received.push(chunk));
      await free.send(pattern(3000, 2));
      await until(() => Buffer.concat(received).length === 3000, 'the other stream went on');
      assert.equal(isSent, false);
      const late: Buffer[] = [];
      streams[0]!.on('data', (chunk: Buffer) => late.push(chunk));
      await sent;
      await until(() => Buffer.concat(late).length === bytes, 'the rest came');
      assert.ok(Buffer.concat(late).equals(pattern(bytes, 1)));
    });
  });

/** A server of this code on a socket that only takes notes. */
function server(): { connection: H2Connection; opened: Collected[]; failures: string[]; written: () => Buffer } {
  const writes: Buffer[] = [];
  const socket = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      writes.push(Buffer.from(chunk));
      done();
    },
  });
  const opened: Collected[] = [];
  const failures: string[] = [];
  const connection = new H2Connection('server', socket, SETTINGS, {
    opened: (stream) => void opened.push(new Collected(stream)),
    failed: (reason) => void failures.push(reason),
  });
  return { connection, opened, failures, written: () => Buffer.concat(writes) };
}

const OPENING = Buffer.concat([PREFACE, settingsFrame([])]);
/** `:method POST`, `:path /`, of stream 1. */
const HEADERS = frameOf(FrameType.HEADERS, 4, 1, Buffer.of(0x83, 0x84));
const data = (bytes: Uint8Array, flags = 0, stream = 1): Buffer => frameOf(FrameType.DATA, flags, stream, bytes);

test('frames may be cut anywhere, may be padded, headers may go on, and kinds that nobody knows are passed over', () => {
  const whole = Buffer.concat([
    OPENING,
    settingsFrame([
      [1, 0],
      [77, 1],
    ]),
    frameOf(FrameType.SETTINGS, 1, 0, Buffer.alloc(0)),
    frameOf(FrameType.HEADERS, 8 | 0x20, 1, Buffer.of(2, 0, 0, 0, 0, 9, 0x83, 0, 0)),
    frameOf(FrameType.CONTINUATION, 0, 1, Buffer.alloc(0)),
    frameOf(FrameType.CONTINUATION, 4, 1, Buffer.of(0x84)),
    frameOf(FrameType.PRIORITY, 0, 1, Buffer.alloc(5)),
    data(pattern(100, 1)),
    data(Buffer.concat([Buffer.of(7), pattern(50, 2), Buffer.alloc(7)]), 8),
    data(Buffer.of(0), 8),
    data(Buffer.concat([Buffer.of(3), Buffer.alloc(3)]), 8),
    frameOf(0x77, 0xff, 1, Buffer.alloc(300)),
    frameOf(0x77, 0xff, 1, Buffer.alloc(0)),
    frameOf(FrameType.PING, 1, 0, Buffer.alloc(8)),
    data(pattern(20, 3), 1),
    // Of a stream that has ended it may still come.
    numberFrame(FrameType.WINDOW_UPDATE, 1, 5),
    frameOf(FrameType.PING, 0, 0, Buffer.from('whole it')),
  ]);
  const expected = Buffer.concat([pattern(100, 1), pattern(50, 2), pattern(20, 3)]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 40 }), (sizes) => {
      const one = server();
      for (let at = 0, i = 0; at < whole.length; i++) {
        const size = sizes[i % sizes.length]!;
        one.connection.receive(whole.subarray(at, at + size));
        at += size;
      }
      assert.deepEqual(one.failures, []);
      assert.equal(one.opened.length, 1);
      assert.ok(one.opened[0]!.bytes.equals(expected));
      assert.equal(one.opened[0]!.isEnded, true);
      assert.ok(one.written().subarray(-8).equals(Buffer.from('whole it')));
    }),
    { numRuns: 100 },
  );
});

const bad: readonly [string, RegExp, readonly Buffer[]][] = [
  ['another protocol', /no preface/, [Buffer.from('GET / HTTP/1.1\r\n\r\n')]],
  ['no settings', /no settings first/, [PREFACE, HEADERS]],
  ['an acknowledgement in place of settings', /no settings first/, [PREFACE, frameOf(FrameType.SETTINGS, 1, 0, Buffer.alloc(0))]],
  ['a frame above the limit', /a frame of 65537 bytes/, [OPENING, HEADERS, data(Buffer.alloc(64 * KIB + 1))]],
  ['settings that are cut off', /settings of a wrong size/, [PREFACE, frameOf(FrameType.SETTINGS, 0, 0, Buffer.alloc(5))]],
  ['settings of a stream', /settings of a stream/, [PREFACE, frameOf(FrameType.SETTINGS, 0, 1, Buffer.alloc(6))]],
  ['a window beyond the limit', /a window of 2147483648/, [PREFACE, settingsFrame([[4, 2 ** 31]])]],
  ['frames that are too small', /frames of 100 bytes/, [PREFACE, settingsFrame([[5, 100]])]],
  ['push that is no bool', /push 2/, [PREFACE, settingsFrame([[2, 2]])]],
  ['data of no stream', /data of stream 0/, [OPENING, data(Buffer.alloc(1), 0, 0)]],
  ['data of a stream that is not open', /data of stream 3/, [OPENING, HEADERS, data(Buffer.alloc(1), 0, 3)]],
  ['data behind the end', /data of stream 1/, [OPENING, HEADERS, data(Buffer.alloc(1), 1), data(Buffer.alloc(1))]],
  ['padding beyond the frame', /more padding/, [OPENING, HEADERS, data(Buffer.of(9, 1), 8)]],
  ['padding without its length', /padding without/, [OPENING, HEADERS, data(Buffer.alloc(0), 8)]],
  ['headers with padding beyond the frame', /more padding/, [OPENING, frameOf(FrameType.HEADERS, 4 | 8, 1, Buffer.of(9, 1))]],
  ['headers of an even stream', /headers of stream 2/, [OPENING, frameOf(FrameType.HEADERS, 4, 2, Buffer.of(0x83))]],
  ['headers of an older stream', /headers of stream 1/, [OPENING, frameOf(FrameType.HEADERS, 4, 3, Buffer.of(0x83)), HEADERS]],
  ['headers of no stream', /headers of no stream/, [OPENING, frameOf(FrameType.HEADERS, 4, 0, Buffer.of(0x83))]],
  ['headers in the middle', /middle of a stream/, [OPENING, HEADERS, HEADERS]],
  ['headers that are no HPACK', /no field 0/, [OPENING, frameOf(FrameType.HEADERS, 4, 1, Buffer.of(0x80))]],
  ['a frame between headers', /do not go on/, [OPENING, frameOf(FrameType.HEADERS, 0, 1, Buffer.of(0x83)), data(Buffer.alloc(1))]],
  [
    'headers that another stream goes on with',
    /none began/,
    [OPENING, frameOf(FrameType.HEADERS, 0, 1, Buffer.of(0x83)), frameOf(FrameType.CONTINUATION, 4, 3, Buffer.of(0x84))],
  ],
  [
    'headers that go on for ever',
    /too long/,
    [
      OPENING,
      frameOf(FrameType.HEADERS, 0, 1, Buffer.of(0x83)),
      ...Array.from({ length: 100 }, () => frameOf(FrameType.CONTINUATION, 0, 1, Buffer.alloc(0))),
    ],
  ],
  ['a header block above the limit', /20000 bytes/, [OPENING, frameOf(FrameType.HEADERS, 4, 1, Buffer.alloc(20_000, 0x83))]],
  [
    'more streams than may be open',
    /more than 8 streams/,
    [OPENING, ...Array.from({ length: 9 }, (_, i) => frameOf(FrameType.HEADERS, 4, 1 + 2 * i, Buffer.of(0x83)))],
  ],
  ['a push', /a push/, [OPENING, frameOf(FrameType.PUSH_PROMISE, 4, 1, Buffer.alloc(4))]],
  ['a ping of 7 bytes', /kind 6 with 7 bytes/, [OPENING, frameOf(FrameType.PING, 0, 0, Buffer.alloc(7))]],
  ['a ping of a stream', /kind 6 for stream 1/, [OPENING, frameOf(FrameType.PING, 0, 1, Buffer.alloc(8))]],
  ['a reset of a stream that was never open', /never open/, [OPENING, numberFrame(FrameType.RST_STREAM, 5, 0)]],
  ['a window of nothing', /window of nothing/, [OPENING, numberFrame(FrameType.WINDOW_UPDATE, 0, 0)]],
  ['a window above the limit', /window that is too large/, [OPENING, numberFrame(FrameType.WINDOW_UPDATE, 0, 2 ** 31 - 1)]],
  ['a goodbye', /goodbye \(2\)/, [OPENING, frameOf(FrameType.GOAWAY, 0, 0, Buffer.of(0, 0, 0, 0, 0, 0, 0, 2))]],
  ['a goodbye of 3 bytes', /goodbye of a wrong form/, [OPENING, frameOf(FrameType.GOAWAY, 0, 0, Buffer.alloc(3))]],
];

for (const [what, reason, frames] of bad)
  test(`${what}: the connection is over, and nothing behind it is looked at`, () => {
    const one = server();
    for (const frame of frames) one.connection.receive(frame);
    assert.equal(one.failures.length, 1);
    assert.match(one.failures[0]!, reason);
    const streams = one.opened.length;
    const received = one.opened.reduce((sum, stream) => sum + stream.bytes.length, 0);
    for (const frame of [HEADERS, data(Buffer.alloc(10))]) one.connection.receive(frame);
    assert.equal(one.opened.length, streams);
    assert.equal(
      one.opened.reduce((sum, stream) => sum + stream.bytes.length, 0),
      received,
    );
  });

test('[!] a peer that asks for answers and takes none is given up', () => {
  const socket = new Duplex({ read() {}, write() {} });
  const failures: string[] = [];
  const connection = new H2Connection('server', socket, SETTINGS, { opened: () => {}, failed: (reason) => void failures.push(reason) });
  connection.receive(OPENING);
  const pings = Buffer.concat(Array.from({ length: 100 }, () => frameOf(FrameType.PING, 0, 0, Buffer.alloc(8))));
  for (let i = 0; i < 20 && failures.length === 0; i++) connection.receive(pings);
  assert.match(failures[0]!, /more requests than answers/);
  assert.ok(socket.writableLength < 64 * KIB);
});

test('[!] a peer that opens streams for ever and takes no answer is given up', () => {
  const socket = new Duplex({ read() {}, write() {} });
  const failures: string[] = [];
  const connection = new H2Connection('server', socket, SETTINGS, {
    opened: (stream) => {
      stream.respond([[':status', '404']]);
      stream.end();
    },
    failed: (reason) => void failures.push(reason),
  });
  connection.receive(OPENING);
  // Each ends at once: never more than one is open.
  for (let i = 0; i < 3000 && failures.length === 0; i++) connection.receive(frameOf(FrameType.HEADERS, 5, 1 + 2 * i, Buffer.of(0x83, 0x84)));
  assert.match(failures[0]!, /more requests than answers/);
  assert.ok(socket.writableLength < 64 * KIB);
});

test('the end of a stream is said once, behind what was written, however slow the system takes it', () => {
  const takes: (() => void)[] = [];
  const writes: Buffer[] = [];
  const socket = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      writes.push(Buffer.from(chunk));
      takes.push(done);
    },
  });
  let ended: H2Stream | null = null;
  const connection = new H2Connection('server', socket, SETTINGS, { opened: (stream) => (ended = stream), failed: assert.fail });
  connection.receive(Buffer.concat([OPENING, HEADERS]));
  const stream = ended as H2Stream | null;
  const bytes = Buffer.concat([Buffer.alloc(FRAME_HEAD_BYTES), pattern(100, 1)]);
  let sent = 0;
  stream!.write([{ bytes }], 100, () => (sent += 1));
  stream!.end();
  assert.equal(sent, 0);
  while (takes.length > 0) takes.shift()!();
  assert.equal(sent, 1);
  const all = Buffer.concat(writes);
  const tail = Buffer.concat([data(pattern(100, 1)), data(Buffer.alloc(0), 1)]);
  assert.ok(all.subarray(-tail.length).equals(tail));
  assert.equal(all.indexOf(data(Buffer.alloc(0), 1)), all.length - FRAME_HEAD_BYTES);
});

test('[!] whatever comes, it is taken or ends the connection, and a stream gets no byte that was not sent to it', () => {
  const frame = fc
    .tuple(fc.integer({ min: 0, max: 11 }), fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 4 }), fc.uint8Array({ maxLength: 40 }))
    .map(([type, flags, stream, payload]) => frameOf(type, flags, stream, payload));
  fc.assert(
    fc.property(fc.array(fc.oneof(frame, fc.constant(HEADERS), fc.uint8Array({ maxLength: 30 })), { maxLength: 30 }), (frames) => {
      const one = server();
      one.connection.receive(OPENING);
      let sentBytes = 0;
      for (const bytes of frames) {
        sentBytes += bytes.length;
        one.connection.receive(Buffer.from(bytes));
      }
      assert.ok(one.failures.length <= 1);
      assert.ok(one.opened.reduce((sum, stream) => sum + stream.bytes.length, 0) <= sentBytes);
    }),
    { numRuns: 1500 },
  );
});
