/** Credentials of calls: AUTH_NONE and AUTH_SYS (RFC 5531 §8, §14 and appendix A). */
import { AUTH_BADCRED, AUTH_BADVERF, AUTH_BODY_BYTES_MAX, AUTH_NONE, AUTH_REJECTEDCRED, AUTH_SHORT, AUTH_SYS } from './rpc-message.ts';
import type { RpcCredential } from './rpc-program.ts';
import { XdrError } from './xdr-error.ts';
import { XdrReader } from './xdr-reader.ts';
import { XdrWriter } from './xdr-writer.ts';

const MACHINE_NAME_BYTES_MAX = 255;
const GIDS_MAX = 16;
const NOBODY = 65534;

/** What an AUTH_NONE call runs as. */
export const NO_CREDENTIAL: RpcCredential = { flavor: 'none', uid: NOBODY, gid: NOBODY, gids: [], machineName: '', stamp: 0 };

/**
 * Reads credential and verifier of calls. Clients repeat the same bytes in every call, so the last accepted ones are remembered:
 * one per connection, and a repeated credential costs a comparison of its bytes.
 */
export class CredentialReader {
  #knownBytes: Buffer | null = null;
  #known: RpcCredential = NO_CREDENTIAL;

  /** Reads both from `args`, leaving it at the procedure's arguments. Returns an auth_stat when they are not acceptable. */
  read(args: XdrReader): RpcCredential | number {
    if (this.#knownBytes !== null && args.skipIfEqual(this.#knownBytes)) return this.#known;
    try {
      const flavor = args.uint32();
      const body = args.opaque(AUTH_BODY_BYTES_MAX);
      const credential = parseCredential(flavor, body);
      if (typeof credential === 'number') return credential;
      return this.#readVerifier(args, flavor, body, credential);
    } catch (error) {
      if (error instanceof XdrError) return AUTH_BADCRED;
      throw error;
    }
  }

  #readVerifier(args: XdrReader, flavor: number, body: Buffer, credential: RpcCredential): RpcCredential | number {
    let verifierBytes: Buffer;
    try {
      if (args.uint32() !== AUTH_NONE) return AUTH_BADVERF;
      verifierBytes = args.opaque(AUTH_BODY_BYTES_MAX);
    } catch (error) {
      if (error instanceof XdrError) return AUTH_BADVERF;
      throw error;
    }
    const writer = new XdrWriter(Buffer.alloc(2 * (8 + AUTH_BODY_BYTES_MAX)));
    writer.uint32(flavor);
    writer.opaque(body);
    writer.uint32(AUTH_NONE);
    writer.opaque(verifierBytes);
    this.#knownBytes = Buffer.from(writer.written());
    this.#known = credential;
    return credential;
  }
}

function parseCredential(flavor: number, body: Buffer): RpcCredential | number {
  switch (flavor) {
    case AUTH_NONE:
      return NO_CREDENTIAL;
    case AUTH_SYS:
      return parseAuthSys(body);
    case AUTH_SHORT:
      // We never hand out short-hands: the client must begin again with a full credential.
      return AUTH_REJECTEDCRED;
    default:
      return AUTH_BADCRED;
  }
}

/** authsys_parms (RFC 5531 appendix A). @throws XdrError when it does not decode exactly to its end. */
function parseAuthSys(body: Buffer): RpcCredential {
  const reader = new XdrReader([body]);
  const stamp = reader.uint32();
  const machineName = reader.string(MACHINE_NAME_BYTES_MAX);
  const uid = reader.uint32();
  const gid = reader.uint32();
  const count = reader.uint32();
  if (count > GIDS_MAX) throw new XdrError('too-long');
  const gids: number[] = [];
  for (let i = 0; i < count; i++) gids.push(reader.uint32());
  reader.assertEnd();
  return { flavor: 'sys', uid, gid, gids, machineName, stamp };
}

/** Flavor, length and body of a credential, as a client sends it. */
export function encodeCredential(credential: RpcCredential): Buffer {
  const writer = new XdrWriter(Buffer.alloc(8 + AUTH_BODY_BYTES_MAX));
  if (credential.flavor === 'none') {
    writer.uint32(AUTH_NONE);
    writer.uint32(0);
    return Buffer.from(writer.written());
  }
  const body = new XdrWriter(Buffer.alloc(AUTH_BODY_BYTES_MAX));
  body.uint32(credential.stamp);
  body.string(credential.machineName);
  body.uint32(credential.uid);
  body.uint32(credential.gid);
  body.uint32(credential.gids.length);
  for (const gid of credential.gids) body.uint32(gid);
  writer.uint32(AUTH_SYS);
  writer.opaque(body.written());
  return Buffer.from(writer.written());
}
