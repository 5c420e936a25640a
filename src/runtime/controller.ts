import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../observability/logger.ts';
import { isConflict } from './errors.ts';
import { WorkQueue } from './work-queue.ts';

export interface ReconcileContext {
  /** Aborts when the time of a shutdown is up. */
  readonly signal: AbortSignal;
  /** One for each reconcile; in all its log records. */
  readonly correlationId: string;
  readonly log: Logger;
}

export interface ReconcileResult {
  /** Look again after this time, changed or not. */
  requeueAfterMs?: number;
  /** Not done yet, and nobody will say when: look again soon, then ever less often. */
  retry?: boolean;
}

/** Brings one object to the state that it should have; called again until that is so. */
export interface Reconciler {
  readonly name: string;
  reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult>;
}

export interface ControllerMetrics {
  observeReconcile(
    controller: string,
    result: 'success' | 'error' | 'requeue',
    seconds: number,
  ): void;
  setQueueDepth(controller: string, depth: number): void;
  observeQueueLatency(controller: string, seconds: number): void;
}

export interface ControllerOptions {
  reconciler: Reconciler;
  workers: number;
  metrics: ControllerMetrics;
  logger: Logger;
  /** Time that work in flight gets at a shutdown; default 5 s. */
  shutdownMs?: number;
  /** Longest pause between two tries of a key; default 60 s. */
  maxDelayMs?: number;
}

/** A queue of keys, and workers that hand each to the reconciler. */
export class Controller {
  readonly #options: ControllerOptions;
  readonly #queue: WorkQueue;

  constructor(options: ControllerOptions) {
    this.#options = options;
    const { name } = options.reconciler;
    this.#queue = new WorkQueue({
      maxDelayMs: options.maxDelayMs ?? 60_000,
      metrics: {
        setDepth: (depth) => options.metrics.setQueueDepth(name, depth),
        observeLatency: (seconds) => options.metrics.observeQueueLatency(name, seconds),
      },
    });
  }

  enqueue(key: string): void {
    this.#queue.add(key);
  }

  enqueueAfter(key: string, delayMs: number): void {
    this.#queue.addAfter(key, delayMs);
  }

  /** Works until the signal aborts, then gives what is in flight its time; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { shutdownMs = 5_000, workers } = this.#options;
    const work = new AbortController();
    const running = Array.from({ length: workers }, () => this.#work(work.signal));
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    this.#queue.shutDown();
    const inTime = new AbortController();
    await Promise.race([
      this.#queue.drained(),
      delay(shutdownMs, undefined, { signal: inTime.signal }).catch(() => undefined),
    ]);
    inTime.abort();
    work.abort();
    await Promise.all(running);
  }

  async #work(signal: AbortSignal): Promise<void> {
    for (;;) {
      const key = await this.#queue.take();
      if (key === undefined) return;
      await this.#reconcile(key, signal);
      this.#queue.done(key);
    }
  }

  async #reconcile(key: string, signal: AbortSignal): Promise<void> {
    const { reconciler, metrics, logger } = this.#options;
    const correlationId = randomUUID();
    const log = logger.child({ controller: reconciler.name, key, correlationId });
    const started = performance.now();
    const observe = (result: 'success' | 'error' | 'requeue'): void =>
      metrics.observeReconcile(reconciler.name, result, (performance.now() - started) / 1000);
    try {
      const { requeueAfterMs, retry } = await reconciler.reconcile(key, {
        signal,
        correlationId,
        log,
      });
      if (retry === true) {
        observe('requeue');
        this.#queue.addRateLimited(key);
        return;
      }
      observe('success');
      this.#queue.forget(key);
      if (requeueAfterMs !== undefined) this.#queue.addAfter(key, requeueAfterMs);
    } catch (error) {
      if (isConflict(error)) {
        observe('requeue');
        log.debug('Somebody else wrote first; planned anew', { error });
      } else if (signal.aborted) {
        log.info('Reconcile cut off by the shutdown');
      } else {
        observe('error');
        log.error('Reconcile failed', { error });
      }
      this.#queue.addRateLimited(key);
    }
  }
}
