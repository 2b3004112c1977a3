/** Validated, complete settings of a vPool's Storage Backend. What is null was not given and has no default. Holds secrets: never log it. */
export type BackendSettings = DirectoryBackendSettings | SwiftBackendSettings | S3BackendSettings;

interface CommonBackendSettings {
  /** buckets: one per volume and one for files. prefix: everything in one. */
  readonly layout: 'buckets' | 'prefix';
  /** The one bucket of layout prefix; null: named after the vPool. Always null with layout buckets. */
  readonly bucket: string | null;
  /** Requests at a time. */
  readonly concurrency: number;
  /** Of new objects. */
  readonly compression: 'none' | 'zstd';
  /** Of new objects. */
  readonly encryption: 'none' | 'aes-256-gcm';
  /** Absolute. At most one of `keyFile` and `key` is set; with encryption one is. */
  readonly keyFile: string | null;
  readonly key: string | null;
  readonly prices: PriceSettings;
}

/** `path`: absolute. */
export interface DirectoryBackendSettings extends CommonBackendSettings {
  readonly kind: 'directory';
  readonly path: string;
  readonly hardLinks: boolean;
}

export interface SwiftBackendSettings extends CommonBackendSettings {
  readonly kind: 'swift';
  readonly swift: SwiftSettings;
}

export interface S3BackendSettings extends CommonBackendSettings {
  readonly kind: 's3';
  readonly s3: S3Settings;
}

/**
 * With version 1 `user` is set; with 3 either `applicationCredentialId`, or `user` and `project` and their domains. The secret is in one of its two
 * places. `interface` is set with version 3.
 */
export interface SwiftSettings {
  readonly authUrl: string;
  readonly authVersion: 1 | 3;
  readonly user: string | null;
  readonly key: string | null;
  readonly keyFile: string | null;
  readonly userDomain: string | null;
  readonly project: string | null;
  readonly projectDomain: string | null;
  readonly applicationCredentialId: string | null;
  readonly applicationCredentialSecret: string | null;
  readonly region: string | null;
  readonly interface: 'public' | 'internal' | 'admin' | null;
  readonly storageUrl: string | null;
  readonly caFile: string | null;
}

/** With `accessKeyId` the secret is in one of its two places; without, neither it nor a session token is set. */
export interface S3Settings {
  /** null: AWS, by the region. */
  readonly endpoint: string | null;
  readonly region: string;
  readonly pathStyle: boolean;
  readonly accessKeyId: string | null;
  readonly secretAccessKey: string | null;
  readonly secretAccessKeyFile: string | null;
  readonly sessionToken: string | null;
  readonly profile: string | null;
  readonly caFile: string | null;
}

/** What the store's operator charges, in `currency`; 0: nothing. */
export interface PriceSettings {
  readonly currency: string;
  /** PUT, LIST and requests on buckets. */
  readonly putPerThousand: number;
  /** GET and HEAD. */
  readonly getPerThousand: number;
  readonly deletePerThousand: number;
  /** 10^9 bytes read from the store. */
  readonly outPerGigabyte: number;
  /** 10^9 bytes stored for a month. */
  readonly storagePerGigabyteMonth: number;
}
