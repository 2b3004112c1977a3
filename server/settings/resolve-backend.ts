/** Completes the parsed settings of a backend: what depends on its kind, what belongs to which kind, and what must be there together. */
import { resolve } from 'node:path';

import type { BackendSettings, PriceSettings, S3Settings, SwiftSettings } from './backend-settings.ts';
import type { ParsedSettings } from './schema.ts';

type ParsedBackend = ParsedSettings['vpool']['backend'];

/** Where given keys come from, and what relative paths are relative to. */
export interface Given {
  /** For people; undefined when the key was not given. */
  readonly labelOf: (key: string) => string | undefined;
  readonly baseOf: (key: string) => string;
}

const PREFIX = 'vpool.backend';
const AWS_HOST = /(^|\.)amazonaws\.com(\.cn)?$/;

/** Keys of the section `vpool.backend` that only one kind has; those of its sections `swift` and `s3` go with the section. */
const DIRECTORY_KEYS = ['path', 'hardLinks'];
const KEYSTONE_KEYS = [
  'userDomain',
  'project',
  'projectDomain',
  'applicationCredentialId',
  'applicationCredentialSecret',
  'region',
  'interface',
] as const;

/** `problems` gets one line for each contradiction; what is returned then is not to be used. */
export function resolveBackend(parsed: ParsedBackend, data: string, given: Given, problems: string[]): BackendSettings {
  const check = new Check(given, problems);
  for (const key of DIRECTORY_KEYS) check.onlyFor(key, 'directory', parsed.kind);
  for (const key of Object.keys(parsed.swift)) check.onlyFor(`swift.${key}`, 'swift', parsed.kind);
  for (const key of Object.keys(parsed.s3)) check.onlyFor(`s3.${key}`, 's3', parsed.kind);
  const layout = parsed.layout === 'auto' ? (parsed.kind === 's3' ? 'prefix' : 'buckets') : parsed.layout;
  if (layout === 'buckets') check.refuse('bucket', 'is the one bucket of layout prefix, but vpool.backend.layout is buckets');
  check.notBoth('keyFile', 'key');
  if (parsed.encryption !== 'none' && parsed.key === undefined && parsed.keyFile === undefined) {
    check.add('encryption', `is ${parsed.encryption}, which needs a key: set ${PREFIX}.keyFile (vferry key generate makes one)`);
  }
  const common = {
    layout,
    bucket: parsed.bucket ?? null,
    concurrency: parsed.concurrency,
    compression: parsed.compression,
    encryption: parsed.encryption,
    keyFile: check.absolute('keyFile', parsed.keyFile),
    key: parsed.key ?? null,
  } as const;
  switch (parsed.kind) {
    case 'directory': {
      const path = parsed.path === undefined ? resolve(data, 'backend') : resolve(given.baseOf(`${PREFIX}.path`), parsed.path);
      return { kind: 'directory', ...common, path, hardLinks: parsed.hardLinks, prices: pricesOf(parsed, false) };
    }
    case 'swift':
      return { kind: 'swift', ...common, swift: swiftOf(parsed.swift, check), prices: pricesOf(parsed, false) };
    case 's3': {
      const aws = parsed.s3.endpoint === undefined || AWS_HOST.test(new URL(parsed.s3.endpoint).hostname);
      return { kind: 's3', ...common, s3: s3Of(parsed.s3, aws, check), prices: pricesOf(parsed, aws) };
    }
  }
}

function swiftOf(parsed: ParsedBackend['swift'], check: Check): SwiftSettings {
  const keystone = parsed.applicationCredentialId !== undefined || parsed.project !== undefined || /\/v3(\/|$)/.test(parsed.authUrl ?? '');
  const authVersion = parsed.authVersion ?? (keystone ? 3 : 1);
  if (parsed.authUrl === undefined) check.missing('swift.authUrl', 'with kind swift');
  check.notBoth('swift.key', 'swift.keyFile');
  const needsSecret = (): void => {
    if (parsed.key === undefined && parsed.keyFile === undefined) check.missing('swift.key', '(or swift.keyFile) with a user');
  };
  if (authVersion === 1) {
    for (const key of KEYSTONE_KEYS) check.refuse(`swift.${key}`, 'is for Keystone (swift.authVersion 3), but swift.authVersion is 1');
    if (parsed.user === undefined) check.missing('swift.user', 'with authentication v1');
    needsSecret();
  } else if (parsed.applicationCredentialId === undefined) {
    check.refuse('swift.applicationCredentialSecret', 'is set without swift.applicationCredentialId');
    if (parsed.user === undefined) check.missing('swift.user', '(or swift.applicationCredentialId) with Keystone');
    if (parsed.project === undefined) check.missing('swift.project', 'with a user of Keystone');
    needsSecret();
  } else {
    for (const key of ['user', 'key', 'userDomain', 'project', 'projectDomain']) {
      check.refuse(`swift.${key}`, 'is set beside swift.applicationCredentialId, which stands for user and project');
    }
    check.notBoth('swift.applicationCredentialSecret', 'swift.keyFile');
    if (parsed.applicationCredentialSecret === undefined && parsed.keyFile === undefined) {
      check.missing('swift.applicationCredentialSecret', '(or swift.keyFile) with swift.applicationCredentialId');
    }
  }
  const password = authVersion === 3 && parsed.applicationCredentialId === undefined;
  return {
    authUrl: parsed.authUrl ?? '',
    authVersion,
    user: parsed.user ?? null,
    key: parsed.key ?? null,
    keyFile: check.absolute('swift.keyFile', parsed.keyFile),
    userDomain: password ? (parsed.userDomain ?? 'Default') : null,
    project: parsed.project ?? null,
    projectDomain: password ? (parsed.projectDomain ?? 'Default') : null,
    applicationCredentialId: parsed.applicationCredentialId ?? null,
    applicationCredentialSecret: parsed.applicationCredentialSecret ?? null,
    region: parsed.region ?? null,
    interface: authVersion === 3 ? (parsed.interface ?? 'public') : null,
    storageUrl: parsed.storageUrl ?? null,
    caFile: check.absolute('swift.caFile', parsed.caFile),
  };
}

function s3Of(parsed: ParsedBackend['s3'], aws: boolean, check: Check): S3Settings {
  check.notBoth('s3.secretAccessKey', 's3.secretAccessKeyFile');
  if (parsed.accessKeyId === undefined) {
    for (const key of ['secretAccessKey', 'secretAccessKeyFile', 'sessionToken']) check.refuse(`s3.${key}`, 'is set without s3.accessKeyId');
  } else {
    check.notBoth('s3.accessKeyId', 's3.profile');
    if (parsed.secretAccessKey === undefined && parsed.secretAccessKeyFile === undefined) {
      check.missing('s3.secretAccessKey', '(or s3.secretAccessKeyFile) with s3.accessKeyId');
    }
  }
  return {
    endpoint: parsed.endpoint ?? null,
    region: parsed.region,
    pathStyle: parsed.pathStyle ?? !aws,
    accessKeyId: parsed.accessKeyId ?? null,
    secretAccessKey: parsed.secretAccessKey ?? null,
    secretAccessKeyFile: check.absolute('s3.secretAccessKeyFile', parsed.secretAccessKeyFile),
    sessionToken: parsed.sessionToken ?? null,
    profile: parsed.profile ?? null,
    caFile: check.absolute('s3.caFile', parsed.caFile),
  };
}

function pricesOf({ prices }: ParsedBackend, aws: boolean): PriceSettings {
  return {
    currency: prices.currency,
    putPerThousand: prices.putPerThousand ?? (aws ? 0.005 : 0),
    getPerThousand: prices.getPerThousand ?? (aws ? 0.0004 : 0),
    deletePerThousand: prices.deletePerThousand ?? 0,
    outPerGigabyte: prices.outPerGigabyte ?? (aws ? 0.09 : 0),
    storagePerGigabyteMonth: prices.storagePerGigabyteMonth ?? (aws ? 0.023 : 0),
  };
}

/** Collects problems. Keys are below `vpool.backend`. No message holds a value but those of `add`. */
class Check {
  readonly #given: Given;
  readonly #problems: string[];

  constructor(given: Given, problems: string[]) {
    this.#given = given;
    this.#problems = problems;
  }

  add(key: string, message: string): void {
    this.#problems.push(`${this.#given.labelOf(`${PREFIX}.${key}`) ?? 'settings'}: ${PREFIX}.${key} ${message}`);
  }

  missing(key: string, when: string): void {
    this.add(key, `must be set ${when}`);
  }

  /** If the key was given. */
  refuse(key: string, message: string): void {
    if (this.#given.labelOf(`${PREFIX}.${key}`) !== undefined) this.add(key, message);
  }

  onlyFor(key: string, owner: string, kind: string): void {
    if (kind !== owner) this.refuse(key, `is for a backend of kind ${owner}, but ${PREFIX}.kind is ${kind}; remove it or change the kind`);
  }

  notBoth(key: string, other: string): void {
    if (this.#given.labelOf(`${PREFIX}.${other}`) !== undefined) this.refuse(key, `and ${PREFIX}.${other} are both set; remove one of them`);
  }

  absolute(key: string, path: string | undefined): string | null {
    return path === undefined ? null : resolve(this.#given.baseOf(`${PREFIX}.${key}`), path);
  }
}
