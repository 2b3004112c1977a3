/** Keys by id, and what is derived from them (docs/formats/encoded-object.md, "Keys"). */
import { createHmac, hkdfSync } from 'node:crypto';

import { assert } from '../../server/core/assert.ts';
import type { EncodingConfig } from './encoding-config.ts';
import { keyId } from './key-file.ts';

/** A key of the operator, or the public one of objects that are not encrypted. */
export interface RootKey {
  /** Null: the public key. It hides nothing; with it the same derivation binds checksums to an object's name and content. */
  readonly id: string | null;
  readonly identityKey: Uint8Array;
  readonly objectsKey: Uint8Array;
}

/** Length of the synthetic identity in an object's header. */
export const IDENTITY_BYTES = 24;

/** The key of objects that are not encrypted: 32 zero bytes, known to everybody. */
export const PUBLIC_KEY: RootKey = rootKey(null, new Uint8Array(32));

/** Every key that a vPool may need. */
export class KeyRing {
  /** The key for new objects; `PUBLIC_KEY` when they are not encrypted. */
  readonly forWriting: RootKey;
  readonly #keys = new Map<string, RootKey>();

  constructor(config: EncodingConfig) {
    for (const key of config.keys) {
      assert(key.secret.byteLength === 32 && key.id === keyId(key.secret), `encryption key ${key.id} has another id, or not 32 bytes`);
      this.#keys.set(key.id, rootKey(key.id, key.secret));
    }
    const forWriting = config.encryptWith === null ? PUBLIC_KEY : this.#keys.get(config.encryptWith);
    assert(forWriting !== undefined, `the encryption key for new objects, ${config.encryptWith}, is not among the keys`);
    this.forWriting = forWriting;
  }

  find(id: string): RootKey | undefined {
    return this.#keys.get(id);
  }
}

/**
 * The identity of an object: it differs whenever bucket, name, parameters or stored content differ, and is the same when all are. So the
 * key and the nonces that come from it are never used for two different contents, and writing an object again gives the same bytes.
 * `parameters`: the header's bytes before the identity.
 */
export function objectIdentity(root: RootKey, parameters: Uint8Array, bucket: string, name: string, contentDigest: Uint8Array): Buffer {
  const mac = createHmac('sha256', root.identityKey).update(parameters).update(nameBytes(bucket, name)).update(contentDigest).digest();
  return mac.subarray(0, IDENTITY_BYTES);
}

/** The key of one object, 32 bytes. The name goes in again: an object that was moved to another name has another key, so it is found out. */
export function objectKey(root: RootKey, identity: Uint8Array, bucket: string, name: string): Buffer {
  return createHmac('sha256', root.objectsKey).update(identity).update(nameBytes(bucket, name)).digest();
}

/** A bucket has no slash. */
function nameBytes(bucket: string, name: string): string {
  return `${bucket}/${name}`;
}

function rootKey(id: string | null, secret: Uint8Array): RootKey {
  const derive = (purpose: string): Uint8Array => new Uint8Array(hkdfSync('sha256', secret, '', `vferry encoded object 1: ${purpose}`, 32));
  return { id, identityKey: derive('identity'), objectsKey: derive('object key') };
}
