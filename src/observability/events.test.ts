import { describe, expect, it } from 'vitest';
import type { KubeObject } from '../api/objects.ts';
import type { KubeClient } from '../runtime/client.ts';
import { ApiError, ApiTimeoutError } from '../runtime/errors.ts';
import { EventRecorder, type EventRecorderOptions } from './events.ts';
import { silentLogger, type Logger } from './logger.ts';

type RecordedEvent = KubeObject & {
  note: string;
  type: string;
  reason: string;
  series?: { count: number; lastObservedTime: string };
};

const minute = 60_000;
const start = Date.UTC(2026, 0, 1);

const about = {
  apiVersion: 'automationguardrails.dev/v1alpha1',
  kind: 'Workflow',
  metadata: { name: 'invoices', namespace: 'finance', uid: 'u1', resourceVersion: '7' },
};

/** An API server that knows events and nothing else. */
class EventApi implements Pick<KubeClient, 'create' | 'mergePatch'> {
  readonly events = new Map<string, RecordedEvent>();
  readonly writes: string[] = [];
  /** Errors that the next writes get. */
  readonly failures: unknown[] = [];
  /** Keeps the writes waiting. */
  gate: Promise<unknown> = Promise.resolve();

  readonly create: KubeClient['create'] = async (_resource, body, options) => {
    const { namespace = '', name } = body.metadata;
    await this.#admit(`create ${name}`, options?.signal);
    if (this.events.has(`${namespace}/${name}`)) {
      throw new ApiError('exists', { status: 409, reason: 'AlreadyExists' });
    }
    this.events.set(`${namespace}/${name}`, JSON.parse(JSON.stringify(body)));
    return body;
  };

  readonly mergePatch: KubeClient['mergePatch'] = async (_resource, key, patch, options) => {
    await this.#admit(`patch ${key.name}`, options?.signal);
    const event = this.events.get(`${key.namespace}/${key.name}`);
    if (event === undefined) throw new ApiError('gone', { status: 404, reason: 'NotFound' });
    return JSON.parse(JSON.stringify(Object.assign(event, patch)));
  };

  async #admit(write: string, signal: AbortSignal | undefined): Promise<void> {
    const aborted = new Promise<never>((_resolve, reject) => {
      signal?.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
    });
    await Promise.race([this.gate, aborted]);
    this.writes.push(write.replace(/ .*/, ''));
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  all(): RecordedEvent[] {
    return [...this.events.values()];
  }
}

function setUp(options: Partial<EventRecorderOptions> = {}) {
  const api = new EventApi();
  const state = { now: start, dropped: 0, pauses: [] as number[] };
  const recorder = new EventRecorder({
    client: api,
    logger: silentLogger(),
    clock: () => state.now,
    onDropped: () => (state.dropped += 1),
    sleep: (ms) => {
      state.pauses.push(ms);
      return Promise.resolve();
    },
    ...options,
  });
  return { api, state, recorder };
}

describe('EventRecorder', () => {
  it('records an event with all that the API demands', async () => {
    const { api, recorder } = setUp({ instance: 'operator-1' });

    recorder.warning(about, 'KillSwitchEngaged', 'Engaged by jane: leak');
    await recorder.flush();

    expect(api.all()).toEqual([
      {
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { name: expect.stringMatching(/^invoices\.[0-9a-f]{16}$/), namespace: 'finance' },
        eventTime: '2026-01-01T00:00:00.000000Z',
        type: 'Warning',
        reason: 'KillSwitchEngaged',
        action: 'Reconcile',
        note: 'Engaged by jane: leak',
        regarding: {
          apiVersion: 'automationguardrails.dev/v1alpha1',
          kind: 'Workflow',
          name: 'invoices',
          namespace: 'finance',
          uid: 'u1',
          resourceVersion: '7',
        },
        reportingController: 'automationguardrails.dev/operator',
        reportingInstance: 'operator-1',
      },
    ]);
  });

  it('puts events of objects without a namespace where the API wants them', async () => {
    const { api, recorder } = setUp();

    recorder.normal({ kind: 'Namespace', metadata: { name: 'finance' } }, 'Ready', 'x');
    await recorder.flush();

    expect([...api.events.keys()][0]).toMatch(/^default\/finance\./);
  });

  it('counts a repeat in the series of the first', async () => {
    const { api, state, recorder } = setUp();

    for (let n = 0; n < 3; n++) {
      recorder.normal(about, 'Ready', 'x');
      await recorder.flush();
      state.now += 9 * minute;
    }

    expect(api.all()).toHaveLength(1);
    expect(api.all()[0]?.series).toEqual({
      count: 3,
      lastObservedTime: '2026-01-01T00:18:00.000000Z',
    });
    expect(api.writes).toEqual(['create', 'patch', 'patch']);
  });

  it('makes a new event of a repeat after ten minutes', async () => {
    const { api, state, recorder } = setUp();

    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();
    state.now += 10 * minute;
    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(api.all().map(({ series }) => series)).toEqual([undefined, undefined]);
  });

  it.each([
    ['another reason', (r: EventRecorder) => r.normal(about, 'Other', 'x')],
    ['another message', (r: EventRecorder) => r.normal(about, 'Ready', 'y')],
    ['another type', (r: EventRecorder) => r.warning(about, 'Ready', 'x')],
    [
      'a re-created object',
      (r: EventRecorder) =>
        r.normal({ ...about, metadata: { ...about.metadata, uid: 'u2' } }, 'Ready', 'x'),
    ],
  ])('makes a new event of %s', async (_case, record) => {
    const { api, recorder } = setUp();

    recorder.normal(about, 'Ready', 'x');
    record(recorder);
    await recorder.flush();

    expect(api.all()).toHaveLength(2);
  });

  it('writes a burst of the same event once', async () => {
    const { api, recorder } = setUp();

    for (let n = 0; n < 100; n++) recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(api.writes).toEqual(['create']);
    expect(api.all()[0]?.series?.count).toBe(100);
  });

  it('records once what two replicas see', async () => {
    const { api, recorder } = setUp({ instance: 'a' });
    const other = new EventRecorder({
      client: api,
      logger: silentLogger(),
      clock: () => start + 1_000,
      instance: 'b',
    });

    recorder.warning(about, 'KillSwitchEngaged', 'x');
    other.warning(about, 'KillSwitchEngaged', 'x');
    await Promise.all([recorder.flush(), other.flush()]);

    expect(api.all()).toHaveLength(1);
  });

  it('creates anew what was deleted meanwhile', async () => {
    const { api, recorder } = setUp();
    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();
    api.events.clear();

    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(api.all()[0]?.series?.count).toBe(2);
  });

  it('throttles an object that makes too many, and no other', async () => {
    const { api, state, recorder } = setUp();
    const other = { ...about, metadata: { ...about.metadata, name: 'quiet', uid: 'u2' } };

    for (let n = 0; n < 100; n++) recorder.normal(about, 'Ready', `message ${n}`);
    recorder.normal(other, 'Ready', 'x');
    await recorder.flush();

    expect(api.all()).toHaveLength(26);
    expect(state.dropped).toBe(75);
    state.now += 5 * minute;
    recorder.normal(about, 'Ready', 'later');
    recorder.normal(about, 'Ready', 'too soon');
    await recorder.flush();
    expect(api.all()).toHaveLength(27);
  });

  it('keeps a bounded number of events waiting', async () => {
    const { api, state, recorder } = setUp({ maxPending: 10 });
    const gate = Promise.withResolvers<void>();
    api.gate = gate.promise;

    for (let n = 0; n < 100; n++) {
      const metadata = { name: `w${n}`, namespace: 'finance', uid: `u${n}` };
      recorder.normal({ kind: 'Workflow', metadata }, 'Ready', 'x');
    }
    gate.resolve();
    await recorder.flush();

    expect(api.all()).toHaveLength(10);
    expect(state.dropped).toBe(90);
  });

  it('keeps within the lengths that the API allows, in bytes', async () => {
    const { api, recorder } = setUp({ instance: 'i'.repeat(300) });
    const metadata = { ...about.metadata, name: 'n'.repeat(253) };

    recorder.normal({ ...about, metadata }, 'R'.repeat(200), 'ü'.repeat(2_000));
    recorder.normal(about, 'Ready', 'ü'.repeat(512));
    await recorder.flush();

    const [long, exact] = api.all();
    expect(long?.metadata.name).toHaveLength(253);
    expect(Buffer.byteLength(long?.note ?? '')).toBeLessThanOrEqual(1_024);
    expect(long?.note).toMatch(/^ü+…$/);
    expect(Buffer.byteLength(long?.reason ?? '')).toBeLessThanOrEqual(128);
    expect(long).toHaveProperty('reportingInstance', expect.stringMatching(/^i{1,127}…$/));
    expect(exact?.note).toBe('ü'.repeat(512));
  });

  it('tries again what may succeed, ever later, and then gives up', async () => {
    const { api, state, recorder } = setUp();
    api.failures.push(new ApiTimeoutError(1), new ApiError('busy', { status: 503 }));

    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(api.all()).toHaveLength(1);
    expect(state.pauses).toEqual([1_000, 2_000]);
    api.failures.push(...Array.from({ length: 3 }, () => new ApiTimeoutError(1)));
    recorder.normal(about, 'Ready', 'y');
    recorder.normal(about, 'Ready', 'z');
    await recorder.flush();
    expect(api.all().map(({ note }) => note)).toEqual(['x', 'z']);
    expect(state.dropped).toBe(1);
  });

  it('does not repeat what is refused', async () => {
    const { api, state, recorder } = setUp();
    api.failures.push(new ApiError('terminating', { status: 403, reason: 'Forbidden' }));

    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(api.writes).toEqual(['create']);
    expect(state.dropped).toBe(1);
  });

  it('takes an event that is there already for its own: the answer may have been lost', async () => {
    const { api, state, recorder } = setUp();
    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();
    const restarted = setUp({ client: api });

    restarted.recorder.normal(about, 'Ready', 'x');
    await restarted.recorder.flush();

    expect(api.all()).toHaveLength(1);
    expect(state.dropped + restarted.state.dropped).toBe(0);
  });

  it('gives up at the end of its time, and counts what is lost', async () => {
    const { api, state, recorder } = setUp();
    api.gate = new Promise(() => undefined);

    recorder.normal(about, 'Ready', 'x');
    recorder.normal(about, 'Ready', 'y');
    await recorder.flush({ timeoutMs: 10 });

    expect(state.dropped).toBe(2);
    api.gate = Promise.resolve();
    recorder.normal(about, 'Ready', 'z');
    await recorder.flush();
    expect(api.all()).toHaveLength(1);
  });

  it('never throws, whatever it is given', async () => {
    const { state, recorder } = setUp({
      clock: () => {
        throw new Error('no clock');
      },
    });

    recorder.normal(about, 'Ready', 'x');
    await recorder.flush();

    expect(state.dropped).toBe(1);
  });

  it('shows nothing that looks like a credential', async () => {
    const logged: unknown[] = [];
    const logger: Logger = { ...silentLogger(), warn: (...args) => logged.push(args) };
    const { api, recorder } = setUp({ logger });
    api.failures.push(undefined, new ApiError('refused', { status: 422 }));

    recorder.warning(about, 'Failed', 'Authorization: Bearer c4n4ryc4n4ry');
    recorder.warning(about, 'Failed', 'second Bearer c4n4ryc4n4ry');
    await recorder.flush();

    expect(JSON.stringify([api.all(), logged])).not.toContain('c4n4ry');
    expect(logged).toHaveLength(1);
  });
});
