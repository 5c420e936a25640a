import { randomBytes } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { annotation, label, MANAGED_BY, secretNameOf } from '../../src/api/names.ts';
import { keyOf, type KubeObject, type Pod, type Role, type Secret } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { projectWorkload, workloadCache, type Workload } from '../../src/api/workload.ts';
import {
  AutomationIdentityController,
  keysFor,
} from '../../src/controllers/automation-identity.ts';
import { Departures } from '../../src/controllers/offboarding.ts';
import { RequesterRights } from '../../src/controllers/requester.ts';
import { RevokedTokens } from '../../src/guardrails/credentials/revoked-tokens.ts';
import { CopyLedger } from '../../src/guardrails/secret-store/ledger.ts';
import { noSecretStore } from '../../src/guardrails/secret-store/store.ts';
import { bindingIndexes } from '../../src/guardrails/identity/bindings.ts';
import { podSecretKeys, projectPod } from '../../src/guardrails/kill-switch/pods.ts';
import { EventRecorder } from '../../src/observability/events.ts';
import { createLogger } from '../../src/observability/logger.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { Applier } from '../../src/runtime/applier.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { Controller } from '../../src/runtime/controller.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { ListWatch, type ListWatchOptions } from '../../src/runtime/list-watch.ts';
import { mergeStores } from '../../src/runtime/merged-store.ts';
import { StatusWriter } from '../../src/runtime/status-writer.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { getObject, installGuardrails, kubectlOk, listObjects } from '../operator/cluster.ts';

const hour = 3_600_000;
const name = 'poster';

/** Added to the clock of the controller under test. */
let ahead = 0;
const clock = (): number => Date.now() + ahead;

const logged: string[] = [];
const metrics = new Metrics({ version: 'test' });
const secretValues = new Set<string>();

const { object: _, ...workloadResource } = resources.deployments;

let controlPlane: ControlPlane;
let kubeconfig: string;
let events: EventRecorder;
let operator: RunningOperator;

interface RunningOperator {
  enqueue(key: string): void;
  stop(): Promise<void>;
}

/** This controller, its caches and its queue, with the operator's own rights. */
async function startOperator(): Promise<RunningOperator> {
  const stopping = new AbortController();
  const destination = new PassThrough();
  destination.on('data', (chunk: Buffer) => logged.push(chunk.toString()));
  const logger = createLogger({ level: 'debug', destination });
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig });
  const client = new ApiServerClient({ kubeConfig, userAgent: 'identity-test', metrics });
  events = new EventRecorder({ client, logger, instance: 'identity-test' });

  const caches: Pick<ListWatch<KubeObject>, 'run' | 'whenSynced'>[] = [];
  const watch = <T extends KubeObject>(
    resource: Resource<T>,
    options: Partial<ListWatchOptions<T>> = {},
  ): ListWatch<T> => {
    const cache = new ListWatch<T>({ client, metrics, logger, resource, ...options });
    caches.push(cache);
    return cache;
  };
  const managed = { labelSelector: `${label.managedBy}=${MANAGED_BY}` };
  const identities = watch(resources.automationIdentities, {
    indexes: { namespace: ({ metadata }) => [metadata.namespace ?? ''] },
  });
  const namespaces = watch(resources.namespaces);
  const killSwitches = watch(resources.killSwitches);
  const accessReviews = watch(resources.accessReviews, {
    indexes: { identity: keysFor.accessReview },
  });
  const children = [
    watch(resources.serviceAccounts, managed),
    watch(resources.roles, managed),
    watch(resources.roleBindings, { ...managed, indexes: bindingIndexes }),
  ] as const;
  const [serviceAccounts, roles, roleBindings] = children;
  const clusterRoles = watch(resources.clusterRoles);
  const clusterRoleBindings = watch(resources.clusterRoleBindings, { indexes: bindingIndexes });
  const pods = watch<Pod>(resources.pods, {
    project: projectPod,
    indexes: { secret: podSecretKeys },
  });
  const workloads = watch<Workload>(workloadResource, workloadCache('Deployment'));

  const departures = new Departures();
  identities.onChange(({ type, object }) => {
    if (type === 'deleted') departures.add(object);
  });
  const controller = new Controller({
    reconciler: new AutomationIdentityController({
      client,
      applier: new Applier({ client }),
      statusWriter: new StatusWriter({ client }),
      events,
      metrics,
      identities: identities.store,
      namespaces: namespaces.store,
      killSwitches: killSwitches.store,
      accessReviews: accessReviews.store,
      serviceAccounts: serviceAccounts.store,
      roles: roles.store,
      roleBindings: roleBindings.store,
      clusterRoles,
      clusterRoleBindings,
      workloads: mergeStores([workloads.store]),
      pods: pods.store,
      approvals: { of: () => undefined },
      requester: new RequesterRights(client),
      policy: {
        ofIdentity: () => ({ tier: 'test', finding: undefined, missing: [], changesAt: undefined }),
      },
      clock,
      randomBytes,
      departures,
      revokedTokens: new RevokedTokens({ clock }),
      secretStore: noSecretStore,
      copyLedger: new CopyLedger({ client, namespace: 'automation-guardrails', logger }),
    }),
    workers: 4,
    metrics,
    logger,
    maxDelayMs: 500,
  });
  const enqueueAll = (keys: string[]): void => keys.forEach((key) => controller.enqueue(key));
  identities.onChange(({ object }) => enqueueAll(keysFor.identity(object)));
  killSwitches.onChange(({ object }) => enqueueAll(keysFor.killSwitch(object, identities.store)));
  namespaces.onChange(({ object }) => enqueueAll(keysFor.namespace(object, identities.store)));
  for (const cache of children) cache.onChange(({ object }) => enqueueAll(keysFor.child(object)));

  const watching = Promise.all(caches.map((cache) => cache.run(stopping.signal)));
  await Promise.all(caches.map((cache) => cache.whenSynced()));
  const working = controller.run(stopping.signal, [...identities.store.list()].map(keyOf));
  return {
    enqueue: (key) => controller.enqueue(key),
    stop: async () => {
      stopping.abort();
      await Promise.all([working, watching]);
      await events.flush();
      await kubeConfig.closeConnections();
      await logger.close();
    },
  };
}

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfig = await installGuardrails(controlPlane);
  operator = await startOperator();
});

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
});

/** The garbage collector learns of new kinds every 30 seconds only. */
const collected = { timeoutMs: 100_000 };

const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };
const reads = {
  apiGroups: [''],
  resources: ['configmaps'],
  verbs: ['get', 'list'],
  reason: 'its settings',
};
const erp = {
  name: 'erp',
  type: 'Password',
  rotation: { every: '24h', overlap: '2h', restartConsumers: true },
};

const complete = { purpose: 'posts invoices', owner, permissions: [reads], secrets: [erp] };

async function declare(namespace: string, spec: object, environment = 'prod'): Promise<void> {
  const labels = environment === '' ? {} : { [label.environment]: environment };
  await controlPlane.apply([
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace, labels } },
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec,
    },
  ]);
}

function get<T>(kind: string, namespace: string, object = name): Promise<T | undefined> {
  return getObject<T>(controlPlane, kind, object, namespace);
}

async function ready(namespace: string, reason: string): Promise<AutomationIdentity> {
  return waitFor(`${namespace}/${name} to be ${reason}`, async () => {
    const identity = await get<AutomationIdentity>('aid', namespace);
    const found = identity?.status?.conditions?.find(({ type }) => type === 'Ready');
    return found?.reason === reason && found.observedGeneration === identity?.metadata.generation
      ? identity
      : undefined;
  });
}

/** The Secret; its values are remembered, to be looked for where they don't belong. */
async function secretOf(namespace: string): Promise<Secret | undefined> {
  const secret = await get<Secret>('secret', namespace, secretNameOf(name, 'erp'));
  for (const value of Object.values(secret?.data ?? {})) {
    secretValues.add(value).add(Buffer.from(value, 'base64').toString());
  }
  return secret;
}

async function secretWhere(
  namespace: string,
  description: string,
  test: (secret: Secret) => boolean,
): Promise<Secret> {
  return waitFor(description, async () => {
    operator.enqueue(`${namespace}/${name}`);
    const secret = await secretOf(namespace);
    return secret !== undefined && test(secret) ? secret : undefined;
  });
}

async function canI(namespace: string, verb: string, resource: string): Promise<boolean> {
  const { stdout } = await controlPlane.kubectl(
    ['auth', 'can-i', verb, resource, `-n=${namespace}`],
    { as: `system:serviceaccount:${namespace}:${name}` },
  );
  return stdout.trim() === 'yes';
}

/** The API server's authorizer hears of a RoleBinding a moment after it is written. */
async function comesTo(is: boolean, ...what: Parameters<typeof canI>): Promise<void> {
  await waitFor(`${what.join(' ')}: ${is}`, async () => (await canI(...what)) === is);
}

/** Whatever the namespace has of ours, by kind and version: equal means untouched. */
async function versions(namespace: string): Promise<string[]> {
  const objects = await listObjects<KubeObject>(
    controlPlane,
    'serviceaccounts,roles,rolebindings,secrets',
    namespace,
  );
  return objects
    .filter(({ metadata }) => metadata.name.includes(name))
    .map(({ kind, metadata }) => `${kind} ${metadata.uid} ${metadata.resourceVersion}`);
}

describe('permissions of an AutomationIdentity', () => {
  const namespace = 'permissions';

  it('are granted to its own ServiceAccount, and no more than that', async () => {
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
    expect(await get('serviceaccount', namespace)).toMatchObject({
      automountServiceAccountToken: false,
      metadata: { labels: { [label.identity]: name, [label.managedBy]: MANAGED_BY } },
    });
    await comesTo(true, namespace, 'list', 'configmaps');
    expect(await canI(namespace, 'delete', 'configmaps')).toBe(false);
    expect(await canI(namespace, 'get', 'secrets')).toBe(false);
  });

  it('are written once: a look at what stands changes nothing', async () => {
    const before = await versions(namespace);
    expect(before).toHaveLength(5);
    const { metadata } = await ready(namespace, 'Provisioned');
    await operator.stop();
    operator = await startOperator();
    await controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'sentinel' } },
    ]);
    await declare('sentinel', complete);
    await ready('sentinel', 'Provisioned');
    expect(await versions(namespace)).toEqual(before);
    expect((await ready(namespace, 'Provisioned')).metadata).toEqual(metadata);
  });

  it.each(['serviceaccount', 'role', 'rolebinding'])(
    'come back when the %s is deleted',
    async (kind) => {
      const before = await get<KubeObject>(kind, namespace);
      await kubectlOk(controlPlane, ['delete', kind, name, `-n=${namespace}`]);
      await waitFor(`the ${kind} to come back`, async () => {
        const object = await get<KubeObject>(kind, namespace);
        return object !== undefined && object.metadata.uid !== before?.metadata.uid;
      });
      await comesTo(true, namespace, 'list', 'configmaps');
    },
  );

  it.each([
    [
      'serviceaccount',
      { automountServiceAccountToken: true, metadata: { labels: { [label.identity]: 'x' } } },
    ],
    ['role', { rules: [{ apiGroups: [''], resources: ['secrets'], verbs: ['list'] }] }],
    [
      'rolebinding',
      { subjects: [{ kind: 'User', name: 'mallory', apiGroup: 'rbac.authorization.k8s.io' }] },
    ],
  ])('come back when the %s is edited', async (kind, edit) => {
    const before = await get<KubeObject & Role>(kind, namespace);
    await kubectlOk(controlPlane, [
      'patch',
      kind,
      name,
      `-n=${namespace}`,
      '--type=merge',
      `-p=${JSON.stringify(edit)}`,
    ]);
    await waitFor(`the ${kind} to be as before`, async () => {
      const { metadata: was, ...content } = before!;
      const { metadata: is, ...now } = (await get<KubeObject & Role>(kind, namespace))!;
      expect(now).toEqual(content);
      expect(is.labels).toEqual(was.labels);
      return true;
    });
  });

  it('are taken away when the spec has none', async () => {
    await declare(namespace, { ...complete, permissions: [] });
    await waitFor('Role and RoleBinding to be gone', async () => {
      const standing = await Promise.all([get('role', namespace), get('rolebinding', namespace)]);
      return standing.every((object) => object === undefined);
    });
    expect(await get('serviceaccount', namespace)).toBeDefined();
    await comesTo(false, namespace, 'list', 'configmaps');
  });

  it('that can’t be granted are named, and what is no longer asked for goes all the same', async () => {
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
    const more = { ...reads, apiGroups: ['apps'], resources: ['daemonsets'], verbs: ['delete'] };
    await declare(namespace, { ...complete, permissions: [{ ...reads, verbs: ['get'] }, more] });
    const { status } = await ready(namespace, 'PermissionsNotGrantable');
    expect(status?.conditions?.[0]?.message).toContain('delete daemonsets of apps');
    await comesTo(false, namespace, 'list', 'configmaps');
    expect(await canI(namespace, 'get', 'configmaps')).toBe(true);
    expect(await canI(namespace, 'delete', 'daemonsets.apps')).toBe(false);
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
  });
});

describe('a held AutomationIdentity', () => {
  const namespace = 'held';

  it('gets nothing until it is complete and its namespace guarded', async () => {
    await declare(namespace, { ...complete, owner: { team: 'finance' } }, '');
    const { status } = await ready(namespace, 'Incomplete');
    expect(status?.conditions?.slice(0, 2)).toMatchObject([
      { type: 'Ready', status: 'False' },
      { type: 'Held', status: 'True', reason: 'Incomplete' },
    ]);
    expect(status?.conditions?.[1]?.message).toMatch(
      /^Missing spec\.owner\.contact, spec\.owner\.escalation\. Missing the environment of namespace held:/,
    );
    expect(await versions(namespace)).toEqual([]);

    await declare(namespace, complete, '');
    await ready(namespace, 'NamespaceNotGuarded');
    expect(await versions(namespace)).toEqual([]);
    await kubectlOk(controlPlane, ['label', 'namespace', namespace, `${label.environment}=prod`]);
    await ready(namespace, 'Provisioned');
  });

  it('keeps what it has when something goes missing', async () => {
    const before = await versions(namespace);
    await declare(namespace, { ...complete, purpose: '' });
    await ready(namespace, 'PurposeMissing');
    expect(await versions(namespace)).toEqual(before);
  });
});

describe('objects that somebody else made', () => {
  const namespace = 'foreign';

  it('are named, left alone, and stand in the way of nothing else', async () => {
    const metadata = { name, namespace };
    const subject = { kind: 'User', name: 'alice', apiGroup: 'rbac.authorization.k8s.io' };
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
      },
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
      { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', metadata, rules: [] },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'RoleBinding',
        metadata,
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
        subjects: [subject],
      },
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: secretNameOf(name, 'erp'), namespace },
        stringData: { password: 'theirs' },
      },
    ]);
    const before = await versions(namespace);
    expect(before).toHaveLength(4);
    await declare(namespace, complete);
    const { status } = await ready(namespace, 'ForeignObject');
    const message = status?.conditions?.[0]?.message;
    expect(message).toContain(`kubectl -n foreign delete serviceaccounts ${name}`);
    expect(message).toContain(`kubectl -n foreign delete secrets ${secretNameOf(name, 'erp')}`);

    expect(await versions(namespace)).toEqual(before);
  });

  it('are replaced once their owner has deleted them', async () => {
    const objects = ['serviceaccount', 'role', 'rolebinding'].map((kind) => `${kind}/${name}`);
    await kubectlOk(controlPlane, [
      'delete',
      `-n=${namespace}`,
      ...objects,
      `secret/${secretNameOf(name, 'erp')}`,
    ]);
    await waitFor('the identity to be ready', async () => {
      operator.enqueue(`${namespace}/${name}`);
      const identity = await get<AutomationIdentity>('aid', namespace);
      return identity?.status?.conditions?.[0]?.reason === 'Provisioned';
    });
    await comesTo(true, namespace, 'list', 'configmaps');
  });

  it('of a deleted identity are not adopted by its successor', async () => {
    const before = await get<KubeObject>('serviceaccount', namespace);
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`, '--wait=false']);
    await declare(namespace, complete);
    await waitFor(
      'the successor to be ready',
      async () => {
        operator.enqueue(`${namespace}/${name}`);
        const identity = await get<AutomationIdentity>('aid', namespace);
        const account = await get<KubeObject>('serviceaccount', namespace);
        return (
          identity?.status?.conditions?.[0]?.reason === 'Provisioned' &&
          account?.metadata.uid !== before?.metadata.uid
        );
      },
      collected,
    );
  });
});

describe('a generated secret', () => {
  const namespace = 'credentials';
  const previous = 'previous.password';
  const rotate = (nonce: string): Promise<string> =>
    kubectlOk(controlPlane, [
      'annotate',
      '--overwrite',
      'aid',
      name,
      `-n=${namespace}`,
      `${annotation.rotate}=${nonce}`,
    ]);

  async function restartedAt(deploymentName: string): Promise<{ at?: string; generation: number }> {
    const deployment = await get<KubeObject>('deployment', namespace, deploymentName);
    const at = projectWorkload('Deployment', deployment!).restartedAt;
    return {
      generation: deployment!.metadata.generation ?? 0,
      ...(at !== undefined && { at }),
    };
  }

  function consumer(consumerName: string): object {
    const labels = { app: consumerName };
    const env = [
      {
        name: 'P',
        valueFrom: { secretKeyRef: { name: secretNameOf(name, 'erp'), key: 'password' } },
      },
    ];
    return {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: consumerName, namespace },
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: name,
            containers: [{ name: 'main', image: 'registry.example/automation:1', env }],
          },
        },
      },
    };
  }

  it('is created with a value of its type', async () => {
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
    const secret = await secretOf(namespace);
    expect(secret?.type).toBe('Opaque');
    expect(Object.keys(secret?.data ?? {})).toEqual(['password']);
    expect(Buffer.from(secret?.data?.['password'] ?? '', 'base64').toString()).toMatch(
      /^[\w.~-]{32}$/,
    );
  });

  it('is rotated once by the annotation, and restarts each consumer once', async () => {
    await controlPlane.apply([consumer('reader')]);
    const first = await secretOf(namespace);
    const before = await restartedAt('reader');
    await rotate('first');
    const second = await secretWhere(
      namespace,
      'the rotation',
      ({ data }) => data?.['password'] !== first?.data?.['password'],
    );
    expect(second.data?.[previous]).toBe(first?.data?.['password']);
    const { status } = await waitFor('the nonce in status', async () => {
      const identity = await get<AutomationIdentity>('aid', namespace);
      return identity?.status?.lastHandledRotation === 'first' ? identity : undefined;
    });
    expect(status?.secrets?.[0]).toMatchObject({
      name: 'erp',
      secretName: secretNameOf(name, 'erp'),
    });
    expect(status?.secrets?.[0]?.previousExpirationTime).toBeDefined();

    const restarted = await waitFor('the restart of the consumer', async () => {
      const now = await restartedAt('reader');
      return now.at !== undefined ? now : undefined;
    });
    expect(restarted).toEqual({
      at: second.metadata.annotations?.[annotation.rotatedAt],
      generation: before.generation + 1,
    });
  });

  it('is not rotated, nor its consumers restarted, by a restart of the operator', async () => {
    const before = await secretOf(namespace);
    const consumerBefore = await restartedAt('reader');
    await operator.stop();
    operator = await startOperator();
    ahead += 10_000;
    const after = await secretWhere(
      namespace,
      'the rotation to be complete',
      ({ metadata }) => metadata.annotations?.[annotation.consumersRestarted] === '1',
    );
    expect(after.data).toEqual(before?.data);
    expect(await restartedAt('reader')).toEqual(consumerBefore);
  });

  it('is rotated on its schedule, and restarts each consumer once more', async () => {
    await controlPlane.apply([consumer('late')]);
    const before = await secretOf(namespace);
    ahead += 24 * hour;
    await secretWhere(
      namespace,
      'the scheduled rotation',
      ({ data }) => data?.['password'] !== before?.data?.['password'],
    );
    // The late one was created after the rotation before, and is restarted for the first time.
    await waitFor('the restart of both', async () => {
      const [reader, late] = await Promise.all([restartedAt('reader'), restartedAt('late')]);
      return reader.at !== undefined && reader.at === late.at && late.generation === 2;
    });
  });

  it('keeps the value before for the overlap, counted from the rotation, and then withdraws it', async () => {
    const rotated = await secretOf(namespace);
    expect(Object.keys(rotated?.data ?? {}).toSorted()).toEqual(['password', previous]);
    ahead += 2 * hour;
    const retired = await secretWhere(
      namespace,
      'the withdrawal',
      ({ data }) => data?.[previous] === undefined,
    );
    expect(retired.data).toEqual({ password: rotated?.data?.['password'] });
    expect(retired.metadata.annotations?.[annotation.previousExpiresAt]).toBeUndefined();
  });

  it('is made anew when it is deleted, and deleted when it leaves the spec', async () => {
    await kubectlOk(controlPlane, [
      'delete',
      'secret',
      secretNameOf(name, 'erp'),
      `-n=${namespace}`,
    ]);
    await secretWhere(namespace, 'a new Secret', ({ data }) => data?.['password'] !== undefined);
    await declare(namespace, { ...complete, secrets: [] });
    await waitFor('the Secret to be gone', async () => (await secretOf(namespace)) === undefined);
    await waitFor('an empty list in status', async () => {
      const identity = await get<AutomationIdentity>('aid', namespace);
      return identity?.status?.secrets?.length === 0;
    });
  });

  it('shows its values in no log, event, status or metric', async () => {
    await events.flush();
    const places: Record<string, string> = {
      logs: logged.join(''),
      events: await kubectlOk(controlPlane, ['get', 'events.events.k8s.io', '-A', '-o=json']),
      status: await kubectlOk(controlPlane, [
        'get',
        'aid',
        '-A',
        '-o=json',
        '--show-managed-fields',
      ]),
      metrics: await metrics.registry.metrics(),
    };
    expect(places['events']).toContain('"Rotated"');
    expect(places['logs']).toContain('Credential rotated');
    expect(places['metrics']).toMatch(/secret_rotations_total\{result="success"\} [1-9]/);
    expect(secretValues.size).toBeGreaterThanOrEqual(8);
    for (const [place, text] of Object.entries(places)) {
      const found = [...secretValues].filter((value) => text.includes(value));
      expect(found, place).toHaveLength(0);
    }
  });
});

describe('a killed AutomationIdentity', () => {
  const namespace = 'killed';

  it('is not ready, loses its credentials, and gets nothing back that is taken from it', async () => {
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
    const secrets = async (): Promise<string[]> =>
      (await listObjects<Secret>(controlPlane, 'secrets', namespace)).map(
        ({ metadata }) => metadata.name,
      );
    expect(await secrets()).not.toEqual([]);
    await controlPlane.apply([
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'KillSwitch',
        metadata: { name, namespace },
        spec: { workflow: name, reason: 'runs amok' },
      },
    ]);
    const { status } = await ready(namespace, 'KillSwitchEngaged');
    expect(status?.conditions?.[0]).toMatchObject({ status: 'False' });
    expect(status?.conditions?.[0]?.message).toContain('runs amok');

    await kubectlOk(controlPlane, ['delete', 'rolebinding', name, `-n=${namespace}`]);
    const asked = [`-n=${namespace}`, `${annotation.rotate}=during-the-kill`];
    await kubectlOk(controlPlane, ['annotate', 'aid', name, ...asked]);
    await waitFor('its credentials to be withdrawn', async () => (await secrets()).length === 0);
    operator.enqueue(`${namespace}/${name}`);
    expect(await get('rolebinding', namespace)).toBeUndefined();
    await comesTo(false, namespace, 'list', 'configmaps');
  });
});

describe('what belongs to an AutomationIdentity', () => {
  const namespace = 'removed';

  it('goes with it', async () => {
    await declare(namespace, complete);
    await ready(namespace, 'Provisioned');
    expect(await versions(namespace)).toHaveLength(5);
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`]);
    await waitFor(
      'everything to be gone',
      async () => (await versions(namespace)).length === 0,
      collected,
    );
  });
});
