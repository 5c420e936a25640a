import { annotation, stoppedSelector } from '../../../src/api/names.ts';
import type { KubeObject } from '../../../src/api/objects.ts';
import { resources, type Resource } from '../../../src/api/resources.ts';
import type { Stored } from './api.ts';

/** A kind of workload, and what it looks like running and paused. */
export interface TestKind {
  resource: Resource;
  running: number | boolean;
  paused: number | boolean;
  restore: string;
  /** A value that its owner asks for while it is stopped. */
  asked: number | boolean;
  /** One that its owner asks for after the release. */
  askedLater: number | boolean;
  /** Name of the field that pauses it, where its owner owns it. */
  field?: 'replicas' | 'suspend';
  /** Value of what pauses it. */
  read: (object: Stored) => number | boolean | undefined;
  /** Merge patch that asks for a value. */
  patch: (value: number | boolean) => object;
  manifest: (options: ManifestOptions) => KubeObject;
}

export interface ManifestOptions {
  namespace: string;
  name?: string;
  serviceAccountName?: string;
  /** Left out of the manifest where `undefined`. */
  value?: number | boolean | undefined;
  /** Further fields of `spec`. */
  spec?: object;
}

const image = 'registry.example/automation:1';

/** The spec of a pod that runs as the automation `invoice`, unless told otherwise. */
export function podSpec(serviceAccountName = 'invoice', restartPolicy = 'Always'): object {
  return {
    serviceAccountName,
    restartPolicy,
    terminationGracePeriodSeconds: 1,
    containers: [{ name: 'main', image }],
  };
}

export function pod(namespace: string, name: string, serviceAccountName = 'invoice'): KubeObject {
  return {
    metadata: { namespace, name },
    spec: podSpec(serviceAccountName),
  } as KubeObject;
}

const byReplicas = {
  field: 'replicas',
  running: 3,
  paused: 0,
  restore: annotation.restoreReplicas,
  asked: 7,
  askedLater: 5,
  read: ({ spec }: Stored) => spec?.replicas,
  patch: (replicas: number | boolean) => ({ spec: { replicas } }),
} as const;

const bySuspend = {
  field: 'suspend',
  running: false,
  paused: true,
  restore: annotation.restoreSuspend,
  asked: false,
  askedLater: true,
  read: ({ spec }: Stored) => spec?.suspend,
  patch: (suspend: number | boolean) => ({ spec: { suspend } }),
} as const;

function manifestOf(
  { metadata, field }: { metadata: KubeObject['metadata']; field: 'replicas' | 'suspend' },
  { value, spec }: ManifestOptions,
  own: object,
): KubeObject {
  return {
    metadata,
    spec: { ...own, ...(value !== undefined && { [field]: value }), ...spec },
  } as KubeObject;
}

function metadataOf({ namespace, name = 'work' }: ManifestOptions): KubeObject['metadata'] {
  return { namespace, name };
}

function selected(options: ManifestOptions): object {
  const labels = { app: metadataOf(options).name };
  const template = { metadata: { labels }, spec: podSpec(options.serviceAccountName) };
  return { selector: { matchLabels: labels }, template };
}

function jobSpec({ serviceAccountName }: ManifestOptions): object {
  return { template: { spec: podSpec(serviceAccountName, 'Never') } };
}

export const deployment: TestKind = {
  ...byReplicas,
  resource: resources.deployments,
  manifest: (options) =>
    manifestOf({ metadata: metadataOf(options), field: 'replicas' }, options, selected(options)),
};

export const statefulSet: TestKind = {
  ...byReplicas,
  resource: resources.statefulSets,
  manifest: (options) =>
    manifestOf({ metadata: metadataOf(options), field: 'replicas' }, options, {
      ...selected(options),
      serviceName: 'work',
    }),
};

export const replicaSet: TestKind = {
  ...byReplicas,
  resource: resources.replicaSets,
  manifest: (options) =>
    manifestOf({ metadata: metadataOf(options), field: 'replicas' }, options, selected(options)),
};

const stopped = { [stoppedSelector]: 'true' };

export const daemonSet: TestKind = {
  running: false,
  paused: true,
  restore: annotation.restoreStopped,
  asked: false,
  askedLater: true,
  read: ({ spec }) => spec?.template?.spec?.nodeSelector?.[stoppedSelector] === 'true',
  patch: (value) => ({
    spec: {
      template: { spec: { nodeSelector: { [stoppedSelector]: value === true ? 'true' : null } } },
    },
  }),
  resource: resources.daemonSets,
  manifest: ({ value, spec, ...options }) => {
    const labels = { app: metadataOf(options).name };
    const nodeSelector = value === true ? { nodeSelector: stopped } : {};
    return {
      metadata: metadataOf(options),
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: { ...podSpec(options.serviceAccountName), ...nodeSelector },
        },
        ...spec,
      },
    } as KubeObject;
  },
};

export const cronJob: TestKind = {
  ...bySuspend,
  resource: resources.cronJobs,
  manifest: (options) =>
    manifestOf({ metadata: metadataOf(options), field: 'suspend' }, options, {
      schedule: '0 3 1 1 *',
      jobTemplate: { spec: jobSpec(options) },
    }),
};

export const job: TestKind = {
  ...bySuspend,
  resource: resources.jobs,
  manifest: (options) =>
    manifestOf({ metadata: metadataOf(options), field: 'suspend' }, options, jobSpec(options)),
};

export const testKinds: readonly TestKind[] = [
  deployment,
  statefulSet,
  daemonSet,
  replicaSet,
  cronJob,
  job,
];

/** Managers that own the field of the spec which pauses a workload. */
export function ownersOf({ field }: TestKind, { metadata }: Stored): string[] {
  if (field === undefined) return [];
  return (metadata.managedFields ?? [])
    .filter(({ fieldsV1 }) => fieldsV1['f:spec']?.[`f:${field}`] !== undefined)
    .map(({ manager }) => manager);
}
