export interface WorkQueueMetrics {
  setDepth(depth: number): void;
  /** Seconds that a key waited before a worker took it. */
  observeLatency(seconds: number): void;
}

/** Timers, so that tests need not wait. */
export interface Timers {
  /** Monotonic milliseconds. */
  now(): number;
  set(callback: () => void, delayMs: number): unknown;
  clear(timer: unknown): void;
}

export const systemTimers: Timers = {
  now: () => performance.now(),
  set: (callback, delayMs) => setTimeout(callback, delayMs),
  clear: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

export interface WorkQueueOptions {
  /** First pause after a failure, doubled each time; default 5 ms. */
  baseDelayMs?: number;
  /** Longest pause; default 60 s. */
  maxDelayMs?: number;
  metrics?: WorkQueueMetrics;
  timers?: Timers;
}

/**
 * Keys that wait for a worker, with the semantics of client-go's queue: a key waits at most once;
 * a key that is added while a worker has it comes again after that worker is done; no two workers
 * have the same key.
 */
export class WorkQueue {
  readonly #baseDelayMs: number;
  readonly #maxDelayMs: number;
  readonly #metrics: WorkQueueMetrics | undefined;
  readonly #timers: Timers;
  /** Waiting, first in first out, with the time since when. */
  readonly #waiting = new Map<string, number>();
  readonly #processing = new Set<string>();
  readonly #again = new Set<string>();
  readonly #delayed = new Map<string, { at: number; timer: unknown }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  readonly #idle: (() => void)[] = [];
  #isShutDown = false;

  constructor(options: WorkQueueOptions = {}) {
    this.#baseDelayMs = options.baseDelayMs ?? 5;
    this.#maxDelayMs = options.maxDelayMs ?? 60_000;
    this.#metrics = options.metrics;
    this.#timers = options.timers ?? systemTimers;
  }

  /** Keys that wait for a worker; not those that are delayed or being worked on. */
  get depth(): number {
    return this.#waiting.size;
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

  /** Adds the key when the time has come; of two delays of a key the earlier one counts. */
  addAfter(key: string, delayMs: number): void {
    if (this.#isShutDown) return;
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const at = this.#timers.now() + delayMs;
    const delayed = this.#delayed.get(key);
    if (delayed !== undefined) {
      if (delayed.at <= at) return;
      this.#timers.clear(delayed.timer);
    }
    // A longer delay would wrap around to none at all.
    const timer = this.#timers.set(
      () => {
        this.#delayed.delete(key);
        this.add(key);
      },
      Math.min(delayMs, 2 ** 31 - 1),
    );
    this.#delayed.set(key, { at, timer });
  }

  /** Adds the key after a pause that doubles with each call until `forget`. */
  addRateLimited(key: string): void {
    const failures = this.#failures.get(key) ?? 0;
    this.#failures.set(key, failures + 1);
    this.addAfter(key, Math.min(this.#maxDelayMs, this.#baseDelayMs * 2 ** Math.min(failures, 30)));
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
    if (this.#again.delete(key)) this.add(key);
    if (this.#processing.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Hands out nothing more, forgets what waits; keys in work may still be finished. */
  shutDown(): void {
    this.#isShutDown = true;
    for (const { timer } of this.#delayed.values()) this.#timers.clear(timer);
    this.#delayed.clear();
    this.#waiting.clear();
    this.#again.clear();
    this.#failures.clear();
    this.#metrics?.setDepth(0);
    for (const resolve of this.#takers.splice(0)) resolve(undefined);
  }

  /** Resolves when no key is in work. */
  drained(): Promise<void> {
    if (this.#processing.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
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
