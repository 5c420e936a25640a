import type { KubeObject, Pod } from '../../api/objects.ts';

/** Keeps of a pod what stopping it needs; a cluster's pods are all cached, so this stays small. */
export function projectPod(object: KubeObject): Pod {
  const { metadata, spec, status } = object as Pod;
  const { phase, reason } = status ?? {};
  const grace = spec?.terminationGracePeriodSeconds;
  const controllers = metadata.ownerReferences?.filter(({ controller }) => controller === true);
  return {
    metadata: {
      name: metadata.name,
      namespace: metadata.namespace ?? '',
      uid: metadata.uid ?? '',
      ...(metadata.deletionTimestamp !== undefined && {
        deletionTimestamp: metadata.deletionTimestamp,
      }),
      ...(metadata.deletionGracePeriodSeconds !== undefined && {
        deletionGracePeriodSeconds: metadata.deletionGracePeriodSeconds,
      }),
      ...(metadata.finalizers !== undefined && { finalizers: metadata.finalizers }),
      ...(controllers !== undefined && { ownerReferences: controllers }),
    },
    spec: {
      serviceAccountName: spec?.serviceAccountName ?? 'default',
      ...(grace !== undefined && { terminationGracePeriodSeconds: grace }),
    },
    ...(phase !== undefined && { status: { phase, ...(reason !== undefined && { reason }) } }),
  };
}

/** Index of pods by what they run as: `namespace/serviceAccountName`. */
export function podIdentity(pod: Pod): string {
  return `${pod.metadata.namespace ?? ''}/${pod.spec?.serviceAccountName ?? 'default'}`;
}
