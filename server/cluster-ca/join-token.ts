/** What an operator carries from one host to the other so that a router can join: `vfj1-` and base64url without padding. */
import { createHash } from 'node:crypto';

const PREFIX = 'vfj1-';
const FINGERPRINT_BYTES = 32;
export const SECRET_BYTES = 32;
const CHECK_BYTES = 4;
const ADDRESS_BYTES_MAX = 300;
const END_BYTES = 6;

/** fingerprint: SHA-256 of the authority's certificate, 64 hex digits. address: `host:port` of who signs. secret: `SECRET_BYTES`, known to nobody else. */
export interface JoinToken {
  readonly fingerprint: string;
  readonly address: string;
  readonly secret: Buffer;
  /** Wall clock of who signs; told to people, judged there. */
  readonly endsAtMs: number;
}

export function writeToken({ fingerprint, address, secret, endsAtMs }: JoinToken): string {
  const end = Buffer.alloc(END_BYTES);
  end.writeUIntLE(endsAtMs, 0, END_BYTES);
  const body = Buffer.concat([Buffer.from(fingerprint, 'hex'), secret, end, Buffer.from(address, 'utf8')]);
  return `${PREFIX}${Buffer.concat([body, checkOf(body)]).toString('base64url')}`;
}

/** Null for what is no token, or was not copied as a whole. White space around and line breaks in it (of a terminal) are ignored. */
export function readToken(text: string): JoinToken | null {
  const compact = text.replaceAll(/\s/g, '');
  if (!/^vfj1-[\w-]+$/.test(compact) || compact.length > 1024) return null;
  const bytes = Buffer.from(compact.slice(PREFIX.length), 'base64url');
  const addressAt = FINGERPRINT_BYTES + SECRET_BYTES + END_BYTES;
  const addressBytes = bytes.length - addressAt - CHECK_BYTES;
  if (addressBytes < 1 || addressBytes > ADDRESS_BYTES_MAX) return null;
  const body = bytes.subarray(0, -CHECK_BYTES);
  if (!checkOf(body).equals(bytes.subarray(-CHECK_BYTES))) return null;
  const address = body.toString('utf8', addressAt);
  if (splitAddress(address) === null) return null;
  return {
    fingerprint: body.toString('hex', 0, FINGERPRINT_BYTES),
    secret: Buffer.from(body.subarray(FINGERPRINT_BYTES, FINGERPRINT_BYTES + SECRET_BYTES)),
    endsAtMs: body.readUIntLE(addressAt - END_BYTES, END_BYTES),
    address,
  };
}

/** `host:port` or `[v6]:port`; null for anything else. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([\w.-]+)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  return host === undefined || !(port >= 1 && port <= 65_535) ? null : { host, port };
}

function checkOf(body: Buffer): Buffer {
  return createHash('sha256').update(body).digest().subarray(0, CHECK_BYTES);
}
