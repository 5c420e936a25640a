import { conditionOf, isTrue, type Finding } from '../../api/conditions.ts';
import {
  maxWaiting,
  type ClusterKillSwitch,
  type ClusterKillSwitchStatus,
} from '../../api/cluster-kill-switch.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../../api/names.ts';
import type { Namespace } from '../../api/objects.ts';
import { isGuarded } from '../requirements.ts';
import { some } from '../wording.ts';
import type { FenceAnswer } from './fence.ts';
import { isReleasing, releaserOf } from './plan.ts';

/** What a ClusterKillSwitch is seen with. */
export interface ClusterView {
  clusterKillSwitch: ClusterKillSwitch;
  /** The other ones. */
  others: readonly ClusterKillSwitch[];
  /** Of the whole cluster. */
  namespaces: Iterable<Namespace>;
  /** @returns the KillSwitch over a whole namespace */
  killSwitchOf: (namespace: string) => KillSwitch | undefined;
  /** Where the operator itself runs: never stopped from here. */
  operatorNamespace: string;
}

/**
 * Whether a ClusterKillSwitch stops a namespace. The fence in the API server says the same in CEL
 * (`selectedByCluster` in src/admission/fence.ts).
 */
export function isSelected(
  { spec }: ClusterKillSwitch,
  namespace: Namespace,
  operatorNamespace: string,
): boolean {
  const { name, labels = {}, deletionTimestamp } = namespace.metadata;
  if (!isGuarded(namespace) || deletionTimestamp !== undefined) return false;
  if (name === PROBE_NAMESPACE || name === operatorNamespace) return false;
  if (spec.everything === true) return true;
  if (spec.environments?.includes(labels[label.environment] ?? '') === true) return true;
  const wanted = spec.namespaceSelector?.matchLabels;
  return (
    wanted !== undefined && Object.entries(wanted).every(([key, value]) => labels[key] === value)
  );
}

/** The KillSwitch by which a ClusterKillSwitch stops what runs in a namespace. */
export function memberOf(clusterKillSwitch: ClusterKillSwitch, namespace: string): KillSwitch {
  const { metadata, spec } = clusterKillSwitch;
  return {
    metadata: {
      name: wholeNamespaceName,
      namespace,
      labels: { [label.clusterKillSwitch]: metadata.name },
    },
    spec: {
      wholeNamespace: true,
      reason: spec.reason,
      engagedBy: spec.engagedBy ?? 'unknown',
    },
  };
}

/**
 * The merge patch that stops the release of a KillSwitch in a namespace that is stopped again: the
 * fence wouldn't let it end. It ends with the ClusterKillSwitch from now on.
 */
export function takeOver(
  clusterKillSwitch: ClusterKillSwitch,
  { metadata: { uid, resourceVersion } }: KillSwitch,
): object {
  return {
    metadata: {
      uid,
      resourceVersion,
      labels: {
        [label.releasing]: null,
        [label.clusterKillSwitch]: clusterKillSwitch.metadata.name,
      },
      annotations: {
        [annotation.release]: null,
        [annotation.releasedBy]: null,
        [annotation.breakGlass]: null,
      },
    },
  };
}

/** Whether a KillSwitch ends with the ClusterKillSwitch. */
export function isMember(clusterKillSwitch: ClusterKillSwitch, killSwitch: KillSwitch): boolean {
  const { name, labels } = killSwitch.metadata;
  return (
    name === wholeNamespaceName &&
    labels?.[label.clusterKillSwitch] === clusterKillSwitch.metadata.name
  );
}

/** Namespaces that are selected, each with the KillSwitch that stands there. */
export function selectedBy({
  clusterKillSwitch,
  namespaces,
  killSwitchOf,
  operatorNamespace,
}: ClusterView): { namespace: string; killSwitch: KillSwitch | undefined }[] {
  return [...namespaces]
    .filter((namespace) => isSelected(clusterKillSwitch, namespace, operatorNamespace))
    .map(({ metadata: { name } }) => ({ namespace: name, killSwitch: killSwitchOf(name) }))
    .toSorted((a, b) => (a.namespace < b.namespace ? -1 : 1));
}

/** What becomes of a member when its ClusterKillSwitch is released. */
export type Parting =
  /** Another ClusterKillSwitch stops the namespace as well: it is that one's from now on. */
  | { to: ClusterKillSwitch }
  | { to: 'Release' }
  /** It is on its way. */
  | { to: 'Wait' };

/** @param namespace where the member stands; `undefined`: it is gone, and the member goes with it */
export function partingOf(
  member: KillSwitch,
  namespace: Namespace | undefined,
  { others, operatorNamespace }: Pick<ClusterView, 'others' | 'operatorNamespace'>,
): Parting {
  if (isReleasing(member)) return { to: 'Wait' };
  const heir = others.find(
    (other) =>
      !isReleasing(other) &&
      namespace !== undefined &&
      isSelected(other, namespace, operatorNamespace),
  );
  return heir === undefined ? { to: 'Release' } : { to: heir };
}

/** The merge patch by which a member is released with its ClusterKillSwitch, in the same name. */
export function releaseOf(clusterKillSwitch: ClusterKillSwitch, member: KillSwitch): object {
  return {
    metadata: {
      uid: member.metadata.uid,
      labels: { [label.releasing]: 'true' },
      annotations: {
        [annotation.release]:
          clusterKillSwitch.metadata.annotations?.[annotation.release] ?? 'released',
        [annotation.releasedBy]: releaserOf(clusterKillSwitch),
      },
    },
  };
}

/** What a ClusterKillSwitch says of itself. */
export interface ClusterReport {
  findings: readonly Finding[];
  counts: Pick<ClusterKillSwitchStatus, 'namespaces' | 'waiting'>;
}

/** While it is engaged. */
export function stopReport(
  fence: FenceAnswer,
  selected: readonly { namespace: string; killSwitch: KillSwitch | undefined }[],
): ClusterReport {
  const is =
    (type: string) =>
    (entry: (typeof selected)[number]): boolean =>
      entry.killSwitch !== undefined &&
      !isReleasing(entry.killSwitch) &&
      isTrue(entry.killSwitch.status?.conditions, type);
  const stopped = selected.filter(is('Ready')).length;
  const effective = selected.filter(is('Effective')).length;
  const waiting = selected.filter((entry) => !is('Ready')(entry));
  const unproven = selected.filter((entry) => is('Ready')(entry) && !is('Effective')(entry));
  const all = selected.length;
  const names = (entries: typeof selected): string =>
    some(entries.map(({ namespace }) => namespace));
  return {
    findings: [
      fenceFinding(fence),
      effective === all && fence === 'Denied'
        ? {
            type: 'Effective',
            status: 'True',
            reason: 'Verified',
            message: `Every rung was verified in ${all} namespaces.`,
          }
        : {
            type: 'Effective',
            status: 'False',
            reason: 'NotVerified',
            message:
              effective === all
                ? 'The fence is not proven.'
                : `Not verified in ${all - effective} of ${all} namespaces: ${names([...waiting, ...unproven])}. See kubectl get ksw -A.`,
          },
      stopped === all && fence === 'Denied'
        ? {
            type: 'Ready',
            status: 'True',
            reason: 'Stopped',
            message: `Nothing runs in ${all} namespaces, and nothing can start.`,
          }
        : {
            type: 'Ready',
            status: 'False',
            reason: 'Stopping',
            message:
              stopped === all
                ? 'The fence is not proven.'
                : `Not stopped yet in ${all - stopped} of ${all} namespaces: ${names(waiting)}.`,
          },
    ],
    counts: countsOf(all, stopped, effective, waiting),
  };
}

/** While it is being released. @param waiting members that are still there */
export function releaseReport(
  clusterKillSwitch: ClusterKillSwitch,
  lifted: boolean,
  waiting: readonly KillSwitch[],
): ClusterReport {
  const message = lifted
    ? `Released by ${releaserOf(clusterKillSwitch)}; waits for ${some(waiting.map(({ metadata }) => metadata.namespace ?? ''))}.`
    : `Released by ${releaserOf(clusterKillSwitch)}; the API server still refuses new pods.`;
  return {
    findings: [
      lifted
        ? {
            type: 'Fenced',
            status: 'False',
            reason: 'Lifted',
            message: 'Admission refuses nothing by this any more; proven by a dry run.',
          }
        : { type: 'Fenced', status: 'Unknown', reason: 'Lifting', message },
      { type: 'Effective', status: 'False', reason: 'Releasing', message },
      { type: 'Ready', status: 'False', reason: 'Releasing', message },
    ],
    counts: countsOf(
      waiting.length,
      0,
      0,
      waiting.map(({ metadata: { namespace = '' } }) => ({ namespace })),
    ),
  };
}

/** Whether something is told of it, once: a condition that became true. */
export function reached(
  before: ClusterKillSwitch,
  findings: readonly Finding[],
): readonly Finding[] {
  return findings.filter(
    ({ type, status }) =>
      status === 'True' && conditionOf(before.status?.conditions, type)?.status !== 'True',
  );
}

function fenceFinding(fence: FenceAnswer): Finding {
  switch (fence) {
    case 'Denied':
      return {
        type: 'Fenced',
        status: 'True',
        reason: 'ProbeDenied',
        message: 'Admission denies new pods and tokens in its namespaces; proven by a dry run.',
      };
    case 'Allowed':
      return {
        type: 'Fenced',
        status: 'False',
        reason: 'ProbeAllowed',
        message: 'The API server let the probe pass: are the admission policies installed?',
      };
    case 'Unknown':
      return {
        type: 'Fenced',
        status: 'Unknown',
        reason: 'ProbeFailed',
        message: 'The API server gave no answer that proves anything; it is asked again.',
      };
  }
}

function countsOf(
  total: number,
  stopped: number,
  effective: number,
  waiting: readonly { namespace: string }[],
): ClusterReport['counts'] {
  return {
    namespaces: { total, stopped, effective },
    ...(waiting.length > 0 && {
      waiting: waiting.slice(0, maxWaiting).map(({ namespace }) => namespace),
    }),
  };
}
