/** The Huffman code of RFC 7541, appendix B: decoding only. */
import { H2Code, H2Error } from './h2-error.ts';

/**
 * Bits of the code of each byte, and of the end of a string. The code is canonical: codes of one length follow one another in the order of their symbols, shorter
 * ones first, so that the lengths say all.
 */
// prettier-ignore
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const END_OF_STRING = 256;
const BITS_MAX = 30;
const PADDING_BITS_MAX = 7;

interface Codes {
  /** By length: the first code of it, and how many there are. */
  readonly first: readonly number[];
  readonly count: readonly number[];
  /** By length: symbols in order. */
  readonly symbols: readonly (readonly number[])[];
}

function codes(): Codes {
  const symbols: number[][] = Array.from({ length: BITS_MAX + 1 }, () => []);
  LENGTHS.forEach((bits, symbol) => symbols[bits]!.push(symbol));
  const first: number[] = [];
  let code = 0;
  for (let bits = 0; bits <= BITS_MAX; bits++) {
    code *= 2;
    first.push(code);
    code += symbols[bits]!.length;
  }
  return { first, count: symbols.map((list) => list.length), symbols };
}

const CODES = codes();

/** Text of `bytes`, one character per byte. @throws H2Error for what is no code, and for padding that is none. */
export function decodeHuffman(bytes: Uint8Array): string {
  let text = '';
  let code = 0;
  let bits = 0;
  for (let i = 0; i < bytes.length * 8; i++) {
    code = code * 2 + ((bytes[i >> 3]! >> (7 - (i & 7))) & 1);
    bits += 1;
    const index = code - CODES.first[bits]!;
    if (index >= 0 && index < CODES.count[bits]!) {
      const symbol = CODES.symbols[bits]![index]!;
      if (symbol === END_OF_STRING) throw new H2Error(H2Code.COMPRESSION_ERROR, 'the end of a string within it');
      text += String.fromCharCode(symbol);
      code = 0;
      bits = 0;
    } else if (bits === BITS_MAX) throw new H2Error(H2Code.COMPRESSION_ERROR, 'bits that are no code');
  }
  // Filled up with the beginning of the end's code, which is ones.
  if (bits > PADDING_BITS_MAX || code !== 2 ** bits - 1) throw new H2Error(H2Code.COMPRESSION_ERROR, 'a string with wrong padding');
  return text;
}
