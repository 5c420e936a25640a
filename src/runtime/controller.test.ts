import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import type { Logger } from '../observability/logger.ts';
import {
  Controller,
  type ControllerOptions,
  type ReconcileContext,
  type ReconcileResult,
} from './controller.ts';
import { ApiError } from './errors.ts';
import { NotLeaderError } from './leader-election.ts';
import { settle, VirtualTime } from './virtual-time.testing.ts';

interface LogRecord {
  level: string;
  message: string;
  metadata: Record<string, unknown>;
}

let time: VirtualTime;
let stop: AbortController;
let records: LogRecord[];
let results: string[];
let depth: number;
/** Keys in the order in which their reconciles began, and when. */
let started: { key: string; at: number }[];
let contexts: ReconcileContext[];
let running: Promise<void>[];

beforeEach(() => {
  time = new VirtualTime();
  stop = new AbortController();
  records = [];
  results = [];
  depth = 0;
  started = [];
  contexts = [];
  running = [];
});

afterEach(async () => {
  stop.abort();
  await time.until(Promise.all(running));
  expect(time.pending).toBe(0);
});

function recordingLogger(bound: object = {}): Logger {
  const at = (level: string) => (message: string, metadata?: object) =>
    void records.push({ level, message, metadata: { ...bound, ...metadata } });
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (metadata) => recordingLogger({ ...bound, ...metadata }),
  };
}

type Reconcile = (key: string, context: ReconcileContext) => Promise<ReconcileResult>;

function controllerOf(reconcile: Reconcile, options: Partial<ControllerOptions> = {}): Controller {
  return new Controller({
    reconciler: {
      name: 'test',
      reconcile: (key, context) => {
        started.push({ key, at: time.now() });
        contexts.push(context);
        return reconcile(key, context);
      },
    },
    workers: 2,
    metrics: {
      observeReconcile: (controller, result, seconds) =>
        results.push(`${controller} ${result} ${seconds}`),
      setQueueDepth: (_, value) => (depth = value),
      observeQueueLatency: () => undefined,
    },
    logger: recordingLogger(),
    timers: time,
    uuid: () => `id-${started.length + 1}`,
    ...options,
  });
}

function run(controller: Controller, keys: string[] = [], signal = stop.signal): Promise<void> {
  const ended = controller.run(signal, keys);
  running.push(ended);
  return ended;
}

const succeed: Reconcile = () => Promise.resolve({});

function lasting(milliseconds: number): Promise<ReconcileResult> {
  return new Promise((resolve) => time.set(() => resolve({}), milliseconds));
}

function never(): Promise<ReconcileResult> {
  return new Promise(() => undefined);
}

describe('a controller behind a lane', () => {
  test('begins nothing while that is busy, and goes on as soon as it is not', async () => {
    const lane = controllerOf(() => lasting(400), { workers: 1 });
    const behind = controllerOf(succeed, { behind: lane });
    void run(lane, ['kill/1']);
    void run(behind, ['other/1', 'other/2']);
    await time.advance(1_000);
    expect(started).toEqual([
      { key: 'kill/1', at: 0 },
      { key: 'other/1', at: 400 },
      { key: 'other/2', at: 400 },
    ]);
  });

  test('is slowed down by one that never ends, and not stopped', async () => {
    const lane = controllerOf(never, { workers: 1, shutdownMs: 0 });
    const behind = controllerOf(succeed, { behind: lane, workers: 1 });
    void run(lane, ['kill/1']);
    void run(behind, ['other/1', 'other/2']);
    await time.advance(2_500);
    expect(started.slice(1)).toEqual([
      { key: 'other/1', at: 1_000 },
      { key: 'other/2', at: 2_000 },
    ]);
  });

  test('does not wait for what is only delayed', async () => {
    const lane = controllerOf(() => Promise.resolve({ requeueAfterMs: 60_000 }), { workers: 1 });
    const behind = controllerOf(succeed, { behind: lane });
    void run(lane, ['kill/1']);
    await time.advance(10);
    void run(behind, ['other/1']);
    await time.advance(10);
    expect(started.at(-1)).toEqual({ key: 'other/1', at: 10 });
  });
});

describe('a controller that accepts some keys', () => {
  test('takes note of no others', async () => {
    const controller = controllerOf(succeed, { accepts: (key) => key !== 'probe/a' });
    void run(controller, ['probe/a', 'ns/a']);
    controller.enqueue('probe/a');
    controller.enqueueEcho('probe/a');
    controller.enqueueAfter('probe/a', 1);
    await time.advance(10);
    expect(started.map(({ key }) => key)).toEqual(['ns/a']);
  });
});

describe('Controller', () => {
  test('reconciles each key once, with a correlation ID of its own in every log record', async () => {
    const controller = controllerOf(
      (_, { log }) => {
        log.info('Seen');
        return lasting(250);
      },
      { workers: 1 },
    );
    void run(controller, ['ns/a']);
    controller.enqueue('ns/b');
    controller.enqueue('ns/b');
    await time.advance(1_000);
    expect(started.map(({ key }) => key)).toEqual(['ns/a', 'ns/b']);
    expect(contexts.map(({ correlationId }) => correlationId)).toEqual(['id-1', 'id-2']);
    expect(records.map(({ metadata }) => metadata)).toEqual([
      { controller: 'test', key: 'ns/a', correlationId: 'id-1' },
      { controller: 'test', key: 'ns/b', correlationId: 'id-2' },
    ]);
    expect(results).toEqual(['test success 0.25', 'test success 0.25']);
  });

  test('looks at most twice where many changes come in one turn of the event loop', async () => {
    const controller = controllerOf(succeed);
    void run(controller);
    await settle();
    for (let change = 0; change < 1_000; change++) {
      if (change % 10 === 0) controller.enqueue('a');
      await Promise.resolve();
    }
    await settle();
    expect(started.map(({ key }) => key)).toEqual(['a', 'a']);
  });

  test('looks again after the time that a reconcile asked for', async () => {
    void run(
      controllerOf(() => Promise.resolve({ requeueAfterMs: 700 })),
      ['a'],
    );
    await time.advance(1_500);
    expect(started.map(({ at }) => at)).toEqual([0, 700, 1_400]);
  });

  test('tries a failed key again ever less often, and from the start after a success', async () => {
    let failures = 4;
    const controller = controllerOf(async () => {
      if (failures-- > 0) throw new Error('no luck');
      return {};
    });
    void run(controller, ['a']);
    await time.advance(1_000);
    expect(started.map(({ at }) => at)).toEqual([0, 5, 15, 35, 75]);
    expect(results.map((line) => line.split(' ')[1])).toEqual([
      ...Array<string>(4).fill('error'),
      'success',
    ]);
    expect(records).toHaveLength(4);
    expect(records[0]).toMatchObject({
      level: 'error',
      message: 'Reconcile failed',
      metadata: { key: 'a', correlationId: 'id-1', error: new Error('no luck') },
    });
    failures = 1;
    controller.enqueue('a');
    await time.advance(1_000);
    expect(started.slice(5).map(({ at }) => at)).toEqual([1_000, 1_005]);
  });

  test('tries what is not done yet again ever less often, and calls it no error', async () => {
    void run(
      controllerOf(() => Promise.resolve({ retry: true, requeueAfterMs: 1 })),
      ['a'],
    );
    await time.advance(40);
    expect(started.map(({ at }) => at)).toEqual([0, 5, 15, 35]);
    expect(new Set(results)).toEqual(new Set(['test requeue 0']));
    expect(records).toEqual([]);
  });

  test.each([
    ['a conflict', new ApiError('changed', { status: 409, reason: 'Conflict' })],
    ['a lost leadership', new NotLeaderError('not any more')],
  ])('mentions %s in debug records alone', async (_, error) => {
    void run(
      controllerOf(() => Promise.reject(error)),
      ['a'],
    );
    await time.advance(5);
    expect(started).toHaveLength(2);
    expect(records.map(({ level }) => level)).toEqual(['debug', 'debug']);
    expect(new Set(results)).toEqual(new Set(['test requeue 0']));
  });

  test('leaves the API server alone for as long as it asks', async () => {
    const error = new ApiError('slow down', { status: 429, retryAfterMs: 8_000 });
    void run(
      controllerOf(() => Promise.reject(error)),
      ['a'],
    );
    await time.advance(9_000);
    expect(started.map(({ at }) => at)).toEqual([0, 8_000]);
  });

  test('is not held up by a key that always fails, however it fails', async () => {
    const controller = controllerOf(
      (key, context) => {
        if (key === 'throws') throw new Error('synchronous');
        // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- as bad code would
        if (key === 'rejects') return Promise.reject(undefined);
        return succeed(key, context);
      },
      { workers: 1 },
    );
    void run(controller, ['throws', 'rejects', 'a', 'b']);
    await time.advance(0);
    expect(started.map(({ key }) => key)).toEqual(['throws', 'rejects', 'a', 'b']);
  });

  test('goes on when a result cannot be reported', async () => {
    const controller = controllerOf(succeed, {
      workers: 1,
      metrics: {
        observeReconcile: () => {
          throw new Error('no such label');
        },
        setQueueDepth: () => undefined,
        observeQueueLatency: () => undefined,
      },
    });
    void run(controller, ['a', 'b']);
    await time.advance(0);
    expect(started.map(({ key }) => key)).toEqual(['a', 'b']);
    expect(records.map(({ level }) => level)).toEqual(['error', 'error']);
  });

  test('takes note of nothing while it does not run', async () => {
    const controller = controllerOf(succeed);
    controller.enqueue('a');
    controller.enqueueAfter('b', 10);
    expect([time.pending, depth]).toEqual([0, 0]);
    await controller.run(AbortSignal.abort(), ['c']);
    void run(controller, ['d']);
    await time.advance(100);
    expect(started.map(({ key }) => key)).toEqual(['d']);
  });
});

describe('Controller at its end', () => {
  test('lets what is in flight finish, starts nothing more, and ends as soon as it can', async () => {
    const controller = controllerOf(() => lasting(2_000), { workers: 1 });
    const ended = run(controller, ['a', 'b']);
    controller.enqueueAfter('c', 100);
    await settle();
    stop.abort();
    const { tookMs } = await time.until(ended);
    expect(tookMs).toBe(2_000);
    expect(started.map(({ key }) => key)).toEqual(['a']);
    expect(contexts[0]?.signal.aborted).toBe(true);
    expect(results).toEqual(['test success 2']);
    expect(depth).toBe(0);
  });

  test('aborts what takes longer than its time, which is no error', async () => {
    const controller = controllerOf(
      (_, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(new Error('cut')));
        }),
    );
    const ended = run(controller, ['a']);
    await settle();
    stop.abort();
    const { tookMs } = await time.until(ended);
    expect(tookMs).toBe(5_000);
    expect(records).toMatchObject([
      { level: 'info', message: 'Reconcile cut off by the shutdown' },
    ]);
  });

  test('leaves behind what ignores its end, and names it', async () => {
    const ended = run(controllerOf(never, { shutdownMs: 1_000 }), ['a']);
    await settle();
    stop.abort();
    const { tookMs } = await time.until(ended);
    expect(tookMs).toBe(1_250);
    expect(records).toMatchObject([{ level: 'warn', metadata: { keys: ['a'] } }]);
  });

  test('does not start a key that a worker got in the moment of the end', async () => {
    const controller = controllerOf(succeed);
    const ended = run(controller);
    await settle();
    controller.enqueue('a');
    stop.abort();
    await ended;
    expect(started).toEqual([]);
  });
});

describe('Controller in a second term', () => {
  test('works again, with nothing left of the first', async () => {
    const first = new AbortController();
    const controller = controllerOf(() => Promise.reject(new Error('no luck')));
    const ended = run(controller, ['a'], first.signal);
    await time.advance(1_000);
    controller.enqueueAfter('late', 10);
    first.abort();
    await time.until(ended);
    expect(time.pending).toBe(0);

    started = [];
    void run(controller, ['b']);
    controller.enqueue('c');
    await time.advance(5);
    expect(started.map(({ key }) => key)).toEqual(['b', 'c', 'b', 'c']);
  });

  test('has no key in work twice, even one that was left behind', async () => {
    const first = new AbortController();
    const stuck = Promise.withResolvers<ReconcileResult>();
    const controller = controllerOf((key, context) =>
      started.length === 1 ? stuck.promise : succeed(key, context),
    );
    const ended = run(controller, ['stuck'], first.signal);
    await settle();
    first.abort();
    await time.until(ended);

    void run(controller, ['stuck', 'other']);
    await time.advance(10_000);
    expect(started.map(({ key }) => key)).toEqual(['stuck', 'other']);
    stuck.resolve({});
    await time.advance(1_000);
    expect(started.map(({ key }) => key)).toEqual(['stuck', 'other', 'stuck']);
  });
});

test('under any load, a key is never reconciled twice at once and always after its last change', async () => {
  const change = fc.record({ key: fc.constantFrom('a', 'b', 'c'), at: fc.nat(300) });
  const outcome = fc.record({ ms: fc.nat(40), fails: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { minLength: 1, maxLength: 40 }),
      fc.infiniteStream(outcome),
      fc.integer({ min: 1, max: 3 }),
      async (changes, outcomes, workers) => {
        time = new VirtualTime();
        const inWork = new Set<string>();
        let collisions = 0;
        const version = new Map<string, number>();
        const done = new Map<string, number>();
        let failuresLeft = 20;
        const controller = controllerOf(
          async (key) => {
            if (inWork.has(key)) collisions += 1;
            inWork.add(key);
            const seen = version.get(key) ?? 0;
            const { ms, fails } = outcomes.next().value ?? { ms: 0, fails: false };
            await lasting(ms);
            inWork.delete(key);
            if (fails && failuresLeft-- > 0) throw new Error('no luck');
            done.set(key, seen);
            return {};
          },
          { workers },
        );
        const end = new AbortController();
        const ended = controller.run(end.signal);
        for (const { key, at } of changes) {
          time.set(() => {
            version.set(key, (version.get(key) ?? 0) + 1);
            controller.enqueue(key);
          }, at);
        }
        await time.advance(3_600_000);
        expect(collisions).toBe(0);
        expect(done).toEqual(version);
        expect(time.pending).toBe(0);
        end.abort();
        await time.until(ended);
      },
    ),
    { numRuns: 100 },
  );
});
