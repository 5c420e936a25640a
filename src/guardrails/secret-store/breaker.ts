import { SecretStoreError } from './store.ts';

export interface BreakerOptions {
  /** How long what doesn't answer is left alone at first, and at most; by chance half of it. */
  firstMs: number;
  maxMs: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** From 0 to below 1. */
  random: () => number;
}

/** Those that wait come back after this time at the earliest. */
const soonestMs = 2_000;

/** Leaves alone what doesn't answer: longer each time, until it does. */
export class Breaker {
  readonly #options: BreakerOptions;
  /** In milliseconds since the epoch. */
  #pausedUntil = -Infinity;
  #failures = 0;
  /** Told while it is left alone, too, so that nothing seems to change. */
  #lastFailure = new SecretStoreError('Unavailable', 'the vault does not answer');

  constructor(options: BreakerOptions) {
    this.#options = options;
  }

  /**
   * @param aloneMs after a failure, whoever asks next does so alone for this time
   * @returns what {@link failed} wants to know; `undefined` where it is left alone now
   */
  attempt(aloneMs = 0): number | undefined {
    const now = this.#options.clock();
    if (now < this.#pausedUntil) return undefined;
    if (this.#failures > 0) this.#pausedUntil = now + aloneMs;
    return this.#failures;
  }

  /** It answered. */
  succeeded(): void {
    this.#failures = 0;
    this.#pausedUntil = -Infinity;
  }

  /** It didn't. Of attempts made at one time, the first to fail counts. */
  failed(attempt: number, failure: SecretStoreError): void {
    if (attempt !== this.#failures) return;
    const { firstMs, maxMs, clock, random } = this.#options;
    const pauseMs = Math.min(maxMs, firstMs * 2 ** attempt);
    this.#failures = Math.min(attempt + 1, 10);
    this.#pausedUntil = clock() + pauseMs * (0.5 + 0.5 * random());
    this.#lastFailure = failure;
  }

  /** What whoever is left waiting is told; not all of them come back at once. */
  error(): SecretStoreError {
    const { clock, random } = this.#options;
    const { message, status } = this.#lastFailure;
    const remainingMs = Math.max(0, this.#pausedUntil - clock());
    const retryMs = soonestMs + remainingMs * (1 + random());
    return new SecretStoreError('Unavailable', message, { status, retryMs });
  }
}
