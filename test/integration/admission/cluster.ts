import { expect } from 'vitest';
import {
  admissionPolicies,
  annotationProbePolicyName,
  isDeniedBy,
  probePolicyName,
} from '../../../src/admission/index.ts';
import { customResourceDefinitions } from '../../../src/api/crd.ts';
import type { AutomationIdentity } from '../../../src/api/automation-identity.ts';
import type { KillSwitch } from '../../../src/api/kill-switch.ts';
import { annotation, identityRole, label, MANAGED_BY } from '../../../src/api/names.ts';
import type { OwnerReference, RoleBinding, ServiceAccount } from '../../../src/api/objects.ts';
import { resources, type Resource } from '../../../src/api/resources.ts';
import type { Workflow } from '../../../src/api/workflow.ts';
import { markNameOf } from '../../../src/guardrails/identity/plan.ts';
import { rbacManifests } from '../../../src/install/manifests.ts';
import {
  startControlPlane,
  type ControlPlane,
  type ControlPlaneOptions,
} from '../../control-plane/control-plane.ts';
import { waitFor } from '../../control-plane/wait.ts';
import { Api, type Answer, type ObjectName } from './api.ts';
import { deployment, pod, testKinds, type TestKind } from './workloads.ts';

const { killSwitches, workflows, namespaces, pods, serviceAccounts } = resources;

/** The automation of every test, in a namespace of its own. */
export const name = 'invoice';

export const operatorUser =
  'system:serviceaccount:automation-guardrails:automation-guardrails' as const;
export const pipelineUser = 'system:serviceaccount:ci:pipeline' as const;

/** Namespace with a Workflow that was engaged before the policies were installed. */
export const earlier = 'earlier';

/** Workflow of that namespace that has groups of who changed it, and not who. */
export const groupsAlone = 'groups-alone';

const configMaps: Resource = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  namespaced: true,
};

/**
 * A control plane with our kinds and policies, and no operator: its part is played by requests
 * under its name.
 */
export class AdmissionCluster {
  readonly controlPlane: ControlPlane;
  /** A member of `system:masters`. */
  readonly admin: Api;
  readonly operator: Api;
  /** Engages; holds the verb `release` too. */
  readonly alice: Api;
  /** Releases. */
  readonly bob: Api;
  /** Writes workloads and Workflows. */
  readonly git: Api;
  /** Writes workloads, Workflows and KillSwitches, and holds none of the custom verbs. */
  readonly mallory: Api;
  /** Breaks the glass; writes Workflows. */
  readonly carol: Api;

  private constructor(controlPlane: ControlPlane) {
    this.controlPlane = controlPlane;
    this.admin = Api.asAdmin(controlPlane);
    this.operator = this.admin.as(operatorUser);
    this.alice = this.admin.as('alice');
    this.bob = this.admin.as('bob');
    this.git = this.admin.as('git');
    this.mallory = this.admin.as('mallory');
    this.carol = this.admin.as('carol');
  }

  /** Everything is in force when it returns. */
  static async start(options: ControlPlaneOptions = {}): Promise<AdmissionCluster> {
    const cluster = new AdmissionCluster(
      await startControlPlane({ controllerManagerQps: 500, ...options }),
    );
    try {
      await cluster.#install();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async stop(): Promise<void> {
    await this.admin.close();
    await this.controlPlane.stop();
  }

  async #install(): Promise<void> {
    await this.controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'automation-guardrails' } },
      ...customResourceDefinitions().map(({ object }) => object),
      ...rbacManifests(),
      ...usersAndRoles(),
    ]);
    await waitFor('our kinds to be served', async () => {
      const { message } = await this.admin.get(killSwitches, { namespace: 'default', name });
      return message !== '404 page not found';
    });
    const early = await this.guardedNamespace(earlier);
    const reason = { [annotation.killSwitch]: 'it pays twice' };
    expect((await this.admin.create(workflows, workflow(early, reason))).message).toBe('');
    const groups = workflow(early, { [annotation.changedByGroups]: 'others' });
    groups.metadata.name = groupsAlone;
    expect((await this.admin.create(workflows, groups)).message).toBe('');
    await this.controlPlane.apply([...admissionPolicies(), ...sentinels]);
    const namespace = await this.guardedNamespace('warm-up');
    await waitFor('the policies to be compiled', async () => {
      const [refused, mutates] = await Promise.all([
        this.admin.create(configMaps, sentinelObject(namespace), { dryRun: true }),
        this.mutates(namespace),
      ]);
      return refused.status === 422 && mutates;
    });
    // Until the API server has read the parameters of a policy, it refuses what that matches.
    await waitFor('the parameters of the policies to be read', async () => {
      const answers = await Promise.all([
        this.admin.create(pods, pod(namespace, 'warm-up', 'default'), { dryRun: true }),
        ...testKinds.map(({ resource, manifest }) =>
          this.admin.create(resource, manifest({ namespace }), { dryRun: true }),
        ),
      ]);
      return answers.every(({ status }) => status === 201);
    });
  }

  /** Whether mutating policies are in force. */
  async mutates(namespace: string): Promise<boolean> {
    const { object } = await this.admin.create(
      configMaps,
      { metadata: { namespace, name: 'other' } },
      { dryRun: true },
    );
    return object.metadata.labels?.['sentinel'] === 'true';
  }

  /** A namespace with the ServiceAccounts `invoice`, `other` and `default`. */
  async namespace(namespace: string, labels: Record<string, string> = {}): Promise<string> {
    await this.admin.create(namespaces, { metadata: { name: namespace, labels } });
    await waitFor('the ServiceAccounts', async () => {
      await Promise.all(
        [name, 'other'].map((account) =>
          this.admin.create(serviceAccounts, serviceAccount(namespace, account)),
        ),
      );
      const own = await this.admin.get(serviceAccounts, { namespace, name: 'default' });
      return own.status === 200;
    });
    return namespace;
  }

  guardedNamespace(namespace: string): Promise<string> {
    return this.namespace(namespace, { [label.environment]: 'test' });
  }

  probe(namespace: string): Promise<Answer> {
    const mark = { [annotation.probe]: '1' };
    return this.operator.annotate(killSwitches, { namespace, name }, mark, { dryRun: true });
  }

  probeAnnotation(namespace: string): Promise<Answer> {
    const mark = { [annotation.probe]: '1' };
    return this.admin.annotate(workflows, { namespace, name }, mark, { dryRun: true });
  }

  /** Also what rewrites, which may learn of a kill later than what refuses. */
  async untilFenced(namespace: string): Promise<void> {
    await waitFor('the fence to stand', async () =>
      isDeniedBy((await this.probe(namespace)).message, probePolicyName),
    );
    await waitFor('new workloads to be frozen', () => this.#isNewAs(namespace, 0));
  }

  /** Whether a Deployment that asks for 3 replicas is stored with so many. */
  async #isNewAs(namespace: string, replicas: number): Promise<boolean> {
    const asked = deployment.manifest({ namespace, name: 'asked', value: 3 });
    const { object } = await this.admin.create(deployment.resource, asked, { dryRun: true });
    return object.spec?.replicas === replicas;
  }

  async untilFencedByAnnotation(namespace: string): Promise<void> {
    await waitFor('the fence to stand', async () =>
      isDeniedBy((await this.probeAnnotation(namespace)).message, annotationProbePolicyName),
    );
  }

  /** As Alice; returns when the API server enforces it. */
  async engage(namespace: string): Promise<void> {
    const { message } = await this.alice.create(killSwitches, killSwitch(namespace));
    expect(message).toBe('');
    await this.untilFenced(namespace);
  }

  /** As Alice; returns when the API server enforces it. */
  async engageByAnnotation(namespace: string): Promise<void> {
    const reason = { [annotation.killSwitch]: 'it pays twice' };
    const { message } = await this.alice.annotate(workflows, { namespace, name }, reason);
    expect(message).toBe('');
    await this.untilFencedByAnnotation(namespace);
  }

  askRelease(namespace: string, api = this.bob, reason = 'fixed'): Promise<Answer> {
    return api.annotate(killSwitches, { namespace, name }, { [annotation.release]: reason });
  }

  /** What an operator does when release was asked for: lifts the fence, and waits for that. */
  async lift(namespace: string): Promise<void> {
    const patch = { metadata: { labels: { [label.releasing]: 'true' } } };
    const { message } = await this.operator.merge(killSwitches, { namespace, name }, patch);
    expect(message).toBe('');
    await waitFor(
      'the fence to be lifted',
      async () => (await this.probe(namespace)).status === 200,
    );
    await waitFor('new workloads to be let be', () => this.#isNewAs(namespace, 3));
  }

  async release(namespace: string): Promise<void> {
    expect((await this.askRelease(namespace)).message).toBe('');
    await this.lift(namespace);
  }

  /** What an operator does last in a release. */
  async finishRelease(namespace: string): Promise<void> {
    const { message } = await this.operator.delete(killSwitches, { namespace, name });
    expect(message).toBe('');
  }

  /** What an operator does with an annotation: a KillSwitch that stands for it, and a mark of that. */
  async latch(resource: Resource, target: ObjectName): Promise<void> {
    if (target.namespace !== undefined) {
      await this.operator.create(killSwitches, killSwitch(target.namespace));
      await this.untilFenced(target.namespace);
    }
    const patch = { metadata: { labels: { [label.latched]: 'true' } } };
    expect((await this.operator.merge(resource, target, patch)).message).toBe('');
  }

  /** The operator's touch of a workload. */
  touch({ resource }: TestKind, namespace: string, nonce = 'nonce', of = 'work'): Promise<Answer> {
    return this.operator.annotate(resource, { namespace, name: of }, { [annotation.touch]: nonce });
  }
}

/** As somebody writes it who engages. */
export function killSwitch(namespace: string, spec: Partial<KillSwitch['spec']> = {}): KillSwitch {
  return {
    metadata: { namespace, name },
    spec: { workflow: name, reason: 'it pays twice', ...spec },
  };
}

export function identity(namespace: string): AutomationIdentity {
  return { metadata: { namespace, name }, spec: { purpose: 'pays invoices' } };
}

/** What the operator does with a new identity, as far as admission looks at it. */
export function markBinding(namespace: string, owners: OwnerReference[] = []): RoleBinding {
  return {
    metadata: {
      namespace,
      name: markNameOf(name),
      labels: { [label.managedBy]: MANAGED_BY, [label.identity]: name },
      ownerReferences: owners,
    },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: identityRole },
    subjects: [{ kind: 'ServiceAccount', name, namespace }],
  };
}

export function workflow(namespace: string, annotations: Record<string, string> = {}): Workflow {
  return {
    metadata: { namespace, name, annotations },
    spec: { targets: [{ group: 'apps', kind: 'Deployment', name: 'work' }] },
  };
}

/** Value of what pauses a workload. */
export function valueOf({ read }: TestKind, { object }: Answer): number | boolean | undefined {
  return read(object);
}

export function annotationsOf({ object }: Answer): Record<string, string> {
  return object.metadata.annotations ?? {};
}

function usersAndRoles(): object[] {
  return [
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'kill-switch-writer' },
      rules: [
        {
          apiGroups: ['automationguardrails.dev'],
          resources: [
            'killswitches',
            'killswitches/status',
            'automationworkflows',
            'automationworkflows/status',
            'automationidentities',
          ],
          verbs: ['get', 'create', 'update', 'patch', 'delete', 'deletecollection'],
        },
      ],
    },
    binding('kill-switch-writer', 'alice', 'mallory'),
    binding('automation-guardrails-break-glass', 'carol'),
    binding('automation-guardrails-releaser', 'alice', 'bob', pipelineUser),
    binding('automation-guardrails-requester', 'git', 'carol'),
    binding('edit', 'alice', 'bob', 'mallory', 'git'),
  ];
}

function binding(role: string, ...users: string[]): object {
  const apiGroup = 'rbac.authorization.k8s.io';
  return {
    apiVersion: `${apiGroup}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: `test-${role}` },
    roleRef: { apiGroup, kind: 'ClusterRole', name: role },
    subjects: users.map((user) => ({ apiGroup, kind: 'User', name: user })),
  };
}

function sentinelObject(namespace: string): { metadata: { namespace: string; name: string } } {
  return { metadata: { namespace, name: 'sentinel' } };
}

/** Installed last: when these answer, the API server has compiled all that came before. */
const sentinels: readonly object[] = [
  ...sentinel('Validating', {
    policy: { validations: [{ expression: `object.metadata.name != 'sentinel'` }] },
    bound: { validationActions: ['Deny'] },
  }),
  ...sentinel('Mutating', {
    policy: {
      reinvocationPolicy: 'Never',
      mutations: [
        {
          patchType: 'ApplyConfiguration',
          applyConfiguration: {
            expression: `Object{metadata: Object.metadata{labels: {'sentinel': 'true'}}}`,
          },
        },
      ],
    },
    bound: {},
  }),
];

function sentinel(type: string, { policy, bound }: { policy: object; bound: object }): object[] {
  const apiVersion = 'admissionregistration.k8s.io/v1';
  const metadata = { name: `sentinel-${type.toLowerCase()}` };
  const rule = { apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] };
  const matchConstraints = { resourceRules: [{ ...rule, operations: ['CREATE'] }] };
  return [
    {
      apiVersion,
      kind: `${type}AdmissionPolicy`,
      metadata,
      spec: { failurePolicy: 'Fail', matchConstraints, ...policy },
    },
    {
      apiVersion,
      kind: `${type}AdmissionPolicyBinding`,
      metadata,
      spec: { policyName: metadata.name, ...bound },
    },
  ];
}

/** As the operator makes those of identities. */
function serviceAccount(namespace: string, account: string): ServiceAccount {
  return { metadata: { namespace, name: account }, automountServiceAccountToken: false };
}
