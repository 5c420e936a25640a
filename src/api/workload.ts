import { annotation } from './names.ts';
import type { KubeObject, LabelSelector, ObjectMeta, PodTemplate } from './objects.ts';
import { resources, type Resource } from './resources.ts';

/** Kinds of workload that a Workflow can target and the kill switch stops. */
export const workloadKinds = ['Deployment', 'StatefulSet', 'Job', 'CronJob'] as const;

export type WorkloadKind = (typeof workloadKinds)[number];

export const workloadResources: Record<WorkloadKind, Resource> = {
  Deployment: resources.deployments,
  StatefulSet: resources.statefulSets,
  Job: resources.jobs,
  CronJob: resources.cronJobs,
};

/** What the guardrails need to know of a workload, whatever its kind. */
export interface Workload extends KubeObject {
  kind: WorkloadKind;
  metadata: ObjectMeta & { namespace: string; uid: string };
  /** The ServiceAccount that its pods run as. */
  serviceAccountName: string;
  podLabels: Record<string, string>;
  /** Selects its pods, where the kind has a selector that its owner wrote. */
  podSelector?: LabelSelector;
  /** Names of Secrets that its pod template references: env, envFrom, volumes, imagePullSecrets. */
  secretNames: string[];
  /** Value of our `restarted-at` annotation on its pod template. */
  restartedAt?: string;
  /** Deployment and StatefulSet. */
  replicas?: number;
  /** Job and CronJob. */
  suspend?: boolean;
  /** A Job that is Complete or Failed. */
  finished: boolean;
  /** A StatefulSet whose volumes are deleted when it is scaled down: never scale it. */
  scaleDeletesVolumes: boolean;
}

interface RawWorkload extends KubeObject {
  spec?: {
    replicas?: number;
    suspend?: boolean;
    selector?: LabelSelector;
    manualSelector?: boolean;
    template?: PodTemplate;
    jobTemplate?: { spec?: { template?: PodTemplate } };
    persistentVolumeClaimRetentionPolicy?: { whenScaled?: string };
  };
  status?: { conditions?: { type: string; status: string }[] };
}

/** Keeps of a workload what {@link Workload} names; total, whatever the object looks like. */
export function projectWorkload(kind: WorkloadKind, object: KubeObject): Workload {
  const { metadata, spec = {}, status } = object as RawWorkload;
  const template = kind === 'CronJob' ? spec.jobTemplate?.spec?.template : spec.template;
  const restartedAt = template?.metadata?.annotations?.[annotation.restartedAt];
  const selector = kind === 'Deployment' || kind === 'StatefulSet' ? spec.selector : undefined;
  return {
    kind,
    metadata: {
      name: metadata.name,
      namespace: metadata.namespace ?? '',
      uid: metadata.uid ?? '',
      ...(metadata.resourceVersion !== undefined && { resourceVersion: metadata.resourceVersion }),
      ...(metadata.creationTimestamp !== undefined && {
        creationTimestamp: metadata.creationTimestamp,
      }),
      ...(metadata.deletionTimestamp !== undefined && {
        deletionTimestamp: metadata.deletionTimestamp,
      }),
      ...(metadata.labels !== undefined && { labels: metadata.labels }),
      annotations: ours(metadata.annotations),
      ...(metadata.ownerReferences !== undefined && { ownerReferences: metadata.ownerReferences }),
    },
    serviceAccountName: template?.spec?.serviceAccountName ?? 'default',
    podLabels: template?.metadata?.labels ?? {},
    ...(selector !== undefined && { podSelector: selector }),
    secretNames: referencedSecrets(template?.spec),
    ...(restartedAt !== undefined && { restartedAt }),
    ...(kind === 'Deployment' || kind === 'StatefulSet'
      ? { replicas: spec.replicas ?? 1 }
      : { suspend: spec.suspend ?? false }),
    finished:
      kind === 'Job' &&
      (status?.conditions ?? []).some(
        ({ type, status: is }) => (type === 'Complete' || type === 'Failed') && is === 'True',
      ),
    scaleDeletesVolumes:
      kind === 'StatefulSet' && spec.persistentVolumeClaimRetentionPolicy?.whenScaled === 'Delete',
  };
}

const group = annotation.touch.slice(0, annotation.touch.indexOf('/') + 1);

function ours(annotations: Record<string, string> | undefined): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations ?? {}).filter(([key]) => key.startsWith(group)),
  );
}

/**
 * Every Secret that a pod spec names, found by the shape of the reference
 * (`secretKeyRef`, `secretRef`, `secret`, `imagePullSecrets`) at any depth, so that a volume type
 * that is new to us is not overlooked.
 */
function referencedSecrets(spec: unknown): string[] {
  const names = new Set<string>();
  const visit = (value: unknown, key: string): void => {
    if (Array.isArray(value)) {
      for (const item of value) visit(item, key);
      return;
    }
    if (typeof value !== 'object' || value === null) return;
    const { name, secretName } = value as { name?: unknown; secretName?: unknown };
    if (secretReferenceKeys.has(key) && typeof name === 'string') names.add(name);
    if (key === 'secret' && typeof secretName === 'string') names.add(secretName);
    for (const [child, item] of Object.entries(value)) visit(item, child);
  };
  visit(spec, '');
  return [...names].toSorted();
}

const secretReferenceKeys = new Set([
  'secretKeyRef',
  'secretRef',
  'secret',
  'imagePullSecrets',
  'nodePublishSecretRef',
]);
