/** An answer of the API server that isn't a success. Its message is the server's own sentence. */
export class ApiError extends Error {
  readonly code = 'KUBE_API_ERROR';
  override readonly name = 'ApiError';
  /** HTTP status. */
  readonly status: number;
  /** `metav1.Status.reason`, such as `NotFound`, `Conflict`, `AlreadyExists`; may be empty. */
  readonly reason: string;
  /** From `Retry-After`. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    options: { status: number; reason?: string; retryAfterMs?: number | undefined },
  ) {
    super(message);
    this.status = options.status;
    this.reason = options.reason ?? '';
    this.retryAfterMs = options.retryAfterMs;
  }
}

export function isNotFound(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** Somebody else's write came first (409, and not a name that exists). */
export function isConflict(error: unknown): boolean {
  return error instanceof ApiError && error.status === 409 && error.reason !== 'AlreadyExists';
}

export function isAlreadyExists(error: unknown): boolean {
  return error instanceof ApiError && error.status === 409 && error.reason === 'AlreadyExists';
}

/** The version that was asked for is too old to list or watch from. */
export function isExpired(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 410 || error.reason === 'Expired');
}
