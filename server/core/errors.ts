/**
 * The one error class for what the environment did wrong (design: three kinds of errors, see CONTRIBUTING.md).
 *
 * What a correct caller must branch on is a discriminated union, not an error; a bug is an assertion.
 * `code` is API and stable; the message is for people and carries ids, numbers and what to do.
 */
export class ApplianceError extends Error {
  readonly code: string;
  /** True when the same call may succeed later without anybody's help. */
  readonly retryable: boolean;

  constructor(code: string, message: string, options: { retryable?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ApplianceError';
    this.code = code;
    this.retryable = options.retryable ?? false;
  }
}

/** The `code` of a Node system error (`ENOENT`, `ENOSPC` ...) or of an ApplianceError, else undefined. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

/** True for what the environment did: an ApplianceError or a failed system call. Everything else that is thrown is a bug. */
export function isEnvironmentError(error: unknown): error is Error {
  return error instanceof ApplianceError || (error instanceof Error && 'syscall' in error);
}
