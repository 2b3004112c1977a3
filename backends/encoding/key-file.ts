/** Encryption keys as an operator keeps them: lines of a key file, or of an environment variable (docs/formats/encoded-object.md). */
import { createHash } from 'node:crypto';

import { ApplianceError } from '../../server/core/errors.ts';
import type { Random } from '../../server/core/time.ts';
import type { EncryptionKey } from './encoding-config.ts';

const KEY_BYTES = 32;
/** Enough for a rotation every day for years; a file that is longer is not a key file. */
const TEXT_LENGTH_MAX = 256 * 1024;

const HEX = /^[0-9a-fA-F]{64}$/;
const BASE64 = /^[A-Za-z0-9+/]{43}=?$/;

/**
 * Keys of a key file, in its order: the first is for new data, the others for reading what was written before. A key is
 * 32 bytes as base64 (44 characters) or hex (64); blanks, commas and line ends are between them, what follows a `#` is ignored.
 * @throws ApplianceError `encryption-key-invalid` that names the line, and never the key.
 */
export function parseKeys(text: string): EncryptionKey[] {
  if (text.length > TEXT_LENGTH_MAX) throw invalid(`the text has ${text.length} characters, no list of keys has more than ${TEXT_LENGTH_MAX}`);
  const keys: EncryptionKey[] = [];
  const lineOf = new Map<string, number>();
  for (const [index, line] of text
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\n|\r/)
    .entries()) {
    for (const written of line.replace(/#.*$/, '').split(/[\s,]+/)) {
      if (written === '') continue;
      const secret = parseKey(written, index + 1);
      const id = keyId(secret);
      const before = lineOf.get(id);
      if (before !== undefined) throw invalid(`line ${index + 1} has the same key as line ${before}`);
      lineOf.set(id, index + 1);
      keys.push({ id, secret });
    }
  }
  if (keys.length === 0) throw invalid('there is no key in it; `vferry key generate` makes one');
  return keys;
}

/** A new key, as a line for a key file without its line end. `random` must be the system's (server/core/node-time.ts): the key is as good as it is. */
export function generateKey(random: Random): string {
  return random.bytes(KEY_BYTES).toString('base64');
}

/** Id of a key: 16 lower-case hex digits, the first 8 bytes of SHA-256 of `vferry key id` and the key. It tells nothing about the key. */
export function keyId(secret: Uint8Array): string {
  return createHash('sha256').update('vferry key id').update(secret).digest('hex').slice(0, 16);
}

function parseKey(written: string, line: number): Uint8Array {
  const encoding = HEX.test(written) ? 'hex' : BASE64.test(written) ? 'base64' : null;
  if (encoding === null) throw invalid(`line ${line}: ${written.length} characters that are not 32 bytes as base64 (44 characters) or hex (64)`);
  const secret = Uint8Array.from(Buffer.from(written, encoding));
  if (secret.byteLength !== KEY_BYTES) throw invalid(`line ${line}: ${secret.byteLength} bytes instead of ${KEY_BYTES}`);
  if (secret.every((byte) => byte === secret[0])) throw invalid(`line ${line}: the same byte ${KEY_BYTES} times is not a key`);
  return secret;
}

function invalid(reason: string): ApplianceError {
  return new ApplianceError('encryption-key-invalid', `encryption keys: ${reason}`);
}
