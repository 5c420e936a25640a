import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FakeApiServer, type Behaviour, type StreamEnd } from '../../test/fault/fake-api-server.ts';
import { keyOf, type KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import { ApiServerClient, type WatchEvent, type WatchOptions } from './client.ts';
import type { PooledKubeConfig } from './kube-config.ts';
import { ListWatch, type Change, type ListWatchOptions } from './list-watch.ts';

const { namespaces, pods } = resources;

let server: FakeApiServer;
let kubeConfig: PooledKubeConfig;
let running: Running[];

/** Milliseconds of silence after which a request or a watch is given up, where a test has silence. */
const silenceMs = 100;
/** Silences of the server that the client has had time to notice. */
let noticed: number;

beforeEach(async () => {
  // Time stands still but where a test has it go on, so that no machine is too slow.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  noticed = 0;
  server = await new FakeApiServer().start();
  kubeConfig = server.kubeConfig();
  running = [];
});

afterEach(async () => {
  await Promise.all(running.map((one) => one.stop()));
  await kubeConfig.closeConnections();
  await server.stop();
  vi.useRealTimers();
});

interface Running {
  listWatch: ListWatch<KubeObject>;
  changes: Change<KubeObject>[];
  /** `added default/a`, … */
  told: () => string[];
  ends: string[];
  relists: string[];
  /** Milliseconds of each pause; none is really waited for. */
  pauses: number[];
  /** `level message`. */
  logs: string[];
  /** What it said of what it sees, each time that it called back. */
  visible: string[];
  stop: () => Promise<void>;
}

function start(options: Partial<ListWatchOptions<KubeObject>> = {}, timeoutMs = 10_000): Running {
  const changes: Change<KubeObject>[] = [];
  const ends: string[] = [];
  const relists: string[] = [];
  const pauses: number[] = [];
  const logs: string[] = [];
  const logger: Logger = {
    debug: (message) => logs.push(`debug ${message}`),
    info: (message) => logs.push(`info ${message}`),
    warn: (message) => logs.push(`warn ${message}`),
    error: (message) => logs.push(`error ${message}`),
    child: () => logger,
  };
  const listWatch = new ListWatch<KubeObject>({
    client: new ApiServerClient({ kubeConfig, userAgent: 'test/1', timeoutMs }),
    resource: namespaces,
    metrics: {
      watchRestarted: (_, reason) => ends.push(reason),
      relisted: (_, reason) => relists.push(reason),
      track: () => undefined,
    },
    logger,
    sleep: (ms) => {
      pauses.push(ms);
      // As long as it takes for sockets to be served.
      return new Promise((resolve) => setImmediate(resolve));
    },
    ...options,
  });
  listWatch.onChange((change) => changes.push(change));
  const visible: string[] = [];
  listWatch.onVisibility(() => {
    const forbidden = listWatch.isForbidden ? ', forbidden' : '';
    visible.push(`${listWatch.hasSynced ? 'synced' : 'unsynced'}${forbidden}`);
  });
  const controller = new AbortController();
  const run = listWatch.run(controller.signal);
  const one: Running = {
    listWatch,
    changes,
    told: () => changes.map(({ type, object }) => `${type} ${keyOf(object)}`),
    ends,
    relists,
    pauses,
    logs,
    visible,
    stop: () => {
      controller.abort(new Error('stopped'));
      return run;
    },
  };
  running.push(one);
  return one;
}

function put(name: string, labels: Record<string, string> = {}): void {
  server.put(namespaces, { metadata: { name, labels } });
}

/** Version and UID of each object. */
function contents(objects: Iterable<KubeObject>): Record<string, string> {
  return Object.fromEntries(
    [...objects].map((object) => [
      keyOf(object),
      `${object.metadata.uid} ${object.metadata.resourceVersion}`,
    ]),
  );
}

function isUpToDate({ listWatch }: Running): boolean {
  const cached = contents(listWatch.store.list());
  const stored = contents(server.list(listWatch.resource));
  return (
    listWatch.hasSynced &&
    Object.keys(stored).length === listWatch.store.size &&
    Object.entries(stored).every(([key, version]) => cached[key] === version)
  );
}

function upToDate(one: Running): Promise<void> {
  return until('the store to be as the server is', () => isUpToDate(one));
}

/** Of real time, until a test that gets nowhere says where it is. */
const patienceMs = 25_000;

/** Until then, time goes on only where the server is silent: once for each silence. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const started = Date.now();
  while (!condition()) {
    if (Date.now() - started > patienceMs) throw new Error(`waited in vain for ${what}`);
    for (; noticed < server.silences; noticed += 1) vi.advanceTimersByTime(silenceMs);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The server keeps the next watch that isn't held yet waiting. */
function heldWatch(): { opens: (one: Running) => Promise<void> } {
  const gate = Promise.withResolvers<void>();
  let hasCome = false;
  const when = (): boolean => {
    hasCome = true;
    return true;
  };
  server.faults.next({ verb: 'watch', when }, { kind: 'hold', until: gate.promise });
  return {
    /** Returns when the client knows that its watch is open. */
    opens: async ({ listWatch }) => {
      await until('a watch', () => hasCome);
      vi.advanceTimersByTime(1);
      gate.resolve();
      await until('the watch to be open', () => listWatch.stalenessMs === 0);
    },
  };
}

/** Requests in the order of arrival, without those of other kinds. */
function asked(verb: 'list' | 'watch'): URLSearchParams[] {
  return server.requests.filter((request) => request.verb === verb).map(({ query }) => query);
}

describe('an undisturbed list/watch', () => {
  test('has what is there, in pages, and then follows it', async () => {
    for (let index = 0; index < 1_001; index++) put(`n${index}`);
    const one = start();
    await one.listWatch.whenSynced();
    expect(one.listWatch.store.size).toBe(1_001);
    expect(asked('list')).toHaveLength(3);

    one.changes.length = 0;
    put('new');
    put('n1', { a: '1' });
    server.remove(namespaces, 'n2');
    await upToDate(one);

    expect(one.told()).toEqual(['added new', 'updated n1', 'deleted n2']);
    expect(one.changes[1]?.previous?.metadata.labels).toEqual({});
    expect(one.changes[1]?.object.metadata.labels).toEqual({ a: '1' });
  });

  test('never asks for version 0, and lists without any', async () => {
    put('a');
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    server.storage.compact();
    server.endWatches('expired');
    await until('a second watch', () => asked('watch').length === 2);

    expect(asked('list').map((query) => query.get('resourceVersion'))).toEqual([null, null]);
    for (const query of asked('watch')) {
      expect(Number(query.get('resourceVersion'))).toBeGreaterThan(0);
      expect(query.get('allowWatchBookmarks')).toBe('true');
      expect(Number(query.get('timeoutSeconds'))).toBeGreaterThanOrEqual(300);
      expect(Number(query.get('timeoutSeconds'))).toBeLessThanOrEqual(600);
    }
    expect(one.relists).toEqual(['expired']);
  });

  test.each([
    [0, '300'],
    [0.5, '450'],
    [0.999_999, '600'],
  ])('spreads the ends of watches: %d', async (random, timeoutSeconds) => {
    start({ random: () => random });
    await until('a watch', () => asked('watch').length === 1);
    expect(asked('watch')[0]?.get('timeoutSeconds')).toBe(timeoutSeconds);
  });

  test('goes on at once after a watch that ended in time, from where it was', async () => {
    let now = 0;
    const one = start({ clock: () => now });
    await until('a watch', () => server.openWatches === 1);
    put('a');
    await upToDate(one);
    now += 300_000;
    server.endWatches('end');
    await until('a second watch', () => server.openWatches === 1 && asked('watch').length === 2);

    expect(one.ends).toEqual(['timeout']);
    expect(one.pauses).toEqual([]);
    expect(asked('watch')[1]?.get('resourceVersion')).toBe(String(server.storage.version));
    expect(asked('list')).toHaveLength(1);
  });

  test('follows a namespace and a selector: what leaves it is deleted', async () => {
    const one = start({ resource: pods, namespace: 'a', labelSelector: 'mine=yes' });
    await one.listWatch.whenSynced();
    const pod = (namespace: string, mine: string): void => {
      server.put(pods, { metadata: { namespace, name: 'p', labels: { mine } } });
    };
    pod('b', 'yes');
    pod('a', 'yes');
    pod('a', 'no');
    pod('a', 'yes');
    await until('all changes', () => one.changes.length === 3);

    expect(one.told()).toEqual(['added a/p', 'deleted a/p', 'added a/p']);
  });

  test('stores projections, frozen, without managedFields, under their indexes', async () => {
    const metadata = { name: 'a', labels: { team: 'x' }, managedFields: [{ manager: 'y' }] };
    server.put(namespaces, { metadata });
    const seen: KubeObject[] = [];
    const one = start({
      project: (object) => {
        seen.push(object);
        const { name, uid = '', resourceVersion = '', labels = {} } = object.metadata;
        return { metadata: { name, uid, resourceVersion, labels } };
      },
      indexes: { team: ({ metadata: { labels } }) => [labels?.['team'] ?? ''] },
    });
    await one.listWatch.whenSynced();
    const [found] = one.listWatch.store.byIndex('team', 'x');

    expect(seen[0]?.metadata).not.toHaveProperty('managedFields');
    expect(Object.keys(found?.metadata ?? {})).toEqual([
      'name',
      'uid',
      'resourceVersion',
      'labels',
    ]);
    expect(Object.isFrozen(found)).toBe(true);
  });

  test('says how long ago it heard of the server', async () => {
    let now = 1_000;
    const one = start({ clock: () => now });
    now = 1_500;
    expect(one.listWatch.stalenessMs).toBe(500);
    await until('a watch', () => server.openWatches === 1);
    now = 2_000;
    server.bookmark();
    await until('the bookmark', () => one.listWatch.stalenessMs === 0);
    now = 63_000;
    expect(one.listWatch.stalenessMs).toBe(61_000);
    server.faults.next('watch', { kind: 'status', status: 500 }, 2);
    server.endWatches('reset');
    await until('a watch that the server accepts', () => one.listWatch.stalenessMs === 0);
    expect(server.faults.pending).toBe(0);
  });

  test('tracks itself once in the metrics', () => {
    const tracked: unknown[] = [];
    const one = start({
      metrics: {
        watchRestarted: () => undefined,
        relisted: () => undefined,
        track: (kind, informer) => tracked.push(kind, informer),
      },
    });
    expect(tracked).toEqual(['Namespace', one.listWatch]);
  });
});

describe('faults of the list', () => {
  const faults: [string, Behaviour][] = [
    ['500', { kind: 'status', status: 500 }],
    ['429 with Retry-After', { kind: 'status', status: 429, retryAfterSeconds: 7 }],
    ['410', { kind: 'status', status: 410, reason: 'Expired' }],
    ['403', { kind: 'status', status: 403 }],
    ['404: the kind is not served', { kind: 'status', status: 404 }],
    ['a reset', { kind: 'reset' }],
    ['malformed JSON', { kind: 'garbage', text: '{"items":[' }],
    ['half-open silence', { kind: 'silence' }],
  ];

  test.each(faults)('%s: tries again, ever later', async (_, behaviour) => {
    put('a');
    server.faults.next('list', behaviour, 3);
    const one = start({}, silenceMs);
    await upToDate(one);

    expect(asked('list')).toHaveLength(4);
    expect(one.pauses).toHaveLength(3);
    expect(one.pauses.every((pause) => pause >= 800)).toBe(true);
  });

  test.each(['list', 'watch'] as const)(
    'a %s without the right to: says so until it is allowed',
    async (verb) => {
      server.faults.next(verb, { kind: 'status', status: 403 }, 2);
      const seen: boolean[] = [];
      const one = start({
        sleep: () => {
          seen.push(one.listWatch.isForbidden);
          return new Promise((resolve) => setImmediate(resolve));
        },
      });
      await until('the refusals', () => seen.length >= 2);
      expect(seen.slice(0, 2)).toEqual([true, true]);
      await until('the right', () => !one.listWatch.isForbidden);
      expect(one.visible).toEqual(
        verb === 'list'
          ? ['unsynced, forbidden', 'unsynced', 'synced']
          : ['synced', 'synced, forbidden', 'synced'],
      );
    },
  );

  test('backoff grows from 0.8 s to 30 s, with jitter, and no further', async () => {
    server.faults.next('list', { kind: 'status', status: 404 }, 12);
    const latest = start({ random: () => 0.999_999 });
    await latest.listWatch.whenSynced();
    expect(latest.pauses.map(Math.round)).toEqual([
      1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000,
    ]);

    server.faults.next('list', { kind: 'status', status: 404 }, 12);
    const earliest = start({ random: () => 0 });
    await earliest.listWatch.whenSynced();
    expect(new Set(earliest.pauses)).toEqual(new Set([800]));
  });

  test('Retry-After is obeyed, within bounds', async () => {
    server.faults.next('list', { kind: 'status', status: 429, retryAfterSeconds: 45 });
    server.faults.next('list', { kind: 'status', status: 503, retryAfterSeconds: 86_400 });
    const one = start();
    await one.listWatch.whenSynced();

    expect(one.pauses).toEqual([45_000, 60_000]);
  });

  test('a slow list is waited for; stopping ends it, and opens no watch', async () => {
    const gate = Promise.withResolvers<void>();
    server.faults.next('list', { kind: 'hold', until: gate.promise });
    const one = start();
    await until('the list', () => asked('list').length === 1);
    expect(one.listWatch.hasSynced).toBe(false);
    await one.stop();
    gate.resolve();

    await expect(one.listWatch.whenSynced()).rejects.toThrow('stopped');
    expect(server.requests.map(({ verb }) => verb)).toEqual(['list']);
    expect(one.logs).toEqual([]);
  });

  test('a slow list that answers at last is as good as another', async () => {
    put('a');
    const gate = Promise.withResolvers<void>();
    server.faults.next('list', { kind: 'hold', until: gate.promise });
    const one = start();
    await until('the list', () => asked('list').length === 1);
    put('b');
    gate.resolve();
    await upToDate(one);
  });

  test('a list that expires between its pages starts over, with nothing of before', async () => {
    for (let index = 0; index < 1_200; index++) put(`n${String(index).padStart(4, '0')}`);
    server.faults.next(
      {
        verb: 'list',
        when: ({ query }) => {
          if (!query.has('continue')) return false;
          server.remove(namespaces, 'n0000');
          return true;
        },
      },
      { kind: 'status', status: 410, reason: 'Expired' },
    );
    const one = start();
    await one.listWatch.whenSynced();

    expect(one.changes).toHaveLength(1_199);
    expect(one.listWatch.store.get('n0000')).toBeUndefined();
    expect(one.pauses).toEqual([]);
  });
});

describe('faults at the start of a watch', () => {
  const faults: [string, Behaviour, string, string | undefined][] = [
    ['500', { kind: 'status', status: 500 }, 'server_error', undefined],
    ['429', { kind: 'status', status: 429, retryAfterSeconds: 9 }, 'throttled', undefined],
    ['410', { kind: 'status', status: 410, reason: 'Expired' }, 'expired', 'expired'],
    ['401', { kind: 'status', status: 401 }, 'forbidden', undefined],
    ['404', { kind: 'status', status: 404 }, 'not_found', 'not_found'],
    ['a reset', { kind: 'reset' }, 'disconnected', undefined],
    ['malformed JSON', { kind: 'garbage', text: '{"type":\n' }, 'malformed', undefined],
    ['half-open silence', { kind: 'silence' }, 'inactive', undefined],
  ];

  test.each(faults)('%s', async (_, behaviour, end, relist) => {
    server.faults.next('watch', behaviour);
    const one = start({ timings: { inactivityMs: silenceMs } });
    await until('the fault', () => server.faults.hits === 1);
    put('a');
    await upToDate(one);

    expect(one.ends[0]).toBe(end);
    expect(one.relists[0]).toBe(relist);
    expect(one.pauses[0]).toBeGreaterThanOrEqual(end === 'throttled' ? 9_000 : 800);
  });

  test('a watch that is refused again and again does not spin', async () => {
    server.faults.next('watch', { kind: 'status', status: 410, reason: 'Expired' }, 20);
    const one = start({ random: () => 0.5 });
    await until('a watch', () => server.openWatches === 1);

    expect(one.pauses).toHaveLength(20);
    expect(one.pauses.slice(0, 3)).toEqual([1_200, 2_000, 3_600]);
    expect(one.pauses.at(-1)).toBe(15_400);
  });
});

describe('faults in the stream of a watch', () => {
  const ends: [StreamEnd, string, string | undefined][] = [
    ['reset', 'disconnected', undefined],
    ['end', 'short', undefined],
    ['garbage', 'malformed', undefined],
    ['half-line', 'disconnected', undefined],
    ['expired', 'expired', 'expired'],
    ['error', 'server_error', 'server_error'],
    ['silence', 'inactive', undefined],
  ];

  describe.each([0, 1, 3])('after %i events', (afterEvents) => {
    test.each(ends)('%s: nothing is lost', async (how, end, relist) => {
      server.faults.next('watch', { kind: 'stream', afterEvents, ending: how });
      put('gone');
      const one = start({ timings: { inactivityMs: silenceMs } });
      await until('the fault', () => server.faults.hits === 1);
      for (const name of ['a', 'b', 'c', 'd']) put(name);
      server.remove(namespaces, 'gone');
      put('a', { changed: 'yes' });
      await upToDate(one);

      expect(one.ends[0]).toBe(end);
      expect(one.relists[0]).toBe(relist);
      // Each of them once, whatever the way it came.
      expect(one.told().filter((change) => change === 'added b')).toHaveLength(1);
      expect(one.told().filter((change) => change === 'deleted gone')).toHaveLength(1);
    });
  });

  test('the silence timer is armed before the first event', async () => {
    server.faults.next('watch', { kind: 'stream', ending: 'silence' });
    const one = start({ timings: { inactivityMs: silenceMs } });
    await until('the end of the watch', () => one.ends.length === 1);
    expect(one.ends).toEqual(['inactive']);
  });

  test('bookmarks alone keep a watch alive', async () => {
    const watch = heldWatch();
    const one = start({ timings: { inactivityMs: silenceMs } });
    await watch.opens(one);
    for (let bookmark = 0; bookmark < 5; bookmark++) {
      vi.advanceTimersByTime(silenceMs - 2);
      server.bookmark();
      await until('the bookmark', () => one.listWatch.stalenessMs === 0);
    }

    expect(one.ends).toEqual([]);
    expect(asked('watch')).toHaveLength(1);
  });

  test('bookmarks move a watch on', async () => {
    let now = 0;
    const one = start({ clock: () => now });
    await until('a watch', () => server.openWatches === 1);
    // Changes of another kind: the version moves, this watch has no event.
    server.put(pods, { metadata: { namespace: 'x', name: 'p' } });
    server.storage.compact();
    now += 30_000;
    server.bookmark();
    await until('the bookmark', () => one.listWatch.stalenessMs === 0);
    server.endWatches('reset');
    await until('the next watch', () => asked('watch').length === 2);

    expect(asked('watch')[1]?.get('resourceVersion')).toBe(String(server.storage.version));
    expect(one.ends).toEqual(['disconnected']);
    expect(one.relists).toEqual([]);
  });

  test('a line that is malformed again at the same place leads to a list', async () => {
    server.faults.next('watch', { kind: 'stream', afterEvents: 1, ending: 'garbage' });
    server.faults.next('watch', { kind: 'stream', afterEvents: 0, ending: 'garbage' });
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    put('a');
    put('b');
    await upToDate(one);

    expect(one.ends.slice(0, 2)).toEqual(['malformed', 'malformed']);
    expect(one.relists).toEqual(['malformed']);
    const versions = asked('watch').map((query) => query.get('resourceVersion'));
    expect(versions[1]).toBe(server.get(namespaces, 'a')?.metadata.resourceVersion);
  });

  test('malformed lines at different places do not', async () => {
    server.faults.next('watch', { kind: 'stream', afterEvents: 1, ending: 'garbage' });
    server.faults.next('watch', { kind: 'stream', afterEvents: 1, ending: 'garbage' });
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    for (const name of ['a', 'b', 'c']) put(name);
    await upToDate(one);

    expect(one.ends.slice(0, 2)).toEqual(['malformed', 'malformed']);
    expect(one.relists).toEqual([]);
  });

  test('watches that the server ends at once do not spin', async () => {
    server.faults.next('watch', { kind: 'stream', ending: 'end' }, 6);
    const one = start({ random: () => 0.999_999 });
    await until('a watch that stays', () => asked('watch').length === 7);

    expect(one.ends).toEqual(Array.from({ length: 6 }, () => 'short'));
    expect(one.pauses.map(Math.round)).toEqual([1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
  });

  test('a quiet watch without bookmarks is followed by the next at once, again and again', async () => {
    const watches = [heldWatch(), heldWatch(), heldWatch(), heldWatch()];
    const one = start({ timings: { inactivityMs: silenceMs, minWatchMs: silenceMs } });
    for (const [index, watch] of watches.entries()) {
      await watch.opens(one);
      vi.advanceTimersByTime(silenceMs);
      await until('its end', () => one.ends.length === index + 1);
    }

    expect(new Set(one.ends)).toEqual(new Set(['inactive']));
    expect(one.pauses).toEqual([]);
    expect(one.relists).toEqual([]);
    expect(asked('list')).toHaveLength(1);
  });

  test('a watch that worked for a while resets the backoff', async () => {
    let now = 0;
    server.faults.next('watch', { kind: 'status', status: 500 }, 5);
    const one = start({ clock: () => now, random: () => 0.999_999 });
    await until('a watch', () => server.openWatches === 1);
    expect(one.pauses).toHaveLength(5);
    put('a');
    await upToDate(one);
    now += 10_000;
    server.faults.next('watch', { kind: 'status', status: 500 });
    server.endWatches('reset');
    await until('a watch', () => asked('watch').length === 8);

    // At once after the reset, and the least pause after the 500.
    expect(one.pauses.slice(5).map(Math.round)).toEqual([1_600]);
  });

  test('a bookmark from the past leads to a list', async () => {
    put('a');
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    server.bookmark(5);
    await until('the next watch', () => asked('watch').length === 2);

    expect(one.ends).toEqual(['regressed']);
    expect(one.relists).toEqual(['regressed']);
    expect(isUpToDate(one)).toBe(true);
  });
});

describe('changes', () => {
  test('an object re-created behind our back is deleted and added', async () => {
    put('a');
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    const before = server.get(namespaces, 'a')?.metadata.uid;
    one.changes.length = 0;
    const gate = Promise.withResolvers<void>();
    server.faults.next('watch', { kind: 'hold', until: gate.promise });
    server.endWatches('expired');
    server.faults.next('list', { kind: 'hold', until: gate.promise });
    server.remove(namespaces, 'a');
    put('a');
    server.storage.compact();
    gate.resolve();
    await upToDate(one);

    expect(one.told()).toEqual(['deleted a', 'added a']);
    expect(one.changes[0]?.object.metadata.uid).toBe(before);
    expect(one.changes[1]?.object.metadata.uid).not.toBe(before);
  });

  test('so is one that a watch shows only as changed; news of the old one is ignored', async () => {
    const events = [
      ['2', 'old', 'MODIFIED'],
      ['3', 'new', 'MODIFIED'],
      ['4', 'old', 'DELETED'],
      ['5', 'new', 'DELETED'],
    ];
    const direct = new ListWatch<KubeObject>({
      client: {
        listPage: () => Promise.resolve({ items: [], resourceVersion: '1', continue: undefined }),
        async *watch<T extends KubeObject>(_: Resource<T>, { signal }: WatchOptions) {
          for (const [version, uid, type] of events) {
            const metadata = { name: 'a', uid, resourceVersion: version };
            const event: WatchEvent<T> = JSON.parse(JSON.stringify({ type, object: { metadata } }));
            yield event;
          }
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
        },
      },
      resource: namespaces,
      metrics: {
        watchRestarted: () => undefined,
        relisted: () => undefined,
        track: () => undefined,
      },
      logger: silent,
    });
    const told: string[] = [];
    direct.onChange(({ type, object }) => told.push(`${type} ${object.metadata.uid}`));
    const stop = new AbortController();
    const run = direct.run(stop.signal);
    await until('the changes', () => told.includes('deleted new'));
    stop.abort();
    await run;

    expect(told).toEqual(['added old', 'deleted old', 'added new', 'deleted new']);
  });

  test('a relist tells only what differs, and keeps the rest as it is', async () => {
    for (const name of ['same', 'changes', 'goes']) put(name);
    const one = start();
    await until('a watch', () => server.openWatches === 1);
    const kept = one.listWatch.store.get('same');
    one.changes.length = 0;
    server.endWatches('expired');
    put('changes', { a: '1' });
    put('comes');
    server.remove(namespaces, 'goes');
    await upToDate(one);

    expect(one.relists).toEqual(['expired']);
    expect(one.told().toSorted()).toEqual(['added comes', 'deleted goes', 'updated changes']);
    expect(one.listWatch.store.get('same')).toBe(kept);
  });

  test('listeners see the store as it is after the change', async () => {
    put('a');
    const one = start();
    const seen: unknown[] = [];
    one.listWatch.onChange(({ type }) => seen.push(`${type} ${one.listWatch.store.size}`));
    await one.listWatch.whenSynced();
    server.remove(namespaces, 'a');
    await upToDate(one);
    expect(seen).toEqual(['added 1', 'deleted 0']);
  });

  test('a listener that throws stops neither the others nor the watch', async () => {
    const one = start();
    let told = 0;
    one.listWatch.onChange(() => {
      throw new Error('broken listener');
    });
    one.listWatch.onChange(() => (told += 1));
    await one.listWatch.whenSynced();
    put('a');
    put('b');
    await until('both changes', () => told === 2);

    expect(one.ends).toEqual([]);
    expect(one.logs).toContain('error listener failed');
  });

  test('an object that cannot be projected leaves what was known of it', async () => {
    put('a', { fine: 'yes' });
    put('b', { fine: 'yes' });
    const one = start({
      project: (object) => {
        if (object.metadata.labels?.['fine'] === 'no') throw new Error('not projectable');
        return object;
      },
    });
    await one.listWatch.whenSynced();
    put('a', { fine: 'no' });
    put('c', { fine: 'yes' });
    await until('c', () => one.listWatch.store.get('c') !== undefined);
    expect(one.listWatch.store.get('a')?.metadata.labels).toEqual({ fine: 'yes' });

    server.endWatches('expired');
    await until('a relist', () => asked('list').length === 2 && server.openWatches === 1);
    expect(one.listWatch.store.get('a')?.metadata.labels).toEqual({ fine: 'yes' });
    expect(one.told()).not.toContain('deleted a');
  });
});

/** Applies a change to a plain map. @returns what is wrong with it */
function follow(
  model: Map<string, KubeObject>,
  { type, object, previous }: Change<KubeObject>,
): string | undefined {
  const key = keyOf(object);
  const known = model.get(key);
  if (type === 'deleted') model.delete(key);
  else model.set(key, object);
  if (type === 'added' && known !== undefined) return `added ${key} twice`;
  if (type !== 'added' && known === undefined) return `${type} ${key}, which was not there`;
  if (type !== 'added' && previous !== known) return `${type} ${key} with another previous`;
  if (type !== 'added' && known?.metadata.uid !== object.metadata.uid) return `${type}: other UID`;
  return undefined;
}

describe('whatever happens', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd');
  const streamEnd = fc.constantFrom<StreamEnd>(
    'reset',
    'end',
    'silence',
    'garbage',
    'half-line',
    'expired',
    'error',
  );
  const fault = fc.oneof(
    fc.constantFrom<Behaviour>(
      { kind: 'status', status: 500 },
      { kind: 'status', status: 410, reason: 'Expired' },
      { kind: 'status', status: 404 },
      { kind: 'status', status: 429, retryAfterSeconds: 0 },
      { kind: 'reset' },
      { kind: 'garbage', text: '{"items":[{}' },
      { kind: 'silence' },
    ),
    fc.record({
      kind: fc.constant('stream' as const),
      afterEvents: fc.nat(3),
      ending: streamEnd,
    }),
  );
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constant('put' as const), name, value: fc.nat(9) }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('remove' as const), name }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('recreate' as const), name }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('end' as const), how: streamEnd }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('fault' as const),
        verb: fc.constantFrom('list' as const, 'watch' as const),
        fault,
      }),
    },
    { weight: 4, arbitrary: fc.constant({ do: 'breathe' as const }) },
    { weight: 2, arbitrary: fc.constant({ do: 'catch up' as const }) },
    {
      weight: 2,
      arbitrary: fc.constantFrom({ do: 'compact' as const }, { do: 'bookmark' as const }),
    },
  );

  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  test('the store ends as the server is, and the changes tell how it came to that', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
        server.faults.clear();
        for (const key of ['a', 'b', 'c', 'd']) server.remove(namespaces, key);
        const one = start({ timings: { inactivityMs: silenceMs } }, silenceMs);
        const model = new Map<string, KubeObject>();
        const lies: string[] = [];
        one.listWatch.onChange((change) => {
          const lie = follow(model, change);
          if (lie !== undefined) lies.push(lie);
        });
        for (const action of steps) await perform(action, one);
        server.faults.clear();
        await upToDate(one);
        await one.stop();
        running.length = 0;

        expect(lies).toEqual([]);
        expect(contents(model.values())).toEqual(contents(server.list(namespaces)));
        for (const query of asked('watch')) expect(query.get('resourceVersion')).not.toBe('0');
        server.requests.length = 0;
      }),
      { numRuns: 60 },
    );
  }, 120_000);

  async function perform(action: Step, one: Running): Promise<void> {
    switch (action.do) {
      case 'put':
        put(action.name, { value: String(action.value) });
        break;
      case 'remove':
        server.remove(namespaces, action.name);
        break;
      case 'recreate':
        server.remove(namespaces, action.name);
        put(action.name);
        break;
      case 'end':
        server.endWatches(action.how);
        break;
      case 'fault':
        server.faults.next(action.verb, action.fault);
        break;
      case 'compact':
        server.storage.compact();
        break;
      case 'bookmark':
        server.bookmark();
        break;
      case 'breathe':
        // Long enough for a few requests.
        for (let turn = 0; turn < 200; turn++) {
          await new Promise((resolve) => setImmediate(resolve));
        }
        break;
      case 'catch up':
        await upToDate(one);
        break;
    }
  }
});

const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};
