/** How to reach an S3 service. Plain data: it is handed to worker threads; never log it. */
export interface S3StoreConfig {
  readonly kind: 's3';
  /** `https://host:port`; null: AWS, by the region. */
  readonly endpoint: string | null;
  readonly region: string;
  /** True: `endpoint/bucket/name`, what radosgw, Swift's s3api and MinIO want; false: `bucket.endpoint/name` (AWS). */
  readonly forcePathStyle: boolean;
  /** null: the SDK's default chain (environment, shared credentials file, instance role); `profile` names one of the shared file. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken: string | null } | null;
  readonly profile: string | null;
  /** PEM file with the CAs to trust instead of the system's; null: the system's. */
  readonly caFile: string | null;
  /** Whether `If-None-Match: *` makes a put create-if-absent atomically: found by the probe (backends/probe). False: puts are plain. */
  readonly conditionalPut: boolean;
}
