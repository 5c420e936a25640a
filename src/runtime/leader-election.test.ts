/* oxlint-disable typescript/no-unsafe-type-assertion -- the fake client holds nothing but Leases */
import { beforeEach, describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { FakeStorage, jsonPatched } from '../../test/fault/fake-storage.ts';
import type { KubeObject, Lease } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { silentLogger } from '../observability/logger.ts';
import type { JsonPatchOperation, KubeClient } from './client.ts';
import { ApiError, ApiUnreachableError } from './errors.ts';
import {
  guardedByLeadership,
  LeaderElector,
  NotLeaderError,
  type LeaderElectorOptions,
} from './leader-election.ts';
import { VirtualTime } from './virtual-time.testing.ts';
import type { Timers } from './work-queue.ts';

const collection = 'leases';
const leaseKey = { namespace: 'system', name: 'operator' };
const storageKey = 'system/operator';
const seconds = 1_000;

/** What one request meets on its way. */
interface Weather {
  /** Milliseconds until the server has it, and until the answer is back. */
  there: number;
  back: number;
  outcome: 'ok' | 'refused' | 'throttled' | 'conflict' | 'lost-request' | 'lost-answer';
}

const fair: Weather = { there: 5, back: 5, outcome: 'ok' };

/** A cluster with one Lease, and nodes that compete for it. */
class World {
  readonly time = new VirtualTime();
  readonly storage = new FakeStorage();
  readonly nodes: Node[] = [];
  /** Creates that the server hasn't got yet. */
  createsUnderWay = 0;
  /** Most electors that were leader at one time. */
  mostLeaders = 0;

  lease(): Lease | undefined {
    return this.storage.get(collection, storageKey) as Lease | undefined;
  }

  leaders(): Node[] {
    return this.nodes.filter(({ elector }) => elector.isLeader);
  }

  async advance(milliseconds: number): Promise<void> {
    await this.time.advance(milliseconds, () => {
      this.mostLeaders = Math.max(this.mostLeaders, this.leaders().length);
    });
  }

  /** Advances until somebody leads. @returns milliseconds that it took */
  async untilLed(limitMs: number): Promise<number> {
    const before = this.time.now();
    while (this.leaders().length === 0 && this.time.now() - before < limitMs) {
      await this.advance(10);
    }
    return this.time.now() - before;
  }
}

interface NodeOptions extends Partial<LeaderElectorOptions> {
  /** How fast its clocks run. */
  rate?: number;
  /** What its clocks show at the beginning. */
  offset?: number;
  weather?: () => Weather;
  work?: (signal: AbortSignal) => Promise<void>;
}

/** A process with clocks, a network and an event loop of its own. */
class Node {
  readonly elector: LeaderElector;
  readonly #world: World;
  readonly #stop = new AbortController();
  readonly #rate: number;
  readonly #offset: number;
  weather: () => Weather;
  hasSeenLease = false;
  terms = 0;
  /** Signal of its last term. */
  term: AbortSignal | undefined;
  readonly ended: Promise<void>;
  #pausedUntil = 0;
  #isDead = false;

  constructor(world: World, identity: string, options: NodeOptions = {}) {
    const { rate = 1, offset = 0, weather = () => fair, work = untilAborted, ...rest } = options;
    this.#world = world;
    this.#rate = rate;
    this.#offset = offset;
    this.weather = weather;
    this.elector = new LeaderElector({
      client: this.#client(),
      ...leaseKey,
      identity,
      logger: silentLogger(),
      timers: this.#timers(),
      clock: () => 1_700_000_000_000 + this.#now(),
      random: pseudoRandom(identity.charCodeAt(0)),
      ...rest,
    });
    this.ended = this.elector.run(this.#stop.signal, {
      onStartedLeading: (signal) => {
        this.terms += 1;
        this.term = signal;
        return work(signal);
      },
    });
    world.nodes.push(this);
  }

  /** SIGTERM. */
  stop(): void {
    this.#stop.abort();
  }

  get isStopping(): boolean {
    return this.#stop.signal.aborted;
  }

  /** SIGKILL, or a power cut. */
  crash(): void {
    this.#isDead = true;
    this.#world.nodes.splice(this.#world.nodes.indexOf(this), 1);
  }

  /** Nothing of it runs for that time; its clocks go on. */
  stall(milliseconds: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, this.#world.time.now() + milliseconds);
  }

  #now(): number {
    return this.#offset + this.#world.time.now() * this.#rate;
  }

  /** Runs the callback in this process: not while it is stalled, and never once it is dead. */
  #enter(callback: () => void): void {
    if (this.#isDead) return;
    const stalledMs = this.#pausedUntil - this.#world.time.now();
    if (stalledMs > 0) this.#world.time.set(() => this.#enter(callback), stalledMs);
    else callback();
  }

  #timers(): Timers {
    return {
      now: () => this.#now(),
      set: (callback, delayMs) => {
        let isCancelled = false;
        const cancel = this.#world.time.set(() => {
          this.#enter(() => {
            if (!isCancelled) callback();
          });
        }, delayMs / this.#rate);
        return () => {
          isCancelled = true;
          cancel();
        };
      },
    };
  }

  /** The request is done when it arrives, whether or not somebody still waits for its answer. */
  #request<T>(effect: () => T, arrived: () => void = () => undefined): Promise<T> {
    const { there, back, outcome } = this.weather();
    const { time } = this.#world;
    return new Promise((resolve, reject) => {
      const answer = (settleIt: () => void): void =>
        void time.set(() => this.#enter(settleIt), back);
      time.set(() => {
        arrived();
        if (outcome === 'lost-request') return;
        if (outcome === 'refused') {
          return answer(() => reject(new ApiError('no', { status: 500 })));
        }
        if (outcome === 'throttled') {
          return answer(() => reject(new ApiError('no', { status: 429, retryAfterMs: 1_000 })));
        }
        if (outcome === 'conflict') {
          return answer(() => reject(new ApiError('no', { status: 409, reason: 'Conflict' })));
        }
        try {
          const result = structuredClone(effect());
          if (outcome === 'ok') return answer(() => resolve(result));
          return answer(() => reject(new ApiUnreachableError(new Error('reset'))));
        } catch (error) {
          return answer(() => reject(error));
        }
      }, there);
    });
  }

  #client(): KubeClient {
    const { storage } = this.#world;
    return {
      ...unused,
      get: async <T extends KubeObject>() => {
        const lease = await this.#request(() => storage.get(collection, storageKey));
        this.hasSeenLease ||= lease !== undefined;
        return lease as unknown as T | undefined;
      },
      create: <T extends KubeObject>(_: Resource<T>, body: T) => {
        this.#world.createsUnderWay += 1;
        return this.#request(
          () => storage.create(collection, body) as unknown as T,
          () => (this.#world.createsUnderWay -= 1),
        );
      },
      jsonPatch: <T extends KubeObject>(_: Resource<T>, __: object, patch: JsonPatchOperation[]) =>
        this.#request(
          () =>
            storage.update(
              collection,
              storageKey,
              (lease) => jsonPatched(lease, patch) as KubeObject,
            ) as unknown as T,
        ),
    };
  }
}

function notAskedFor(): never {
  throw new Error('not asked for');
}

const unused: KubeClient = {
  get: notAskedFor,
  list: notAskedFor,
  create: notAskedFor,
  apply: notAskedFor,
  mergePatch: notAskedFor,
  jsonPatch: notAskedFor,
  delete: notAskedFor,
};

/** Numbers from 0 to 1 that are the same in every run. */
function pseudoRandom(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 16_807 + 11) % 2_147_483_647) / 2_147_483_647;
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  );
}

let world: World;

beforeEach(() => {
  world = new World();
});

describe('LeaderElector', () => {
  test('takes a Lease that nobody has at once, and keeps it', async () => {
    const node = new Node(world, 'a');
    expect(await world.untilLed(60 * seconds)).toBeLessThanOrEqual(50);
    await world.advance(300 * seconds);
    expect([node.elector.isLeader, node.terms]).toEqual([true, 1]);
    expect(world.lease()?.spec).toMatchObject({
      holderIdentity: 'a',
      leaseDurationSeconds: 15,
      leaseTransitions: 0,
    });
  });

  test('writes times as the API server wants them', async () => {
    void new Node(world, 'a');
    await world.advance(60 * seconds);
    const { acquireTime, renewTime } = world.lease()?.spec ?? {};
    expect(acquireTime).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    expect(Date.parse(renewTime ?? '') - Date.parse(acquireTime ?? '')).toBeGreaterThan(50_000);
  });

  test('lets one of many lead, whatever their clocks show', async () => {
    for (const [identity, offset] of [
      ['a', 0],
      ['b', 86_400 * seconds],
      ['c', -86_400 * seconds],
    ] as const) {
      void new Node(world, identity, { offset });
    }
    await world.advance(300 * seconds);
    expect(world.mostLeaders).toBe(1);
    expect(world.nodes.map(({ terms }) => terms).reduce((sum, n) => sum + n)).toBe(1);
  });

  test.each([
    ['has no content', undefined],
    ['has nothing in it', {}],
    ['was given back', { holderIdentity: '', leaseDurationSeconds: 1, leaseTransitions: 3 }],
  ])('takes a Lease at once that %s', async (_, spec) => {
    world.storage.create(collection, { metadata: leaseKey, spec } as Lease);
    void new Node(world, 'a');
    expect(await world.untilLed(60 * seconds)).toBeLessThanOrEqual(50);
  });

  test('replaces a leader that crashed after its lease duration and a retry period', async () => {
    const a = new Node(world, 'a');
    await world.advance(100);
    const b = new Node(world, 'b');
    await world.advance(61 * seconds);
    a.crash();
    const tookMs = await world.untilLed(60 * seconds);
    expect(b.elector.isLeader).toBe(true);
    expect(tookMs).toBeGreaterThan(12 * seconds);
    expect(tookMs).toBeLessThanOrEqual(17_100);
    expect(world.lease()?.spec).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
  });

  test('replaces a leader that stops within a retry period', async () => {
    const a = new Node(world, 'a', { work: (signal) => untilAborted(signal) });
    await world.advance(100);
    const b = new Node(world, 'b');
    await world.advance(61 * seconds);
    a.stop();
    await world.time.until(a.ended);
    expect(world.lease()?.spec).toMatchObject({ holderIdentity: '', leaseDurationSeconds: 1 });
    expect(await world.untilLed(60 * seconds)).toBeLessThanOrEqual(2_100);
    expect(b.elector.isLeader).toBe(true);
    expect(world.mostLeaders).toBe(1);
  });

  test('leads until its work has ended when it stops, and gives the Lease back only then', async () => {
    const a = new Node(world, 'a', {
      work: async (signal) => {
        await untilAborted(signal);
        await new Promise<void>((resolve) => world.time.set(resolve, 4 * seconds));
      },
    });
    await world.advance(20 * seconds);
    void new Node(world, 'b');
    a.stop();
    await world.advance(3_900);
    expect(world.leaders()).toEqual([a]);
    expect(world.lease()?.spec?.holderIdentity).toBe('a');
    const { tookMs } = await world.time.until(a.ended);
    expect(tookMs).toBeLessThanOrEqual(200);
    expect(a.elector.isLeader).toBe(false);
  });

  test.each([
    ['refused', 7],
    ['throttled', 7],
    ['conflict', 7],
    ['lost-answer', 7],
    ['lost-request', 4],
  ] as const)(
    'goes on leading after requests were answered with %s for %d s',
    async (outcome, duration) => {
      const node = new Node(world, 'a');
      await world.advance(20 * seconds);
      node.weather = () => ({ ...fair, outcome });
      await world.advance(duration * seconds);
      node.weather = () => fair;
      await world.advance(60 * seconds);
      expect([node.elector.isLeader, node.terms]).toEqual([true, 1]);
    },
  );

  test('stops leading at its deadline when it cannot renew, and leads again when it can', async () => {
    const node = new Node(world, 'a');
    await world.advance(20 * seconds);
    node.weather = () => ({ ...fair, outcome: 'lost-request' });
    await world.advance(7_900);
    expect([node.elector.isLeader, node.term?.aborted]).toEqual([true, false]);
    await world.advance(2_200);
    expect([node.elector.isLeader, node.term?.aborted]).toEqual([false, true]);
    await world.advance(60 * seconds);
    node.weather = () => fair;
    expect(await world.untilLed(60 * seconds)).toBeLessThanOrEqual(7_100);
    expect(node.terms).toBe(2);
  });

  test('tries to give the Lease back more than once', async () => {
    const node = new Node(world, 'a');
    await world.advance(20 * seconds);
    let failures = 2;
    node.weather = () => (failures-- > 0 ? { ...fair, outcome: 'throttled' } : fair);
    node.stop();
    await world.time.until(node.ended);
    expect(world.lease()?.spec?.holderIdentity).toBe('');
  });

  test('ends in bounded time when nothing answers', async () => {
    const node = new Node(world, 'a');
    await world.advance(20 * seconds);
    node.weather = () => ({ ...fair, outcome: 'lost-request' });
    node.stop();
    await world.advance(100);
    expect(node.elector.isLeader).toBe(false);
    const { tookMs } = await world.time.until(node.ended);
    expect(tookMs).toBeLessThanOrEqual(8_500);
  });

  test('takes nothing after it has stopped, even if the answer to its question comes then', async () => {
    const spec = { holderIdentity: '', leaseDurationSeconds: 1, leaseTransitions: 3 };
    world.storage.create(collection, { metadata: leaseKey, spec } as Lease);
    const node = new Node(world, 'a', { weather: () => ({ ...fair, back: 500 }) });
    await world.advance(100);
    node.stop();
    await node.ended;
    await world.advance(60 * seconds);
    expect(world.lease()?.spec?.holderIdentity).toBe('');
  });

  test('leaves the Lease to somebody else who has it when it stops', async () => {
    const node = new Node(world, 'a');
    await world.advance(20 * seconds);
    world.storage.update(collection, storageKey, (lease) => ({
      ...lease,
      spec: { holderIdentity: 'intruder', leaseDurationSeconds: 15, leaseTransitions: 1 },
    }));
    node.stop();
    await world.time.until(node.ended);
    expect(world.lease()?.spec?.holderIdentity).toBe('intruder');
  });

  test('stops at once as a candidate', async () => {
    void new Node(world, 'a');
    await world.advance(20 * seconds);
    const b = new Node(world, 'b', { weather: () => ({ ...fair, outcome: 'lost-request' }) });
    await world.advance(1 * seconds);
    b.stop();
    const { tookMs } = await world.time.until(b.ended);
    expect(tookMs).toBe(0);
    expect(world.lease()?.spec?.holderIdentity).toBe('a');
  });

  test('is no leader after its event loop stalled, before anything of it has run', async () => {
    const a = new Node(world, 'a');
    await world.advance(100);
    const b = new Node(world, 'b');
    await world.advance(60 * seconds);
    expect(a.elector.isLeader).toBe(true);
    a.stall(40 * seconds);
    await world.advance(10_100);
    expect(a.elector.isLeader).toBe(false);
    await world.advance(28 * seconds);
    expect([b.elector.isLeader, a.term?.aborted]).toEqual([true, false]);
    await world.advance(20 * seconds);
    expect([b.elector.isLeader, a.term?.aborted]).toEqual([true, true]);
    expect(world.mostLeaders).toBe(1);
  });

  test('is no leader by an answer that waited until others could take the Lease', async () => {
    const a = new Node(world, 'a', { weather: () => ({ ...fair, back: 100 }) });
    await world.advance(1 * seconds);
    const b = new Node(world, 'b');
    const version = world.storage.version;
    while (world.storage.version === version) await world.advance(10);
    // Renewed, and the answer is on its way.
    a.stall(30 * seconds);
    await world.advance(40 * seconds);
    expect([b.elector.isLeader, b.terms, world.mostLeaders]).toEqual([true, 1, 1]);
  });

  test('is no leader after its machine was suspended with its monotonic clock', async () => {
    let suspended = 0;
    const node = new Node(world, 'a', { clock: () => world.time.now() + suspended });
    await world.advance(20 * seconds);
    expect(node.elector.isLeader).toBe(true);
    suspended = 60 * seconds;
    expect(node.elector.isLeader).toBe(false);
    await world.advance(5 * seconds);
    expect([node.elector.isLeader, node.terms]).toEqual([true, 2]);
  });

  test('leads no longer because its wall clock was set back', async () => {
    let setBack = 0;
    const node = new Node(world, 'a', { clock: () => world.time.now() - setBack });
    await world.advance(20 * seconds);
    setBack = 3_600 * seconds;
    node.weather = () => ({ ...fair, outcome: 'lost-request' });
    await world.advance(10_100);
    expect(node.elector.isLeader).toBe(false);
  });

  test('gives way at its next try when somebody else has the Lease', async () => {
    const node = new Node(world, 'a');
    await world.advance(20 * seconds);
    world.storage.update(collection, storageKey, (lease) => ({
      ...lease,
      spec: { holderIdentity: 'intruder', leaseDurationSeconds: 15, leaseTransitions: 1 },
    }));
    await world.advance(2_100);
    expect([node.elector.isLeader, node.term?.aborted]).toEqual([false, true]);
    expect(world.lease()?.spec?.holderIdentity).toBe('intruder');
  });

  test('makes the Lease again when it was deleted, before anybody else takes it', async () => {
    const a = new Node(world, 'a');
    await world.advance(100);
    void new Node(world, 'b');
    await world.advance(20 * seconds);
    world.storage.delete(collection, storageKey);
    await world.advance(60 * seconds);
    expect([a.elector.isLeader, a.terms, world.mostLeaders]).toEqual([true, 1, 1]);
    expect(world.lease()?.spec?.holderIdentity).toBe('a');
  });

  test('waits a deleted Lease out, because its holder may still lead', async () => {
    const a = new Node(world, 'a');
    await world.advance(100);
    const b = new Node(world, 'b');
    await world.advance(20 * seconds);
    a.stall(60 * seconds);
    world.storage.delete(collection, storageKey);
    expect(a.elector.isLeader).toBe(true);
    await world.advance(30 * seconds);
    expect([b.elector.isLeader, world.mostLeaders]).toEqual([true, 1]);
  });

  test('waits a deleted Lease out that it only knows from a failed create', async () => {
    const a = new Node(world, 'a');
    const b = new Node(world, 'b', { weather: () => ({ ...fair, there: 6 }) });
    await world.advance(30);
    expect([a.elector.isLeader, b.hasSeenLease]).toEqual([true, false]);
    a.stall(60 * seconds);
    world.storage.delete(collection, storageKey);
    await world.advance(30 * seconds);
    expect([b.elector.isLeader, world.mostLeaders]).toEqual([true, 1]);
  });

  test('gives the Lease back when what it runs fails, and tries again', async () => {
    let isBroken = true;
    const node = new Node(world, 'a', {
      work: (signal) => (isBroken ? Promise.reject(new Error('broken')) : untilAborted(signal)),
    });
    await world.advance(1 * seconds);
    expect(node.elector.isLeader).toBe(false);
    expect(world.lease()?.spec?.holderIdentity).toBe('');
    isBroken = false;
    await world.advance(2 * seconds);
    expect(node.elector.isLeader).toBe(true);
  });

  test('polls no more often than every 1.6 s, and writes nothing as a candidate', async () => {
    void new Node(world, 'a');
    await world.advance(100);
    const versionBefore = world.storage.version;
    let asked = 0;
    const b = new Node(world, 'b', { weather: () => (asked++, fair) });
    await world.advance(60 * seconds);
    expect(asked).toBeLessThanOrEqual(38);
    expect(asked).toBeGreaterThanOrEqual(29);
    expect(world.storage.version - versionBefore).toBeLessThanOrEqual(38);
    expect(b.terms).toBe(0);
  });

  test('refuses times that would let two lead', () => {
    const options = {
      client: unused,
      ...leaseKey,
      identity: 'a',
      logger: silentLogger(),
    };
    expect(() => new LeaderElector({ ...options, renewDeadlineMs: 15_000 })).toThrow(RangeError);
    expect(() => new LeaderElector({ ...options, retryPeriodMs: 10_000 })).toThrow(RangeError);
  });
});

/** One disturbance of one node, or of the Lease. */
type Disturbance =
  | { kind: 'stall'; node: number; at: number; ms: number }
  | { kind: 'stop' | 'crash' | 'delete' | 'touch'; node: number; at: number };

describe('LeaderElector under arbitrary faults', () => {
  const bad = fc.record({
    there: fc.oneof(fc.nat(50), fc.nat(9_000)),
    back: fc.oneof(fc.nat(50), fc.nat(9_000)),
    outcome: fc.constantFrom(
      'ok' as const,
      'ok' as const,
      'refused' as const,
      'throttled' as const,
      'conflict' as const,
      'lost-request' as const,
      'lost-answer' as const,
    ),
  });
  const at = fc.nat(120 * seconds);
  const node = fc.nat(2);
  const disturbance: fc.Arbitrary<Disturbance> = fc.oneof(
    fc.record({
      kind: fc.constant('stall' as const),
      node,
      at,
      ms: fc.integer({ min: 100, max: 40 * seconds }),
    }),
    fc.record({
      kind: fc.constantFrom('stop' as const, 'crash' as const, 'touch' as const),
      node,
      at,
    }),
    fc.record({
      kind: fc.constant('delete' as const),
      node,
      at: fc.integer({ min: 20 * seconds, max: 120 * seconds }),
    }),
  );
  // The fastest clock runs less than 1.5 times as fast as the slowest.
  const rate = fc.double({ min: 0.9, max: 1.3, noNaN: true });
  const offset = fc.integer({ min: -1e9, max: 1e9 });

  test('never two lead at one time, and one leads once all is well', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ rate, offset }), { minLength: 2, maxLength: 3 }),
        fc.array(disturbance, { maxLength: 6 }),
        fc.double({ min: 0, max: 0.8, noNaN: true }),
        fc.infiniteStream(fc.record({ chance: fc.double({ min: 0, max: 1, noNaN: true }), bad })),
        fc.nat(),
        async (clocks, disturbances, badness, weathers, seed) => {
          const cluster = new World();
          let isCalm = false;
          const nodes = clocks.map(
            (clock, index) =>
              new Node(cluster, `node-${index}`, {
                ...clock,
                random: pseudoRandom(seed + index),
                weather: () => {
                  const next = weathers.next().value;
                  return isCalm || next === undefined || next.chance > badness ? fair : next.bad;
                },
              }),
          );
          let hasDeleted = false;
          for (const event of disturbances) {
            const target = nodes[event.node % nodes.length];
            cluster.time.set(() => {
              if (target === undefined || !cluster.nodes.includes(target)) return;
              if (event.kind === 'stall') target.stall(event.ms);
              // Somebody has to be left for the second half of the promise.
              const others = cluster.nodes.filter((one) => one !== target && !one.isStopping);
              if (event.kind === 'crash' && others.length > 0) target.crash();
              if (event.kind === 'stop' && others.length > 0) target.stop();
              if (event.kind === 'delete' && !hasDeleted && isWithinPromise(cluster)) {
                hasDeleted = true;
                cluster.storage.delete(collection, storageKey);
              }
              if (event.kind === 'touch' && cluster.lease() !== undefined) {
                cluster.storage.update(collection, storageKey, (lease) => ({
                  ...lease,
                  metadata: { ...lease.metadata, annotations: { touched: String(event.at) } },
                }));
              }
            }, event.at);
          }
          await cluster.advance(170 * seconds);
          isCalm = true;
          await cluster.advance(60 * seconds);
          expect(cluster.mostLeaders).toBeLessThanOrEqual(1);
          expect(cluster.leaders()).toHaveLength(1);
        },
      ),
      { numRuns: 60 },
    );
  });
});

/** What is said of a deleted Lease holds for processes that knew it. */
function isWithinPromise(cluster: World): boolean {
  return (
    cluster.lease() !== undefined &&
    cluster.createsUnderWay === 0 &&
    cluster.nodes.every(({ hasSeenLease }) => hasSeenLease)
  );
}

describe('guardedByLeadership', () => {
  const calls: string[] = [];
  const note =
    (name: string, answer: unknown = {}) =>
    (): Promise<never> => {
      calls.push(name);
      return Promise.resolve(answer as never);
    };
  const client: KubeClient = {
    get: note('get'),
    list: note('list', []),
    create: note('create'),
    apply: note('apply'),
    mergePatch: note('mergePatch'),
    jsonPatch: note('jsonPatch'),
    delete: note('delete', true),
  };
  const { leases } = resources;
  const object = { metadata: leaseKey };
  const writes: Record<string, (guarded: KubeClient) => Promise<unknown>> = {
    create: (guarded) => guarded.create(leases, object),
    apply: (guarded) => guarded.apply(leases, object),
    mergePatch: (guarded) => guarded.mergePatch(leases, leaseKey, {}),
    jsonPatch: (guarded) => guarded.jsonPatch(leases, leaseKey, []),
    delete: (guarded) => guarded.delete(leases, leaseKey),
  };

  beforeEach(() => {
    calls.length = 0;
  });

  test.each(Object.entries(writes))('lets only a leader %s', async (name, write) => {
    const elector = { isLeader: true };
    const guarded = guardedByLeadership(client, elector);
    await write(guarded);
    expect(calls).toEqual([name]);
    elector.isLeader = false;
    const failure = await write(guarded).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(NotLeaderError);
    expect(failure).toMatchObject({ code: 'NOT_LEADER' });
    expect(calls).toEqual([name]);
  });

  test('lets everybody read', async () => {
    const guarded = guardedByLeadership(client, { isLeader: false });
    await guarded.get(leases, leaseKey);
    await guarded.list(leases);
    expect(calls).toEqual(['get', 'list']);
  });
});
