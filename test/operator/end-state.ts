import type { ControlPlane } from '../control-plane/control-plane.ts';
import { listObjects } from './cluster.ts';

const kinds = [
  'automationworkflows.automationguardrails.dev',
  'automationidentities.automationguardrails.dev',
  'killswitches.automationguardrails.dev',
  'serviceaccounts',
  'roles',
  'rolebindings',
  'networkpolicies',
  'secrets',
  'deployments',
  'statefulsets',
  'daemonsets',
  'replicasets',
  'cronjobs',
  'jobs',
  'pods',
].join(',');

interface Item {
  kind: string;
  metadata: {
    name: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    ownerReferences?: { kind: string; name: string }[];
    finalizers?: string[];
    deletionTimestamp?: string;
  };
  spec?: Record<string, unknown>;
  data?: Record<string, string>;
  rules?: unknown;
  subjects?: unknown;
  roleRef?: unknown;
  status?: Record<string, unknown>;
}

/**
 * What stands in a namespace, without what differs between two runs that went the same way:
 * UIDs, versions, times, generated names and secret values.
 */
export async function endStateOf(
  controlPlane: ControlPlane,
  namespace: string,
): Promise<Record<string, unknown>> {
  const items = await listObjects<Item>(controlPlane, kinds, namespace);
  const state: Record<string, unknown> = {};
  const pods = new Map<string, number>();
  for (const item of items) {
    if (item.metadata.deletionTimestamp !== undefined) continue;
    // Of a Deployment, whose names differ with its template.
    if (item.kind === 'ReplicaSet' && item.metadata.ownerReferences !== undefined) continue;
    if (item.kind === 'Pod') {
      const owner = item.metadata.labels?.['component'] ?? item.metadata.name;
      pods.set(owner, (pods.get(owner) ?? 0) + 1);
      continue;
    }
    state[`${item.kind}/${item.metadata.name}`] = masked(item, namespace);
  }
  state['pods'] = Object.fromEntries([...pods].toSorted(([a], [b]) => a.localeCompare(b)));
  return state;
}

function masked(item: Item, namespace: string): unknown {
  const { metadata, spec, status, data, rules, subjects, roleRef } = item;
  const text = JSON.stringify({
    labels: metadata.labels,
    annotations: maskedAnnotations(metadata.annotations),
    owners: metadata.ownerReferences?.map(({ kind, name }) => `${kind}/${name}`),
    finalizers: metadata.finalizers,
    spec,
    rules,
    subjects,
    roleRef,
    dataKeys: data === undefined ? undefined : Object.keys(data).toSorted(),
    conditions: (
      (status?.['conditions'] ?? []) as { type: string; status: string; reason: string }[]
    )
      .map(({ type, status: is, reason }) => `${type}=${is} ${reason}`)
      .filter((condition) => !/^(Progressing|Available|Suspended)=/.test(condition))
      .toSorted(),
    failed: status?.['failed'],
  });
  return JSON.parse(
    text
      .replaceAll(namespace, 'NAMESPACE')
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'UID')
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, 'TIME'),
  ) as unknown;
}

/**
 * Whether the cluster's own controllers have done what they do sooner or later.
 *
 * @param state as {@link endStateOf} has it
 */
export function isWhole(state: Record<string, unknown>): boolean {
  return 'ServiceAccount/default' in state && !JSON.stringify(state).includes('ReplicaFailure');
}

function maskedAnnotations(annotations: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations).filter(
      ([key]) =>
        key !== 'kubectl.kubernetes.io/last-applied-configuration' &&
        key !== 'deployment.kubernetes.io/revision' &&
        // Counts the changes of the template.
        key !== 'deprecated.daemonset.template.generation',
    ),
  );
}
