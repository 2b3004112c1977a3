/** A program for tests, fuzzing and benchmarks of the RPC layer. */
import type { DispatchRefusal, RpcCall, RpcProgram } from './rpc-program.ts';

export const ECHO_PROGRAM = 0x2000_0001;
export const ECHO_VERSION = 3;

const REPLY_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Procedures: 0 NULL; 1 echo of an opaque; 2 echo a promise later; 3 reply of N zero bytes; 4 count of runs (cached, not idempotent);
 * 5 the same, held until `releaseHeld`; 6 throws; 7 auth too weak; 8 checks out of an opaque by chunks and answers its length, held.
 */
export class EchoProgram implements RpcProgram {
  readonly program = ECHO_PROGRAM;
  readonly versionFirst = ECHO_VERSION;
  readonly versionLast = ECHO_VERSION;
  readonly name = 'echo';
  /** Runs of procedures 4 and 5. */
  runs = 0;
  readonly #held: (() => void)[] = [];

  get heldCalls(): number {
    return this.#held.length;
  }

  procedureName(_version: number, procedure: number): string {
    return `proc${procedure}`;
  }

  isCached(_version: number, procedure: number): boolean {
    return procedure === 4 || procedure === 5;
  }

  /** Finishes the held calls, at most `count`, first come first served. */
  releaseHeld(count: number = Infinity): void {
    for (const release of this.#held.splice(0, count)) release();
  }

  dispatch(call: RpcCall): DispatchRefusal | Promise<DispatchRefusal> {
    switch (call.procedure) {
      case 0:
        call.args.assertEnd();
        call.finish(call.beginReply(0));
        return null;
      case 1:
        echo(call);
        return null;
      case 2:
        return this.#echoLater(call);
      case 3: {
        const countBytes = call.args.uint32();
        if (countBytes > REPLY_BYTES_MAX) return 'garbage-args';
        const writer = call.beginReply(countBytes + 8);
        writer.opaque(Buffer.alloc(countBytes));
        call.finish(writer);
        return null;
      }
      case 4:
        this.#count(call);
        return null;
      case 5:
        this.#held.push(() => this.#count(call));
        return null;
      case 6:
        throw new Error('thrown by procedure 6');
      case 7:
        return 'auth-too-weak';
      case 8: {
        const { countBytes, chunks } = call.args.opaqueChunks(REPLY_BYTES_MAX);
        this.#held.push(() => {
          const writer = call.beginReply(8);
          writer.uint32(countBytes);
          writer.uint32(chunks.length);
          call.finish(writer);
        });
        return null;
      }
      default:
        return 'procedure-unavailable';
    }
  }

  async #echoLater(call: RpcCall): Promise<DispatchRefusal> {
    await Promise.resolve();
    echo(call);
    return null;
  }

  #count(call: RpcCall): void {
    this.runs += 1;
    const writer = call.beginReply(4);
    writer.uint32(this.runs);
    call.finish(writer);
  }
}

function echo(call: RpcCall): void {
  const { countBytes, chunks } = call.args.opaqueChunks(REPLY_BYTES_MAX);
  call.args.assertEnd();
  const writer = call.beginReply(countBytes + 8);
  writer.uint32(countBytes);
  for (const chunk of chunks) writer.reserve(chunk.length).set(chunk);
  writer.pad();
  call.finish(writer);
}
