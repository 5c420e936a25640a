/** The smallest CRDs that behave as those of other projects do, as far as a kill switch goes. */
export interface ForeignCrd {
  group: string;
  version: string;
  kind: string;
  plural: string;
  scope?: 'Namespaced' | 'Cluster';
  /** Schema of fields of `spec`; any other is kept. */
  spec?: object;
  /** Its status is a subresource. */
  hasStatus: boolean;
}

const text = { type: 'string' };

/** As of Argo Workflows 3.7 and Rollouts 1.8, KEDA 2.18, Tekton 1.6, Flux 2.7, Argo CD 3.2. */
export const foreignCrds: readonly ForeignCrd[] = [
  {
    group: 'argoproj.io',
    version: 'v1alpha1',
    kind: 'Rollout',
    plural: 'rollouts',
    spec: { replicas: { type: 'integer', format: 'int32' } },
    hasStatus: true,
  },
  {
    group: 'argoproj.io',
    version: 'v1alpha1',
    kind: 'CronWorkflow',
    plural: 'cronworkflows',
    spec: { suspend: { type: 'boolean' } },
    hasStatus: false,
  },
  {
    group: 'argoproj.io',
    version: 'v1alpha1',
    kind: 'Workflow',
    plural: 'workflows',
    spec: { shutdown: text, suspend: { type: 'boolean' } },
    hasStatus: false,
  },
  {
    group: 'keda.sh',
    version: 'v1alpha1',
    kind: 'ScaledObject',
    plural: 'scaledobjects',
    hasStatus: true,
  },
  {
    group: 'keda.sh',
    version: 'v1alpha1',
    kind: 'ScaledJob',
    plural: 'scaledjobs',
    hasStatus: true,
  },
  {
    group: 'tekton.dev',
    version: 'v1',
    kind: 'PipelineRun',
    plural: 'pipelineruns',
    spec: { status: text },
    hasStatus: true,
  },
  {
    group: 'tekton.dev',
    version: 'v1',
    kind: 'TaskRun',
    plural: 'taskruns',
    spec: { status: text },
    hasStatus: true,
  },
  {
    group: 'serving.knative.dev',
    version: 'v1',
    kind: 'Service',
    plural: 'services',
    hasStatus: true,
  },
  {
    group: 'kustomize.toolkit.fluxcd.io',
    version: 'v1',
    kind: 'Kustomization',
    plural: 'kustomizations',
    hasStatus: true,
  },
  {
    group: 'helm.toolkit.fluxcd.io',
    version: 'v2',
    kind: 'HelmRelease',
    plural: 'helmreleases',
    hasStatus: true,
  },
  {
    group: 'argoproj.io',
    version: 'v1alpha1',
    kind: 'Application',
    plural: 'applications',
    hasStatus: false,
  },
];

const labelSelector = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
const exactlyOne = { type: 'object', minProperties: 1, maxProperties: 1 };
const texts = { type: 'array', maxItems: 25, items: text };

/** Of network plug-ins: Cilium 1.19, and the experimental channel of network-policy-api 0.2. */
export const networkCrds = {
  cilium: {
    group: 'cilium.io',
    version: 'v2',
    kind: 'CiliumNetworkPolicy',
    plural: 'ciliumnetworkpolicies',
    hasStatus: true,
  },
  clusterwide: {
    group: 'cilium.io',
    version: 'v2',
    kind: 'CiliumClusterwideNetworkPolicy',
    plural: 'ciliumclusterwidenetworkpolicies',
    scope: 'Cluster',
    hasStatus: true,
  },
  cluster: {
    group: 'policy.networking.k8s.io',
    version: 'v1alpha2',
    kind: 'ClusterNetworkPolicy',
    plural: 'clusternetworkpolicies',
    scope: 'Cluster',
    spec: {
      priority: { type: 'integer', format: 'int32', minimum: 0, maximum: 1000 },
      tier: { type: 'string', enum: ['Admin', 'Baseline'] },
      egress: {
        type: 'array',
        maxItems: 25,
        items: {
          type: 'object',
          required: ['action', 'to'],
          properties: {
            action: { type: 'string', enum: ['Accept', 'Deny', 'Pass'] },
            name: text,
            protocols: { type: 'array', minItems: 1, maxItems: 25, items: labelSelector },
            to: {
              type: 'array',
              minItems: 1,
              maxItems: 25,
              items: {
                ...exactlyOne,
                properties: { networks: texts, domainNames: texts, namespaces: labelSelector },
              },
            },
          },
        },
      },
    },
    hasStatus: true,
  },
} satisfies Record<string, ForeignCrd>;

/** The CustomResourceDefinition of a kind of another project, as far as the tests need it. */
export function manifestOf({
  group,
  version,
  kind,
  plural,
  scope = 'Namespaced',
  spec,
  hasStatus,
}: ForeignCrd): object {
  const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      // Asked for by the API server in groups of Kubernetes.
      ...(group.endsWith('.k8s.io') && {
        annotations: { 'api-approved.kubernetes.io': 'unapproved, for tests' },
      }),
    },
    spec: {
      group,
      scope,
      names: { kind, plural, singular: kind.toLowerCase() },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          ...(hasStatus && { subresources: { status: {} } }),
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: { ...open, ...(spec !== undefined && { properties: spec }) },
                status: open,
              },
            },
          },
        },
      ],
    },
  };
}
