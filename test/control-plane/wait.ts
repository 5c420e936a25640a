/** How long and how often {@link waitFor} asks. */
export interface WaitOptions {
  /** Milliseconds until the wait fails. Default 120 000: no machine that CI runs on is too slow. */
  readonly timeoutMs?: number;
  /** Milliseconds between the end of one probe and the start of the next. Default 50. */
  readonly intervalMs?: number;
  /** Ends the wait early; the wait then fails with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** What a probe says for "not yet": anything falsy. */
export type NotYet = false | null | undefined | 0 | '';

/** A condition did not come true in time. */
export class WaitTimeoutError extends Error {
  override readonly name = 'WaitTimeoutError';
}

/**
 * Asks `probe` again and again until it answers something truthy, and returns
 * that answer. An error thrown by the probe counts as "not yet"; the last one is the
 * `cause` of the timeout error. A probe that hangs cannot outlast the deadline.
 *
 * @param description what is waited for, as the object of "waiting for …"
 * @param probe the condition
 * @throws WaitTimeoutError when the condition does not hold within `timeoutMs`
 * @throws the reason of `options.signal` when that aborts
 */
export async function waitFor<T>(
  description: string,
  probe: () => T | Promise<T>,
  { timeoutMs = 120_000, intervalMs = 50, signal }: WaitOptions = {},
): Promise<Exclude<T, NotYet>> {
  const deadline = performance.now() + timeoutMs;
  let last: Outcome<T> = { kind: 'late' };
  let isCut = false;

  for (;;) {
    signal?.throwIfAborted();
    const remaining = deadline - performance.now();
    if (remaining <= 0) throw timeoutError(description, timeoutMs, last, isCut);

    const outcome = await bounded(attempt(probe), remaining, signal);
    if (outcome.kind === 'value' && isAnswer(outcome.value)) return outcome.value;
    isCut = outcome.kind === 'late';
    // What a look that was cut off would have told, the one before it tells best.
    if (!isCut) last = outcome;
    await bounded(undefined, Math.min(intervalMs, deadline - performance.now()), signal);
  }
}

type Outcome<T> =
  | { readonly kind: 'value'; readonly value: T }
  | { readonly kind: 'error'; readonly error: unknown }
  | { readonly kind: 'late' };

async function attempt<T>(probe: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { kind: 'value', value: await probe() };
  } catch (error) {
    return { kind: 'error', error };
  }
}

/** Resolves with the work's outcome, or with `late` after `ms` or when the signal aborts. */
function bounded<T>(
  work: Promise<Outcome<T>> | undefined,
  ms: number,
  signal: AbortSignal | undefined,
): Promise<Outcome<T>> {
  return new Promise((resolve) => {
    const finish = (outcome: Outcome<T>): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onLate);
      resolve(outcome);
    };
    const onLate = (): void => finish({ kind: 'late' });
    const timer = setTimeout(onLate, Math.max(0, ms));
    signal?.addEventListener('abort', onLate, { once: true });
    if (signal?.aborted === true) onLate();
    void work?.then(finish);
  });
}

function isAnswer<T>(value: T): value is Exclude<T, NotYet> {
  return Boolean(value);
}

function timeoutError(
  description: string,
  timeoutMs: number,
  last: Outcome<unknown>,
  isCut: boolean,
): WaitTimeoutError {
  const cut = isCut ? '; the last look did not end in time' : '';
  const waited = `waited ${timeoutMs / 1000} s for ${description}${cut}`;
  if (last.kind === 'late') return new WaitTimeoutError(waited);
  if (last.kind === 'value') {
    return new WaitTimeoutError(`${waited}; last answer: ${JSON.stringify(last.value)}`);
  }
  const message = last.error instanceof Error ? last.error.message : String(last.error);
  return new WaitTimeoutError(`${waited}; last error: ${message}`, { cause: last.error });
}
