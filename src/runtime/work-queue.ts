export interface WorkQueueMetrics {
  setDepth(depth: number): void;
  /** Seconds that a key waited before a worker took it. */
  observeLatency(seconds: number): void;
}

/** Timers, so that tests need not wait. */
export interface Timers {
  /** Monotonic milliseconds. */
  now(): number;
  /** @returns cancels it */
  set(callback: () => void, delayMs: number): () => void;
}

export const systemTimers: Timers = {
  now: () => performance.now(),
  set: (callback, delayMs) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

export interface WorkQueueOptions {
  /** First pause after a failure, doubled each time; default 5 ms. */
  baseDelayMs?: number;
  /** Longest pause after a failure; default 60 s. */
  maxDelayMs?: number;
  metrics?: WorkQueueMetrics;
  timers?: Timers;
}

/** Node fires a timer with a longer delay at once. */
const maxTimerMs = 2 ** 31 - 1;

/**
 * Keys that wait for a worker, with the semantics of client-go's queue: a key waits at most once;
 * a key that is added while a worker has it comes again after that worker is done; no two workers
 * have the same key. Memory is bounded by the number of distinct keys.
 */
export class WorkQueue {
  readonly #baseDelayMs: number;
  readonly #maxDelayMs: number;
  readonly #metrics: WorkQueueMetrics | undefined;
  readonly #timers: Timers;
  /** Waiting, first in first out, with the time since when. */
  readonly #waiting = new Map<string, number>();
  readonly #processing = new Set<string>();
  /** In work, and added since. */
  readonly #again = new Set<string>();
  /** Heard of while in work; whether that matters, the outcome tells. */
  readonly #echoes = new Set<string>();
  readonly #delayed = new Map<string, { at: number; cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  readonly #drained: (() => void)[] = [];
  readonly #idle = new Set<() => void>();
  #isShutDown = false;

  constructor(options: WorkQueueOptions = {}) {
    this.#baseDelayMs = options.baseDelayMs ?? 5;
    this.#maxDelayMs = options.maxDelayMs ?? 60_000;
    this.#metrics = options.metrics;
    this.#timers = options.timers ?? systemTimers;
    this.#metrics?.setDepth(0);
  }

  /** Keys that wait for a worker; not those that are delayed or being worked on. */
  get depth(): number {
    return this.#waiting.size;
  }

  /** Nothing waits for a worker, and nothing is in work. */
  get isIdle(): boolean {
    return this.#waiting.size === 0 && this.#processing.size === 0;
  }

  add(key: string): void {
    if (this.#isShutDown) return;
    if (this.#processing.has(key)) {
      this.#again.add(key);
      return;
    }
    if (this.#waiting.has(key)) return;
    this.#waiting.set(key, this.#timers.now());
    this.#metrics?.setDepth(this.depth);
    this.#hand();
  }

  /**
   * As `add`, but a key that failed waits for its next try all the same: for what may be the echo of
   * that failed try, which would otherwise be its own next cause without any pause.
   */
  addUnlessFailing(key: string): void {
    if (this.#processing.has(key)) this.#echoes.add(key);
    else if (!this.#failures.has(key)) this.add(key);
  }

  /**
   * Adds the key when the time has come; of two delays of a key the earlier one counts. A delay of
   * more than 24 days ends after 24 days.
   */
  addAfter(key: string, delayMs: number): void {
    if (this.#isShutDown) return;
    if (!(delayMs > 0)) {
      this.add(key);
      return;
    }
    const bounded = Math.min(delayMs, maxTimerMs);
    const at = this.#timers.now() + bounded;
    const delayed = this.#delayed.get(key);
    if (delayed !== undefined) {
      if (delayed.at <= at) return;
      delayed.cancel();
    }
    const cancel = this.#timers.set(() => {
      this.#delayed.delete(key);
      this.add(key);
    }, bounded);
    this.#delayed.set(key, { at, cancel });
  }

  /**
   * Adds the key after a pause that doubles with each call until `forget`.
   *
   * @param atLeastMs a longer pause that somebody asked for, up to the longest that there is
   */
  addRateLimited(key: string, atLeastMs = 0): void {
    if (this.#isShutDown) return;
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    const backoffMs = this.#baseDelayMs * 2 ** failures;
    this.addAfter(key, Math.min(this.#maxDelayMs, Math.max(backoffMs, atLeastMs)));
  }

  /** The next failure of the key is its first again. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The next key, when there is one; `undefined` once the queue is shut down. */
  take(): Promise<string | undefined> {
    if (this.#isShutDown) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#takers.push(resolve);
      this.#hand();
    });
  }

  /** The worker has finished with the key. */
  done(key: string): void {
    this.#processing.delete(key);
    const hasEcho = this.#echoes.delete(key);
    if (this.#again.delete(key)) this.add(key);
    else if (hasEcho) this.addUnlessFailing(key);
    if (this.#processing.size === 0) for (const resolve of this.#drained.splice(0)) resolve();
    this.#tellIdle();
  }

  /** Hands out nothing more, forgets what waits; keys in work may still be finished. */
  shutDown(): void {
    this.#isShutDown = true;
    for (const { cancel } of this.#delayed.values()) cancel();
    this.#delayed.clear();
    this.#waiting.clear();
    this.#echoes.clear();
    this.#failures.clear();
    this.#metrics?.setDepth(0);
    for (const resolve of this.#takers.splice(0)) resolve(undefined);
    this.#tellIdle();
  }

  /** Resolves when no key is in work. */
  drained(): Promise<void> {
    if (this.#processing.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /**
   * Calls back once, when nothing waits for a worker and nothing is in work; what is delayed may be.
   *
   * @returns calls back no more
   */
  whenIdle(callback: () => void): () => void {
    this.#idle.add(callback);
    this.#tellIdle();
    return () => void this.#idle.delete(callback);
  }

  #tellIdle(): void {
    if (!this.isIdle) return;
    const callbacks = [...this.#idle];
    this.#idle.clear();
    for (const callback of callbacks) callback();
  }

  #hand(): void {
    while (this.#takers.length > 0) {
      const next = this.#waiting.entries().next();
      if (next.done === true) return;
      const [key, since] = next.value;
      this.#waiting.delete(key);
      this.#processing.add(key);
      this.#metrics?.setDepth(this.depth);
      this.#metrics?.observeLatency((this.#timers.now() - since) / 1000);
      this.#takers.shift()?.(key);
    }
  }
}
