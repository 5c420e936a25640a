import { annotation, stoppedSelector } from './names.ts';
import type { KubeObject, LabelSelector, ObjectMeta, PodTemplate } from './objects.ts';
import { podCodeDigest } from './pod-code.ts';
import { resources, type Resource } from './resources.ts';
import { secretHintsOf, type SecretHint } from './secret-hints.ts';

/** Kinds of workload that a Workflow can target and the kill switch stops. */
export const workloadKinds = [
  'Deployment',
  'StatefulSet',
  'DaemonSet',
  'ReplicaSet',
  'Job',
  'CronJob',
] as const;

export type WorkloadKind = (typeof workloadKinds)[number];

export const workloadResources: Record<WorkloadKind, Resource> = {
  Deployment: resources.deployments,
  StatefulSet: resources.statefulSets,
  DaemonSet: resources.daemonSets,
  ReplicaSet: resources.replicaSets,
  Job: resources.jobs,
  CronJob: resources.cronJobs,
};

/** How a kind is kept from starting pods, and what release puts back. */
export interface Pause {
  /** The annotation that keeps what its owner asked for. */
  restore: string;
  /** Regular expression of that annotation's value, in CEL as in JavaScript. */
  values: string;
  /** The value with which it stays paused. */
  paused: string;
}

const byReplicas: Pause = {
  restore: annotation.restoreReplicas,
  values: '^(0|[1-9][0-9]{0,8})$',
  paused: '0',
};
const bySuspend: Pause = {
  restore: annotation.restoreSuspend,
  values: '^(true|false)$',
  paused: 'true',
};
/** A DaemonSet has neither a count nor a switch: an entry of its nodeSelector that no node has. */
const byNodeSelector: Pause = {
  restore: annotation.restoreStopped,
  values: '^(true|false)$',
  paused: 'true',
};

export const pauses: Record<WorkloadKind, Pause> = {
  Deployment: byReplicas,
  StatefulSet: byReplicas,
  DaemonSet: byNodeSelector,
  ReplicaSet: byReplicas,
  Job: bySuspend,
  CronJob: bySuspend,
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
  /** What its pods run: {@link podCodeDigest} of its template. */
  codeDigest: string;
  /** What in its pod template looks like a credential; nothing of a value. */
  secretHints?: SecretHint[];
  /** Value of our `restarted-at` annotation on its pod template. */
  restartedAt?: string;
  /** Kept from starting pods by the field of {@link pauses}, whoever did that. */
  isPaused: boolean;
  /** Its pods are all of its current template, and available; true for kinds that don't replace theirs. */
  isRolledOut: boolean;
  /** A Job that is Complete or Failed. */
  finished: boolean;
  /** When a Job started, the last time where it was suspended meanwhile; RFC 3339. */
  startedAt?: string;
  /** How a Job ended. */
  end?: { succeeded: boolean; at: string; reason?: string };
  /** A StatefulSet whose volumes are deleted when it is scaled down: never scale it. */
  scaleDeletesVolumes: boolean;
}

interface RawWorkload extends KubeObject {
  spec?: RawSpec;
  status?: RawStatus;
}

interface RawStatus {
  conditions?: { type: string; status: string; reason?: string; lastTransitionTime?: string }[];
  startTime?: string;
  completionTime?: string;
  observedGeneration?: number;
  replicas?: number;
  updatedReplicas?: number;
  availableReplicas?: number;
  currentRevision?: string;
  updateRevision?: string;
  desiredNumberScheduled?: number;
  updatedNumberScheduled?: number;
  numberAvailable?: number;
}

interface RawSpec {
  replicas?: number;
  suspend?: boolean;
  selector?: LabelSelector;
  manualSelector?: boolean;
  template?: PodTemplate;
  jobTemplate?: { spec?: { template?: PodTemplate } };
  persistentVolumeClaimRetentionPolicy?: { whenScaled?: string };
  volumeClaimTemplates?: { metadata?: { name?: string } }[];
}

/** The template of the pods that a workload makes, as it stands there. */
export function podTemplateOf({ spec = {} }: RawWorkload): PodTemplate | undefined {
  return spec.jobTemplate?.spec?.template ?? spec.template;
}

/** Keeps of a workload what {@link Workload} names; total, whatever the object looks like. */
export function projectWorkload(kind: WorkloadKind, object: KubeObject): Workload {
  const { metadata, spec = {}, status } = object as RawWorkload;
  const template = kind === 'CronJob' ? spec.jobTemplate?.spec?.template : spec.template;
  const restartedAt = template?.metadata?.annotations?.[annotation.restartedAt];
  const hints = secretHintsOf(template);
  const end = kind === 'Job' ? endOf(status) : undefined;
  const startedAt = kind === 'Job' ? status?.startTime : undefined;
  const selector = kind === 'Job' || kind === 'CronJob' ? undefined : spec.selector;
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
      annotations: ownAnnotations(metadata.annotations),
      ...(metadata.ownerReferences !== undefined && { ownerReferences: metadata.ownerReferences }),
    },
    serviceAccountName: template?.spec?.serviceAccountName ?? 'default',
    podLabels: template?.metadata?.labels ?? {},
    ...(selector !== undefined && { podSelector: selector }),
    secretNames: referencedSecrets(template?.spec),
    codeDigest: podCodeDigest(template ?? {}, claimTemplatesOf(spec)),
    ...(hints.length > 0 && { secretHints: hints }),
    ...(restartedAt !== undefined && { restartedAt }),
    isPaused: isPaused(kind, spec, template),
    isRolledOut: isRolledOut(kind, metadata.generation, spec.replicas, status),
    finished: end !== undefined,
    ...(startedAt !== undefined && { startedAt }),
    ...(end !== undefined && { end }),
    scaleDeletesVolumes:
      kind === 'StatefulSet' && spec.persistentVolumeClaimRetentionPolicy?.whenScaled === 'Delete',
  };
}

function claimTemplatesOf({ volumeClaimTemplates = [] }: RawSpec): string[] {
  return volumeClaimTemplates.flatMap(({ metadata }) => metadata?.name ?? []);
}

/** Complete or Failed; a Job that is about to be either isn't yet. */
/** A Job that failed has no `completionTime`, so that the condition says when it ended. */
function endOf({ conditions = [], completionTime }: RawStatus = {}): Workload['end'] {
  const end = conditions.find(
    ({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True',
  );
  if (end === undefined) return undefined;
  const { type, reason, lastTransitionTime = '' } = end;
  return {
    succeeded: type === 'Complete',
    at: completionTime ?? lastTransitionTime,
    ...(reason !== undefined && reason !== '' && { reason }),
  };
}

function isPaused(kind: WorkloadKind, spec: RawSpec, template: PodTemplate | undefined): boolean {
  switch (pauses[kind]) {
    case byReplicas:
      return (spec.replicas ?? 1) === 0;
    case byNodeSelector:
      return template?.spec?.nodeSelector?.[stoppedSelector] === 'true';
    default:
      return spec.suspend === true;
  }
}

/** As `kubectl rollout status` has it. */
function isRolledOut(
  kind: WorkloadKind,
  generation = 0,
  replicas = 1,
  status: RawStatus = {},
): boolean {
  const { observedGeneration = 0, availableReplicas = 0, updatedReplicas = 0 } = status;
  switch (kind) {
    case 'Deployment':
      return (
        observedGeneration >= generation &&
        updatedReplicas >= replicas &&
        (status.replicas ?? 0) <= updatedReplicas &&
        availableReplicas >= replicas
      );
    case 'StatefulSet':
      return (
        observedGeneration >= generation &&
        status.currentRevision === status.updateRevision &&
        availableReplicas >= replicas
      );
    case 'DaemonSet': {
      const {
        desiredNumberScheduled = 0,
        updatedNumberScheduled = 0,
        numberAvailable = 0,
      } = status;
      return (
        observedGeneration >= generation &&
        updatedNumberScheduled >= desiredNumberScheduled &&
        numberAvailable >= desiredNumberScheduled
      );
    }
    case 'ReplicaSet':
    case 'Job':
    case 'CronJob':
      return true;
  }
}

/**
 * Whether a workload does what its controller owner says, and so is neither a target nor paused by
 * itself: a ReplicaSet of a Deployment. A run of a CronJob is one of its own: suspending the
 * CronJob doesn't stop it.
 */
export function isFollower({ kind, metadata }: Workload): boolean {
  return (
    kind === 'ReplicaSet' &&
    metadata.ownerReferences?.some(({ controller }) => controller === true) === true
  );
}

/** How the workloads of a kind are cached: what is kept of each, and by what it is found. */
export interface WorkloadCache {
  project: (object: KubeObject) => Workload;
  labelSelector?: string;
  indexes: Record<'namespace' | 'identity' | 'secret', (workload: Workload) => string[]>;
}

/**
 * Found by `namespace`, by `identity` (`namespace/serviceAccountName`) and by `secret`
 * (`namespace/secretName`). What merely follows its owner is found by none of them.
 */
export function workloadCache(kind: WorkloadKind): WorkloadCache {
  const independent =
    (keysOf: (workload: Workload) => string[]) =>
    (workload: Workload): string[] =>
      isFollower(workload) ? [] : keysOf(workload);
  return {
    project: (object) => projectWorkload(kind, object),
    // Those of Deployments, ten for each of them, would be most of what is cached.
    ...(kind === 'ReplicaSet' && { labelSelector: '!pod-template-hash' }),
    indexes: {
      namespace: independent(({ metadata }) => [metadata.namespace]),
      identity: independent(({ metadata, serviceAccountName }) => [
        `${metadata.namespace}/${serviceAccountName}`,
      ]),
      secret: independent(({ metadata, secretNames }) =>
        secretNames.map((name) => `${metadata.namespace}/${name}`),
      ),
    },
  };
}

/** Annotation by which Argo CD knows what it applied. */
export const argoTracking = 'argocd.argoproj.io/tracking-id';

const group = annotation.touch.slice(0, annotation.touch.indexOf('/') + 1);

/** The annotations of our group. */
export function ownAnnotations(
  annotations: Record<string, string> | undefined,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(annotations ?? {}).filter(
      ([key]) => key.startsWith(group) || key === argoTracking,
    ),
  );
}

/**
 * Every Secret that a pod spec names, found by the shape of the reference
 * (`secretKeyRef`, `secretRef`, `secret`, `imagePullSecrets`) at any depth, so that a volume type
 * that is new to us is not overlooked.
 */
export function referencedSecrets(spec: unknown): string[] {
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
