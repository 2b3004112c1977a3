/** What a vPool's objects go through on their way to the backend. Plain data: it is handed to worker threads; never log it. */
export interface EncodingConfig {
  /** For new objects; all kinds can be read. */
  readonly compression: 'none' | 'zstd';
  /** Id of the key for new objects; null: new objects are not encrypted. */
  readonly encryptWith: string | null;
  /** Every key that may be needed for reading, by id. */
  readonly keys: readonly EncryptionKey[];
  /**
   * True: an object that is not encrypted is refused as `corrupt`. For a vPool that was encrypted from its first object on: then
   * nobody who can write to the backend can put a plain object in the place of an encrypted one. Default false.
   */
  readonly refuseUnencrypted?: boolean;
}

export interface EncryptionKey {
  /** 16 lower-case hex digits, derived from the key: the same key has the same id everywhere. */
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}
