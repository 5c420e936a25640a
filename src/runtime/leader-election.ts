import { isDeepStrictEqual } from 'node:util';
import type { KubeObject, Lease } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type {
  DeleteOptions,
  JsonPatchOperation,
  KubeClient,
  ListOptions,
  ObjectKey,
  WriteOptions,
} from './client.ts';
import { ApiTimeoutError, isAlreadyExists } from './errors.ts';
import { systemTimers, type Timers } from './work-queue.ts';

export interface LeaderElectorOptions {
  client: KubeClient;
  /** Of the Lease. */
  namespace: string;
  /** Of the Lease. */
  name: string;
  /** Unique to this process: not the name of a pod, whose container may start again. */
  identity: string;
  logger: Logger;
  /** Time after which others may take the Lease; default 15 s. */
  leaseDurationMs?: number;
  /** Time after which a leader that hasn't renewed no longer is one; default 10 s. */
  renewDeadlineMs?: number;
  /** Longest pause between two tries, a fifth of it random; default 2 s. */
  retryPeriodMs?: number;
  /** What decides who leads: a wall clock that is set must not make a leader. */
  timers?: Timers;
  /** Milliseconds since the epoch. It can end a term, never prolong one. */
  clock?: () => number;
  random?: () => number;
}

export interface LeaderCallbacks {
  /**
   * Leads until the signal aborts, then ends soon: the next term can't begin before. If it rejects,
   * the Lease is given back.
   */
  onStartedLeading(signal: AbortSignal): Promise<void>;
}

/** A write by a replica that no longer leads. */
export class NotLeaderError extends Error {
  readonly code = 'NOT_LEADER';
  override readonly name = 'NotLeaderError';
}

type LeaseSpec = NonNullable<Lease['spec']>;

/** What came of a try: the Lease is ours, it is another's, or nobody knows. */
type Outcome = 'ours' | 'taken' | 'unknown';

const releaseTries = 3;
const releasePauseMs = 250;

/**
 * Leader election on a Lease, with the timing of client-go. How long a Lease has stood is measured
 * on our own monotonic clock, since we saw it change: clocks of two nodes are never compared.
 *
 * At most one elector has `isLeader`, as long as no node's clock runs faster than another's by more
 * than `leaseDurationMs / renewDeadlineMs`, and nobody else writes the Lease. A Lease that somebody
 * deletes is waited out by all who knew it; only a process that starts at that moment takes it at
 * once, and may lead beside the former leader until that one's next try. A request that was on its
 * way when a term ended may arrive after it: what the leader writes must be idempotent.
 */
export class LeaderElector {
  readonly #options: Required<LeaderElectorOptions>;
  /** What the Lease holds (`undefined` where it is gone, or unknown), and since when we know. */
  #observed: { spec: LeaseSpec | undefined; since: number } | undefined;
  /** Until when we lead, by the monotonic clock and by the wall clock. */
  #until = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  #failures = 0;

  constructor(options: LeaderElectorOptions) {
    this.#options = {
      leaseDurationMs: 15_000,
      renewDeadlineMs: 10_000,
      retryPeriodMs: 2_000,
      timers: systemTimers,
      clock: Date.now,
      random: Math.random,
      ...options,
    };
    const { leaseDurationMs, renewDeadlineMs, retryPeriodMs } = this.#options;
    if (!(leaseDurationMs > renewDeadlineMs && renewDeadlineMs > retryPeriodMs)) {
      throw new RangeError('Needed: leaseDurationMs > renewDeadlineMs > retryPeriodMs');
    }
  }

  /**
   * False as soon as others could think the Lease has run out, also when nothing was able to run
   * meanwhile. The monotonic clock may stand still while a machine is suspended; then the wall
   * clock tells.
   */
  get isLeader(): boolean {
    return this.#remainingMs() > 0;
  }

  /** Candidate until the signal aborts; then gives the Lease back. Never rejects. */
  async run(signal: AbortSignal, callbacks: LeaderCallbacks): Promise<void> {
    while (!signal.aborted) {
      if ((await this.#try(signal)) === 'ours') await this.#lead(signal, callbacks);
      await this.#pause(signal, this.#expiresInMs());
    }
  }

  /** One term, from its beginning to the end of its work. */
  async #lead(signal: AbortSignal, callbacks: LeaderCallbacks): Promise<void> {
    const { logger, identity } = this.#options;
    logger.info('Leading', { identity });
    const term = new AbortController();
    const end = (): void => term.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    const work = this.#work(term, callbacks);
    while (!term.signal.aborted) {
      await this.#pause(term.signal, this.#remainingMs());
      if (term.signal.aborted) break;
      const outcome = this.isLeader ? await this.#try(term.signal) : 'unknown';
      if (outcome === 'taken') this.#resign();
      if (!this.isLeader) end();
    }
    await work;
    signal.removeEventListener('abort', end);
    if (this.isLeader) await this.#release();
    else logger.warn('No longer leading', { identity });
    this.#resign();
  }

  async #work(term: AbortController, callbacks: LeaderCallbacks): Promise<void> {
    try {
      await callbacks.onStartedLeading(term.signal);
    } catch (error) {
      this.#options.logger.error('What the leader runs has failed', { error });
      term.abort();
    }
  }

  /** Takes or renews the Lease, in bounded time. */
  async #try(signal: AbortSignal): Promise<Outcome> {
    const { logger, renewDeadlineMs, timers, clock } = this.#options;
    // Counted from before the request: what others see of it, they see later.
    const monotonic = timers.now() + renewDeadlineMs;
    const wall = clock() + renewDeadlineMs;
    const remainingMs = this.#remainingMs();
    const limitMs = Math.min(renewDeadlineMs / 2, remainingMs > 0 ? remainingMs : renewDeadlineMs);
    try {
      const isOurs = await this.#bounded(limitMs, signal, (bounded) => this.#acquire(bounded));
      this.#failures = 0;
      if (!isOurs) return 'taken';
      this.#until = { monotonic, wall };
      return this.isLeader ? 'ours' : 'unknown';
    } catch (error) {
      if (signal.aborted) return 'unknown';
      this.#failures += 1;
      const details = { error, failures: this.#failures };
      // Losing a race is nothing special; not reaching the Lease again and again is.
      if (this.#failures % 30 === 3) logger.warn('Lease out of reach', details);
      else logger.debug('Lease not taken or renewed', details);
      return 'unknown';
    }
  }

  /** @returns whether the Lease is ours now */
  async #acquire(signal: AbortSignal): Promise<boolean> {
    const { client, namespace, name } = this.#options;
    const lease = await client.get(resources.leases, { namespace, name }, { signal });
    this.#observe(lease);
    signal.throwIfAborted();
    if (!this.#isFree(lease)) return false;
    const spec = this.#spec(lease);
    if (lease !== undefined) {
      await this.#patch(lease, spec, signal);
      return true;
    }
    try {
      await client.create(resources.leases, { metadata: { namespace, name }, spec }, { signal });
      return true;
    } catch (error) {
      // Somebody has created it just now: from here on it is known to have existed.
      if (isAlreadyExists(error)) {
        this.#observed ??= { spec: undefined, since: this.#options.timers.now() };
      }
      throw error;
    }
  }

  #observe(lease: Lease | undefined): void {
    if (lease === undefined && this.#observed === undefined) return;
    const spec = lease === undefined ? undefined : (lease.spec ?? {});
    if (this.#observed !== undefined && isDeepStrictEqual(this.#observed.spec, spec)) return;
    const holder = spec?.holderIdentity;
    if (holder !== undefined && holder !== '' && holder !== this.#observed?.spec?.holderIdentity) {
      this.#options.logger.info('A leader was elected', { leader: holder });
    }
    this.#observed = { spec, since: this.#options.timers.now() };
  }

  /** Whether nobody else can think that it leads. */
  #isFree(lease: Lease | undefined): boolean {
    if (this.isLeader && lease === undefined) return true;
    if (lease?.spec?.holderIdentity === this.#options.identity) return true;
    return this.#expiresInMs() <= 0;
  }

  /** Time until the Lease, as we know it, is free for us. */
  #expiresInMs(): number {
    const { leaseDurationMs, timers } = this.#options;
    if (this.#observed === undefined) return 0;
    const { spec, since } = this.#observed;
    if (spec !== undefined && (spec.holderIdentity ?? '') === '') return 0;
    const seconds = spec?.leaseDurationSeconds;
    const duration = seconds !== undefined && seconds > 0 ? seconds * 1000 : leaseDurationMs;
    return since + duration - timers.now();
  }

  #spec(lease: Lease | undefined): LeaseSpec {
    const { identity, leaseDurationMs, clock } = this.#options;
    const time = new Date(clock()).toISOString().replace('Z', '000Z');
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
  async #patch(lease: Lease, spec: LeaseSpec, signal: AbortSignal): Promise<void> {
    const { client, namespace, name } = this.#options;
    const operations: JsonPatchOperation[] = [
      { op: 'test', path: '/metadata/resourceVersion', value: lease.metadata.resourceVersion },
      // Replaces, too, and works where there is none.
      { op: 'add', path: '/spec', value: spec },
    ];
    await client.jsonPatch(resources.leases, { namespace, name }, operations, { signal });
  }

  /** The Lease free for others at once, as client-go leaves it. */
  async #release(): Promise<void> {
    const { logger, renewDeadlineMs } = this.#options;
    this.#resign();
    const never = new AbortController().signal;
    for (let tries = 1; ; tries++) {
      try {
        await this.#bounded(renewDeadlineMs / 4, never, (signal) => this.#giveBack(signal));
        logger.info('Lease given back');
        return;
      } catch (error) {
        if (tries < releaseTries) {
          await this.#pause(never, releasePauseMs);
          continue;
        }
        logger.warn('The Lease could not be given back; it runs out by itself', { error });
        return;
      }
    }
  }

  async #giveBack(signal: AbortSignal): Promise<void> {
    const { client, identity, namespace, name } = this.#options;
    const lease = await client.get(resources.leases, { namespace, name }, { signal });
    signal.throwIfAborted();
    if (lease?.spec?.holderIdentity !== identity) return;
    const spec = { ...this.#spec(lease), holderIdentity: '', leaseDurationSeconds: 1 };
    await this.#patch(lease, spec, signal);
  }

  #resign(): void {
    this.#until = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  }

  #remainingMs(): number {
    const { timers, clock } = this.#options;
    return Math.min(this.#until.monotonic - timers.now(), this.#until.wall - clock());
  }

  /** Ends after the retry period, or sooner at `soonerMs` if that is positive, or on abort. */
  async #pause(signal: AbortSignal, soonerMs: number): Promise<void> {
    if (signal.aborted) return;
    const { random, retryPeriodMs, timers } = this.#options;
    const jittered = retryPeriodMs * (1 - 0.2 * random());
    const over = Promise.withResolvers<void>();
    const cancel = timers.set(over.resolve, soonerMs > 0 ? Math.min(jittered, soonerMs) : jittered);
    const onAbort = (): void => over.resolve();
    signal.addEventListener('abort', onAbort, { once: true });
    await over.promise;
    signal.removeEventListener('abort', onAbort);
    cancel();
  }

  /** Ends in time even where the call doesn't heed its signal. */
  async #bounded<T>(
    limitMs: number,
    signal: AbortSignal,
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const limit = new AbortController();
    const cut = Promise.withResolvers<never>();
    const abort = (reason: unknown): void => {
      limit.abort(reason);
      cut.reject(reason);
    };
    const onAbort = (): void => abort(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const cancel = this.#options.timers.set(() => abort(new ApiTimeoutError(limitMs)), limitMs);
    try {
      return await Promise.race([call(limit.signal), cut.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
      cancel();
    }
  }
}

/** A client that refuses to write for a replica that no longer leads, with NotLeaderError. */
export function guardedByLeadership(
  client: KubeClient,
  elector: Pick<LeaderElector, 'isLeader'>,
): KubeClient {
  return new LeaderGuardedClient(client, elector);
}

class LeaderGuardedClient implements KubeClient {
  readonly #client: KubeClient;
  readonly #elector: Pick<LeaderElector, 'isLeader'>;

  constructor(client: KubeClient, elector: Pick<LeaderElector, 'isLeader'>) {
    this.#client = client;
    this.#elector = elector;
  }

  get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    options?: { signal?: AbortSignal },
  ): Promise<T | undefined> {
    return this.#client.get(resource, key, options);
  }

  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<T[]> {
    return this.#client.list(resource, options);
  }

  async create<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options?: WriteOptions,
  ): Promise<T> {
    this.#assertLeader();
    return await this.#client.create(resource, body, options);
  }

  async apply<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options?: WriteOptions,
  ): Promise<T> {
    this.#assertLeader();
    return await this.#client.apply(resource, body, options);
  }

  async mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: object,
    options?: WriteOptions,
  ): Promise<T> {
    this.#assertLeader();
    return await this.#client.mergePatch(resource, key, patch, options);
  }

  async jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: JsonPatchOperation[],
    options?: WriteOptions,
  ): Promise<T> {
    this.#assertLeader();
    return await this.#client.jsonPatch(resource, key, patch, options);
  }

  async delete(resource: Resource, key: ObjectKey, options?: DeleteOptions): Promise<boolean> {
    this.#assertLeader();
    return await this.#client.delete(resource, key, options);
  }

  #assertLeader(): void {
    if (this.#elector.isLeader) return;
    throw new NotLeaderError('This replica no longer leads; it writes nothing');
  }
}
