import { annotation, API_VERSION, label, MANAGED_BY } from '../api/names.ts';
import type { KubeObject, NetworkPolicy, Pod } from '../api/objects.ts';
import type { Workflow } from '../api/workflow.ts';
import { fieldOf } from '../guardrails/requirements.ts';
import { controllerOf } from '../runtime/applier.ts';

/** What of policies, pods and Workflows is kept and looked up for the sake of egress. */

/** Whose a policy is: by its label, and, of one that an earlier version made, by its reference. */
function workflowsOf(policy: NetworkPolicy): string[] {
  const { namespace = '', labels } = policy.metadata;
  const owner = controllerOf(policy);
  const names = [
    owner?.kind === 'Workflow' && owner.apiVersion === API_VERSION ? owner.name : undefined,
    labels?.[label.workflow],
  ];
  return [...new Set(names.flatMap((name) => name ?? []))].map((name) => `${namespace}/${name}`);
}

/**
 * Its namespace, where a policy may select pods of a Workflow under which the other index doesn't
 * have it. A thousand policies that each select one identity need no comparison with each other.
 */
function othersOf({ metadata, spec }: NetworkPolicy): string[] {
  const workflow = metadata.labels?.[label.workflow];
  const isOfOne =
    workflow !== undefined && spec.podSelector.matchLabels?.[label.identity] === workflow;
  return isOfOne ? [] : [metadata.namespace ?? ''];
}

/** Policies by the Workflow that they belong to, and those that may widen, by namespace. */
export const policyIndexes = { workflow: workflowsOf, others: othersOf };

/** Keeps of a policy of others what it allows, and of ours what is compared. */
export function projectPolicy(object: KubeObject): NetworkPolicy {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of that kind
  const { metadata, spec } = object as NetworkPolicy;
  const { managedFields: _, ...rest } = metadata;
  const isMarked = metadata.annotations?.[annotation.ownerUid] !== undefined;
  const isLabelledAsOurs = metadata.labels?.[label.managedBy] === MANAGED_BY;
  if (isMarked || isLabelledAsOurs || controllerOf(object) !== undefined) {
    return { metadata: rest, spec };
  }
  const { name, namespace = '', uid = '', labels = {} } = metadata;
  const workflow = labels[label.workflow];
  const kept = workflow === undefined ? {} : { labels: { [label.workflow]: workflow } };
  return { metadata: { name, namespace, uid, ...kept }, spec };
}

/** Namespaces that the allowlist of a Workflow names, for an index. */
export function peerNamespaces(workflow: Workflow): string[] {
  const names = entriesOf(workflow).map((entry) => fieldOf(entry, 'namespace'));
  return [...new Set(names)].filter((name) => typeof name === 'string');
}

/** Whether the allowlist of a Workflow names the API server. */
export function usesKubeAPI(workflow: Workflow): boolean {
  return entriesOf(workflow).some((entry) => fieldOf(entry, 'peer') === 'KubeAPI');
}

/** Hosts that the allowlist of a Workflow has the operator look up, for an index. */
export function hostsToResolve(workflow: Workflow): string[] {
  const hosts = entriesOf(workflow).flatMap((entry) =>
    fieldOf(entry, 'resolve') === true ? [fieldOf(entry, 'host')] : [],
  );
  return [...new Set(hosts)].filter((host) => typeof host === 'string');
}

/** Whether the allowlist of a Workflow names a host. */
export function usesHosts(workflow: Workflow): boolean {
  return entriesOf(workflow).some((entry) => fieldOf(entry, 'host') !== undefined);
}

/** Total: it takes whatever the API server has stored. */
function entriesOf({ spec }: Workflow): unknown[] {
  return ['egress', 'ingress'].flatMap((field) => {
    const list = fieldOf(spec, field);
    return Array.isArray(list) ? list : [];
  });
}

/** Whether policies find a pod by the label of its identity. */
export function isLabelled({ metadata, spec }: Pod): boolean {
  return metadata.labels?.[label.identity] === spec?.serviceAccountName;
}

/** Whether a pod runs nothing any more. */
export function hasEnded({ status }: Pod): boolean {
  return status?.phase === 'Succeeded' || status?.phase === 'Failed';
}
