import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from '../observability/logger.ts';
import { aborted } from './aborted.ts';
import { ApiError, isConflict } from './errors.ts';
import { NotLeaderError } from './leader-election.ts';
import { systemTimers, WorkQueue, type Timers } from './work-queue.ts';

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

/**
 * Work that goes before that of others in this process. Others begin nothing new while it is under
 * way, since they would share its processor; but they never wait longer than a moment for it, so
 * that a lane that is always busy slows them down and doesn't stop them.
 */
export interface Lane {
  /** Resolves when nothing is under way, or after the time at the latest. */
  clear(limitMs: number): Promise<void>;
}

export interface ControllerOptions {
  reconciler: Reconciler;
  /** Whether a key is this controller's business; default: all are. */
  accepts?: (key: string) => boolean;
  workers: number;
  /** Whose work comes first: see {@link Lane}. */
  behind?: Lane;
  metrics: ControllerMetrics;
  logger: Logger;
  /** Time that work in flight gets at a shutdown; default 5 s. */
  shutdownMs?: number;
  /** Longest pause between two tries of a key; default 60 s. */
  maxDelayMs?: number;
  timers?: Timers;
  /** Makes correlation IDs; default: random UUIDs. */
  uuid?: () => string;
}

/** Time that a reconcile gets to end once its signal has aborted. */
const noticeMs = 250;
/** How long one reconcile gives way to a lane. */
const givesWayMs = 1_000;
/** When to look again at a key that a reconcile of an earlier run still has. */
const occupiedMs = 1_000;

/**
 * A queue of keys, and workers that hand each to the reconciler. A key that fails is tried again
 * by itself, ever less often, and holds up no other. It may run again after a run has ended: a
 * replica can lead more than once.
 */
export class Controller implements Lane {
  readonly #options: ControllerOptions;
  readonly #timers: Timers;
  readonly #uuid: () => string;
  #queue: WorkQueue | undefined;
  /** Of all runs: a reconcile that doesn't heed its signal outlives its own. */
  readonly #inFlight = new Set<string>();

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#uuid = options.uuid ?? randomUUID;
  }

  /** Something that concerns the key has changed. Only a controller that runs takes note. */
  enqueue(key: string): void {
    if (this.#accepts(key)) this.#queue?.add(key);
  }

  /**
   * As `enqueue`, for a change that the controller may have made itself: a key whose last try failed
   * waits for its next one, or each try would be the cause of another.
   */
  enqueueEcho(key: string): void {
    if (this.#accepts(key)) this.#queue?.addUnlessFailing(key);
  }

  /** As `enqueue`, when the time has come. */
  enqueueAfter(key: string, delayMs: number): void {
    if (this.#accepts(key)) this.#queue?.addAfter(key, delayMs);
  }

  clear(limitMs: number): Promise<void> {
    const queue = this.#queue;
    if (queue === undefined || queue.isIdle) return Promise.resolve();
    return new Promise((resolve) => {
      const forget = queue.whenIdle(() => {
        cancel();
        resolve();
      });
      const cancel = this.#timers.set(() => {
        forget();
        resolve();
      }, limitMs);
    });
  }

  /**
   * Works until the signal aborts, then starts nothing more and gives what is in flight its time;
   * what hasn't ended then is aborted and left behind. Never rejects.
   *
   * @param keys all keys that there are: what happened before the run, nobody took note of
   */
  async run(signal: AbortSignal, keys: Iterable<string> = []): Promise<void> {
    if (signal.aborted) return;
    const { shutdownMs = 5_000, workers, logger, reconciler } = this.#options;
    const queue = this.#newQueue();
    this.#queue = queue;
    for (const key of keys) if (this.#accepts(key)) queue.add(key);
    const cut = new AbortController();
    const running = Promise.all(
      Array.from({ length: workers }, () => this.#work(queue, signal, cut.signal)),
    );
    await aborted(signal);
    queue.shutDown();
    const isDone = await this.#within(shutdownMs, running);
    cut.abort();
    if (isDone || (await this.#within(noticeMs, running))) return;
    logger.warn('Reconciles left behind: they do not heed the end of their time', {
      controller: reconciler.name,
      keys: [...this.#inFlight].slice(0, 10),
    });
  }

  #accepts(key: string): boolean {
    return this.#options.accepts?.(key) ?? true;
  }

  #newQueue(): WorkQueue {
    const { reconciler, metrics, maxDelayMs = 60_000 } = this.#options;
    return new WorkQueue({
      maxDelayMs,
      timers: this.#timers,
      metrics: {
        setDepth: (depth) => metrics.setQueueDepth(reconciler.name, depth),
        observeLatency: (seconds) => metrics.observeQueueLatency(reconciler.name, seconds),
      },
    });
  }

  async #work(queue: WorkQueue, stop: AbortSignal, cut: AbortSignal): Promise<void> {
    for (;;) {
      const key = await queue.take();
      if (key === undefined || stop.aborted) return;
      // Many changes that come at once are then one, and however many keys wait, probes, timers and
      // other controllers get their turn between two of them.
      await nextTurn();
      await this.#options.behind?.clear(givesWayMs);
      if (stop.aborted) return queue.done(key);
      if (this.#inFlight.has(key)) {
        queue.addAfter(key, occupiedMs);
      } else {
        this.#inFlight.add(key);
        try {
          await this.#reconcile(key, queue, cut);
        } catch (error) {
          this.#options.logger.error('Reconcile could not be reported', { key, error });
        }
        this.#inFlight.delete(key);
      }
      queue.done(key);
    }
  }

  async #reconcile(key: string, queue: WorkQueue, signal: AbortSignal): Promise<void> {
    const { reconciler, metrics, logger } = this.#options;
    const correlationId = this.#uuid();
    const log = logger.child({ controller: reconciler.name, key, correlationId });
    const started = this.#timers.now();
    const observe = (result: 'success' | 'error' | 'requeue'): void =>
      metrics.observeReconcile(reconciler.name, result, (this.#timers.now() - started) / 1000);
    try {
      const context = { signal, correlationId, log };
      const { requeueAfterMs, retry = false } = await reconciler.reconcile(key, context);
      if (retry) {
        queue.addRateLimited(key);
      } else {
        queue.forget(key);
        if (requeueAfterMs !== undefined) queue.addAfter(key, requeueAfterMs);
      }
      observe(retry ? 'requeue' : 'success');
    } catch (error) {
      queue.addRateLimited(key, error instanceof ApiError ? error.retryAfterMs : undefined);
      if (isConflict(error)) {
        observe('requeue');
        log.debug('Somebody else wrote first; planned anew', { error });
      } else if (error instanceof NotLeaderError) {
        observe('requeue');
        log.debug('No longer leading; left to the next leader');
      } else if (signal.aborted) {
        observe('requeue');
        log.info('Reconcile cut off by the shutdown', { error });
      } else {
        observe('error');
        log.error('Reconcile failed', { error });
      }
    }
  }

  /** @returns whether the work ended in that time */
  async #within(milliseconds: number, work: Promise<unknown>): Promise<boolean> {
    const late = Promise.withResolvers<boolean>();
    const cancel = this.#timers.set(() => late.resolve(false), milliseconds);
    const isDone = await Promise.race([work.then(() => true), late.promise]);
    cancel();
    return isDone;
  }
}
