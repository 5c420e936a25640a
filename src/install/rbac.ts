import {
  grantableRole as grantableRoleName,
  GROUP,
  identityRole as identityRoleName,
  MANAGED_BY,
} from '../api/names.ts';
import type { PolicyRule } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { foreignKinds } from '../guardrails/kill-switch/foreign-kinds.ts';
import { pokedKinds } from '../guardrails/kill-switch/pokes.ts';
import { workloadResources } from '../api/workload.ts';

/** A ClusterRole or Role that an installation brings, whatever brings it. */
export interface RoleDefinition {
  /** Without the prefix of the installation. */
  name: string;
  description: string;
  /** A Role in the operator's own namespace. */
  namespaced?: boolean;
  /** An installation can do without it. */
  forPeople?: boolean;
  /** Only where the operator acts in listed namespaces, and is bound in those (`namespaces`) or not. */
  limited?: { namespaces: boolean };
  rules: PolicyRule[];
  /** Who is bound to it, other than the operator. */
  subjects?: Subject[];
}

/** Of a binding. */
export type Subject =
  | { kind: 'ServiceAccount'; name: string; namespace: string }
  | { kind: 'User'; apiGroup: 'rbac.authorization.k8s.io'; name: string };

const read = ['get', 'list', 'watch'];

function rule(verbs: string[], ...of: (Resource | [Resource, string])[]): PolicyRule {
  const names = of.map((item) => (isSub(item) ? `${item[0].plural}/${item[1]}` : item.plural));
  const groups = of.map((item) => (isSub(item) ? item[0].group : item.group));
  return { apiGroups: [...new Set(groups)], resources: names, verbs };
}

function rulesByGroup(verbs: string[], of: readonly Resource[]): PolicyRule[] {
  const groups = Map.groupBy(of, ({ group }) => group);
  return [...groups.values()].map((kinds) => rule(verbs, ...kinds));
}

function isSub(item: Resource | [Resource, string]): item is [Resource, string] {
  return Array.isArray(item);
}

const {
  workflows,
  automationIdentities,
  killSwitches,
  clusterKillSwitches,
  guardrailPolicies,
  approvals,
} = resources;
const kinds = [
  workflows,
  automationIdentities,
  killSwitches,
  clusterKillSwitches,
  guardrailPolicies,
  approvals,
] as const;
const seen = [
  ...kinds,
  resources.workflowRevisions,
  resources.accessReviews,
  resources.evidenceSegments,
] as const;

/** What the operator itself may do: exactly what it uses. No escalate, no bind, no impersonate. */
export const operatorRole: RoleDefinition = {
  name: 'operator',
  description: 'What the operator does by itself.',
  rules: [
    rule(read, workflows, automationIdentities, killSwitches, clusterKillSwitches),
    rule(['list', 'watch'], guardrailPolicies),
    rule(['list', 'watch'], approvals, resources.accessReviews),
    // The label that says that a KillSwitch stands for the annotation.
    ...rulesByGroup(['patch'], [workflows, automationIdentities, resources.namespaces]),
    // The marks of a breached limit.
    rule(['hold'], workflows),
    rule(
      ['patch'],
      [workflows, 'status'],
      [automationIdentities, 'status'],
      [killSwitches, 'status'],
      [clusterKillSwitches, 'status'],
      [guardrailPolicies, 'status'],
    ),
    rule(['report'], workflows, automationIdentities, killSwitches, clusterKillSwitches),
    rule(['create', 'patch', 'delete', 'latch', 'lift'], killSwitches),
    rule(['patch', 'delete', 'lift'], clusterKillSwitches),
    // What is approved starts; decisions on what is long past go.
    rule(['lift-gate'], workflows),
    rule(['delete'], approvals),
    rule(['list', 'create', 'patch', 'delete', 'record'], resources.evidenceSegments),
    rule(['list', 'watch', 'create', 'delete', 'record'], resources.workflowRevisions),
    rule(['patch'], [resources.workflowRevisions, 'status']),
    // `represent` only to be able to grant it.
    rule(['represent', 'issue-tokens', 'manage-children'], automationIdentities),
    rule(read, resources.namespaces),
    rule([...read, 'create', 'patch', 'delete'], resources.serviceAccounts),
    rule([...read, 'create', 'patch', 'delete'], resources.roles, resources.roleBindings),
    // What others let an identity do.
    rule(['list', 'watch'], resources.clusterRoles, resources.clusterRoleBindings),
    rule([...read, 'create', 'patch', 'delete'], resources.networkPolicies),
    // What knows hosts, and denies what others allow; where a network plug-in brings it.
    rule([...read, 'create', 'patch', 'delete'], resources.ciliumNetworkPolicies),
    rule([...read, 'create', 'patch', 'delete'], resources.clusterNetworkPolicies),
    // What others allow by it.
    rule(['list', 'watch'], resources.ciliumClusterwideNetworkPolicies),
    // Where the API server and the cluster's DNS are, for those who may reach them.
    rule(['list', 'watch'], resources.services),
    rule(['list', 'watch'], resources.endpointSlices),
    // By name only: without list and watch, the operator's token is no key to all Secrets at once.
    rule(['get', 'create', 'patch', 'delete'], resources.secrets),
    // Tokens of identities, each bound to its Secret.
    rule(['create'], [resources.serviceAccounts, 'token']),
    // Whether a token that was revoked is dead, and whether one is for the API server itself.
    rule(['create'], resources.tokenReviews),
    // Whether a killed identity is still allowed something.
    rule(['create'], resources.subjectAccessReviews),
    rule([...read, 'patch', 'delete'], resources.pods),
    rule(
      [...read, 'patch'],
      resources.deployments,
      resources.statefulSets,
      resources.daemonSets,
      resources.replicaSets,
    ),
    rule([...read, 'patch'], resources.jobs, resources.cronJobs),
    // Those of rotation hooks, which admission keeps to identities.
    rule(['create', 'delete'], resources.jobs),
    rule(['patch'], [resources.cronJobs, 'status']),
    rule(['create', 'patch'], resources.events),
    // Kinds of other projects, of which some may be installed.
    ...rulesByGroup(
      ['get', 'list', 'patch'],
      foreignKinds.map(({ resource }) => resource),
    ),
    rule(['list', 'patch'], pokedKinds.applications),
    rule(['patch'], pokedKinds.kustomizations),
    rule(['patch'], pokedKinds.helmReleases),
    // Whether they are still what was installed; never to change one.
    rule(
      ['list', 'watch'],
      resources.validatingPolicies,
      resources.validatingBindings,
      resources.mutatingPolicies,
      resources.mutatingBindings,
    ),
  ],
};

const pluralsOf = (of: readonly Resource[]): ReadonlySet<string> =>
  new Set(of.map(({ group, plural }) => `${plural}.${group}`));
const clusterScoped = pluralsOf(Object.values(resources).filter(({ namespaced }) => !namespaced));
/** Listed where they are stopped and poked, and nowhere else. */
const ofOtherProjects = pluralsOf([
  ...foreignKinds.map(({ resource }) => resource),
  ...Object.values(pokedKinds),
]);
/** Told of what isn't acted on, too. Nothing is started, stopped or granted by one. */
const writtenEverywhere = new Set([
  ...seen.map(({ group, plural }) => `${plural}/status.${group}`),
  ...pluralsOf([resources.events]),
]);

/** Whether an operator that acts in listed namespaces alone has a right everywhere all the same. */
function isEverywhere(group: string, resource: string, verb: string): boolean {
  const [plural = ''] = resource.split('/');
  const name = `${plural}.${group}`;
  // A Role grants what is done to its own namespace.
  if (resource === resources.namespaces.plural) return read.includes(verb);
  if (resource === resources.secrets.plural || ofOtherProjects.has(name)) return false;
  if (clusterScoped.has(name) || plural === resources.evidenceSegments.plural) return true;
  // By a dry run it is found out whether the fence of a kill stands.
  if (resource === killSwitches.plural && verb === 'patch') return true;
  return verb === 'report' || read.includes(verb) || writtenEverywhere.has(`${resource}.${group}`);
}

/** The operator's rights, as far as it has them everywhere, or in listed namespaces alone. */
function partOfOperator(everywhere: boolean): PolicyRule[] {
  const rights = operatorRole.rules.flatMap(({ apiGroups = [], resources: of = [], verbs }) =>
    apiGroups.flatMap((group) =>
      of.map((resource) => ({
        group,
        resource,
        verbs: verbs.filter((verb) => isEverywhere(group, resource, verb) === everywhere),
      })),
    ),
  );
  const alike = Map.groupBy(
    rights.filter(({ verbs }) => verbs.length > 0),
    ({ group, verbs }) => [group, ...verbs].join(' '),
  );
  return [...alike.values()].map((ofOne) => ({
    apiGroups: [...new Set(ofOne.map(({ group }) => group))],
    resources: ofOne.map(({ resource }) => resource),
    verbs: [...new Set(ofOne.flatMap(({ verbs }) => verbs))],
  }));
}

/** Instead of {@link operatorRole}, for the whole cluster: it sees, and says what it doesn't do. */
export const limitedOperatorRole: RoleDefinition = {
  name: 'operator-everywhere',
  description:
    'What the operator does in every namespace where it acts in listed ones alone: it reads, and says what it does not do.',
  limited: { namespaces: false },
  rules: partOfOperator(true),
};

/** Instead of {@link operatorRole}, in each listed namespace and in the probe's. */
export const namespaceOperatorRole: RoleDefinition = {
  name: 'operator-in-namespace',
  description: 'What the operator does in a namespace that it was given.',
  limited: { namespaces: true },
  rules: partOfOperator(false),
};

/** In the operator's own namespace, where {@link operatorRole} doesn't allow the same. */
export const ownNamespaceRole: RoleDefinition = {
  name: 'own-namespace',
  description:
    'The key that signs evidence; and a dry run that finds out whether admission rewrites requests.',
  namespaced: true,
  limited: { namespaces: false },
  rules: [
    rule(['get', 'create', 'patch'], resources.secrets),
    rule(['create'], killSwitches),
    // By this, admission knows it for the operator: it writes its records, and no Secrets of others.
    rule(['issue-tokens'], automationIdentities),
  ],
};

/** In the operator's own namespace. */
export const leaderElectionRole: RoleDefinition = {
  name: 'leader-election',
  description: 'The Lease by which one replica leads.',
  namespaced: true,
  rules: [rule(['get', 'create', 'patch'], resources.leases)],
};

/** In the operator's own namespace. */
export const anchorsRole: RoleDefinition = {
  name: 'evidence',
  description:
    'Where heads of evidence, the keys that sign them, and what was copied to a vault are written down.',
  namespaced: true,
  rules: [rule(['get', 'list', 'create', 'patch', 'delete'], resources.configMaps)],
};

/** In the namespace of the standing probe, for its dry runs and for what stands there for good. */
export const probeRole: RoleDefinition = {
  name: 'probe',
  description: 'Asks the admission policies, by dry runs, in a namespace in which nothing can run.',
  namespaced: true,
  rules: [
    // Secrets are created by the right that the operator has everywhere.
    rule(['create'], resources.pods),
    ...rulesByGroup(['create'], Object.values(workloadResources)),
    rule(['create', 'delete'], workflows, automationIdentities),
    rule(['create'], approvals),
    rule(['create'], resources.accessReviews),
  ],
};

/**
 * The ceiling of what an AutomationIdentity can ask for: the API server lets nobody grant what he
 * doesn't hold. An administrator widens it.
 */
export const grantableRole: RoleDefinition = {
  name: grantableRoleName.slice(`${MANAGED_BY}-`.length),
  description: 'The most that an AutomationIdentity can be granted. Widen it to what you allow.',
  rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: read }],
};

/** The mark of an identity's ServiceAccount: nothing asks for this permission but admission. */
export const identityRole: RoleDefinition = {
  name: identityRoleName.slice(`${MANAGED_BY}-`.length),
  description:
    'Marks a ServiceAccount as an identity: admission restricts it. Bound by the operator, per identity.',
  rules: [rule(['represent'], automationIdentities)],
};

const controllerManager = (name: string): Subject => ({
  kind: 'ServiceAccount',
  name,
  namespace: 'kube-system',
});

/** Who else writes what the operator made, and has to. */
export const childrenRole: RoleDefinition = {
  name: 'children',
  description:
    "For the cluster's own controllers: delete, release and migrate what the operator created.",
  rules: [rule(['manage-children'], automationIdentities)],
  subjects: [
    controllerManager('generic-garbage-collector'),
    controllerManager('storage-version-migrator-controller'),
    // All of its controllers, where they have no credentials of their own.
    { kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'system:kube-controller-manager' },
  ],
};

/** Where automations may connect. */
const policyReads = [
  resources.networkPolicies,
  resources.ciliumNetworkPolicies,
  resources.ciliumClusterwideNetworkPolicies,
  resources.clusterNetworkPolicies,
].map((resource) => rule(read, resource));

/** For people. Nothing is aggregated into `edit` or `admin`: each is given on purpose. */
export const userRoles: readonly RoleDefinition[] = [
  {
    name: 'viewer',
    description:
      'See automations, where they may connect, kill switches, access reviews and evidence.',
    rules: [rule(read, ...seen), ...policyReads],
  },
  {
    name: 'requester',
    description: 'Write Workflows and AutomationIdentities.',
    rules: [
      rule([...read, 'create', 'update', 'patch', 'delete'], workflows, automationIdentities),
      rule(read, killSwitches, approvals, resources.workflowRevisions, resources.accessReviews),
    ],
  },
  {
    name: 'killer',
    description: 'Engage a kill switch. Safe to give widely.',
    rules: [rule(read, ...kinds), rule(['create'], killSwitches)],
  },
  {
    name: 'releaser',
    description: 'Release a kill switch that somebody else engaged.',
    rules: [
      rule(read, ...kinds),
      { apiGroups: [GROUP], resources: [killSwitches.plural], verbs: ['patch', 'release'] },
    ],
  },
  {
    name: 'cluster-killer',
    description: 'Stop an environment, or everything. For whoever leads an incident.',
    rules: [rule(read, ...kinds), rule(['create'], killSwitches, clusterKillSwitches)],
  },
  {
    name: 'cluster-releaser',
    description: 'Release a ClusterKillSwitch that somebody else engaged.',
    rules: [rule(read, ...kinds), rule(['patch', 'release'], clusterKillSwitches)],
  },
  {
    name: 'cluster-break-glass',
    description:
      'Release a ClusterKillSwitch alone, also without an operator. For the few who answer for it.',
    rules: [rule(read, ...kinds), rule(['patch', 'break-glass'], clusterKillSwitches)],
  },
  {
    name: 'evidence-exporter',
    description: 'Read evidence, and mark it as exported, so that it may go.',
    rules: [rule(read, ...seen), rule(['patch', 'export'], resources.evidenceSegments)],
  },
  {
    name: 'break-glass',
    description:
      'Release a kill switch alone, also without an operator. For the few who answer for it.',
    rules: [
      rule(read, ...kinds),
      { apiGroups: [GROUP], resources: [killSwitches.plural], verbs: ['patch', 'break-glass'] },
    ],
  },
  {
    name: 'auditor',
    description:
      'See automations, what they may do, and what enforces it. No Secrets, and nothing is written.',
    rules: [
      rule(read, ...seen),
      rule(read, resources.namespaces, resources.serviceAccounts),
      rule(
        read,
        resources.roles,
        resources.roleBindings,
        resources.clusterRoles,
        resources.clusterRoleBindings,
      ),
      ...policyReads,
      rule(read, resources.events),
      rule(
        read,
        resources.validatingPolicies,
        resources.validatingBindings,
        resources.mutatingPolicies,
        resources.mutatingBindings,
      ),
    ],
  },
  {
    name: 'approver',
    description: 'Decide on what Workflows of some risk run. Not on what one changed oneself.',
    rules: [
      rule(read, ...kinds, resources.workflowRevisions),
      rule(['create', 'delete'], approvals),
      { apiGroups: [GROUP], resources: [workflows.plural], verbs: ['approve'] },
      // To see what is approved, and what waits for it.
      rule(read, resources.pods),
      ...rulesByGroup(read, Object.values(workloadResources)),
    ],
  },
  {
    name: 'approval-waiver',
    description:
      'Lower the approvals that a Workflow needs, or delete it while its identity stands. For the few who answer for it.',
    rules: [rule(read, ...kinds), rule(['update', 'patch', 'delete', 'waive-approval'], workflows)],
  },
  {
    name: 'secret-allower',
    description:
      'Say that what looks like a credential in a workload is none. For who answers for secrets.',
    rules: [
      rule(read, ...kinds),
      rule(['allow-secret-in-spec'], workflows),
      ...rulesByGroup([...read, 'patch'], Object.values(workloadResources)),
    ],
  },
  {
    name: 'egress-widener',
    description:
      'Outside of dev and test, write NetworkPolicies that let pods of an automation out. For the few who answer for it.',
    rules: [
      rule(read, ...kinds),
      rule(['widen'], workflows),
      rule([...read, 'create', 'update', 'patch', 'delete'], resources.networkPolicies),
    ],
  },
  {
    name: 'reviewer',
    description: 'Review what AutomationIdentities may do, where somebody else changed them last.',
    rules: [
      rule(read, ...kinds, resources.accessReviews),
      rule(['review'], automationIdentities),
      rule(['create'], resources.accessReviews),
      // Who grants what, beyond what is declared.
      rule(
        ['list'],
        resources.roles,
        resources.roleBindings,
        resources.clusterRoles,
        resources.clusterRoleBindings,
      ),
    ],
  },
];
