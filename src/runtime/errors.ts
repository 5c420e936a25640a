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

/** No answer in time. A write may have been done all the same. */
export class ApiTimeoutError extends Error {
  readonly code = 'KUBE_API_TIMEOUT';
  override readonly name = 'ApiTimeoutError';

  constructor(timeoutMs: number) {
    super(`no answer of the API server within ${timeoutMs} ms`);
  }
}

/** The connection failed; `cause` says how. A write may have been done all the same. */
export class ApiUnreachableError extends Error {
  readonly code = 'KUBE_API_UNREACHABLE';
  override readonly name = 'ApiUnreachableError';

  constructor(cause: unknown) {
    super(`connection to the API server failed: ${textOf(cause)}`, { cause });
  }
}

/**
 * An answer, or a line of a watch, that isn't what the API promises. It has no `cause` on purpose:
 * a parser's message quotes the text, and that may be a secret.
 */
export class MalformedResponseError extends Error {
  readonly code = 'KUBE_API_MALFORMED_RESPONSE';
  override readonly name = 'MalformedResponseError';
}

export function isNotFound(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/**
 * The object that would come of a write breaks a rule of its kind: no repeat changes that. A patch
 * whose `test` fails has the same status and reason, and another sentence.
 */
export function isInvalid(error: unknown): boolean {
  return (
    error instanceof ApiError && error.status === 422 && error.message.includes(' is invalid: ')
  );
}

/**
 * The API server, an admission policy or a webhook says no to a write as it stands: it stays so
 * until somebody changes a role, a rule or a quota. Webhooks answer 400 unless they say otherwise,
 * policies 422 (k8s.io/apiserver, admission/plugin/webhook/errors and policy/validating).
 */
export function isRefused(error: unknown): boolean {
  return error instanceof ApiError && refusals.has(error.status);
}

const refusals: ReadonlySet<number> = new Set([400, 403, 413, 422]);

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

/** Of several attempts at one connection, Node's error has only a code. */
function textOf(cause: unknown): string {
  if (!(cause instanceof Error)) return 'unknown failure';
  if (cause.message !== '') return cause.message;
  return 'code' in cause ? String(cause.code) : cause.name;
}

/** What went wrong, of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
