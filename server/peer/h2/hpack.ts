/** Header blocks (RFC 7541): decodes whatever a peer may send, encodes literals and indexes of the static table. */
import { H2Code, H2Error } from './h2-error.ts';
import { decodeHuffman } from './huffman.ts';

export type HeaderList = readonly (readonly [name: string, value: string])[];

// prettier-ignore
const STATIC: HeaderList = [
  [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'], [':path', '/index.html'], [':scheme', 'http'], [':scheme', 'https'],
  [':status', '200'], [':status', '204'], [':status', '206'], [':status', '304'], [':status', '400'], [':status', '404'], [':status', '500'],
  ['accept-charset', ''], ['accept-encoding', 'gzip, deflate'], ['accept-language', ''], ['accept-ranges', ''], ['accept', ''],
  ['access-control-allow-origin', ''], ['age', ''], ['allow', ''], ['authorization', ''], ['cache-control', ''], ['content-disposition', ''],
  ['content-encoding', ''], ['content-language', ''], ['content-length', ''], ['content-location', ''], ['content-range', ''], ['content-type', ''],
  ['cookie', ''], ['date', ''], ['etag', ''], ['expect', ''], ['expires', ''], ['from', ''], ['host', ''], ['if-match', ''], ['if-modified-since', ''],
  ['if-none-match', ''], ['if-range', ''], ['if-unmodified-since', ''], ['last-modified', ''], ['link', ''], ['location', ''], ['max-forwards', ''],
  ['proxy-authenticate', ''], ['proxy-authorization', ''], ['range', ''], ['referer', ''], ['refresh', ''], ['retry-after', ''], ['server', ''],
  ['set-cookie', ''], ['strict-transport-security', ''], ['transfer-encoding', ''], ['user-agent', ''], ['vary', ''], ['via', ''],
  ['www-authenticate', ''],
];
/** What the peer may keep: the default of the protocol, which this end does not change. */
const TABLE_BYTES_MAX = 4096;
const ENTRY_BYTES = 32;
const LIST_BYTES_MAX = 16 * 1024;
const NUMBER_MAX = 2 ** 24;

/** One per connection: header blocks refer to earlier ones. */
export class HeaderDecoder {
  /** Newest first. */
  #table: (readonly [string, string])[] = [];
  #tableBytes = 0;
  #tableBytesMax = TABLE_BYTES_MAX;
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;

  /** Fields of one whole header block, in order. @throws H2Error: then the connection is over. */
  decode(block: Uint8Array): HeaderList {
    this.#bytes = block;
    this.#at = 0;
    const list: (readonly [string, string])[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      if ((first & 0xe0) === 0x20) {
        if (list.length > 0) throw broken('a change of the table behind fields');
        this.#resize(this.#number(5));
        continue;
      }
      let field: readonly [string, string];
      if ((first & 0x80) !== 0) field = this.#entry(this.#number(7));
      else {
        const isKept = (first & 0x40) !== 0;
        const index = this.#number(isKept ? 6 : 4);
        field = [index === 0 ? this.#text() : this.#entry(index)[0], this.#text()];
        if (isKept) this.#keep(field);
      }
      listBytes += field[0].length + field[1].length + ENTRY_BYTES;
      if (listBytes > LIST_BYTES_MAX) throw new H2Error(H2Code.ENHANCE_YOUR_CALM, 'headers that are too long');
      list.push(field);
    }
    return list;
  }

  #entry(index: number): readonly [string, string] {
    const field = index <= STATIC.length ? STATIC[index - 1] : this.#table[index - STATIC.length - 1];
    if (field === undefined) throw broken(`no field ${index}`);
    return field;
  }

  #keep(field: readonly [string, string]): void {
    this.#table.unshift(field);
    this.#tableBytes += field[0].length + field[1].length + ENTRY_BYTES;
    this.#evict();
  }

  #resize(bytesMax: number): void {
    if (bytesMax > TABLE_BYTES_MAX) throw broken(`a table of ${bytesMax} bytes`);
    this.#tableBytesMax = bytesMax;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#tableBytesMax) {
      const [name, value] = this.#table.pop()!;
      this.#tableBytes -= name.length + value.length + ENTRY_BYTES;
    }
  }

  #number(prefixBits: number): number {
    const bytes = this.#bytes;
    const mask = (1 << prefixBits) - 1;
    let value = bytes[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[this.#at++];
      if (byte === undefined) throw broken('a number that is cut off');
      value += (byte & 0x7f) * 2 ** shift;
      if (value > NUMBER_MAX || shift > 28) throw broken('a number that is too large');
      if (byte < 0x80) return value;
    }
  }

  #text(): string {
    const first = this.#bytes[this.#at];
    if (first === undefined) throw broken('a string that is missing');
    const length = this.#number(7);
    const start = this.#at;
    if (length > this.#bytes.length - start) throw broken('a string that is cut off');
    this.#at += length;
    const bytes = this.#bytes.subarray(start, this.#at);
    return (first & 0x80) !== 0 ? decodeHuffman(bytes) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  }
}

/** A header block that refers to nothing but the static table. Names are lower case, all texts Latin-1. */
export function encodeHeaders(list: HeaderList): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of list) {
    const whole = STATIC.findIndex((field) => field[0] === name && field[1] === value) + 1;
    if (whole > 0) {
      parts.push(encodeNumber(0x80, 7, whole));
      continue;
    }
    const named = STATIC.findIndex((field) => field[0] === name) + 1;
    parts.push(encodeNumber(0, 4, named));
    if (named === 0) parts.push(encodeText(name));
    parts.push(encodeText(value));
  }
  return Buffer.concat(parts);
}

function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeNumber(0, 7, bytes.length), bytes]);
}

function encodeNumber(flags: number, prefixBits: number, value: number): Buffer {
  const mask = (1 << prefixBits) - 1;
  if (value < mask) return Buffer.of(flags | value);
  const bytes = [flags | mask];
  let rest = value - mask;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

function broken(what: string): H2Error {
  return new H2Error(H2Code.COMPRESSION_ERROR, what);
}
