import { label } from '../../api/names.ts';
import type { KubeObject, Pod } from '../../api/objects.ts';
import { approvalGate } from '../../api/names.ts';
import { podCodeDigest } from '../../api/pod-code.ts';
import { ownAnnotations } from '../../api/workload.ts';
import { resultOf } from '../egress/probe.ts';
import { podSecrets } from '../../api/pod-secrets.ts';

/**
 * Keeps of a pod what stopping it needs, and of one that uses generated credentials how it does; a cluster's pods are all cached, so this stays small.
 */
export function projectPod(object: KubeObject): Pod {
  const { metadata, spec, status } = object as Pod;
  const { phase, reason, startTime } = status ?? {};
  const secrets = podSecrets(object);
  const isGated = spec?.schedulingGates?.some(({ name }) => name === approvalGate) === true;
  const egressProbe = resultOf(object);
  const grace = spec?.terminationGracePeriodSeconds;
  const end = endOf(status);
  const controllers = metadata.ownerReferences?.filter(({ controller }) => controller === true);
  // A run, or what holds a credential.
  const hasStart = secrets !== undefined || (controllers ?? []).length === 0;
  return {
    metadata: {
      name: metadata.name,
      namespace: metadata.namespace ?? '',
      uid: metadata.uid ?? '',
      // In guarded namespaces alone: what NetworkPolicies select by.
      ...(metadata.labels?.[label.identity] !== undefined && { labels: metadata.labels }),
      ...(metadata.deletionTimestamp !== undefined && {
        deletionTimestamp: metadata.deletionTimestamp,
      }),
      ...(metadata.deletionGracePeriodSeconds !== undefined && {
        deletionGracePeriodSeconds: metadata.deletionGracePeriodSeconds,
      }),
      // Who asked for it, and since when it waits.
      ...(isGated && {
        creationTimestamp: metadata.creationTimestamp ?? '',
        annotations: ownAnnotations(metadata.annotations),
      }),
      ...(metadata.finalizers !== undefined && { finalizers: metadata.finalizers }),
      ...(controllers !== undefined && { ownerReferences: controllers }),
    },
    spec: {
      serviceAccountName: spec?.serviceAccountName ?? 'default',
      ...(grace !== undefined && { terminationGracePeriodSeconds: grace }),
      ...(isGated && { schedulingGates: spec.schedulingGates }),
    },
    ...(phase !== undefined && {
      status: {
        phase,
        ...(reason !== undefined && { reason }),
        ...(hasStart && startTime !== undefined && { startTime }),
      },
    }),
    ...(secrets !== undefined && { secrets }),
    ...(isGated && { codeDigest: podCodeDigest({ metadata, spec }) }),
    ...(egressProbe !== undefined && { egressProbe }),
    ...(end !== undefined && { end }),
  };
}

function endOf(status: Pod['status']): Pod['end'] {
  if (status?.phase !== 'Succeeded' && status?.phase !== 'Failed') return undefined;
  const ends = (status.containerStatuses ?? []).flatMap(({ state }) => state?.terminated ?? []);
  const worst = ends.find(({ exitCode = 0 }) => exitCode !== 0) ?? ends[0];
  const { exitCode, reason } = worst ?? {};
  const finished = ends.flatMap(({ finishedAt }) => finishedAt ?? []);
  // One that was evicted before its containers ran has no end of theirs.
  const changed = (status.conditions ?? []).flatMap(
    ({ lastTransitionTime }) => lastTransitionTime ?? [],
  );
  const [at] = (finished.length > 0 ? finished : changed).toSorted().toReversed();
  return {
    ...(at !== undefined && { at }),
    ...(exitCode !== undefined && { exitCode }),
    ...(reason !== undefined && { reason }),
  };
}

/** Index of pods by what they run as: `namespace/serviceAccountName`. */
export function podIdentity(pod: Pod): string {
  return `${pod.metadata.namespace ?? ''}/${pod.spec?.serviceAccountName ?? 'default'}`;
}

/** Index of pods by the generated credentials that they use: `namespace/secretName`. */
export function podSecretKeys({ metadata: { namespace = '' }, secrets }: Pod): string[] {
  return [...(secrets?.readOnce ?? []), ...(secrets?.followed ?? [])].map(
    (name) => `${namespace}/${name}`,
  );
}
