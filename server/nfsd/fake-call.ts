/** An RpcCall without sockets: arguments in, reply bytes out. For unit tests, golden vectors and fuzzing of programs. */
import { createHash } from 'node:crypto';

import { assert } from '../core/assert.ts';
import type { RpcCall, RpcCredential } from '../oncrpc/rpc-program.ts';
import { XdrReader } from '../oncrpc/xdr-reader.ts';
import { XdrWriter } from '../oncrpc/xdr-writer.ts';

export interface FakeCallInit {
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  /** Arguments as the chunks in which they arrived. */
  readonly args: readonly Buffer[];
  readonly credential?: RpcCredential;
  readonly clientAddress?: string;
  readonly xid?: number;
}

const ROOT: RpcCredential = { flavor: 'sys', uid: 0, gid: 0, gids: [], machineName: 'H1', stamp: 1 };

export class FakeCall implements RpcCall {
  readonly xid: number;
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
  readonly credential: RpcCredential;
  readonly clientAddress: string;
  readonly clientPort = 700;
  readonly transport = 'tcp';
  readonly args: XdrReader;
  readonly #chunks: readonly Buffer[];
  #writer: XdrWriter | null = null;
  #reply: Buffer | null = null;

  constructor(init: FakeCallInit) {
    this.xid = init.xid ?? 1;
    this.program = init.program;
    this.version = init.version;
    this.procedure = init.procedure;
    this.credential = init.credential ?? ROOT;
    this.clientAddress = init.clientAddress ?? '127.0.0.1';
    this.args = new XdrReader(init.args);
    this.#chunks = init.args;
  }

  messageHash(): string {
    const hash = createHash('sha256').update(JSON.stringify(this.credential));
    for (const chunk of this.#chunks) hash.update(chunk);
    return hash.digest('hex').slice(0, 32);
  }

  beginReply(resultBytesMax: number): XdrWriter {
    assert(this.#writer === null && this.#reply === null, 'a reply is begun once');
    // Not zeros: bytes that the program forgets to write show.
    this.#writer = new XdrWriter(Buffer.alloc(resultBytesMax, 0xa5));
    return this.#writer;
  }

  finish(writer: XdrWriter): void {
    assert(writer === this.#writer && this.#reply === null, 'a reply is finished once');
    this.#reply = writer.written();
  }

  /** The results, or null while there is no reply. */
  get reply(): Buffer | null {
    return this.#reply;
  }
}

/** Encodes arguments. */
export function encodeArgs(encode: (writer: XdrWriter) => void, bytesMax = 64 * 1024): Buffer {
  const writer = new XdrWriter(Buffer.alloc(bytesMax));
  encode(writer);
  return writer.written();
}
