/**
 * A backend named on the command line: `/path`, `directory:/path`, `swift+https://keystone/v3`, `swift:`, `s3+https://host:port/bucket`, `s3://bucket`, `s3:`.
 * Credentials come from the variables that the services' own tools use, never from the URL: a command line can be seen by everybody.
 */
import { SettingsError } from '../settings/settings-error.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Settings by key, with what to call each in messages, and the variables that count beside them. */
export interface BackendFlags {
  readonly flags: ReadonlyMap<string, string>;
  readonly labels: ReadonlyMap<string, string>;
  readonly environment: Environment;
}

const PREFIX = 'vpool.backend';

/** Key below `swift`, and the variables of `swift` and `openstack` that set it. */
const TEMPAUTH_VARIABLES: readonly (readonly [string, string])[] = [
  ['user', 'ST_USER'],
  ['key', 'ST_KEY'],
];
const KEYSTONE_VARIABLES: readonly (readonly [string, string])[] = [
  ['user', 'OS_USERNAME'],
  ['key', 'OS_PASSWORD'],
  ['userDomain', 'OS_USER_DOMAIN_NAME'],
  ['project', 'OS_PROJECT_NAME'],
  ['projectDomain', 'OS_PROJECT_DOMAIN_NAME'],
  ['applicationCredentialId', 'OS_APPLICATION_CREDENTIAL_ID'],
  ['applicationCredentialSecret', 'OS_APPLICATION_CREDENTIAL_SECRET'],
  ['region', 'OS_REGION_NAME'],
  ['interface', 'OS_INTERFACE'],
  ['caFile', 'OS_CACERT'],
];
/** With an application credential these say nothing new; tools set them all the same. */
const BESIDE_APPLICATION_CREDENTIAL = new Set(['user', 'key', 'userDomain', 'project', 'projectDomain']);

/** @throws SettingsError when the text is no such name, or has credentials in it. */
export function backendFlags(text: string, environment: Environment): BackendFlags {
  const flags = new Map<string, string>();
  const labels = new Map<string, string>();
  const set = (key: string, value: string, label: string): void => {
    flags.set(`${PREFIX}.${key}`, value);
    labels.set(`${PREFIX}.${key}`, label);
  };
  const fromVariables = (section: string, variables: readonly (readonly [string, string])[]): void => {
    for (const [key, variable] of variables) {
      const value = environment[variable];
      if (value !== undefined && value !== '') set(`${section}.${key}`, value, variable);
    }
  };
  const [, kind = '', rest = ''] = /^(directory|swift|s3)(?::|\+(?=https?:\/\/))(.*)$/s.exec(text) ?? [];
  if (text.startsWith('/') || text.startsWith('./') || text.startsWith('../')) {
    set('path', text, text);
    set('kind', 'directory', text);
  } else if (kind === 'directory' && rest !== '') {
    set('path', rest, text);
    set('kind', 'directory', text);
  } else if (kind === 'swift' && (rest === '' || isUrl(rest))) {
    refuseCredentials(rest);
    set('kind', 'swift', text);
    const authUrl = rest === '' ? (environment['OS_AUTH_URL'] ?? environment['ST_AUTH'] ?? '') : rest;
    if (authUrl === '') throw new SettingsError([`${text}: neither OS_AUTH_URL nor ST_AUTH is set; write swift+https://host/v3`]);
    set('swift.authUrl', authUrl, rest === '' ? 'OS_AUTH_URL or ST_AUTH' : text);
    const keystone = /\/v3(\/|$)/.test(authUrl) || environment['ST_USER'] === undefined;
    const application = environment['OS_APPLICATION_CREDENTIAL_ID'] !== undefined;
    fromVariables(
      'swift',
      keystone ? KEYSTONE_VARIABLES.filter(([key]) => !application || !BESIDE_APPLICATION_CREDENTIAL.has(key)) : TEMPAUTH_VARIABLES,
    );
  } else if (kind === 's3' && /^(\/\/[^/]*)?\/?$/.test(rest)) {
    set('kind', 's3', text);
    fromVariables('s3', [['region', environment['AWS_REGION'] === undefined ? 'AWS_DEFAULT_REGION' : 'AWS_REGION']]);
    const bucket = rest.replaceAll('/', '');
    if (bucket !== '') set('bucket', bucket, text);
  } else if (kind === 's3' && isUrl(rest)) {
    refuseCredentials(rest);
    set('kind', 's3', text);
    const url = new URL(rest);
    const bucket = url.pathname.slice(1).replace(/\/$/, '');
    set('s3.endpoint', url.origin, text);
    fromVariables('s3', [['region', environment['AWS_REGION'] === undefined ? 'AWS_DEFAULT_REGION' : 'AWS_REGION']]);
    if (bucket !== '') set('bucket', bucket, text);
  } else {
    throw new SettingsError([
      `${withoutCredentials(text)} names no backend; write /path, swift+https://keystone:5000/v3, swift+http://host:8080/auth/v1.0, s3+https://host:port/bucket or s3://bucket (AWS)`,
    ]);
  }
  const own = `VFERRY_VPOOL_BACKEND_${(flags.get(`${PREFIX}.kind`) ?? '').toUpperCase()}_`;
  return { flags, labels, environment: Object.fromEntries(Object.entries(environment).filter(([name]) => name.startsWith(own))) };
}

function isUrl(text: string): boolean {
  return /^https?:\/\/./.test(text) && URL.canParse(text);
}

/** @throws SettingsError */
function refuseCredentials(url: string): void {
  if (url === '') return;
  const { username, password } = new URL(url);
  if (username === '' && password === '') return;
  throw new SettingsError([
    `${withoutCredentials(url)}: no credentials in a URL, which others can see: use ST_USER and ST_KEY, OS_*, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY`,
  ]);
}

function withoutCredentials(text: string): string {
  return text.replace(/\/\/[^/@]*@/, '//');
}
