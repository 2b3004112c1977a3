/** What an S3 service, the way to it, or the SDK says when a request fails, and what the caller should do then. */
import { errorCode } from '../../server/core/errors.ts';
import { StoreError, type StoreErrorClass } from '../object-store.ts';

/** A failed request, as far as anybody may know of it: no header, no credential, no text of unbounded length. */
export interface S3Failure {
  /** Of the answer; null: there was none. */
  readonly status: number | null;
  /** The service's error code (`NoSuchKey`), else the code or name of the local error (`ECONNREFUSED`). */
  readonly code: string;
  readonly message: string;
  /** The service's clock, if the answer showed it. */
  readonly date: string | null;
}

/** Longest text of a service that gets into a message. */
const TEXT_LENGTH_MAX = 200;

/** Decided by the code wherever it is known: services disagree about statuses. What is not here goes by the status. */
const CLASS_OF_CODE: Readonly<Record<string, StoreErrorClass>> = {
  NoSuchBucket: 'absent',
  // Quotas and full disks: AWS has none, but radosgw, MinIO and Swift's s3api (413) have.
  QuotaExceeded: 'no-space',
  EntityTooLarge: 'no-space',
  InsufficientCapacity: 'no-space',
  InsufficientStorage: 'no-space',
  XMinioStorageFull: 'no-space',
  XMinioAdminBucketQuotaExceeded: 'no-space',
  ServiceQuotaExceeded: 'no-space',
  // 4xx, but about this attempt, not about the request as such.
  RequestTimeout: 'retry',
  RequestTimeTooSkewed: 'retry',
  IncompleteBody: 'retry',
  BadDigest: 'retry',
  XAmzContentSHA256Mismatch: 'retry',
  OperationAborted: 'retry',
  ConditionalRequestConflict: 'retry',
  TemporaryRedirect: 'retry',
  SlowDown: 'retry',
  ServiceUnavailable: 'retry',
  Throttling: 'retry',
  ThrottlingException: 'retry',
  RequestLimitExceeded: 'retry',
  TooManyRequests: 'retry',
};

/** What to do about it, for a person. */
const HINT_OF_CODE: Readonly<Record<string, string>> = {
  SignatureDoesNotMatch: 'the secret access key is wrong, or something on the way changes requests',
  InvalidAccessKeyId: 'the service does not know this access key',
  ExpiredToken: 'the session token is over',
  AccessDenied: 'the access key lacks a right (docs/OPERATIONS.md lists the needed ones)',
  AuthorizationHeaderMalformed: 'is the region right?',
  InvalidLocationConstraint: 'the region is not one of this service; radosgw and many others want us-east-1',
  IllegalLocationConstraintException: 'the region is not the one of the endpoint',
  PermanentRedirect: 'the bucket is in another region, or the endpoint is wrong',
  BucketAlreadyExists: 'the bucket belongs to somebody else',
  TooManyBuckets: 'the account may have no more buckets: use the layout "prefix"',
  CredentialsProviderError: 'no credentials in the settings, the environment, the shared file or from the instance',
  NotImplemented: 'the service does not know this kind of request',
};

/** Local errors that no repetition mends. */
const DENIED_LOCALLY =
  /^(CredentialsProviderError|TokenProviderError|CERT_\w+|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+|ERR_TLS_CERT_ALTNAME_INVALID|HOSTNAME_MISMATCH)$/;

/** Reads whatever `client.send` threw. */
export function s3Failure(error: unknown): S3Failure {
  if (!(error instanceof Error)) return { status: null, code: 'unknown', message: printable(String(error)), date: null };
  const { $metadata, $response } = error as { $metadata?: { httpStatusCode?: unknown }; $response?: { statusCode?: unknown; headers?: unknown } };
  const status = [$metadata?.httpStatusCode, $response?.statusCode].find((value) => typeof value === 'number') ?? null;
  const local = errorCode(error);
  // A service's error has its code as the name of the class; of Node's errors the code says more than the name. A connection to a name with
  // several addresses fails with an AggregateError that has no message.
  const code = printable(status === null ? (local ?? error.name) : error.name);
  const text = error instanceof AggregateError && error.message === '' ? String(error.errors[0]) : error.message;
  const date: unknown = ($response?.headers as { date?: unknown } | undefined)?.date;
  return { status, code, message: printable(text), date: typeof date === 'string' ? printable(date) : null };
}

/** Whether nobody gave us credentials: nothing was sent. */
export function isWithoutCredentials({ status, code }: S3Failure): boolean {
  return status === null && (code === 'CredentialsProviderError' || code === 'TokenProviderError');
}

/** The error to reject with. `what` says what was tried: `put bucket/name`. */
export function storeErrorOf(failure: S3Failure, what: string): StoreError {
  return new StoreError(classOf(failure), `${what}: ${describe(failure)}`);
}

/** The class for one object's error in the answer of a multi-object delete. */
export function deleteErrorOf(code: string | undefined, message: string | undefined, what: string): StoreError {
  const failure = { status: 200, code: printable(code ?? 'unknown'), message: printable(message ?? ''), date: null };
  const denied = failure.code === 'AccessDenied' || failure.code === 'InvalidRequest';
  return new StoreError(CLASS_OF_CODE[failure.code] ?? (denied ? 'denied' : 'retry'), `${what}: ${describe(failure)}`);
}

function classOf({ status, code }: S3Failure): StoreErrorClass {
  const byCode = CLASS_OF_CODE[code];
  if (byCode !== undefined) return byCode;
  if (status === null) return DENIED_LOCALLY.test(code) ? 'denied' : 'retry';
  if (status === 507) return 'no-space';
  if (status === 501) return 'denied';
  if (status === 408 || status === 425 || status === 429 || status >= 500) return 'retry';
  // A 2xx that could not be read is no S3 answer: a proxy's page, or one that was cut off.
  return status < 300 ? 'retry' : 'denied';
}

function describe({ status, code, message, date }: S3Failure): string {
  const parts = [code];
  if (message !== '' && message !== code && message !== 'UnknownError') parts.push(message);
  if (status !== null) parts.push(`status ${status}`);
  const hint = HINT_OF_CODE[code];
  if (hint !== undefined) parts.push(hint);
  if (code === 'RequestTimeTooSkewed') {
    parts.push(`the clock of this machine is wrong${date === null ? '' : ` (the service's says ${date})`}: set it right, with NTP for instance`);
  }
  return parts.join('; ');
}

/** Text of a stranger: one line, not long. */
function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- they are what is replaced
  const line = text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return line.length > TEXT_LENGTH_MAX ? `${line.slice(0, TEXT_LENGTH_MAX)}...` : line;
}
