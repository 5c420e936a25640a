import { expect } from 'vitest';
import {
  annotationProbePolicyName,
  isDeniedBy,
  probePolicyName,
} from '../../src/admission/index.ts';
import { isRefusedBy, policyName } from '../../src/admission/policies.ts';
import { annotation, stoppedSelector } from '../../src/api/names.ts';
import type { KubeObject, Pod } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Attacker, Engagement } from '../../src/threat-model/table.ts';
import { waitFor } from '../control-plane/wait.ts';
import { path, type Answer, type Api } from '../integration/admission/api.ts';
import {
  identity,
  killSwitch,
  markBinding,
  name,
  workflow,
  type AdmissionCluster,
} from '../integration/admission/cluster.ts';
import {
  pod,
  podSpec,
  statefulSet,
  testKinds,
  type TestKind,
} from '../integration/admission/workloads.ts';
import type { PodWatch } from './pod-watch.ts';
import { podMakers, type PodMaker } from './refusals.ts';

const { killSwitches, workflows, automationIdentities, namespaces, pods, roleBindings } = resources;

/** A way to engage, with everything that the test has to know of it. */
export interface FenceMode extends Engagement {
  name: string;
  engage: (cluster: AdmissionCluster, namespace: string) => Promise<Answer>;
  /** Whether the fence says, by its policy's name, that it stands. */
  isStanding: (cluster: AdmissionCluster, namespace: string) => Promise<boolean>;
}

const reason = { [annotation.killSwitch]: 'it pays twice' };
const probe = { [annotation.probe]: '1' };

async function deniesProbe(
  { admin }: AdmissionCluster,
  resource: Resource,
  target: { namespace: string; name: string },
  policy: string,
): Promise<boolean> {
  const { message } = await admin.annotate(resource, target, probe, { dryRun: true });
  return isDeniedBy(message, policy);
}

export const fenceModes: readonly FenceMode[] = [
  {
    name: 'kill-switch',
    byAnnotation: false,
    wholeNamespace: false,
    engage: ({ alice }, namespace) => alice.create(killSwitches, killSwitch(namespace)),
    isStanding: (cluster, namespace) =>
      deniesProbe(cluster, killSwitches, { namespace, name }, probePolicyName),
  },
  {
    name: 'whole-namespace',
    byAnnotation: false,
    wholeNamespace: true,
    engage: ({ alice }, namespace) =>
      alice.create(killSwitches, {
        metadata: { namespace, name: 'namespace' },
        spec: { wholeNamespace: true, reason: 'it pays twice' },
      } as KubeObject),
    isStanding: (cluster, namespace) =>
      deniesProbe(cluster, killSwitches, { namespace, name: 'namespace' }, probePolicyName),
  },
  {
    name: 'workflow-annotation',
    byAnnotation: true,
    wholeNamespace: false,
    engage: ({ alice }, namespace) => alice.annotate(workflows, { namespace, name }, reason),
    isStanding: (cluster, namespace) =>
      deniesProbe(cluster, workflows, { namespace, name }, annotationProbePolicyName),
  },
  {
    name: 'identity-annotation',
    byAnnotation: true,
    wholeNamespace: false,
    engage: ({ alice }, namespace) =>
      alice.annotate(automationIdentities, { namespace, name }, reason),
    isStanding: (cluster, namespace) =>
      deniesProbe(
        cluster,
        automationIdentities,
        { namespace, name },
        policyName('fence-pods-by-identity'),
      ),
  },
  {
    name: 'namespace-annotation',
    byAnnotation: true,
    wholeNamespace: true,
    engage: ({ admin }, namespace) => admin.annotate(namespaces, { name: namespace }, reason),
    // By a pod that no other policy refuses, of the one ServiceAccount that always comes back.
    isStanding: async ({ admin }, namespace) => {
      const { message } = await admin.create(pods, pod(namespace, 'probe', 'default'), {
        dryRun: true,
      });
      return isDeniedBy(message, policyName('fence-pods-by-namespace'));
    },
  },
];

/** Cluster-wide rights of the attackers; those of a namespace come with the arena. */
export function attackersManifests(): object[] {
  const ordinary = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'];
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'attackers' } },
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { namespace: 'attackers', name: 'gitops' },
    },
    clusterRole('threat-controllers', [
      {
        apiGroups: [
          '',
          'apps',
          'autoscaling',
          'batch',
          'coordination.k8s.io',
          'discovery.k8s.io',
          'events.k8s.io',
          'networking.k8s.io',
          'policy',
        ],
        resources: ['*'],
        verbs: [...ordinary, 'deletecollection'],
      },
    ]),
    clusterRole('threat-own-kinds', [
      {
        apiGroups: ['automationguardrails.dev'],
        resources: ['*'],
        verbs: [...ordinary, 'deletecollection'],
      },
    ]),
    binding('ClusterRoleBinding', 'threat-controllers', userOf('controllers')),
    binding('ClusterRoleBinding', 'cluster-admin', userOf('gitops')),
  ];
}

function userOf(attacker: Attacker, namespace = ''): string {
  switch (attacker) {
    case 'automation':
      return `system:serviceaccount:${namespace}:${name}`;
    case 'controllers':
    case 'gitops':
      return `system:serviceaccount:attackers:${attacker}`;
    case 'editor':
    case 'admin':
    case 'releaser':
    case 'killer':
      return `threat-${attacker}`;
  }
}

function clusterRole(role: string, rules: object[]): object {
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  return { apiVersion, kind: 'ClusterRole', metadata: { name: role }, rules };
}

function binding(
  kind: 'ClusterRoleBinding' | 'RoleBinding',
  role: string,
  user: string,
  namespace?: string,
): object {
  const apiGroup = 'rbac.authorization.k8s.io';
  return {
    apiVersion: `${apiGroup}/v1`,
    kind,
    metadata: {
      name: `threat-${role}-${user.replaceAll(':', '-')}`,
      ...(namespace !== undefined && { namespace }),
    },
    roleRef: { apiGroup, kind: 'ClusterRole', name: role },
    subjects: [{ apiGroup, kind: 'User', name: user }],
  };
}

/** RoleBindings of the attackers, and of who acts as the automation, in an arena. */
function localManifests(namespace: string): object[] {
  const roles: [Attacker, string[]][] = [
    ['automation', ['automation-guardrails-grantable']],
    ['editor', ['edit', 'automation-guardrails-requester']],
    ['admin', ['admin', 'threat-own-kinds']],
    ['releaser', ['automation-guardrails-releaser']],
    ['killer', ['automation-guardrails-killer']],
  ];
  return [
    ...roles.flatMap(([attacker, names]) =>
      names.map((role) => binding('RoleBinding', role, userOf(attacker, namespace), namespace)),
    ),
    ...(['edit', 'admin'] as const).map((role) =>
      binding('RoleBinding', role, actingUser(namespace, role), namespace),
    ),
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: harmless, namespace },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
      subjects: [],
    },
  ];
}

function actingUser(namespace: string, role: 'edit' | 'admin'): string {
  return `system:serviceaccount:${namespace}:acting-${role}`;
}

/** A RoleBinding that gives nothing to the automation. */
export const harmless = 'harmless';

export const replicationControllers: Resource = {
  group: '',
  version: 'v1',
  kind: 'ReplicationController',
  plural: 'replicationcontrollers',
  namespaced: true,
};

/** Names of pods that were there before, and have never run. */
export const waiting = ['waiting-1', 'waiting-2', 'waiting-3', 'waiting-4'] as const;

/** Those, and one that a gate holds back. */
const neverRun: readonly string[] = [...waiting, 'gated'];

/** ServiceAccounts with the rights of an attacker, by real tokens: these can impersonate. */
export interface Acting {
  editor: Api;
  admin: Api;
  gitops: Api;
}

/**
 * A namespace with one automation: everything of it ran before the kill; then it was engaged, and
 * no operator is there to do more.
 */
export class Arena {
  readonly cluster: AdmissionCluster;
  readonly watch: PodWatch;
  readonly mode: FenceMode;
  readonly namespace: string;
  readonly acting: Acting;

  private constructor(
    cluster: AdmissionCluster,
    watch: PodWatch,
    mode: FenceMode,
    namespace: string,
    acting: Acting,
  ) {
    this.cluster = cluster;
    this.watch = watch;
    this.mode = mode;
    this.namespace = namespace;
    this.acting = acting;
  }

  /** Engaged, and proven, when it returns. */
  static async open(
    cluster: AdmissionCluster,
    watch: PodWatch,
    mode: FenceMode,
    namespace: string,
  ): Promise<Arena> {
    const { admin, controlPlane } = cluster;
    await cluster.guardedNamespace(namespace);
    await Promise.all(
      ['acting-edit', 'acting-admin'].map((account) =>
        admin.create(resources.serviceAccounts, { metadata: { namespace, name: account } }),
      ),
    );
    const created = await Promise.all([
      admin.create(workflows, workflow(namespace)),
      admin.create(automationIdentities, identity(namespace)),
      ...runningKinds(namespace).map(([resource, manifest]) => admin.create(resource, manifest)),
    ]);
    expect(created.map(({ message }) => message).filter((message) => message !== '')).toEqual([]);
    await controlPlane.apply(localManifests(namespace));
    // The operator marked the identity when it made it, and a kill leaves that.
    expect((await cluster.operator.create(roleBindings, markBinding(namespace))).message).toBe('');
    await waitFor('the mark to be known', async () => {
      const more = {
        ...markBinding(namespace),
        metadata: { namespace, name: 'more' },
      };
      const { message } = await admin.create(roleBindings, more, { dryRun: true });
      return isRefusedBy(message, policyName('identity-role-bindings'));
    });
    const acting = {
      editor: await tokenHolder(cluster, namespace, 'acting-edit'),
      admin: await tokenHolder(cluster, namespace, 'acting-admin'),
      gitops: await tokenHolder(cluster, 'attackers', 'gitops'),
    };
    await waitFor(`the pods of ${namespace} to run`, () => {
      const all = watch.podsOf(namespace);
      const running = all.filter(({ spec }) => spec?.nodeName !== undefined);
      // One that still waits for a node would get it while the fence stands.
      const late = all.filter(
        (one) => !running.includes(one) && !neverRun.includes(one.metadata.name),
      );
      const isLastOfSet = running.some(({ metadata }) => metadata.name === 'volumes-1');
      if (late.length > 0 || !isLastOfSet) return false;
      const owners = new Set(
        running.map(({ metadata }) => metadata.ownerReferences?.[0]?.kind ?? 'Pod'),
      );
      return owners.size === podMakers.length + 1;
    });
    expect((await mode.engage(cluster, namespace)).message).toBe('');
    await waitFor('the fence to stand', () => mode.isStanding(cluster, namespace));
    await Promise.all(
      testKinds.map((kind) => {
        const held = kind.manifest({ namespace, name: heldName(kind), value: kind.asked });
        // What rewrites may learn of the kill later than what refuses.
        return waitFor(`the held ${kind.resource.kind} to be stored`, async () => {
          const { status } = await admin.create(kind.resource, held);
          return status === 201 || status === 409;
        });
      }),
    );
    const mayBeBound = mode.wholeNamespace ? [] : waiting;
    await watch.fence(namespace, covers(mode), new Set(mayBeBound));
    return new Arena(cluster, watch, mode, namespace, acting);
  }

  /** The API server as an attacker in this namespace sees it. */
  api(attacker: Attacker): Api {
    return this.cluster.admin.as(userOf(attacker, this.namespace));
  }

  path(resource: Resource, object?: string, subresource?: string): string {
    return path(
      resource,
      { namespace: this.namespace, ...(object !== undefined && { name: object }) },
      subresource === undefined ? {} : { subresource },
    );
  }

  /** Kinds of which all objects are frozen, so that their controllers make no pod. */
  async frozenMakers(): Promise<Set<PodMaker>> {
    const listOf = async (url: string): Promise<Freezable[]> => {
      const { object } = await this.cluster.admin.send({ method: 'GET', url });
      return (object as { items?: Freezable[] }).items ?? [];
    };
    const [daemonSets, jobs] = await Promise.all([
      listOf(`/apis/apps/v1/namespaces/${this.namespace}/daemonsets`),
      listOf(`/apis/batch/v1/namespaces/${this.namespace}/jobs`),
    ]);
    const areAll = (items: readonly Freezable[], isFrozen: (item: Freezable) => boolean): boolean =>
      items.length > 0 && items.every(isFrozen);
    return new Set<PodMaker>([
      ...(areAll(
        daemonSets,
        ({ spec }) => stoppedSelector in (spec.template.spec.nodeSelector ?? {}),
      )
        ? ['DaemonSet' as const]
        : []),
      ...(areAll(jobs, ({ spec }) => spec.suspend === true) ? ['Job' as const] : []),
    ]);
  }

  /** Names of Secrets that hold a token of the automation. */
  async tokenSecrets(): Promise<string[]> {
    const { object } = await this.cluster.admin.send({
      method: 'GET',
      url: `/api/v1/namespaces/${this.namespace}/secrets?fieldSelector=type%3Dkubernetes.io/service-account-token`,
    });
    const { items = [] } = object as { items?: KubeObject[] };
    return items
      .filter(
        ({ metadata }) => metadata.annotations?.['kubernetes.io/service-account.name'] === name,
      )
      .map(({ metadata }) => metadata.name);
  }
}

/** The part of a DaemonSet or a Job that says whether it is frozen. */
interface Freezable {
  spec: {
    suspend?: boolean;
    template: { spec: { nodeSelector?: Record<string, string> } };
  };
}

function covers({ wholeNamespace }: FenceMode): (pod: Pod) => boolean {
  return ({ spec }) => wholeNamespace || spec?.serviceAccountName === name;
}

async function tokenHolder(
  { admin }: AdmissionCluster,
  namespace: string,
  account: string,
): Promise<Api> {
  const { object, message } = await admin.create(
    resources.serviceAccounts,
    { metadata: { namespace, name: account }, spec: {} } as KubeObject,
    { subresource: 'token' },
  );
  expect(message).toBe('');
  return admin.with(object.status?.token ?? '');
}

/** Name of the workload of a kind that ran before the kill, and that nobody writes. */
function runningName({ resource }: TestKind): string {
  return `running-${resource.kind.toLowerCase()}`;
}

/** Name of the workload of a kind that its owner had paused before the kill. */
export function editedName({ resource }: TestKind): string {
  return `edited-${resource.kind.toLowerCase()}`;
}

/** Name of the workload of a kind that was written after the kill. */
export function heldName({ resource }: TestKind): string {
  return `held-${resource.kind.toLowerCase()}`;
}

function runningKinds(namespace: string): [Resource, KubeObject][] {
  const running = { replicas: 1, suspend: false } as const;
  const rc = (of: string, replicas: number): [Resource, KubeObject] => {
    const selector = { app: of };
    const template = { metadata: { labels: selector }, spec: podSpec() };
    const spec = { replicas, selector, template };
    return [replicationControllers, { metadata: { namespace, name: of }, spec } as KubeObject];
  };
  const otherToken = {
    metadata: {
      namespace,
      name: 'other-token',
      annotations: { 'kubernetes.io/service-account.name': 'other' },
    },
    type: 'kubernetes.io/service-account-token',
  };
  return [
    ...testKinds.flatMap((kind): [Resource, KubeObject][] => [
      [
        kind.resource,
        kind.manifest({
          namespace,
          name: runningName(kind),
          ...(kind.field !== undefined && { value: running[kind.field] }),
        }),
      ],
      [kind.resource, kind.manifest({ namespace, name: editedName(kind), value: kind.paused })],
    ]),
    rc('running-rc', 1),
    rc('edited-rc', 0),
    [
      resources.statefulSets,
      statefulSet.manifest({
        namespace,
        name: 'volumes',
        value: 2,
        spec: { persistentVolumeClaimRetentionPolicy: { whenScaled: 'Delete' } },
      }),
    ],
    [resources.secrets, { metadata: { namespace, name: 'own' } }],
    [resources.secrets, otherToken],
    [pods, pod(namespace, 'bare')],
    [pods, withSpec(pod(namespace, 'gated'), { schedulingGates: [{ name: 'example.com/wait' }] })],
    ...waiting.map((waiter): [Resource, KubeObject] => [
      pods,
      withSpec(pod(namespace, waiter), { nodeSelector: { 'example.com/none': 'true' } }),
    ]),
  ];
}

/** A manifest with further fields of `spec`. */
export function withSpec(object: KubeObject, spec: object): KubeObject {
  const own = (object as KubeObject & { spec?: object }).spec;
  return { ...object, spec: { ...own, ...spec } } as KubeObject;
}
