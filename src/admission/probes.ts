import { annotation, identityRole, label, PROBE_NAMESPACE, secretNameOf } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { apiVersionOf, resources, type Resource } from '../api/resources.ts';
import {
  pauses,
  projectWorkload,
  workloadKinds,
  workloadResources,
  type WorkloadKind,
} from '../api/workload.ts';
import { approvalRequired } from './approval.ts';
import { policyName } from './policies.ts';

/**
 * What stands in the probe's namespace for good, each for a fence of its own: where two policies
 * refuse the same request, the API server names any one of them.
 */
export const canary = {
  /** An engaged KillSwitch, and what runs as the ServiceAccount of this name. */
  killSwitch: 'canary',
  /** A Workflow that is engaged by annotation, which nobody latches. */
  workflow: 'canary-workflow',
  /** An AutomationIdentity, in the same way. */
  identity: 'canary-identity',
  /** A ServiceAccount with the mark of an identity's, which nothing stops. */
  managed: 'canary-managed',
  /** A Workflow with limits, which nothing stops. */
  limited: 'canary-limited',
} as const;

/** The ServiceAccounts of the canaries. A pod needs one to be refused by us. */
export const canaryServiceAccounts: readonly string[] = Object.values(canary);

/** A write that is only ever sent as a dry run, in the probe's namespace or to that itself. */
export type ProbeRequest = { resource: Resource } & (
  | { verb: 'create'; object: KubeObject }
  | { verb: 'patch'; name: string; patch: object }
  | { verb: 'delete'; name: string }
);

/** A policy that refuses each of the requests. */
export interface Denial {
  kind: 'Denial';
  requests: readonly ProbeRequest[];
  /** Part of the policy's own sentence: that it can't be evaluated is refused in others. */
  says: string;
  /** Name of a policy that leaves this one nothing to refuse, wherever it is served. */
  behind?: string;
}

/** A policy that changes the object in each of the requests. */
export interface Mutation {
  kind: 'Mutation';
  requests: readonly ProbeRequest[];
  /** Whether the answer is as the policy makes it. */
  shows: (answer: KubeObject) => boolean;
  /** Name of the policy that refuses what this one leaves unchanged. */
  twin: string;
}

/** No harmless request reaches it: what is stored is compared with what was installed. */
export interface Comparison {
  kind: 'Comparison';
  /** Why, in one sentence. */
  reason: string;
}

/** How it is found out whether a policy is in force. */
export type PolicyProbe = Denial | Mutation | Comparison;

/** The pod spec that Pod Security `restricted` lets pass, so that our own policy has to answer. */
function podSpec(serviceAccountName: string, restartPolicy = 'Always'): object {
  return {
    serviceAccountName,
    restartPolicy,
    automountServiceAccountToken: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65_532,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    containers: [
      {
        name: 'probe',
        image: 'probe.invalid/never-started:1',
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      },
    ],
  };
}

function objectOf(resource: Resource, fields: object, metadata: object = {}): KubeObject {
  return {
    apiVersion: apiVersionOf(resource),
    kind: resource.kind,
    metadata: { name: 'probe', namespace: PROBE_NAMESPACE, ...metadata },
    ...fields,
  };
}

function create(resource: Resource, fields: object, metadata?: object): ProbeRequest {
  return { verb: 'create', resource, object: objectOf(resource, fields, metadata) };
}

function workload(kind: WorkloadKind, serviceAccountName: string = canary.killSwitch): object {
  const labels = { app: 'probe' };
  const template = { metadata: { labels }, spec: podSpec(serviceAccountName) };
  const runs = { template: { spec: podSpec(serviceAccountName, 'Never') } };
  const selector = { matchLabels: labels };
  switch (kind) {
    case 'Deployment':
    case 'ReplicaSet':
      return { spec: { replicas: 1, selector, template } };
    case 'StatefulSet':
      return { spec: { replicas: 1, serviceName: 'probe', selector, template } };
    case 'DaemonSet':
      return { spec: { selector, template } };
    case 'Job':
      return { spec: runs };
    case 'CronJob':
      return { spec: { schedule: '0 0 1 1 *', jobTemplate: { spec: runs } } };
  }
}

const { killSwitches, workflows, automationIdentities, namespaces } = resources;
const { accessReviews, pods, roleBindings, secrets, serviceAccounts } = resources;

/** With its marks, which nobody else takes away before Kubernetes 1.36. */
const unengaged = {
  labels: { [label.engaged]: null, [label.latched]: null },
  annotations: { [annotation.killSwitch]: null, [annotation.killSwitchEngagedBy]: null },
};
const workflowSpec = { targets: [{ group: 'apps', kind: 'Deployment', name: 'probe' }] };
const byAnnotation =
  'The operator may not ask for a release, so kill-switch-release answers first.';

const noClusterKill =
  'It has a parameter only while a ClusterKillSwitch stands, which is probed by itself.';

const ofKillSwitch: Record<string, PolicyProbe> = {
  'kill-switch-stamp': {
    kind: 'Mutation',
    requests: [create(killSwitches, { spec: { workflow: 'probe', reason: 'probe' } })],
    shows: (answer) => (fieldsOf(answer, 'spec')['engagedBy'] ?? '') !== '',
    twin: 'kill-switch-create',
  },
  'kill-switch-create': {
    kind: 'Denial',
    requests: [
      create(
        killSwitches,
        { spec: { workflow: 'probe', reason: 'probe', engagedBy: 'probe' } },
        { labels: { [label.releasing]: 'true' } },
      ),
    ],
    says: 'a new kill switch is engaged',
  },
  'kill-switch-release-stamp': compared('Without it kill-switch-release refuses every release.'),
  'kill-switch-release-unstamp': compared(
    'Without it kill-switch-release refuses to withdraw a release.',
  ),
  'kill-switch-release': {
    kind: 'Denial',
    requests: [annotate(killSwitches, canary.killSwitch, { [annotation.release]: 'probe' })],
    says: 'release',
  },
  'kill-switch-release-blocked-by-workflow': compared(byAnnotation),
  'kill-switch-release-blocked-by-identity': compared(byAnnotation),
  'kill-switch-release-blocked-by-namespace': compared(byAnnotation),
  'kill-switch-release-blocked-by-cluster': compared(noClusterKill),
  'kill-switch-release-own': compared('It takes a Workflow that needs approval.'),
  'kill-switch-namespace-by-cluster': compared(noClusterKill),
  'kill-switch-delete': {
    kind: 'Denial',
    requests: [{ verb: 'delete', resource: killSwitches, name: canary.killSwitch }],
    says: 'is not deleted but released',
  },
  'kill-switch-status': compared('The operator itself may do what it keeps others from.'),
  ...Object.fromEntries(
    ['', '-by-workflow', '-by-identity'].map((suffix) => [
      `kill-switch-namespace${suffix}`,
      compared('The namespace of the probe can be deleted, so that everything can be uninstalled.'),
    ]),
  ),
};

/** A new Workflow and a new AutomationIdentity, with these labels and annotations. */
function carriers(metadata: object): ProbeRequest[] {
  return [
    create(workflows, { spec: workflowSpec }, metadata),
    create(automationIdentities, { spec: {} }, metadata),
  ];
}

const ofAnnotation: Record<string, PolicyProbe> = {
  'engaging-mark': {
    kind: 'Mutation',
    requests: [
      ...carriers({ annotations: { [annotation.killSwitch]: 'probe' } }),
      annotate(namespaces, PROBE_NAMESPACE, { [annotation.killSwitch]: 'probe' }),
    ],
    shows: ({ metadata }) => metadata.labels?.[label.engaged] === 'true',
    twin: 'engaging-marks',
  },
  'engaging-unmark': {
    kind: 'Mutation',
    requests: carriers({ labels: { [label.engaged]: 'true' } }),
    shows: ({ metadata }) => metadata.labels?.[label.engaged] === undefined,
    twin: 'engaging-marks',
  },
  'engaging-marks': {
    kind: 'Denial',
    requests: [
      ...carriers({ annotations: { [annotation.killSwitch]: 'off' } }),
      annotate(namespaces, PROBE_NAMESPACE, { [annotation.killSwitch]: 'off' }),
    ],
    says: 'write the reason',
  },
  'engaging-unlatched': {
    kind: 'Denial',
    requests: [
      patchMetadata(workflows, canary.workflow, unengaged),
      patchMetadata(automationIdentities, canary.identity, unengaged),
    ],
    says: 'no KillSwitch stands for it yet',
  },
  'engaging-subresources': compared(
    'It takes a right to the status of Namespaces, which the operator has no use for.',
  ),
  'engaging-delete': {
    kind: 'Denial',
    requests: [
      { verb: 'delete', resource: workflows, name: canary.workflow },
      { verb: 'delete', resource: automationIdentities, name: canary.identity },
    ],
    says: 'is engaged; release it first',
  },
};

const openToken =
  'Were the fence open, even the dry run of a TokenRequest would be answered with a token.';
const wholeNamespace =
  'It takes a namespace that is stopped as a whole, in which no other fence could be told from it.';

/** @param serviceAccountName whom this fence alone stops */
function fence(suffix: string, serviceAccountName: string): Record<string, PolicyProbe> {
  return {
    [`fence-pods${suffix}`]: {
      kind: 'Denial',
      requests: [create(pods, { spec: podSpec(serviceAccountName) })],
      says: 'kill switch: ',
    },
    [`fence-tokens${suffix}`]: compared(openToken),
    [`fence-token-secrets${suffix}`]: {
      kind: 'Denial',
      requests: [
        create(
          secrets,
          { type: 'kubernetes.io/service-account-token' },
          { annotations: { 'kubernetes.io/service-account.name': serviceAccountName } },
        ),
      ],
      says: 'kill switch: ',
    },
  };
}

const ofFences: Record<string, PolicyProbe> = {
  ...fence('', canary.killSwitch),
  ...fence('-by-workflow', canary.workflow),
  ...fence('-by-identity', canary.identity),
  'fence-pods-by-namespace': compared(wholeNamespace),
  'fence-tokens-by-namespace': compared(wholeNamespace),
  'fence-token-secrets-by-namespace': compared(wholeNamespace),
  'fence-service-accounts': {
    kind: 'Denial',
    requests: [create(serviceAccounts, {}, { name: canary.killSwitch })],
    says: 'kill switch: ',
  },
  'fence-bindings': compared(wholeNamespace),
  'fence-bindings-by-namespace': compared(wholeNamespace),
  'fence-pods-by-cluster': compared(noClusterKill),
  'fence-tokens-by-cluster': compared(noClusterKill),
  'fence-token-secrets-by-cluster': compared(noClusterKill),
  'fence-bindings-by-cluster': compared(noClusterKill),
};

const mayDoSo = 'The operator itself may do what it keeps others from.';

/** A pod of the marked ServiceAccount that bears its label, whoever writes that. */
function managedPod(spec: object, identity: string = canary.managed): ProbeRequest {
  return create(
    pods,
    { spec: { ...podSpec(canary.managed), ...spec } },
    { labels: { [label.identity]: identity } },
  );
}

const ofIdentities: Record<string, PolicyProbe> = {
  'identity-token-secrets': {
    kind: 'Denial',
    requests: [
      create(
        secrets,
        { type: 'kubernetes.io/service-account-token' },
        { annotations: { 'kubernetes.io/service-account.name': canary.managed } },
      ),
    ],
    says: 'has no tokens that never expire',
  },
  'identity-tokens': compared(openToken),
  'identity-secret-names': compared(mayDoSo),
  'identity-accounts': compared(mayDoSo),
  'copy-records': compared(mayDoSo),
  'pod-label': compared('The quota of that namespace leaves no pod to look at.'),
  'pod-labels': {
    kind: 'Denial',
    requests: [managedPod({}, 'probe')],
    says: 'is the name of the ServiceAccount that a pod runs as',
    behind: 'pod-label',
  },
  'pod-secrets': {
    kind: 'Denial',
    requests: [managedPod({ imagePullSecrets: [{ name: secretNameOf('probe', 'probe') }] })],
    says: 'for pods that run as that identity',
  },
  'identity-pods': {
    kind: 'Denial',
    // Pod Security keeps the rest of it out of that namespace before we are asked.
    requests: [managedPod({ terminationGracePeriodSeconds: 86_400 })],
    says: 'a pod of an identity ends within',
  },
  children: compared(mayDoSo),
  'operator-reach': compared(
    'A dry run of a TokenRequest would be answered with a token, and other dry runs are let through for the other policies.',
  ),
  'children-go': {
    kind: 'Denial',
    requests: carriers({ finalizers: ['orphan'] }),
    says: 'it is not deleted without what the operator made for it',
  },
  'egress-widening': {
    kind: 'Denial',
    requests: [
      create(resources.networkPolicies, {
        spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{}] },
      }),
    ],
    says: 'out, whatever its Workflow lists',
  },
  'identity-role-bindings': {
    kind: 'Denial',
    requests: [
      create(roleBindings, {
        // Nobody gives what he doesn't hold, and the operator holds this one.
        roleRef: { apiGroup: roleBindings.group, kind: 'ClusterRole', name: identityRole },
        subjects: [
          {
            apiGroup: roleBindings.group,
            kind: 'Group',
            name: `system:serviceaccounts:${PROBE_NAMESPACE}`,
          },
        ],
      }),
    ],
    says: 'is in its spec.permissions',
  },
};

const { approvals } = resources;
const highRisk = { spec: { ...workflowSpec, risk: 'High' } };

const ofApprovals: Record<string, PolicyProbe> = {
  'changed-by': {
    kind: 'Mutation',
    requests: carriers({}),
    shows: ({ metadata }) => (metadata.annotations?.[annotation.changedBy] ?? '') !== '',
    twin: 'changed-by-kept',
  },
  'changed-by-kept': {
    kind: 'Denial',
    requests: carriers({ annotations: { [annotation.changedBy]: 'probe' } }),
    says: 'is the authenticated user who changed the spec',
    behind: 'changed-by',
  },
  'changed-template': compared('It takes a Workflow that needs approval.'),
  'changed-template-kept': compared('It takes a Workflow that needs approval.'),
  'approval-mark': {
    kind: 'Mutation',
    requests: [create(workflows, highRisk)],
    shows: ({ metadata }) => metadata.labels?.[label.approval] === approvalRequired,
    twin: 'approval-marks',
  },
  'approval-unmark': {
    kind: 'Mutation',
    requests: [
      create(workflows, { spec: workflowSpec }, { labels: { [label.approval]: approvalRequired } }),
    ],
    shows: ({ metadata }) => metadata.labels?.[label.approval] === undefined,
    twin: 'approval-marks',
  },
  'approval-marks': {
    kind: 'Denial',
    requests: [create(workflows, highRisk, { labels: { [label.approval]: 'no' } })],
    says: 'follows spec.risk and spec.approval',
    behind: 'approval-mark',
  },
  'approval-workflow-stays': compared('It takes a Workflow that needs approval.'),
  'approval-namespace': compared('It takes a Workflow that needs approval.'),
  'approval-stamp': compared('The operator is no person, so approval-create answers first.'),
  'approval-create': {
    kind: 'Denial',
    requests: [
      create(approvals, {
        spec: { workflow: 'probe', digest: '0'.repeat(64), decision: 'Reject', reason: 'probe' },
      }),
    ],
    says: 'a ServiceAccount may not decide on a Workflow',
  },
  'approval-own': compared('The operator is no person, so approval-create answers first.'),
  'approval-own-identity': compared('The operator is no person, so approval-create answers first.'),
  'approval-bare': compared('The operator is no person, so approval-create answers first.'),
  'approval-delete': compared(mayDoSo),
  revisions: compared(mayDoSo),
  'approval-gate': compared('The quota of that namespace leaves no pod to look at.'),
  'approval-gated': compared('It takes a Workflow that needs approval.'),
  'approval-run-stamp': compared('The quota of that namespace leaves no pod to look at.'),
  'approval-run': compared('It takes a Workflow whose runs are approved one by one.'),
  'approval-schedule-stamp': compared('It takes a Workflow whose runs are approved one by one.'),
  'approval-schedule': compared('It takes a Workflow whose runs are approved one by one.'),
};

const noPolicy = 'It takes a GuardrailPolicy that asks for it.';
const ofPolicies = Object.fromEntries(
  [
    'policy-approval-mark',
    'policy-approval-marks',
    'policy-approver-groups',
    'policy-workflows',
    'policy-workflows-warn',
    'policy-identities',
    'policy-identities-warn',
    'egress-widening-by-policy',
    'foreign-tokens-by-policy',
  ].map((name) => [name, compared(noPolicy)]),
);

const review = {
  // None of this name stands there: of a canary, access-review-subject would answer as well.
  identity: 'probe',
  decision: 'Revoke',
  reason: 'probe',
  digest: `sha256:${'0'.repeat(64)}`,
};

const ofReviews: Record<string, PolicyProbe> = {
  'access-review-stamp': compared('Without it access-review-create refuses every review.'),
  'access-review-create': {
    kind: 'Denial',
    requests: [create(accessReviews, { spec: review })],
    says: 'review',
  },
  'access-review-subject': compared(
    'The operator may not review, so access-review-create answers first.',
  ),
  'access-review-kept': compared(mayDoSo),
};

const ofEvidence: Record<string, PolicyProbe> = {
  evidence: compared(mayDoSo),
  'evidence-anchors': compared(mayDoSo),
};

/** A Job without a deadline, of the Workflow that has limits. */
const limitedJob = create(resources.jobs, workload('Job', canary.limited));

const ofLimits: Record<string, PolicyProbe> = {
  'limits-mark': {
    kind: 'Mutation',
    requests: [create(workflows, { spec: { ...workflowSpec, limits: { timeout: '1h' } } })],
    shows: ({ metadata }) => metadata.labels?.[label.limited] === 'true',
    twin: 'limits-marks',
  },
  'limits-unmark': {
    kind: 'Mutation',
    requests: [create(workflows, { spec: workflowSpec }, { labels: { [label.limited]: 'true' } })],
    shows: ({ metadata }) => metadata.labels?.[label.limited] === undefined,
    twin: 'limits-marks',
  },
  'limits-acknowledge-stamp': compared('Without it limits-marks refuses to acknowledge anything.'),
  'limits-marks': {
    kind: 'Denial',
    requests: [
      create(workflows, { spec: workflowSpec }, { annotations: { [annotation.acknowledge]: 'x' } }),
    ],
    says: 'acknowledge',
  },
  'limit-jobs': {
    kind: 'Mutation',
    requests: [limitedJob],
    shows: (answer) => fieldsOf(answer, 'spec')['activeDeadlineSeconds'] !== undefined,
    twin: 'limited-jobs',
  },
  'limited-jobs': {
    kind: 'Denial',
    requests: [limitedJob],
    says: 'a run of',
    behind: 'limit-jobs',
  },
  'limit-hold-jobs': compared('It takes a Workflow that a breached limit holds.'),
};

const ofHolds: Record<string, PolicyProbe> = {
  'hold-acknowledge-stamp': compared(
    'Without it hold-acknowledge refuses to acknowledge anything.',
  ),
  'hold-acknowledge': {
    kind: 'Denial',
    requests: [
      create(
        workflows,
        { spec: workflowSpec },
        { annotations: { [annotation.acknowledgeHold]: 'OwnerMissing: x' } },
      ),
    ],
    says: 'acknowledge',
  },
};

/** Of the form of an AWS access key, and none. */
const example = `AKIA${'A'.repeat(16)}`;

const ofSecretsInSpecs: Record<string, PolicyProbe> = {
  'secret-in-spec': {
    kind: 'Denial',
    requests: [
      create(resources.jobs, {
        spec: {
          template: {
            metadata: { annotations: { example } },
            spec: podSpec('default', 'Never'),
          },
        },
      }),
    ],
    says: 'looks like a credential',
  },
  'foreign-tokens': compared(mayDoSo),
  'credential-copies': compared(mayDoSo),
  'secret-in-spec-allowed': {
    kind: 'Denial',
    requests: [
      create(resources.jobs, workload('Job', 'default'), {
        annotations: { [annotation.allowSecretInSpec]: 'probe' },
      }),
    ],
    says: 'takes the verb allow-secret-in-spec',
  },
};

const ofWorkloads: Record<string, PolicyProbe> = {
  ...Object.fromEntries(workloadKinds.flatMap(ofWorkload)),
  'frozen-status': compared('It takes a workload that stands there.'),
  'hold-statefulsets': compared('It takes a StatefulSet that has pods.'),
  'scale-statefulsets': compared('It takes a StatefulSet that has pods.'),
};

function ofWorkload(kind: WorkloadKind): [string, PolicyProbe][] {
  const resource = workloadResources[kind];
  const { plural } = resource;
  const requests = [create(resource, workload(kind))];
  return [
    [
      `freeze-${plural}`,
      {
        kind: 'Mutation',
        requests,
        shows: (answer) => projectWorkload(kind, answer).isPaused && isMarked(kind, answer),
        twin: `frozen-${plural}`,
      },
    ],
    [
      `frozen-${plural}`,
      { kind: 'Denial', requests, says: 'kill switch: ', behind: `freeze-${plural}` },
    ],
    [`warn-${plural}`, compared('It refuses nothing, and only tells whoever writes.')],
    [`thaw-${plural}`, compared('It acts during a release alone, which waits for it.')],
  ];
}

function isMarked(kind: WorkloadKind, { metadata }: KubeObject): boolean {
  const { annotations = {} } = metadata;
  const marks = [pauses[kind].restore, ...(kind === 'Job' ? [annotation.bornSuspended] : [])];
  return marks.some((mark) => annotations[mark] !== undefined);
}

/**
 * Of every policy, by its name, how the standing probe finds out whether it is in force. None of
 * these requests would start or mint anything if it were not.
 */
export const policyProbes: ReadonlyMap<string, PolicyProbe> = new Map(
  Object.entries({
    ...ofKillSwitch,
    ...ofAnnotation,
    ...ofFences,
    ...ofIdentities,
    ...ofReviews,
    ...ofEvidence,
    ...ofWorkloads,
    ...ofApprovals,
    ...ofPolicies,
    ...ofLimits,
    ...ofHolds,
    ...ofSecretsInSpecs,
  }).map(([name, probe]) => [policyName(name), withFullNames(probe)]),
);

function withFullNames(probe: PolicyProbe): PolicyProbe {
  switch (probe.kind) {
    case 'Denial':
      return probe.behind === undefined ? probe : { ...probe, behind: policyName(probe.behind) };
    case 'Mutation':
      return { ...probe, twin: policyName(probe.twin) };
    case 'Comparison':
      return probe;
  }
}

function annotate(
  resource: Resource,
  name: string,
  annotations: Record<string, string | null>,
): ProbeRequest {
  return patchMetadata(resource, name, { annotations });
}

function patchMetadata(
  resource: Resource,
  name: string,
  metadata: { labels?: object; annotations: object },
): ProbeRequest {
  return { verb: 'patch', resource, name, patch: { metadata } };
}

function compared(reason: string): Comparison {
  return { kind: 'Comparison', reason };
}

function fieldsOf(object: KubeObject, field: string): Record<string, unknown> {
  const value: unknown = Reflect.get(object, field);
  return typeof value === 'object' && value !== null ? { ...value } : {};
}
