/**
 * Splits a byte stream of RPC replies (record marking, RFC 5531 §11) and hands out the beginning of each, without keeping payloads.
 * Knows only what the load generator must check.
 */
/** As much of a reply as the generator looks at: RPC header 24, status 4, wcc_data 28 + 88, count, committed, verf 16 (WRITE3resok is the longest). */
export const REPLY_HEAD_BYTES = 160;

/**
 * `head` holds at least the first `min(replyBytes, REPLY_HEAD_BYTES)` bytes of the reply from `at` on (record mark excluded);
 * borrowed until it returns.
 */
export type OnReply = (head: Buffer, at: number, replyBytes: number) => void;

/** Feed it everything that arrives, in order. */
export class ReplyParser {
  readonly #onReply: OnReply;
  readonly #mark = Buffer.alloc(4);
  #markBytes = 0;
  readonly #head = Buffer.alloc(REPLY_HEAD_BYTES);
  #headBytes = 0;
  #replyBytes = 0;
  #fragmentLeft = 0;
  #isLast = false;

  constructor(onReply: OnReply) {
    this.#onReply = onReply;
  }

  feed(chunk: Buffer, chunkBytes: number): void {
    let at = 0;
    while (at < chunkBytes) {
      if (this.#fragmentLeft === 0) {
        // The common case: a whole small reply lies in this chunk.
        if (this.#markBytes === 0 && this.#replyBytes === 0 && chunkBytes - at >= 4) {
          const length = ((chunk[at]! & 0x7f) << 24) | (chunk[at + 1]! << 16) | (chunk[at + 2]! << 8) | chunk[at + 3]!;
          if (chunk[at]! >= 0x80 && chunkBytes - at - 4 >= length) {
            this.#onReply(chunk, at + 4, length);
            at += 4 + length;
            continue;
          }
        }
        while (this.#markBytes < 4 && at < chunkBytes) this.#mark[this.#markBytes++] = chunk[at++]!;
        if (this.#markBytes < 4) return;
        this.#markBytes = 0;
        const mark = this.#mark.readUInt32BE(0);
        this.#isLast = mark >= 0x80000000;
        this.#fragmentLeft = mark & 0x7fffffff;
      }
      const taken = Math.min(this.#fragmentLeft, chunkBytes - at);
      if (this.#headBytes < REPLY_HEAD_BYTES) {
        const copied = Math.min(taken, REPLY_HEAD_BYTES - this.#headBytes);
        chunk.copy(this.#head, this.#headBytes, at, at + copied);
        this.#headBytes += copied;
      }
      at += taken;
      this.#fragmentLeft -= taken;
      this.#replyBytes += taken;
      if (this.#fragmentLeft === 0 && this.#isLast) {
        const length = this.#replyBytes;
        this.#replyBytes = 0;
        this.#headBytes = 0;
        this.#onReply(this.#head, 0, length);
      }
    }
  }
}
