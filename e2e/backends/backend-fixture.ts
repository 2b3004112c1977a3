/** The Storage Backends that the end-to-end tests run over, real ones, each with what a router's settings must say to use it. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { scratchFor } from '../scratch.ts';
import { CephService } from '../services/ceph.ts';
import { SwiftService } from '../services/swift.ts';
import { stackOf } from '../test-stack.ts';

/** directory: in the router's data directory. swift: Swift's own API. s3: Ceph radosgw. s3api: the S3 API of Swift. */
export type BackendName = 'directory' | 'swift' | 's3' | 's3api';

export interface Backend {
  readonly name: BackendName;
  /** Where it listens on 127.0.0.1; null: nowhere. */
  readonly port: number | null;
  /** Settings of a router whose vPool is on it; by way of another port if one is given (`NetworkPath`). */
  environment(port?: number): Readonly<Record<string, string>>;
}

export interface SwiftBackend extends Backend {
  readonly service: SwiftService;
}

export interface CephBackend extends Backend {
  readonly service: CephService;
}

export const directoryBackend: Backend = { name: 'directory', port: null, environment: () => ({}) };

/** A Swift of its own for `t` and its subtests. */
export async function swiftFor(t: TestContext, tuning: { readonly nodeTimeoutSeconds?: number } = {}): Promise<SwiftBackend> {
  const directory = join(await scratchFor(t, 'swift'), 'swift');
  const service = stackOf(t).use(await SwiftService.start({ directory, ...tuning }));
  return { name: 'swift', service, port: service.ports.proxy, environment: (port) => swiftEnvironment(service, port) };
}

/** The same Swift by its S3 API. */
export function s3apiOf({ service }: SwiftBackend): Backend {
  return {
    name: 's3api',
    port: service.ports.proxy,
    environment: (port) => ({
      VFERRY_VPOOL_BACKEND_KIND: 's3',
      VFERRY_VPOOL_BACKEND_S3_ENDPOINT: at(service.s3Endpoint, port),
      VFERRY_VPOOL_BACKEND_S3_REGION: service.s3Region,
      VFERRY_VPOOL_BACKEND_S3_ACCESS_KEY_ID: service.user,
      VFERRY_VPOOL_BACKEND_S3_SECRET_ACCESS_KEY: service.key,
    }),
  };
}

/** A Ceph with radosgw of its own for `t` and its subtests. */
export async function cephFor(t: TestContext): Promise<CephBackend> {
  const service = await CephService.forTest(t);
  return { name: 's3', service, port: service.rgwPort, environment: (port) => cephEnvironment(service, port) };
}

function swiftEnvironment(service: SwiftService, port: number | undefined): Readonly<Record<string, string>> {
  return {
    VFERRY_VPOOL_BACKEND_KIND: 'swift',
    VFERRY_VPOOL_BACKEND_SWIFT_AUTH_URL: at(service.authUrl, port),
    VFERRY_VPOOL_BACKEND_SWIFT_USER: service.user,
    VFERRY_VPOOL_BACKEND_SWIFT_KEY: service.key,
  };
}

function cephEnvironment(service: CephService, port: number | undefined): Readonly<Record<string, string>> {
  return {
    VFERRY_VPOOL_BACKEND_KIND: 's3',
    VFERRY_VPOOL_BACKEND_S3_ENDPOINT: at(service.s3Endpoint, port),
    VFERRY_VPOOL_BACKEND_S3_ACCESS_KEY_ID: service.accessKeyId,
    VFERRY_VPOOL_BACKEND_S3_SECRET_ACCESS_KEY: service.secretAccessKey,
  };
}

function at(url: string, port: number | undefined): string {
  const parsed = new URL(url);
  if (port !== undefined) parsed.port = String(port);
  return parsed.href.replace(/\/$/, '');
}
