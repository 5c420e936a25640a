import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { KubeConfig } from '@kubernetes/client-node';
import { afterEach, beforeEach, describe, expect, it, vi, type MockInstance } from 'vitest';
import { FakeApiServer } from '../../test/fault/fake-api-server.ts';
import { waitFor } from '../../test/control-plane/wait.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { silentLogger, type Logger } from '../observability/logger.ts';
import { ApiServerClient } from './client.ts';
import type { Change, Informer } from './list-watch.ts';
import {
  OperatorHost,
  ResourceEventType,
  type OperatorHostOptions,
  type ResourceEvent,
} from './operator-host.ts';
import { ObjectStore } from './store.ts';

/** What the base class offers to those who extend it, made public. */
class ExposedHost extends OperatorHost {
  override watchResource(...args: Parameters<OperatorHost['watchResource']>): Promise<void> {
    return super.watchResource(...args);
  }
  override registerCustomResourceDefinition(): Promise<never> {
    return super.registerCustomResourceDefinition();
  }
  override getCustomResourceApiUri(group: string, version: string, plural: string, ns?: string) {
    return super.getCustomResourceApiUri(group, version, plural, ns);
  }
  override setResourceStatus(...args: Parameters<OperatorHost['setResourceStatus']>) {
    return super.setResourceStatus(...args);
  }
  override patchResourceStatus(...args: Parameters<OperatorHost['patchResourceStatus']>) {
    return super.patchResourceStatus(...args);
  }
  override setResourceFinalizers(...args: Parameters<OperatorHost['setResourceFinalizers']>) {
    return super.setResourceFinalizers(...args);
  }
  override handleResourceFinalizer(...args: Parameters<OperatorHost['handleResourceFinalizer']>) {
    return super.handleResourceFinalizer(...args);
  }
  get config(): KubeConfig {
    return this.kubeConfig;
  }
}

/** A cache that the test fills. */
class TestInformer implements Informer<KubeObject> {
  readonly resource: Resource;
  readonly store = new ObjectStore<KubeObject>();
  readonly hasSynced = true;
  readonly stalenessMs = 0;
  readonly isForbidden = false;
  readonly #listeners: ((change: Change<KubeObject>) => void)[] = [];

  constructor(resource: Resource) {
    this.resource = resource;
  }

  whenSynced(): Promise<void> {
    return Promise.resolve();
  }

  onVisibility(): void {}

  onChange(listener: (change: Change<KubeObject>) => void): void {
    this.#listeners.push(listener);
  }

  put(object: KubeObject): void {
    const previous = this.store.set(object);
    this.#say({ type: previous === undefined ? 'added' : 'updated', object });
  }

  remove(key: string): void {
    const object = this.store.delete(key);
    if (object !== undefined) this.#say({ type: 'deleted', object });
  }

  #say(change: Change<KubeObject>): void {
    for (const listener of this.#listeners) listener(change);
  }
}

const automationIdentities: Resource = resources.automationIdentities;
const group = automationIdentities.group;

let server: FakeApiServer;
let informer: TestInformer;
let host: ExposedHost;
let exit: MockInstance<typeof process.exit>;

function hostWith(options: Partial<OperatorHostOptions> = {}): ExposedHost {
  const kubeConfig = server.kubeConfig();
  return new ExposedHost({
    kubeConfig,
    client: new ApiServerClient({ kubeConfig, userAgent: 'test' }),
    logger: silentLogger(),
    services: [],
    informerOf: (_group, _version, plural) =>
      plural === informer.resource.plural ? informer : undefined,
    ...options,
  });
}

beforeEach(async () => {
  server = await new FakeApiServer().start();
  informer = new TestInformer(automationIdentities);
  exit = vi.spyOn(process, 'exit').mockImplementation(() => {
    throw new Error('process.exit was called');
  });
  host = hostWith();
});

afterEach(async () => {
  host.stop();
  await host.stopped();
  await server.stop();
  expect(exit).not.toHaveBeenCalled();
  exit.mockRestore();
  vi.unstubAllEnvs();
  process.exitCode = undefined;
});

function identity(name: string, fields: object = {}): KubeObject {
  const metadata = { name, namespace: 'a', uid: `uid-${name}`, resourceVersion: '1', ...fields };
  return { apiVersion: `${group}/v1alpha1`, kind: 'AutomationIdentity', metadata };
}

/** Stores an object on the server, and makes the event that a cache of it would tell. */
function stored(fields: { finalizers?: string[] } = {}, status?: object): ResourceEvent {
  const body = { metadata: { name: 'bot', namespace: 'a', ...fields }, status };
  const object = server.put(automationIdentities, body);
  return {
    type: ResourceEventType.Added,
    object: JSON.parse(JSON.stringify(object)),
    meta: {
      id: `automationidentities.${group}/v1alpha1`,
      name: 'bot',
      namespace: 'a',
      apiVersion: `${group}/v1alpha1`,
      kind: 'AutomationIdentity',
      resourceVersion: object.metadata.resourceVersion,
    },
  };
}

function live() {
  return server.get(automationIdentities, 'a/bot');
}

describe('the life of the host', () => {
  it('runs its services until it is stopped', async () => {
    const ended: string[] = [];
    const service = (name: string) => ({
      name,
      run: (signal: AbortSignal) =>
        new Promise<void>((resolve) => {
          signal.addEventListener('abort', () => {
            ended.push(name);
            resolve();
          });
        }),
    });
    host = hostWith({ services: [service('a'), service('b')] });

    await host.start();
    expect(ended).toEqual([]);
    host.stop();
    await host.stopped();

    expect(ended).toEqual(['a', 'b']);
    expect(process.exitCode).toBeUndefined();
  });

  it.each([
    ['fails', () => Promise.reject(new Error('no port'))],
    ['ends by itself', () => Promise.resolve()],
  ])('stops the other services when one %s', async (_case, run) => {
    let wasStopped = false;
    host = hostWith({
      services: [
        { name: 'broken', run },
        {
          name: 'other',
          run: (signal) =>
            new Promise((resolve) => {
              signal.addEventListener('abort', () => {
                wasStopped = true;
                resolve();
              });
            }),
        },
      ],
    });

    await host.start();
    await host.stopped();

    expect(wasStopped).toBe(true);
    expect(process.exitCode).toBe(1);
  });

  it('starts nothing after it was stopped, and nothing twice', async () => {
    const run = vi.fn(() => Promise.resolve());
    host = hostWith({ services: [{ name: 'a', run }] });

    host.stop();
    await host.start();
    await host.stopped();

    expect(run).not.toHaveBeenCalled();
    await expect(host.start()).rejects.toMatchObject({ code: 'OPERATOR_HOST' });
  });

  it('uses the configuration that it is given, and reads no other', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'operator-host-'));
    const noContext = path.join(folder, 'config');
    writeFileSync(
      noContext,
      'apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n',
    );

    for (const file of [path.join(folder, 'missing'), noContext]) {
      vi.stubEnv('KUBECONFIG', file);
      expect(hostWith().config.getCurrentCluster()?.server).toBe(server.url);
    }
    expect(Object.keys(host)).toContain('kubeConfig');
    rmSync(folder, { recursive: true });
  });
});

describe('watchResource', () => {
  const told: string[] = [];
  const tell = (event: ResourceEvent): Promise<void> => {
    told.push(`${event.type} ${event.meta.name} ${event.meta.resourceVersion}`);
    return Promise.resolve();
  };
  const watch = (onEvent = tell, namespace?: string) =>
    host.watchResource(group, 'v1alpha1', 'automationidentities', onEvent, namespace);

  beforeEach(() => {
    told.length = 0;
  });

  it('tells of what is there, of what comes, changes and goes', async () => {
    informer.put(identity('a'));
    await watch();
    informer.put(identity('b'));
    await waitFor('both', () => told.length === 2);

    informer.put(identity('b', { resourceVersion: '2' }));
    await waitFor('the change', () => told.length === 3);
    informer.remove('a/b');
    await waitFor('the deletion', () => told.length === 4);

    expect(told).toEqual(['ADDED a 1', 'ADDED b 1', 'MODIFIED b 2', 'DELETED b 2']);
  });

  it('makes one event of changes that come faster than they are handled', async () => {
    await watch();

    for (let version = 1; version <= 100; version++) {
      informer.put(identity('a', { resourceVersion: String(version) }));
    }

    await waitFor('the event', () => told.length > 0);
    expect(told).toEqual(['ADDED a 100']);
  });

  it('tells of an object that was re-created as of two', async () => {
    await watch();
    informer.put(identity('a'));
    await waitFor('the first', () => told.length === 1);

    informer.remove('a/a');
    informer.put(identity('a', { uid: 'other', resourceVersion: '3' }));

    await waitFor('the second', () => told.length === 3);
    expect(told).toEqual(['ADDED a 1', 'DELETED a 1', 'ADDED a 3']);
  });

  it('keeps to a namespace', async () => {
    await watch(tell, 'b');

    informer.put(identity('a'));
    informer.put(identity('c', { namespace: 'b' }));

    await waitFor('the event', () => told.length > 0);
    expect(told).toEqual(['ADDED c 1']);
  });

  it('hands out copies: a handler cannot change the cache', async () => {
    let handled = false;
    await watch(({ object }) => {
      object.metadata!.labels = { changed: 'yes' };
      object.metadata!.finalizers!.push('changed');
      handled = true;
      return Promise.resolve();
    });

    informer.put(identity('a', { finalizers: ['x'] }));

    await waitFor('the handler', () => handled);
    expect(informer.store.get('a/a')?.metadata).toMatchObject({ finalizers: ['x'] });
    expect(informer.store.get('a/a')?.metadata.labels).toBeUndefined();
  });

  it.each([
    ['rejects', () => Promise.reject(new Error('broken'))],
    [
      'throws',
      () => {
        throw new Error('broken');
      },
    ],
  ])('logs it when a handler %s, calls it again and goes on', async (_case, fail) => {
    const errors: object[] = [];
    const logger: Logger = {
      ...silentLogger(),
      error: (_message, metadata = {}) => errors.push(metadata),
      child: () => logger,
    };
    host = hostWith({ logger });
    let failures = 3;
    await watch((event) => (event.meta.name === 'a' && failures-- > 0 ? fail() : tell(event)));

    informer.put(identity('a'));
    informer.put(identity('b'));

    await waitFor('both', () => told.length === 2);
    expect(told.toSorted()).toEqual(['ADDED a 1', 'ADDED b 1']);
    expect(errors).toHaveLength(3);
    expect(errors[0]).toMatchObject({ key: 'a/a', error: { message: 'broken' } });
  });

  it('tells of nothing once the host is stopped', async () => {
    await watch();
    host.stop();
    await host.stopped();

    informer.put(identity('a'));

    await Promise.resolve();
    expect(told).toEqual([]);
  });

  it('refuses a resource of which there is no cache', async () => {
    await expect(
      host.watchResource('', 'v1', 'secrets', () => Promise.resolve()),
    ).rejects.toMatchObject({ code: 'OPERATOR_HOST' });
    expect(server.requests).toEqual([]);
  });
});

describe('status', () => {
  it('set replaces the whole of it', async () => {
    const { meta } = stored({}, { keep: 1, nested: { a: 1, b: 2 } });

    const after = await host.setResourceStatus(meta, { nested: { a: 3 } });

    expect(live()?.status).toEqual({ nested: { a: 3 } });
    expect(after).toEqual({ ...meta, resourceVersion: live()?.metadata.resourceVersion });
    expect(after.resourceVersion).not.toBe(meta.resourceVersion);
  });

  it('patch merges into it', async () => {
    const { meta } = stored({}, { keep: 1, nested: { a: 1, b: 2 } });

    await host.patchResourceStatus(meta, { nested: { a: 3, b: null } });

    expect(live()?.status).toEqual({ keep: 1, nested: { a: 3 } });
  });

  it.each(['setResourceStatus', 'patchResourceStatus'] as const)(
    '%s throws where the object has changed since',
    async (method) => {
      const { meta } = stored({}, { a: 1 });
      server.put(automationIdentities, { metadata: { name: 'bot', namespace: 'a' } });

      await expect(host[method](meta, { a: 2 })).rejects.toMatchObject({ status: 409 });
    },
  );

  it.each(['setResourceStatus', 'patchResourceStatus'] as const)(
    '%s throws what the API server says',
    async (method) => {
      const { meta } = stored();
      server.faults.next('patch', { kind: 'status', status: 403, reason: 'Forbidden' });

      await expect(host[method](meta, {})).rejects.toMatchObject({ status: 403 });
    },
  );

  it('is not written without a version to write on', async () => {
    const { meta } = stored();
    const blind = { ...meta, resourceVersion: '' };

    await expect(host.setResourceStatus(blind, {})).rejects.toMatchObject({
      code: 'OPERATOR_HOST',
    });
    await expect(host.patchResourceStatus(blind, {})).rejects.toThrow('keeps no version');
    await expect(host.setResourceFinalizers(blind, [])).rejects.toThrow('keeps no version');
    expect(server.requests).toEqual([]);
  });
});

describe('finalizers', () => {
  it('are added once', async () => {
    const event = stored({ finalizers: ['other'] });
    const action = vi.fn(() => Promise.resolve());

    expect(await host.handleResourceFinalizer(event, 'ours', action)).toBe(true);

    expect(live()?.metadata.finalizers).toEqual(['other', 'ours']);
    const again = stored({ finalizers: ['other', 'ours'] });
    expect(await host.handleResourceFinalizer(again, 'ours', action)).toBe(false);
    expect(action).not.toHaveBeenCalled();
  });

  it('are removed after the action, of an object that is being deleted', async () => {
    const event = stored({ finalizers: ['other', 'ours'] });
    event.object.metadata!.deletionTimestamp = new Date(0);
    let before: string[] | undefined;

    const done = await host.handleResourceFinalizer(event, 'ours', () => {
      before = live()?.metadata.finalizers;
      return Promise.resolve();
    });

    expect(done).toBe(true);
    expect(before).toEqual(['other', 'ours']);
    expect(live()?.metadata.finalizers).toEqual(['other']);
  });

  it('stay when the action fails', async () => {
    const event = stored({ finalizers: ['ours'] });
    event.object.metadata!.deletionTimestamp = new Date(0);

    await expect(
      host.handleResourceFinalizer(event, 'ours', () => Promise.reject(new Error('not yet'))),
    ).rejects.toThrow('not yet');

    expect(live()?.metadata.finalizers).toEqual(['ours']);
  });

  it('leave the event as it is', async () => {
    const event = stored({ finalizers: ['other'] });
    const before = structuredClone(event);

    await host.handleResourceFinalizer(event, 'ours', () => Promise.resolve());

    expect(event).toEqual(before);
  });

  it("do not undo somebody else's", async () => {
    const event = stored();
    server.put(automationIdentities, {
      metadata: { name: 'bot', namespace: 'a', finalizers: ['theirs'] },
    });

    await expect(
      host.handleResourceFinalizer(event, 'ours', () => Promise.resolve()),
    ).rejects.toMatchObject({ status: 409 });

    expect(live()?.metadata.finalizers).toEqual(['theirs']);
  });
});

describe('what is left to others', () => {
  it('refuses to register a CRD, without reading the file or asking the server', async () => {
    await expect(host.registerCustomResourceDefinition()).rejects.toMatchObject({
      code: 'OPERATOR_HOST',
    });
    expect(server.requests).toEqual([]);
  });

  it.each([
    [['apps', 'v1', 'deployments', 'a'], '/apis/apps/v1/namespaces/a/deployments'],
    [['apps', 'v1', 'deployments'], '/apis/apps/v1/deployments'],
    [['', 'v1', 'pods', 'a'], '/api/v1/namespaces/a/pods'],
    [['', 'v1', 'nodes'], '/api/v1/nodes'],
  ] as [[string, string, string, string?], string][])('knows the URL of %j', (args, expected) => {
    expect(host.getCustomResourceApiUri(...args)).toBe(server.url + expected);
  });
});
