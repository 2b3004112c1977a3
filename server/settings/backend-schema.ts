/** Every setting of a vPool's Storage Backend (`vpool.backend.*`), of all kinds. Which belong to which kind is decided in `resolve-backend.ts`. */
import * as kinds from './kinds.ts';
import { computed, section, setting } from './setting.ts';

const NONE = '-';
const SECRET = { secret: true };

export const backend = {
  kind: setting(kinds.choice('directory', 'swift', 's3'), 'directory', 'Kind of Storage Backend.'),
  layout: setting(
    kinds.choice('auto', 'buckets', 'prefix'),
    'auto',
    'One bucket per volume and one for files, or (prefix) all in one, for stores that limit buckets. auto: prefix on `s3`, else buckets.',
  ),
  bucket: computed(kinds.bucketName, '`vf-<vpool>-<8 digits>`', 'The one bucket of layout prefix; made if absent.'),
  concurrency: setting(kinds.integer(1, 256), 16, 'Requests to the backend at a time.'),
  compression: setting(kinds.choice('none', 'zstd'), 'none', 'Compression of new objects. What is stored already stays readable.'),
  encryption: setting(kinds.choice('none', 'aes-256-gcm'), 'none', 'Encryption of new objects. What is stored already stays readable.'),
  keyFile: computed(
    kinds.filePath,
    NONE,
    'File with the encryption keys (`vferry key generate`): the first is for new objects, all are for reading.',
  ),
  key: computed(kinds.secretText(4096), NONE, 'Encryption keys themselves, instead of `keyFile`; meant for the environment.', SECRET),
  path: computed(kinds.path, '`<data>/backend`', 'Directory of the `directory` backend: another disk, or a mounted file system.'),
  hardLinks: setting(kinds.boolean, true, 'Share files between the local log and a backend on the same file system instead of copying them.'),
};

export const swift = {
  authUrl: computed(kinds.httpUrl, 'must be set', 'Where to authenticate: `http://host:8080/auth/v1.0` (v1), `https://keystone:5000/v3` (Keystone).'),
  authVersion: setting(
    kinds.orAuto(kinds.numberChoice(1, 3)),
    'auto',
    'Version 1: tempauth, swauth, radosgw. 3: Keystone. auto: 3 if the URL says v3 or a project or application credential is set.',
  ),
  user: computed(kinds.text(255), NONE, 'User; v1: `account:user`.'),
  key: computed(kinds.secretText(4096), NONE, "The user's key or password.", SECRET),
  keyFile: computed(kinds.filePath, NONE, 'File with the key or password (or secret of the application credential) in its first line.'),
  userDomain: computed(kinds.text(255), '`Default`', 'Keystone: domain of the user.'),
  project: computed(kinds.text(255), NONE, 'Keystone: project whose account holds the vPool.'),
  projectDomain: computed(kinds.text(255), '`Default`', 'Keystone: domain of the project.'),
  applicationCredentialId: computed(kinds.text(255), NONE, 'Keystone: application credential instead of user, key and project.'),
  applicationCredentialSecret: computed(kinds.secretText(4096), NONE, 'Keystone: its secret.', SECRET),
  region: computed(kinds.text(255), 'any', 'Keystone: region of the object store in the catalog.'),
  interface: computed(kinds.choice('public', 'internal', 'admin'), '`public`', 'Keystone: which endpoint of the catalog.'),
  storageUrl: computed(kinds.httpUrl, 'as authentication says', 'URL of the account.'),
  caFile: computed(kinds.filePath, "the system's CAs", 'PEM file with the CAs to trust.'),
};

export const s3 = {
  endpoint: computed(kinds.httpUrl, 'AWS, by region', 'URL of the service: `https://s3.example.com:9000`.'),
  region: setting(kinds.text(63), 'us-east-1', 'Region; services other than AWS take nearly anything.'),
  pathStyle: setting(kinds.orAuto(kinds.boolean), 'auto', 'Bucket in the path of the URL instead of the host name. auto: true except on AWS.'),
  accessKeyId: computed(
    kinds.text(255),
    "as AWS's tools find it",
    'Access key. Without it: environment (`AWS_*`), shared credentials file, instance role.',
  ),
  secretAccessKey: computed(kinds.secretText(4096), NONE, 'Its secret.', SECRET),
  secretAccessKeyFile: computed(kinds.filePath, NONE, 'File with the secret in its first line.'),
  sessionToken: computed(kinds.secretText(16_384), NONE, 'Session token of temporary credentials.', SECRET),
  profile: computed(kinds.text(255), NONE, 'Profile of the shared credentials file.'),
  caFile: computed(kinds.filePath, "the system's CAs", 'PEM file with the CAs to trust.'),
};

/** What requests cost, for the metrics of cost; AWS's are those of S3 Standard in us-east-1. */
export const prices = {
  currency: setting(kinds.text(16), 'USD', 'Currency of the prices.'),
  putPerThousand: computed(kinds.price, '0.005 on AWS, else 0', 'Price of 1000 PUT, LIST and bucket requests.'),
  getPerThousand: computed(kinds.price, '0.0004 on AWS, else 0', 'Price of 1000 GET and HEAD requests.'),
  deletePerThousand: computed(kinds.price, '0', 'Price of 1000 DELETE requests.'),
  outPerGigabyte: computed(kinds.price, '0.09 on AWS, else 0', 'Price of 10^9 bytes read from the backend.'),
  storagePerGigabyteMonth: computed(kinds.price, '0.023 on AWS, else 0', 'Price of 10^9 bytes stored for a month.'),
};

export const backendSection = section(backend, { swift: section(swift, {}), s3: section(s3, {}), prices: section(prices, {}) });
