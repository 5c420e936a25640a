import { setTimeout as delay } from 'node:timers/promises';
import { splitKey } from '../api/objects.ts';
import type { Logger } from '../observability/logger.ts';
import { aborted } from '../runtime/aborted.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError } from '../runtime/errors.ts';
import { forEachBounded } from '../runtime/parallel.ts';
import { latestOf, withoutRuns } from './backlog.ts';
import {
  ChainUnavailableError,
  ChainWriter,
  type ChainLimits,
  type Committed,
} from './chain-writer.ts';
import type { SigningKey } from './head.ts';
import {
  foldedRecords,
  pendingRecords,
  settleFolds,
  type ChainState,
  type Fact,
  type Fold,
  type Observation,
} from './observation.ts';
import { droppedRunsFact } from './run-facts.ts';

export interface EvidenceLogOptions {
  client: KubeClient;
  signingKey: () => Promise<SigningKey>;
  limits: ChainLimits;
  logger: Logger;
  /** Milliseconds since the epoch. */
  clock: () => number;
  metrics?: EvidenceMetrics;
  /** Told of what stands in the API by now. */
  onCommitted?: (committed: Committed) => void;
  /**
   * How long records are gathered before they are written; milliseconds, default 200. Twice as long
   * as the last writes took where that is more: where the API server is busy, fewer writes take more
   * records each.
   */
  batchMs?: number;
  /** Longest time that a success waits for others to be counted with; milliseconds. */
  foldMs?: number;
  /** Requests in flight at a time; default 8. */
  parallelism?: number;
  /**
   * Observations of one chain that wait one by one; beyond, only the last of each subject. Of eight
   * times as many that can't be written, runs that would only be counted are dropped. Default 512.
   */
  maxPending?: number;
}

/** What the log reports to the metrics. */
export interface EvidenceMetrics {
  countRecords(count: number): void;
  countEvidenceFailure(): void;
  countDroppedRuns(count: number): void;
  setEvidencePending(count: number): void;
}

interface Chain {
  key: string;
  writer: ChainWriter;
  pending: Observation[];
  /** Length of what waits at which only the last of each subject is kept. */
  thinAt: number;
  /** Starts and successes of runs that were dropped, and what waits to say so. */
  dropped: { count: number; fact: Fact } | undefined;
  folds: Map<string, Fold>;
  failures: number;
  /** Before which it isn't tried again; milliseconds since the epoch. */
  retryAt: number;
  writing: Promise<boolean> | undefined;
}

const maxBackoffMs = 30_000;
const firstBackoffMs = 250;
const flushTries = 5;
const tickMs = 1_000;
const maxBatchMs = 1_000;
/** Of `maxPending`. */
const backlogFactor = 8;

/**
 * The log of everything, one chain for each Workflow and one for the cluster. Whoever sees something
 * tells it here and goes on: nothing waits, nothing throws, and what waits to be written is bounded.
 * What is told are levels, so where too much waits, the last level of each subject is enough. Each
 * run is a subject of its own: of those, some are dropped and counted where nothing can be written.
 */
export class EvidenceLog {
  readonly #options: EvidenceLogOptions;
  readonly #chains = new Map<string, Chain>();
  readonly #batchMs: number;
  readonly #foldMs: number;
  readonly #maxPending: number;
  /** Chains with something to write. */
  readonly #dirty = new Set<Chain>();
  #wake: (() => void) | undefined;

  constructor(options: EvidenceLogOptions) {
    this.#options = options;
    this.#batchMs = options.batchMs ?? 200;
    this.#foldMs = options.foldMs ?? 300_000;
    this.#maxPending = options.maxPending ?? 512;
  }

  /** Observations that wait to be written. */
  get pending(): number {
    return [...this.#dirty].reduce((sum, { pending }) => sum + pending.length, 0);
  }

  /** @param key `namespace/name` of the chain */
  observe(key: string, observation: Observation): void {
    const chain = this.#chain(key);
    chain.pending.push(observation);
    if (chain.pending.length > chain.thinAt) {
      chain.pending = latestOf(chain.pending);
      // What can't be thinned isn't gone through again for each that comes.
      chain.thinAt = Math.max(this.#maxPending, Math.ceil(1.5 * chain.pending.length));
    }
    this.#dirty.add(chain);
    this.#wake?.();
  }

  /** Nothing more is written of a namespace that is gone. */
  forget(namespace: string): void {
    for (const [key, chain] of this.#chains) {
      if (splitKey(key).namespace !== namespace) continue;
      this.#chains.delete(key);
      this.#dirty.delete(chain);
    }
  }

  /** Writes until the signal aborts, then once more what waits. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { parallelism = 8, clock, metrics } = this.#options;
    let tookMs = 0;
    while (!signal.aborted) {
      await this.#something(signal);
      await pause(Math.max(this.#batchMs, Math.min(maxBatchMs, 2 * tookMs)), signal);
      const now = clock();
      const due = [...this.#dirty].filter(({ retryAt }) => retryAt <= now);
      await forEachBounded(due, parallelism, (chain) => this.#flush(chain, signal, false));
      tookMs = clock() - now;
      metrics?.setEvidencePending(this.pending);
    }
    // The caller's client ends with it; a last write has a time of its own.
    const closing = AbortSignal.timeout(2_000);
    const rest = [...this.#chains.values()].filter(
      ({ pending, folds, writing }) => pending.length + folds.size > 0 || writing !== undefined,
    );
    await Promise.race([
      forEachBounded(rest, parallelism, (chain) => this.#flush(chain, closing, true)),
      // Some of what a record needs is looked up, in a time of its own.
      aborted(closing),
    ]);
  }

  /**
   * Writes what waits of one chain now.
   *
   * @returns whether nothing of it waits any more
   */
  async settle(key: string, signal: AbortSignal): Promise<boolean> {
    const chain = this.#chain(key);
    for (let tries = 1; tries <= flushTries && !signal.aborted; tries++) {
      if (await this.#flush(chain, signal, false)) return true;
    }
    return false;
  }

  /** Lets go what the limits say, of every chain that this process writes. */
  async expire(signal: AbortSignal): Promise<void> {
    for (const chain of this.#chains.values()) {
      if (signal.aborted) return;
      await this.#exclusively(chain, async () => {
        try {
          await chain.writer.expire(signal);
          return true;
        } catch (error) {
          this.#options.logger.warn('Evidence could not be let go', { chain: chain.key, error });
          return false;
        }
      });
    }
  }

  #chain(key: string): Chain {
    const known = this.#chains.get(key);
    if (known !== undefined) return known;
    const { client, signingKey, limits, clock, metrics, onCommitted } = this.#options;
    const { namespace = '', name } = splitKey(key);
    const chain: Chain = {
      key,
      writer: new ChainWriter({
        client,
        namespace,
        name,
        signingKey,
        limits,
        clock,
        onCommitted: (committed) => {
          metrics?.countRecords(committed.entries.length);
          onCommitted?.(committed);
        },
      }),
      pending: [],
      thinAt: this.#maxPending,
      dropped: undefined,
      folds: new Map(),
      failures: 0,
      retryAt: 0,
      writing: undefined,
    };
    this.#chains.set(key, chain);
    return chain;
  }

  /** @returns whether nothing of it waits any more */
  async #flush(chain: Chain, signal: AbortSignal, isClosing: boolean): Promise<boolean> {
    return await this.#exclusively(chain, () => this.#write(chain, signal, isClosing));
  }

  /** One task of a chain at a time. */
  async #exclusively(chain: Chain, task: () => Promise<boolean>): Promise<boolean> {
    while (chain.writing !== undefined) await chain.writing;
    chain.writing = task();
    try {
      return await chain.writing;
    } finally {
      chain.writing = undefined;
    }
  }

  async #write(chain: Chain, signal: AbortSignal, isClosing: boolean): Promise<boolean> {
    // What is told meanwhile waits for the next write, or this one might never end.
    for (let left = chain.pending.length; ; left -= this.#maxPending) {
      const isAll = await this.#writeSome(chain, signal, isClosing);
      if (isAll || chain.failures > 0 || left <= this.#maxPending) return isAll;
    }
  }

  /** No more than so many: their records are in memory at once, and made in one turn of the event loop. */
  async #writeSome(chain: Chain, signal: AbortSignal, isClosing: boolean): Promise<boolean> {
    const { clock, logger, metrics } = this.#options;
    const taken = chain.pending.splice(0, this.#maxPending);
    try {
      const now = clock();
      const planned: { state?: ChainState } = {};
      await chain.writer.commit(async (state) => {
        planned.state = state;
        const records = await pendingRecords(state, taken, chain.folds, now);
        const folded = await foldedRecords(state, chain.folds, {
          now,
          waitMs: this.#foldMs,
          isClosing,
        });
        return [...records, ...folded];
      }, signal);
      if (planned.state !== undefined) settleFolds(planned.state, chain.folds);
      chain.thinAt = this.#maxPending;
      const { dropped } = chain;
      if (dropped !== undefined && taken.some(({ facts }) => facts.includes(dropped.fact))) {
        chain.dropped = undefined;
      }
      chain.failures = 0;
      chain.retryAt = 0;
      if (chain.pending.length > 0) return false;
      if (chain.folds.size === 0) this.#dirty.delete(chain);
      return true;
    } catch (error) {
      chain.pending = [...taken, ...chain.pending];
      if (error instanceof ChainUnavailableError) {
        logger.warn('Evidence has no place', { chain: chain.key, error });
        chain.pending = [];
        chain.dropped = undefined;
        chain.folds.clear();
        this.#dirty.delete(chain);
        return true;
      }
      chain.failures += 1;
      // Somebody else wrote: nothing is wrong, and what stands is read again.
      const isRace =
        error instanceof ApiError && error.status === 409 && chain.failures < flushTries;
      const backoffMs = Math.min(maxBackoffMs, firstBackoffMs * 2 ** (chain.failures - 1));
      chain.retryAt = isRace ? 0 : clock() + backoffMs;
      if (!isRace && !signal.aborted) {
        metrics?.countEvidenceFailure();
        logger.warn('Evidence could not be written', { chain: chain.key, error });
        this.#dropRuns(chain);
      }
      return false;
    }
  }

  /** Each has a subject of its own, so without an end of them memory would grow with every run. */
  #dropRuns(chain: Chain): void {
    const { clock, logger, metrics } = this.#options;
    const { kept, dropped } = withoutRuns(chain.pending, backlogFactor * this.#maxPending);
    chain.pending = kept;
    if (dropped.length === 0) return;
    for (const { facts } of chain.folds.values()) {
      for (const { subject } of dropped) facts.delete(subject);
    }
    const count = (chain.dropped?.count ?? 0) + dropped.length;
    const fact = droppedRunsFact(count, clock());
    chain.dropped = { count, fact };
    chain.pending = latestOf([...kept, { facts: [fact] }]);
    metrics?.countDroppedRuns(dropped.length);
    logger.warn('Runs dropped from evidence', { chain: chain.key, dropped: dropped.length });
  }

  /** Ends when there is something to write, or after a while: a backoff or a fold may be due. */
  async #something(signal: AbortSignal): Promise<void> {
    if ([...this.#dirty].some(({ pending, failures }) => pending.length > 0 && failures === 0))
      return;
    const told = Promise.withResolvers<void>();
    this.#wake = told.resolve;
    await Promise.race([told.promise, pause(tickMs, signal)]);
    this.#wake = undefined;
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}
