/** The Storage Backends that the end-to-end tests and the benchmark run over, real ones, each with what a router's settings must say to use it. */
import { join } from 'node:path';

import type { S3StoreConfig } from '../../backends/s3/s3-config.ts';
import type { SwiftStoreConfig } from '../../backends/swift/swift-config.ts';
import { type Scratch, scratchDirectory } from '../scratch.ts';
import { CephService } from '../services/ceph.ts';
import { SwiftService } from '../services/swift.ts';

/** directory: in the router's data directory. swift: Swift's own API. s3: Ceph radosgw. s3api: the S3 API of Swift. */
export type BackendName = 'directory' | 'swift' | 's3' | 's3api';

export interface Backend {
  readonly name: BackendName;
  /** Where it listens on 127.0.0.1; null: nowhere. */
  readonly port: number | null;
  /** Settings of a router whose vPool is on it; by way of another port if one is given (`NetworkPath`). */
  environment(port?: number): Readonly<Record<string, string>>;
  /** For looking at it past the router; null: the directory. */
  readonly store: SwiftStoreConfig | S3StoreConfig | null;
}

export interface SwiftBackend extends Backend {
  readonly service: SwiftService;
}

export interface CephBackend extends Backend {
  readonly service: CephService;
}

export const directoryBackend: Backend = { name: 'directory', port: null, environment: () => ({}), store: null };

export interface ServiceOptions {
  /** Where it keeps everything, instead of a directory for temporary files; gone with the service. */
  readonly scratch?: Scratch;
}

/** A Swift of its own, gone with `stack`. */
export async function startSwift(
  stack: AsyncDisposableStack,
  options: ServiceOptions & { readonly nodeTimeoutSeconds?: number } = {},
): Promise<SwiftBackend> {
  const { nodeTimeoutSeconds, scratch = await scratchDirectory('swift') } = options;
  const directory = join(stack.use(scratch).path, 'swift');
  const service = stack.use(await SwiftService.start({ directory, ...(nodeTimeoutSeconds === undefined ? {} : { nodeTimeoutSeconds }) }));
  return {
    name: 'swift',
    service,
    port: service.ports.proxy,
    environment: (port) => ({
      VFERRY_VPOOL_BACKEND_KIND: 'swift',
      VFERRY_VPOOL_BACKEND_SWIFT_AUTH_URL: at(service.authUrl, port),
      VFERRY_VPOOL_BACKEND_SWIFT_USER: service.user,
      VFERRY_VPOOL_BACKEND_SWIFT_KEY: service.key,
    }),
    store: {
      kind: 'swift',
      auth: { version: 1, url: service.authUrl, user: service.user, key: service.key },
      region: null,
      endpointInterface: 'public',
      storageUrl: null,
      caFile: null,
    },
  };
}

/** The same Swift by its S3 API. */
export function s3apiOf({ service }: SwiftBackend): Backend {
  return s3Backend('s3api', service.ports.proxy, service.s3Endpoint, { id: service.user, secret: service.key });
}

/** A Ceph with radosgw of its own, gone with `stack`. */
export async function startCeph(stack: AsyncDisposableStack, options: ServiceOptions = {}): Promise<CephBackend> {
  const directory = join(stack.use(options.scratch ?? (await scratchDirectory('ceph'))).path, 'ceph');
  const service = stack.use(await CephService.start({ directory }));
  const keys = { id: service.accessKeyId, secret: service.secretAccessKey };
  return { ...s3Backend('s3', service.rgwPort, service.s3Endpoint, keys), service };
}

function s3Backend(name: BackendName, port: number, endpoint: string, keys: { readonly id: string; readonly secret: string }): Backend {
  return {
    name,
    port,
    environment: (other) => ({
      VFERRY_VPOOL_BACKEND_KIND: 's3',
      VFERRY_VPOOL_BACKEND_S3_ENDPOINT: at(endpoint, other),
      VFERRY_VPOOL_BACKEND_S3_ACCESS_KEY_ID: keys.id,
      VFERRY_VPOOL_BACKEND_S3_SECRET_ACCESS_KEY: keys.secret,
    }),
    store: {
      kind: 's3',
      endpoint,
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: keys.id, secretAccessKey: keys.secret, sessionToken: null },
      profile: null,
      caFile: null,
      conditionalPut: false,
    },
  };
}

function at(url: string, port: number | undefined): string {
  const parsed = new URL(url);
  if (port !== undefined) parsed.port = String(port);
  return parsed.href.replace(/\/$/, '');
}
