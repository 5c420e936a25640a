import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { keyOf, type KubeObject, type Role } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Logger } from '../../src/observability/logger.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { isConflict } from '../../src/runtime/errors.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { ListWatch, type Change, type ListWatchOptions } from '../../src/runtime/list-watch.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { TcpProxy } from '../fault/tcp-proxy.ts';

const { roles, namespaces } = resources;

let controlPlane: ControlPlane;
let proxy: TcpProxy;
/** Straight to the API server. */
let direct: ApiServerClient;
/** Through the proxy. */
let proxied: ApiServerClient;
let directConfig: PooledKubeConfig;
let proxiedConfig: PooledKubeConfig;
let namespace: string;
let namespaceCount = 0;
let stops: (() => Promise<void>)[];

beforeAll(async () => {
  controlPlane = await startControlPlane();
  const { kubeconfigPath: kubeconfig } = controlPlane;
  directConfig = new PooledKubeConfig().load({ kubeconfig });
  // Hundreds of its calls wait for one another.
  const timeoutMs = 120_000;
  direct = new ApiServerClient({ kubeConfig: directConfig, userAgent: 'test/1', timeoutMs });
});

afterAll(async () => {
  await directConfig.closeConnections();
  await controlPlane.stop();
});

beforeEach(async () => {
  stops = [];
  proxy = await new TcpProxy(controlPlane.server).start();
  proxiedConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
  proxiedConfig.clusters = proxiedConfig.clusters.map((cluster) => ({
    ...cluster,
    server: proxy.url,
  }));
  proxied = new ApiServerClient({ kubeConfig: proxiedConfig, userAgent: 'test/1' });
  namespaceCount += 1;
  namespace = `list-watch-${namespaceCount}`;
  await direct.create(namespaces, { metadata: { name: namespace } });
});

afterEach(async () => {
  await Promise.all(stops.map((stop) => stop()));
  await proxiedConfig.closeConnections();
  await proxy.stop();
});

interface Running<T extends KubeObject = KubeObject> {
  listWatch: ListWatch<T>;
  changes: Change<T>[];
  ends: string[];
  relists: string[];
}

const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};

function start<T extends KubeObject>(
  resource: Resource<T>,
  options: Partial<ListWatchOptions<T>> = {},
): Running<T> {
  const changes: Change<T>[] = [];
  const ends: string[] = [];
  const relists: string[] = [];
  const listWatch = new ListWatch<T>({
    client: proxied,
    resource,
    ...(resource.namespaced && { namespace }),
    metrics: {
      watchRestarted: (_, reason) => ends.push(reason),
      relisted: (_, reason) => relists.push(reason),
      track: () => undefined,
    },
    logger: silent,
    ...options,
  });
  listWatch.onChange((change) => changes.push(change));
  const controller = new AbortController();
  const run = listWatch.run(controller.signal);
  stops.push(() => {
    controller.abort(new Error('stopped'));
    return run;
  });
  return { listWatch, changes, ends, relists };
}

function role(name: string, labels: Record<string, string> = {}): Role {
  return {
    metadata: { namespace, name, labels },
    rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }],
  };
}

/** Version and UID of each object. */
function contents(objects: Iterable<KubeObject>): Record<string, string> {
  return Object.fromEntries(
    [...objects]
      .map((object): [string, string] => [
        keyOf(object),
        `${object.metadata.uid} ${object.metadata.resourceVersion}`,
      ])
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** What the changes, one after another, make of nothing. */
function replayed(changes: readonly Change<KubeObject>[]): Record<string, string> {
  const objects = new Map<string, KubeObject>();
  for (const { type, object } of changes) {
    const key = keyOf(object);
    expect(objects.has(key), `${type} ${key}`).toBe(type !== 'added');
    if (type === 'deleted') objects.delete(key);
    else objects.set(key, object);
  }
  return contents(objects.values());
}

async function upToDate(one: Running<Role>): Promise<void> {
  await waitFor(
    'the store to be as the server is',
    async () => {
      const listed = contents(await direct.list(roles, { namespace }));
      return JSON.stringify(contents(one.listWatch.store.list())) === JSON.stringify(listed);
    },
    { timeoutMs: 120_000 },
  );
  expect(replayed(one.changes)).toEqual(contents(one.listWatch.store.list()));
}

/** 200 changes: 60 created and labelled, 20 of them deleted, 20 deleted and created again. */
async function burst(): Promise<void> {
  const names = Array.from({ length: 60 }, (_, index) => `role-${index}`);
  await Promise.all(
    names.map(async (name, index) => {
      await direct.create(roles, role(name));
      await direct.mergePatch(roles, { namespace, name }, { metadata: { labels: { round: '1' } } });
      if (index < 40) await direct.delete(roles, { namespace, name });
      if (index < 20) await direct.create(roles, role(name));
      if (index < 20) {
        const patch = { metadata: { labels: { round: '2' } } };
        await direct.mergePatch(roles, { namespace, name }, patch);
      }
    }),
  );
}

describe('list/watch of a real API server', () => {
  test('follows creates, changes, deletes, and what is created again', async () => {
    const one = start(roles);
    await one.listWatch.whenSynced();
    await direct.create(roles, role('a'));
    await direct.apply(roles, role('a', { b: 'c' }));
    await direct.delete(roles, { namespace, name: 'a' });
    await direct.create(roles, role('a'));
    await upToDate(one);

    expect(one.changes.map(({ type }) => type)).toEqual(['added', 'updated', 'deleted', 'added']);
    expect(one.ends).toEqual([]);
    expect(one.listWatch.store.get(`${namespace}/a`)?.metadata).not.toHaveProperty('managedFields');
    expect(one.listWatch.store.get(`${namespace}/a`)?.kind).toBe('Role');
  });

  test('what leaves the selector is deleted, what enters it added', async () => {
    const one = start(roles, { labelSelector: 'mine=yes' });
    await one.listWatch.whenSynced();
    const key = { namespace, name: 'a' };
    await direct.create(roles, role('a', { mine: 'yes' }));
    await direct.mergePatch(roles, key, { metadata: { labels: { mine: 'no' } } });
    await direct.mergePatch(roles, key, { metadata: { labels: { mine: 'yes' } } });
    await waitFor('three changes', () => one.changes.length === 3);

    expect(one.changes.map(({ type }) => type)).toEqual(['added', 'deleted', 'added']);
  });

  test('reads a list of several pages', async () => {
    await Promise.all(
      Array.from({ length: 520 }, (_, index) => direct.create(roles, role(`role-${index}`))),
    );
    const one = start(roles);
    await one.listWatch.whenSynced();
    expect(one.listWatch.store.size).toBe(520);
    await upToDate(one);
  });

  test('a watch that the server ends in time is followed by the next, without a list', async () => {
    const one = start(roles, { timings: { minTimeoutSeconds: 3, maxTimeoutSeconds: 3 } });
    await one.listWatch.whenSynced();
    await waitFor('the server to end the watch', () => one.ends.length > 0);
    await direct.create(roles, role('a'));
    await upToDate(one);

    expect(new Set(one.ends)).toEqual(new Set(['timeout']));
    expect(one.relists).toEqual([]);
  });

  test('bookmarks come with the version of changes that a watch does not show', async () => {
    const { resourceVersion } = await direct.listPage(roles, { namespace });
    const options = { namespace, resourceVersion, timeoutSeconds: 15 };
    const events: [string, string | undefined][] = [];
    const { signal } = new AbortController();
    let elsewhere: Role | undefined;
    const onOpen = (): void => {
      void direct.create(roles, role('a'));
    };
    for await (const { type, object } of direct.watch(roles, { ...options, signal, onOpen })) {
      events.push([type, object.metadata.resourceVersion]);
      const metadata = { namespace: 'default', name: namespace };
      if (type === 'ADDED') elsewhere = await direct.create(roles, { ...role('b'), metadata });
    }

    expect(events.map(([type]) => type)).toContain('BOOKMARK');
    // The server sends the last one about two seconds before the end.
    expect(events.at(-1)).toEqual(['BOOKMARK', elsewhere?.metadata.resourceVersion]);
  });

  test.each([
    ['between the first events', 1_500],
    ['in the middle', 40_000],
    ['near the end', 90_000],
  ])('a watch cut in a burst of 200 changes loses none: %s', async (_, bytes) => {
    const one = start(roles);
    await one.listWatch.whenSynced();
    proxy.cutAfter(bytes);
    await burst();
    await upToDate(one);

    expect(proxy.cuts).toBe(1);
    expect(one.ends).toEqual(['disconnected']);
    expect(one.relists).toEqual([]);
    expect(one.listWatch.store.size).toBe(40);
  });

  test('a half-open connection is found out, and nothing is lost', async () => {
    const one = start(roles, { timings: { inactivityMs: 2_000 } });
    await one.listWatch.whenSynced();
    await direct.create(roles, role('seen'));
    await upToDate(one);
    proxy.silence();
    await burst();
    await upToDate(one);

    expect(one.ends).toContain('inactive');
  });

  test('a restart of the API server is survived, with what changed around it', async () => {
    const one = start(roles);
    await one.listWatch.whenSynced();
    await direct.create(roles, role('before'));
    await upToDate(one);
    await controlPlane.restartApiServer();
    await waitFor('a write to pass', () => direct.create(roles, role('after')));
    await direct.delete(roles, { namespace, name: 'before' });
    await upToDate(one);

    expect(one.ends.length).toBeGreaterThan(0);
    expect([...one.listWatch.store.list()].map(keyOf)).toEqual([`${namespace}/after`]);
  });

  test('a version from before a restart is answered with 410', async () => {
    await controlPlane.restartApiServer();
    await waitFor('a write to pass', () => direct.create(roles, role('after')));
    const signal = AbortSignal.timeout(120_000);
    const options = { resourceVersion: '1', timeoutSeconds: 10, signal };
    const codes: unknown[] = [];
    try {
      for await (const { type, object } of direct.watch(roles, options)) {
        codes.push(type === 'ERROR' && 'code' in object ? object.code : type);
      }
    } catch (error) {
      codes.push(error instanceof Error && 'status' in error ? error.status : error);
    }
    expect(codes).toEqual([410]);
  });

  test('a kind that is not served yet is waited for', async () => {
    const widgets: Resource = {
      group: 'example.dev',
      version: 'v1',
      kind: 'Widget',
      plural: 'widgets',
      namespaced: true,
    };
    const one = start(widgets, { timings: { minBackoffMs: 100, maxBackoffMs: 500 } });
    await controlPlane.apply([
      {
        apiVersion: 'apiextensions.k8s.io/v1',
        kind: 'CustomResourceDefinition',
        metadata: { name: 'widgets.example.dev' },
        spec: {
          group: 'example.dev',
          scope: 'Namespaced',
          names: { kind: 'Widget', plural: 'widgets' },
          versions: [
            {
              name: 'v1',
              served: true,
              storage: true,
              schema: {
                openAPIV3Schema: {
                  type: 'object',
                  'x-kubernetes-preserve-unknown-fields': true,
                },
              },
            },
          ],
        },
      },
    ]);
    await one.listWatch.whenSynced();
    await direct.create(widgets, { metadata: { namespace, name: 'w' } });
    await waitFor('the widget', () => one.listWatch.store.get(`${namespace}/w`) !== undefined);
  });
});

describe('client of a real API server', () => {
  test('100 calls share a TLS connection or two', async () => {
    for (let call = 0; call < 100; call++) await proxied.get(namespaces, { name: namespace });
    expect(proxy.connections).toBeLessThanOrEqual(2);
  });

  test('apply is sparse: it takes back what it no longer says, and nothing of others', async () => {
    await direct.apply(roles, role('a', { mine: '1', gone: '1' }));
    const other = new ApiServerClient({
      kubeConfig: directConfig,
      userAgent: 'test/1',
      fieldManager: 'other',
    });
    await other.mergePatch(
      roles,
      { namespace, name: 'a' },
      { metadata: { labels: { theirs: '1' } } },
    );
    const applied = await direct.apply(roles, role('a', { mine: '2' }));

    expect(applied.metadata.labels).toEqual({ mine: '2', theirs: '1' });
  });

  test('a dry run stores nothing, a stale version is a conflict, a UID guards a delete', async () => {
    const key = { namespace, name: 'a' };
    await direct.create(roles, role('a'), { dryRun: true });
    expect(await direct.get(roles, key)).toBeUndefined();

    const { metadata } = await direct.create(roles, role('a'));
    await direct.mergePatch(roles, key, { metadata: { labels: { a: '1' } } });
    const { resourceVersion, uid = '' } = metadata;
    await expect(
      direct.mergePatch(roles, key, { metadata: { resourceVersion, labels: { a: '2' } } }),
    ).rejects.toSatisfy(isConflict);

    expect(await direct.delete(roles, key, { uid: '00000000-0000-0000-0000-000000000000' })).toBe(
      false,
    );
    expect(await direct.delete(roles, key, { uid })).toBe(true);
  });
});
