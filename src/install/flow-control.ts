import { MANAGED_BY } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import { workloadResources } from '../api/workload.ts';
import { foreignKinds } from '../guardrails/kill-switch/foreign-kinds.ts';

const apiVersion = 'flowcontrol.apiserver.k8s.io/v1';
const labels = { 'app.kubernetes.io/name': MANAGED_BY };

interface FlowRule {
  verbs: string[];
  apiGroups: string[];
  resources: string[];
  namespaces?: string[];
  clusterScope?: boolean;
}

const { killSwitches, clusterKillSwitches, workflows, automationIdentities, namespaces, pods } =
  resources;

/**
 * What a kill and a release ask for, in the namespace of the automation. The caches list and watch
 * across all namespaces, and so don't come under this.
 */
function killRules(): FlowRule[] {
  const workloads = [
    ...Object.values(workloadResources),
    ...foreignKinds.map(({ resource }) => resource),
  ];
  return [
    inNamespaces(['get', 'list', 'create', 'patch', 'delete'], killSwitches),
    inNamespaces(['patch'], { ...killSwitches, plural: `${killSwitches.plural}/status` }),
    {
      ...ruleOf(
        ['get', 'patch', 'delete'],
        [
          clusterKillSwitches,
          { ...clusterKillSwitches, plural: `${clusterKillSwitches.plural}/status` },
        ],
      ),
      ...wherever,
    },
    inNamespaces(['get', 'patch'], workflows, automationIdentities),
    inNamespaces(['get', 'list', 'patch', 'delete'], pods),
    inNamespaces(['get', 'list', 'patch'], ...workloads),
    // What a kill takes away, and how it is verified.
    inNamespaces(['get', 'delete'], resources.serviceAccounts, resources.secrets),
    inNamespaces(['get', 'delete'], resources.roleBindings),
    inNamespaces(['list'], resources.networkPolicies),
    { ...ruleOf(['create'], [resources.subjectAccessReviews]), ...wherever },
    { ...ruleOf(['get', 'patch'], [namespaces]), ...wherever },
  ];
}

/**
 * Of the whole cluster. A list of no namespaces would be stored as null, in which GitOps tools see
 * a difference for ever.
 */
const wherever = { clusterScope: true, namespaces: ['*'] };

function inNamespaces(verbs: string[], ...of: Resource[]): FlowRule {
  return { ...ruleOf(verbs, of), namespaces: ['*'] };
}

function ruleOf(verbs: string[], of: readonly Resource[]): FlowRule {
  return {
    verbs,
    apiGroups: [...new Set(of.map(({ group }) => group))],
    resources: [...new Set(of.map(({ plural }) => plural))],
  };
}

/**
 * API Priority and Fairness for the operator: kills have a level of their own, so that neither
 * other clients nor the operator's own other work can make them wait.
 */
export function flowControlManifests(): KubeObject[] {
  const everything: FlowRule = {
    verbs: ['*'],
    apiGroups: ['*'],
    resources: ['*'],
    ...wherever,
  };
  return [
    // About an eighth of what an API server with the default levels does at a time: 75 of 600 seats,
    // more than the 64 requests that one kill has in flight. Nothing is lent: what is lent comes
    // back after up to ten seconds.
    level(`${MANAGED_BY}-kill`, { nominalConcurrencyShares: 40, lendablePercent: 0 }),
    level(MANAGED_BY, { nominalConcurrencyShares: 10, lendablePercent: 50 }),
    // Before those for all ServiceAccounts (9000) and for those of kube-system (900).
    schema(`${MANAGED_BY}-kill`, { precedence: 700, by: 'ByNamespace', rules: killRules() }),
    schema(MANAGED_BY, { precedence: 710, by: 'ByUser', rules: [everything] }),
  ];
}

function level(name: string, limited: object): KubeObject {
  return object('PriorityLevelConfiguration', name, {
    type: 'Limited',
    limited: {
      ...limited,
      limitResponse: { type: 'Queue', queuing: { queues: 16, handSize: 4, queueLengthLimit: 128 } },
    },
  });
}

function schema(
  name: string,
  { precedence, by, rules }: { precedence: number; by: string; rules: FlowRule[] },
): KubeObject {
  return object('FlowSchema', name, {
    priorityLevelConfiguration: { name },
    matchingPrecedence: precedence,
    distinguisherMethod: { type: by },
    rules: [
      {
        subjects: [
          { kind: 'ServiceAccount', serviceAccount: { name: MANAGED_BY, namespace: MANAGED_BY } },
        ],
        resourceRules: rules,
      },
    ],
  });
}

function object(kind: string, name: string, spec: object): KubeObject {
  const manifest = { apiVersion, kind, metadata: { name, labels }, spec };
  return manifest;
}
