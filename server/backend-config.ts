/** Settings of a backend as what stores are made from (`backends/make-store.ts`), with the secrets read from their files. */
import { readFileSync } from 'node:fs';

import { type EncryptionKey } from '../backends/encoding/encoding-config.ts';
import { parseKeys } from '../backends/encoding/key-file.ts';
import type { S3StoreConfig } from '../backends/s3/s3-config.ts';
import type { SwiftAuth, SwiftStoreConfig } from '../backends/swift/swift-config.ts';
import { ApplianceError } from './core/errors.ts';
import type { BackendLocation } from './data-directory.ts';
import type { BackendSettings, S3Settings, SwiftSettings } from './settings/backend-settings.ts';

const SECRET_FILE_CHARACTERS_MAX = 64 * 1024;

/** Where the settings say that the backend is. */
export function locationOf(backend: BackendSettings): BackendLocation {
  switch (backend.kind) {
    case 'directory':
      return { kind: 'directory', path: backend.path };
    case 'swift': {
      const { authUrl, storageUrl, user, project, region } = backend.swift;
      return { kind: 'swift', authUrl, storageUrl, user, project, region };
    }
    case 's3':
      return { kind: 's3', endpoint: backend.s3.endpoint, region: backend.s3.region };
  }
}

/** For people, without secrets. */
export function locationText(location: BackendLocation): string {
  switch (location.kind) {
    case 'directory':
      return `directory ${location.path}`;
    case 'swift':
      return `swift ${location.storageUrl ?? location.authUrl}${location.user === null ? '' : ` as ${location.user}`}${location.project === null ? '' : `, project ${location.project}`}`;
    case 's3':
      return `s3 ${location.endpoint ?? `AWS ${location.region}`}`;
  }
}

/** @throws ApplianceError `secret-unreadable`. */
export function swiftConfig(swift: SwiftSettings): SwiftStoreConfig {
  return {
    kind: 'swift',
    auth: swiftAuth(swift),
    region: swift.region,
    endpointInterface: swift.interface ?? 'public',
    storageUrl: swift.storageUrl,
    caFile: swift.caFile,
  };
}

function swiftAuth(swift: SwiftSettings): SwiftAuth {
  const { authUrl: url, user, userDomain, project, projectDomain, applicationCredentialId: id } = swift;
  if (swift.authVersion === 1) return { version: 1, url, user: user ?? '', key: secret('swift.key', swift.key, swift.keyFile) };
  if (id !== null) {
    const credential = secret('swift.applicationCredentialSecret', swift.applicationCredentialSecret, swift.keyFile);
    return { version: 3, url, credentials: { kind: 'application-credential', id, secret: credential } };
  }
  const password = secret('swift.key', swift.key, swift.keyFile);
  return {
    version: 3,
    url,
    credentials: {
      kind: 'password',
      user: user ?? '',
      userDomain: userDomain ?? 'Default',
      password,
      project: project ?? '',
      projectDomain: projectDomain ?? 'Default',
    },
  };
}

/** @throws ApplianceError `secret-unreadable`. */
export function s3Config(s3: S3Settings, conditionalPut: boolean): S3StoreConfig {
  return {
    kind: 's3',
    endpoint: s3.endpoint,
    region: s3.region,
    forcePathStyle: s3.pathStyle,
    credentials:
      s3.accessKeyId === null
        ? null
        : {
            accessKeyId: s3.accessKeyId,
            secretAccessKey: secret('s3.secretAccessKey', s3.secretAccessKey, s3.secretAccessKeyFile),
            sessionToken: s3.sessionToken,
          },
    profile: s3.profile,
    caFile: s3.caFile,
    conditionalPut,
  };
}

/** Keys of the settings: the first is for new objects. @throws ApplianceError `secret-unreadable`, `encryption-key-invalid`. */
export function encryptionKeys(backend: BackendSettings): EncryptionKey[] {
  if (backend.key !== null) return parseKeys(backend.key);
  return backend.keyFile === null ? [] : parseKeys(readSecretFile('keyFile', backend.keyFile));
}

function secret(key: string, value: string | null, file: string | null): string {
  if (value !== null || file === null) return value ?? '';
  const line = readSecretFile(key, file).split(/\r?\n/, 1)[0] ?? '';
  if (line === '') throw new ApplianceError('secret-unreadable', `${file}, which vpool.backend.${key}File names, has an empty first line`);
  return line;
}

function readSecretFile(key: string, file: string): string {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ApplianceError('secret-unreadable', `vpool.backend.${key}: cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
  if (text.length > SECRET_FILE_CHARACTERS_MAX) throw new ApplianceError('secret-unreadable', `${file} is too long to be a file with a secret`);
  return text;
}
