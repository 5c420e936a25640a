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

/**
 * A queue of keys, and workers that hand each to the reconciler. It may run again after it ended,
 * as that of a leader does; between two runs it forgets what it is told, since a run begins with
 * the keys of everything.
 */
export class Controller {
  readonly #options: ControllerOptions;
  #queue: WorkQueue | undefined;

  constructor(options: ControllerOptions) {
    this.#options = options;
  }

  enqueue(key: string): void {
    this.#queue?.add(key);
  }

  /**
   * Works until the signal aborts, then gives what is in flight its time; never rejects.
   *
   * @param keys what to look at first
   */
  async run(signal: AbortSignal, keys: Iterable<string>): Promise<void> {
    if (signal.aborted) return;
    const { metrics, reconciler, shutdownMs = 5_000, workers } = this.#options;
    const queue = new WorkQueue({
      maxDelayMs: this.#options.maxDelayMs ?? 60_000,
      metrics: {
        setDepth: (depth) => metrics.setQueueDepth(reconciler.name, depth),
        observeLatency: (seconds) => metrics.observeQueueLatency(reconciler.name, seconds),
      },
    });
    this.#queue = queue;
    for (const key of keys) queue.add(key);
    const work = new AbortController();
    const running = Array.from({ length: workers }, () => this.#work(queue, work.signal));
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    queue.shutDown();
    const inTime = new AbortController();
    await Promise.race([
      queue.drained(),
      delay(shutdownMs, undefined, { signal: inTime.signal }).catch(() => undefined),
    ]);
    inTime.abort();
    work.abort();
    await Promise.all(running);
    this.#queue = undefined;
  }

  async #work(queue: WorkQueue, signal: AbortSignal): Promise<void> {
    for (;;) {
      const key = await queue.take();
      if (key === undefined) return;
      await this.#reconcile(queue, key, signal);
      queue.done(key);
    }
  }

  async #reconcile(queue: WorkQueue, key: string, signal: AbortSignal): Promise<void> {
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
        queue.addRateLimited(key);
        return;
      }
      observe('success');
      queue.forget(key);
      if (requeueAfterMs !== undefined) queue.addAfter(key, requeueAfterMs);
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
      queue.addRateLimited(key);
    }
  }
}
