import { beforeEach, describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { settle, VirtualTime } from './virtual-time.testing.ts';
import { systemTimers, WorkQueue } from './work-queue.ts';

let time: VirtualTime;
let depths: number[];
let latencies: number[];
let queue: WorkQueue;

beforeEach(() => {
  time = new VirtualTime();
  depths = [];
  latencies = [];
  queue = new WorkQueue({
    timers: time,
    maxDelayMs: 1_000,
    metrics: {
      setDepth: (depth) => depths.push(depth),
      observeLatency: (seconds) => latencies.push(seconds),
    },
  });
});

/** All keys that wait, in their order; they stay in work. */
async function takeAll(): Promise<(string | undefined)[]> {
  const taken = [];
  while (queue.depth > 0) taken.push(await queue.take());
  return taken;
}

/** Milliseconds until the key can be taken. */
async function delayOf(key: string): Promise<number> {
  const { result, tookMs } = await time.until(queue.take());
  expect(result).toBe(key);
  queue.done(key);
  return tookMs;
}

describe('WorkQueue', () => {
  test('hands out keys in the order in which they came, each once', async () => {
    for (const key of ['b', 'a', 'b', 'c', 'a']) queue.add(key);
    expect(queue.depth).toBe(3);
    expect(await takeAll()).toEqual(['b', 'a', 'c']);
  });

  test('gives a key to the worker that has waited longest', async () => {
    const takers = [queue.take(), queue.take()];
    queue.add('a');
    queue.add('b');
    expect(await Promise.all(takers)).toEqual(['a', 'b']);
  });

  test('hands out a key that is added during its work only after that work, and once', async () => {
    queue.add('a');
    await queue.take();
    queue.add('a');
    queue.add('a');
    expect(queue.depth).toBe(0);
    queue.done('a');
    expect(await takeAll()).toEqual(['a']);
    queue.done('a');
    expect(queue.depth).toBe(0);
  });

  test('puts a key that comes again behind those that wait', async () => {
    queue.add('a');
    await queue.take();
    queue.add('a');
    queue.add('b');
    queue.done('a');
    expect(await takeAll()).toEqual(['b', 'a']);
  });

  test('lets a key that failed wait for its next try, whatever echo of that try comes', async () => {
    queue.add('a');
    await queue.take();
    queue.addUnlessFailing('a');
    queue.addRateLimited('a');
    queue.done('a');
    queue.addUnlessFailing('a');
    expect(queue.depth).toBe(0);
    queue.add('a');
    expect(await takeAll()).toEqual(['a']);
  });

  test('takes the echo of a try that succeeded for what it is: a change', async () => {
    queue.add('a');
    await queue.take();
    queue.addUnlessFailing('a');
    queue.forget('a');
    queue.done('a');
    expect(await takeAll()).toEqual(['a']);
  });

  test('adds a delayed key at the earliest time that was asked for', async () => {
    queue.addAfter('a', 300);
    queue.addAfter('a', 100);
    queue.addAfter('a', 200);
    expect(time.pending).toBe(1);
    expect(await delayOf('a')).toBe(100);
    await time.advance(1_000);
    expect(queue.depth).toBe(0);
  });

  test.each([0, -1, NaN])('adds at once what is delayed by %d', (delayMs) => {
    queue.addAfter('a', delayMs);
    expect(queue.depth).toBe(1);
  });

  test.each([2 ** 31, 2 ** 40, Infinity])('sets no timer that Node cannot: %d', (delayMs) => {
    const set: number[] = [];
    const recording = { ...systemTimers, set: (_: () => void, ms: number) => () => set.push(ms) };
    const other = new WorkQueue({ timers: recording });
    other.addAfter('a', delayMs);
    other.shutDown();
    expect(set).toEqual([2 ** 31 - 1]);
  });

  test('doubles the pause of a key with each failure, up to the longest', async () => {
    const delays = [];
    for (let failure = 0; failure < 10; failure++) {
      queue.addRateLimited('a');
      delays.push(await delayOf('a'));
    }
    expect(delays).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
  });

  test('starts from the shortest pause again after forget, and for other keys', async () => {
    queue.addRateLimited('a');
    await delayOf('a');
    queue.addRateLimited('b');
    expect(await delayOf('b')).toBe(5);
    queue.forget('a');
    queue.addRateLimited('a');
    expect(await delayOf('a')).toBe(5);
  });

  test('waits as long as asked for after a failure, up to the longest pause', async () => {
    queue.addRateLimited('a', 400);
    expect(await delayOf('a')).toBe(400);
    queue.addRateLimited('a', 60_000);
    expect(await delayOf('a')).toBe(1_000);
    queue.addRateLimited('a', 1);
    expect(await delayOf('a')).toBe(20);
  });

  test('doubles beyond all numbers without losing the key', async () => {
    for (let failure = 0; failure < 2_000; failure++) {
      queue.addRateLimited('a');
      expect(await delayOf('a')).toBeLessThanOrEqual(1_000);
    }
  });

  test('reports its depth and how long each key waited', async () => {
    queue.add('a');
    await time.advance(2_500);
    queue.add('b');
    await takeAll();
    expect(depths).toEqual([0, 1, 2, 1, 0]);
    expect(latencies).toEqual([2.5, 0]);
  });

  test('lets all workers go when it is shut down, and takes nothing more', async () => {
    const takers = [queue.take(), queue.take()];
    queue.addAfter('c', 10);
    queue.shutDown();
    expect(await Promise.all(takers)).toEqual([undefined, undefined]);
    queue.add('a');
    queue.addAfter('b', 10);
    queue.addRateLimited('d');
    expect([queue.depth, time.pending]).toEqual([0, 0]);
    expect(await queue.take()).toBeUndefined();
  });

  test('is drained when the last key in work is done, whatever was added meanwhile', async () => {
    for (const key of ['a', 'b', 'c']) queue.add(key);
    await queue.take();
    await queue.take();
    queue.shutDown();
    let isDrained = false;
    const drained = queue.drained().then(() => (isDrained = true));
    queue.add('a');
    queue.done('a');
    await settle();
    expect(isDrained).toBe(false);
    queue.done('b');
    await drained;
    await queue.drained();
  });
});

/** What the queue should be, in the plainest words. */
interface Model {
  waiting: string[];
  working: string[];
  again: string[];
  delayed: Map<string, number>;
  failures: Map<string, number>;
  now: number;
}

interface Real {
  queue: WorkQueue;
  time: VirtualTime;
}

function addTo(model: Model, key: string): void {
  const list = model.working.includes(key) ? model.again : model.waiting;
  if (!list.includes(key)) list.push(key);
}

function delayIn(model: Model, key: string, delayMs: number): void {
  const at = model.now + delayMs;
  if (at >= (model.delayed.get(key) ?? Infinity)) return;
  model.delayed.delete(key);
  model.delayed.set(key, at);
}

type Command = fc.AsyncCommand<Model, Real>;

/** A command; both sides show the same keys, in the same order, afterwards. */
function command(text: string, run: (model: Model, real: Real) => void | Promise<void>): Command {
  return {
    check: () => true,
    run: async (model, real) => {
      await run(model, real);
      expect(real.queue.depth).toBe(model.waiting.length);
      expect(real.time.pending).toBe(model.delayed.size);
    },
    toString: () => text,
  };
}

const keys = fc.constantFrom('a', 'b', 'c', 'd');

const commands: fc.Arbitrary<Command>[] = [
  keys.map((key) =>
    command(`add ${key}`, (model, real) => {
      addTo(model, key);
      real.queue.add(key);
    }),
  ),
  fc.tuple(keys, fc.integer({ min: 1, max: 50 })).map(([key, delayMs]) =>
    command(`add ${key} after ${delayMs}`, (model, real) => {
      delayIn(model, key, delayMs);
      real.queue.addAfter(key, delayMs);
    }),
  ),
  keys.map((key) =>
    command(`retry ${key}`, (model, real) => {
      const failures = model.failures.get(key) ?? 0;
      model.failures.set(key, failures + 1);
      delayIn(model, key, Math.min(80, 5 * 2 ** failures));
      real.queue.addRateLimited(key);
    }),
  ),
  keys.map((key) =>
    command(`forget ${key}`, (model, real) => {
      model.failures.delete(key);
      real.queue.forget(key);
    }),
  ),
  fc.constant({
    ...command('take', async (model, real) => {
      const key = model.waiting.shift() ?? '';
      model.working.push(key);
      expect(await real.queue.take()).toBe(key);
    }),
    check: (model: Readonly<Model>) => model.waiting.length > 0,
  }),
  fc.nat(3).map((index) => ({
    ...command(`finish ${index}`, (model, real) => {
      const [key = ''] = model.working.splice(index % model.working.length, 1);
      const isAgain = model.again.includes(key);
      model.again = model.again.filter((other) => other !== key);
      if (isAgain) addTo(model, key);
      real.queue.done(key);
    }),
    check: (model: Readonly<Model>) => model.working.length > 0,
  })),
  fc.integer({ min: 1, max: 60 }).map((milliseconds) =>
    command(`wait ${milliseconds}`, async (model, real) => {
      model.now += milliseconds;
      const due = [...model.delayed].filter(([, at]) => at <= model.now);
      for (const [key] of due.toSorted(([, a], [, b]) => a - b)) {
        model.delayed.delete(key);
        addTo(model, key);
      }
      await real.time.advance(milliseconds);
    }),
  ),
];

test('behaves as its model under any sequence of calls', async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { size: '+1' }), async (sequence) => {
      const virtual = new VirtualTime();
      const real = { time: virtual, queue: new WorkQueue({ timers: virtual, maxDelayMs: 80 }) };
      const model: Model = {
        waiting: [],
        working: [],
        again: [],
        delayed: new Map(),
        failures: new Map(),
        now: 0,
      };
      await fc.asyncModelRun(() => ({ model, real }), sequence);
    }),
    { numRuns: 300 },
  );
});

test('with any workers, no key is lost and none is in two hands', async () => {
  const event = fc.record({
    key: keys,
    at: fc.nat(200),
    how: fc.constantFrom('add' as const, 'after' as const, 'retry' as const),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(event, { minLength: 1, maxLength: 40 }),
      fc.infiniteStream(fc.nat(30)),
      async (workers, events, workTimes) => {
        const virtual = new VirtualTime();
        const shared = new WorkQueue({ timers: virtual });
        const inHand = new Set<string>();
        /** Added, and not taken since. */
        const owed = new Set<string>();
        const work = async (): Promise<void> => {
          for (;;) {
            const key = await shared.take();
            if (key === undefined) return;
            expect(inHand.has(key)).toBe(false);
            inHand.add(key);
            owed.delete(key);
            await new Promise<void>((resolve) => {
              virtual.set(resolve, workTimes.next().value ?? 0);
            });
            inHand.delete(key);
            shared.done(key);
          }
        };
        const running = Promise.all(Array.from({ length: workers }, work));
        for (const { key, at, how } of events) {
          virtual.set(() => {
            owed.add(key);
            if (how === 'add') shared.add(key);
            else if (how === 'after') shared.addAfter(key, 20);
            else shared.addRateLimited(key);
          }, at);
        }
        await virtual.advance(100_000);
        expect([...owed]).toEqual([]);
        expect(virtual.pending).toBe(0);
        shared.shutDown();
        await running;
        await shared.drained();
      },
    ),
    { numRuns: 100 },
  );
});
