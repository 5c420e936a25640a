import { setTimeout as delay } from 'node:timers/promises';
import type { Lease } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type { JsonPatchOperation, KubeClient } from './client.ts';
import { isAlreadyExists } from './errors.ts';

export interface LeaderElectorOptions {
  client: KubeClient;
  /** Of the Lease. */
  namespace: string;
  /** Of the Lease. */
  name: string;
  /** Unique to this process. */
  identity: string;
  logger: Logger;
  /** Time after which others may take the Lease; default 15 s. */
  leaseDurationMs?: number;
  /** Time after which a leader that can't renew gives up; default 10 s. */
  renewDeadlineMs?: number;
  /** Pause between two tries; default 2 s. */
  retryPeriodMs?: number;
  /** Monotonic milliseconds; a wall clock that jumps must not make a leader. */
  clock?: () => number;
  /** Milliseconds since the epoch, for the times in the Lease, which nobody decides by. */
  now?: () => number;
  random?: () => number;
  sleep?: (milliseconds: number, signal: AbortSignal) => Promise<void>;
}

export interface LeaderCallbacks {
  /** Leads until the signal aborts. */
  onStartedLeading(signal: AbortSignal): Promise<void>;
}

/** A write by a replica that no longer leads. */
export class NotLeaderError extends Error {
  readonly code = 'NOT_LEADER';
  override readonly name = 'NotLeaderError';
}

/**
 * Leader election on a Lease, as client-go does it. How long a Lease has stood is measured on our
 * own monotonic clock since we saw it change, so clocks of two nodes are never compared.
 */
export class LeaderElector {
  readonly #options: Required<LeaderElectorOptions>;
  #observed: { version: string; at: number } | undefined;
  /** Monotonic time until which nobody else can hold the Lease. */
  #validUntil = Number.NEGATIVE_INFINITY;

  constructor(options: LeaderElectorOptions) {
    this.#options = {
      leaseDurationMs: 15_000,
      renewDeadlineMs: 10_000,
      retryPeriodMs: 2_000,
      clock: () => performance.now(),
      now: Date.now,
      random: Math.random,
      sleep: (milliseconds, signal) =>
        delay(milliseconds, undefined, { signal }).catch(() => undefined),
      ...options,
    };
  }

  /** False as soon as the Lease can have run out, also when nothing was able to run meanwhile. */
  get isLeader(): boolean {
    return this.#options.clock() < this.#validUntil;
  }

  /** Candidate until the signal aborts; then gives the Lease back. Never rejects. */
  async run(signal: AbortSignal, { onStartedLeading }: LeaderCallbacks): Promise<void> {
    const { clock, logger, renewDeadlineMs } = this.#options;
    while (!signal.aborted) {
      if (!(await this.#tryAcquire(signal))) {
        await this.#pause(signal);
        continue;
      }
      logger.info('Leading');
      const leading = new AbortController();
      const work = onStartedLeading(AbortSignal.any([signal, leading.signal])).catch(
        (error: unknown) => {
          logger.error('What the leader runs has failed', { error });
        },
      );
      let renewed = clock();
      while (!signal.aborted && this.isLeader && clock() - renewed < renewDeadlineMs) {
        await this.#pause(signal);
        if (signal.aborted) break;
        if (await this.#tryAcquire(signal)) renewed = clock();
      }
      leading.abort();
      if (!signal.aborted) {
        this.#validUntil = Number.NEGATIVE_INFINITY;
        logger.warn('No longer leading');
      }
      await work;
    }
    if (this.isLeader) await this.#release();
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const { random, retryPeriodMs, sleep } = this.#options;
    await sleep(retryPeriodMs * (1 + 0.2 * random()), signal);
  }

  /** Takes or renews the Lease. @returns whether it is ours now */
  async #tryAcquire(signal: AbortSignal): Promise<boolean> {
    const { client, clock, identity, leaseDurationMs, logger, namespace, name } = this.#options;
    const started = clock();
    const bounded = AbortSignal.any([
      signal,
      AbortSignal.timeout(this.#options.renewDeadlineMs / 2),
    ]);
    try {
      const lease = await client.get(resources.leases, { namespace, name }, { signal: bounded });
      if (lease === undefined) {
        await client.create(
          resources.leases,
          { metadata: { namespace, name }, spec: this.#spec(undefined) },
          { signal: bounded },
        );
      } else {
        if (!this.#isFree(lease)) return false;
        await this.#patch(lease, this.#spec(lease), bounded);
      }
      // Counted from before the request: what the server stored can't be older than that.
      this.#validUntil = started + leaseDurationMs;
      return true;
    } catch (error) {
      // Somebody was faster, or the API server doesn't answer: the next try tells.
      if (!isAlreadyExists(error) && !signal.aborted) {
        logger.debug('The Lease could not be taken', { error, identity });
      }
      return false;
    }
  }

  #isFree({ metadata: { resourceVersion = '' }, spec = {} }: Lease): boolean {
    const { clock, identity, leaseDurationMs } = this.#options;
    if (spec.holderIdentity === identity && this.isLeader) return true;
    if (this.#observed?.version !== resourceVersion) {
      this.#observed = { version: resourceVersion, at: clock() };
    }
    if (spec.holderIdentity === undefined || spec.holderIdentity === '') return true;
    const duration = (spec.leaseDurationSeconds ?? leaseDurationMs / 1000) * 1000;
    return clock() - this.#observed.at >= duration;
  }

  #spec(lease: Lease | undefined): NonNullable<Lease['spec']> {
    const { identity, leaseDurationMs, now } = this.#options;
    const time = new Date(now()).toISOString().replace('Z', '000Z');
    const before = lease?.spec ?? {};
    const isRenewal = before.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(leaseDurationMs / 1000),
      acquireTime: isRenewal ? (before.acquireTime ?? time) : time,
      renewTime: time,
      leaseTransitions: (before.leaseTransitions ?? 0) + (isRenewal || lease === undefined ? 0 : 1),
    };
  }

  /** A write on exactly the version that was read: of two candidates one loses. */
  async #patch(lease: Lease, spec: NonNullable<Lease['spec']>, signal: AbortSignal): Promise<void> {
    const { client, namespace, name } = this.#options;
    const operations: JsonPatchOperation[] = [
      { op: 'test', path: '/metadata/resourceVersion', value: lease.metadata.resourceVersion },
      { op: 'replace', path: '/spec', value: spec },
    ];
    await client.jsonPatch(resources.leases, { namespace, name }, operations, { signal });
  }

  async #release(): Promise<void> {
    const { client, identity, logger, namespace, name, renewDeadlineMs } = this.#options;
    const signal = AbortSignal.timeout(renewDeadlineMs / 2);
    this.#validUntil = Number.NEGATIVE_INFINITY;
    try {
      const lease = await client.get(resources.leases, { namespace, name }, { signal });
      if (lease?.spec?.holderIdentity !== identity) return;
      const spec = { ...this.#spec(lease), holderIdentity: '', leaseDurationSeconds: 1 };
      await this.#patch(lease, spec, signal);
      logger.info('Lease given back');
    } catch (error) {
      logger.warn('The Lease could not be given back; it runs out by itself', { error });
    }
  }
}

/** A client that refuses to write for a replica that no longer leads. */
export function guardedByLeadership(
  client: KubeClient,
  elector: Pick<LeaderElector, 'isLeader'>,
): KubeClient {
  const guard =
    <Args extends unknown[], R>(write: (...args: Args) => Promise<R>) =>
    (...args: Args): Promise<R> =>
      elector.isLeader
        ? write(...args)
        : Promise.reject(new NotLeaderError('This replica no longer leads; it writes nothing'));
  return {
    get: client.get.bind(client),
    list: client.list.bind(client),
    create: guard(client.create.bind(client)) as KubeClient['create'],
    apply: guard(client.apply.bind(client)) as KubeClient['apply'],
    mergePatch: guard(client.mergePatch.bind(client)) as KubeClient['mergePatch'],
    jsonPatch: guard(client.jsonPatch.bind(client)) as KubeClient['jsonPatch'],
    delete: guard(client.delete.bind(client)),
  };
}
