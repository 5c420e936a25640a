import { conditionOf, isTrue, type Finding } from '../../api/conditions.ts';
import {
  maxWaiting,
  type ClusterKillSwitch,
  type ClusterKillSwitchStatus,
} from '../../api/cluster-kill-switch.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../../api/names.ts';
import type { Namespace } from '../../api/objects.ts';
import { risks, type Workflow } from '../../api/workflow.ts';
import { fieldOf, isGuarded } from '../requirements.ts';
import { some } from '../wording.ts';
import { isFencedIn, type FencedWorkflows } from './cluster-fence.ts';
import type { FenceAnswer } from './fence.ts';
import { isReleasing, releaserOf } from './plan.ts';

/** What a ClusterKillSwitch is seen with. */
export interface ClusterView {
  clusterKillSwitch: ClusterKillSwitch;
  /** The other ones. */
  others: readonly ClusterKillSwitch[];
  /** Of the whole cluster. */
  namespaces: Iterable<Namespace>;
  /** Of the whole cluster. */
  workflows: Iterable<Workflow>;
  /** @param name of a Workflow, or the one over a whole namespace */
  killSwitchOf: (namespace: string, name: string) => KillSwitch | undefined;
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
  const { labels = {} } = namespace.metadata;
  if (!mayBeStopped(namespace, operatorNamespace)) return false;
  if (spec.everything === true) return true;
  if (spec.environments?.includes(labels[label.environment] ?? '') === true) return true;
  const wanted = spec.namespaceSelector?.matchLabels;
  return (
    wanted !== undefined && Object.entries(wanted).every(([key, value]) => labels[key] === value)
  );
}

/** Not those of the platform, nor one that is going. */
function mayBeStopped(namespace: Namespace, operatorNamespace: string): boolean {
  const { name, deletionTimestamp } = namespace.metadata;
  if (!isGuarded(namespace) || deletionTimestamp !== undefined) return false;
  return name !== PROBE_NAMESPACE && name !== operatorNamespace;
}

/** Whether it stops Workflows one by one. Admission can't tell of a pod whose or how risky it is. */
export function isByWorkflow({ spec }: Pick<ClusterKillSwitch, 'spec'>): boolean {
  return spec.teams !== undefined || spec.risks !== undefined;
}

/**
 * Whether a ClusterKillSwitch stops a Workflow by its owner or its risk, or because it had that when
 * it was stopped. A risk that can't be read is the highest.
 *
 * @param namespace of the Workflow
 */
export function selectsWorkflow(
  { spec, status }: Pick<ClusterKillSwitch, 'spec' | 'status'>,
  workflow: Pick<Workflow, 'metadata' | 'spec'>,
  namespace: Namespace | undefined,
  operatorNamespace: string,
): boolean {
  if (namespace === undefined || !mayBeStopped(namespace, operatorNamespace)) return false;
  const { namespace: at = '', name } = workflow.metadata;
  if (isFencedIn(status?.fenced, { namespace: at, name })) return true;
  const team = fieldOf(fieldOf(workflow.spec, 'owner'), 'team');
  if (spec.teams?.some((one) => one === team) === true) return true;
  const stored = fieldOf(workflow.spec, 'risk') ?? 'Low';
  const risk = risks.find((one) => one === stored) ?? 'High';
  return spec.risks?.includes(risk) === true;
}

/**
 * The KillSwitch by which a ClusterKillSwitch stops what runs in a namespace, or of a Workflow.
 *
 * @param name of the Workflow, or the one over a whole namespace
 */
export function memberOf(
  clusterKillSwitch: ClusterKillSwitch,
  namespace: string,
  name: string,
): KillSwitch {
  const { metadata, spec } = clusterKillSwitch;
  return {
    metadata: {
      name,
      namespace,
      labels: { [label.clusterKillSwitch]: metadata.name },
    },
    spec: {
      ...(name === wholeNamespaceName ? { wholeNamespace: true } : { workflow: name }),
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
  const { labels } = killSwitch.metadata;
  return labels?.[label.clusterKillSwitch] === clusterKillSwitch.metadata.name;
}

/** A namespace or a Workflow that is to be stopped, and the KillSwitch that stands there. */
export interface Selected {
  namespace: string;
  /** Of the KillSwitch. */
  name: string;
  killSwitch: KillSwitch | undefined;
}

/** What is selected, in order. */
export function selectedBy(view: ClusterView): Selected[] {
  const { clusterKillSwitch, namespaces, workflows, killSwitchOf, operatorNamespace } = view;
  const all = [...namespaces];
  const found = isByWorkflow(clusterKillSwitch)
    ? workflowsIn(clusterKillSwitch, workflows, all, operatorNamespace)
    : all
        .filter((namespace) => isSelected(clusterKillSwitch, namespace, operatorNamespace))
        .map(({ metadata }) => ({ namespace: metadata.name, name: wholeNamespaceName }));
  return found
    .map(({ namespace, name }) => ({ namespace, name, killSwitch: killSwitchOf(namespace, name) }))
    .toSorted((a, b) => (titleOf(a) < titleOf(b) ? -1 : 1));
}

function workflowsIn(
  clusterKillSwitch: ClusterKillSwitch,
  workflows: Iterable<Workflow>,
  namespaces: readonly Namespace[],
  operatorNamespace: string,
): { namespace: string; name: string }[] {
  const byName = new Map(namespaces.map((namespace) => [namespace.metadata.name, namespace]));
  return [...workflows].flatMap((workflow) => {
    const { namespace = '', name, deletionTimestamp } = workflow.metadata;
    const isMeant = selectsWorkflow(
      clusterKillSwitch,
      workflow,
      byName.get(namespace),
      operatorNamespace,
    );
    return isMeant && deletionTimestamp === undefined ? [{ namespace, name }] : [];
  });
}

/** As people call it. */
function titleOf({ namespace, name }: Pick<Selected, 'namespace' | 'name'>): string {
  return name === wholeNamespaceName ? namespace : `${namespace}/${name}`;
}

/** What becomes of a member when its ClusterKillSwitch is released. */
export type Parting =
  /** Another ClusterKillSwitch stops the namespace as well: it is that one's from now on. */
  | { to: ClusterKillSwitch }
  | { to: 'Release' }
  /** It is on its way. */
  | { to: 'Wait' };

/**
 * @param namespace where the member stands; `undefined`: it is gone, and the member goes with it
 * @param workflow that the member stops; `undefined`: a whole namespace, or it is gone
 */
export function partingOf(
  member: KillSwitch,
  namespace: Namespace | undefined,
  workflow: Workflow | undefined,
  { others, operatorNamespace }: Pick<ClusterView, 'others' | 'operatorNamespace'>,
): Parting {
  if (isReleasing(member)) return { to: 'Wait' };
  const heir = clusterKillSwitchOver(member, namespace, workflow, { others, operatorNamespace });
  return heir === undefined ? { to: 'Release' } : { to: heir };
}

/**
 * The ClusterKillSwitch, none that is being released, that stops what a KillSwitch stops, too.
 *
 * @param namespace where the KillSwitch stands; `undefined`: it is gone
 * @param workflow that the KillSwitch stops; `undefined`: a whole namespace, or it is gone
 */
export function clusterKillSwitchOver(
  { metadata: { name } }: KillSwitch,
  namespace: Namespace | undefined,
  workflow: Workflow | undefined,
  { others, operatorNamespace }: Pick<ClusterView, 'others' | 'operatorNamespace'>,
): ClusterKillSwitch | undefined {
  return others.find(
    (other) =>
      !isReleasing(other) &&
      namespace !== undefined &&
      (name === wholeNamespaceName
        ? isSelected(other, namespace, operatorNamespace)
        : workflow !== undefined && selectsWorkflow(other, workflow, namespace, operatorNamespace)),
  );
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
  counts: Pick<ClusterKillSwitchStatus, 'namespaces' | 'workflows' | 'fenced' | 'waiting'>;
}

/** While it is engaged. */
export function stopReport(fence: FenceAnswer, selected: readonly Selected[]): ClusterReport {
  return reportOf(fenceFinding(fence), selected, 'namespaces');
}

/**
 * While it is engaged, of one that stops Workflows.
 *
 * @param fence whether those that stand in its status are fenced by that
 * @param fenced what stands there, and stays; what is only planned fences nothing
 */
export function stopReportByWorkflow(
  fence: FenceAnswer,
  fenced: FencedWorkflows | undefined,
  selected: readonly Selected[],
): ClusterReport {
  if (selected.length === 0) return withList(nothingSelected(fenced ?? {}), fenced);
  const isByList = (one: Selected): boolean => fence === 'Denied' && isFencedIn(fenced, one);
  const open = selected.filter(
    (one) =>
      !isByList(one) &&
      (one.killSwitch === undefined ||
        isReleasing(one.killSwitch) ||
        !isTrue(one.killSwitch.status?.conditions, 'Fenced')),
  );
  const all = selected.length;
  const report = reportOf(
    open.length === 0
      ? {
          type: 'Fenced',
          status: 'True',
          reason: 'EachFenced',
          message: `Admission denies new pods and tokens of ${all} Workflows; proven by ${selected.every(isByList) ? 'a dry run' : 'dry runs'}.`,
        }
      : {
          type: 'Fenced',
          status: 'False',
          reason: 'NotEachFenced',
          message: `Not fenced yet: ${open.length} of ${all} Workflows: ${some(open.map(titleOf))}.`,
        },
    selected,
    'workflows',
  );
  return withList(report, fenced);
}

function withList(report: ClusterReport, fenced: FencedWorkflows | undefined): ClusterReport {
  return fenced === undefined ? report : { ...report, counts: { ...report.counts, fenced } };
}

/** A name that is mistyped must not look like a kill that is complete. */
function nothingSelected(fenced: FencedWorkflows): ClusterReport {
  const message =
    Object.keys(fenced).length === 0
      ? 'No Workflow of a guarded namespace has this owner or risk, so nothing is stopped; one that gets it is.'
      : 'No Workflow that it stops is left; what runs by a name in status.fenced is refused until the release.';
  const finding = { status: 'False', reason: 'NothingSelected', message } as const;
  return {
    findings: ['Fenced', 'Effective', 'Ready'].map((type) => ({ type, ...finding })),
    counts: countsOf('workflows', { total: 0, stopped: 0, effective: 0 }, []),
  };
}

/**
 * Says in a report of a stop where the operator doesn't act: nothing there is done but by admission.
 *
 * @param uncovered namespaces, each once
 */
export function withUncovered(report: ClusterReport, uncovered: readonly string[]): ClusterReport {
  if (uncovered.length === 0) return report;
  const note = ` The operator doesn't act in ${some(uncovered)} (--namespaces): nothing there is stopped but what admission refuses.`;
  return {
    ...report,
    findings: report.findings.map((finding) =>
      finding.status === 'True' ? finding : { ...finding, message: finding.message + note },
    ),
  };
}

function reportOf(
  fenced: Finding,
  selected: readonly Selected[],
  what: 'namespaces' | 'workflows',
): ClusterReport {
  const isFenced = fenced.status === 'True';
  const words = { namespaces: 'namespaces', workflows: 'Workflows' }[what];
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
  const names = (entries: typeof selected): string => some(entries.map(titleOf));
  return {
    findings: [
      fenced,
      effective === all && isFenced
        ? {
            type: 'Effective',
            status: 'True',
            reason: 'Verified',
            message: `Every rung was verified in ${all} ${words}.`,
          }
        : {
            type: 'Effective',
            status: 'False',
            reason: 'NotVerified',
            message:
              effective === all
                ? 'The fence is not proven.'
                : `Not verified in ${all - effective} of ${all} ${words}: ${names([...waiting, ...unproven])}. See kubectl get ksw -A.`,
          },
      stopped === all && isFenced
        ? {
            type: 'Ready',
            status: 'True',
            reason: 'Stopped',
            message: `Nothing runs in ${all} ${words}, and nothing can start.`,
          }
        : {
            type: 'Ready',
            status: 'False',
            reason: 'Stopping',
            message:
              stopped === all
                ? 'The fence is not proven.'
                : `Not stopped yet in ${all - stopped} of ${all} ${words}: ${names(waiting)}.`,
          },
    ],
    counts: countsOf(what, { total: all, stopped, effective }, waiting),
  };
}

/** While it is being released. @param waiting members that are still there */
export function releaseReport(
  clusterKillSwitch: ClusterKillSwitch,
  lifted: boolean,
  waiting: readonly KillSwitch[],
): ClusterReport {
  const message = lifted
    ? `Released by ${releaserOf(clusterKillSwitch)}; waits for ${some(waiting.map(({ metadata: { namespace = '', name } }) => titleOf({ namespace, name })))}.`
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
      isByWorkflow(clusterKillSwitch) ? 'workflows' : 'namespaces',
      { total: waiting.length, stopped: 0, effective: 0 },
      waiting.map(({ metadata: { namespace = '', name } }) => ({ namespace, name })),
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
  what: 'namespaces' | 'workflows',
  counts: NonNullable<ClusterKillSwitchStatus['namespaces']>,
  waiting: readonly Pick<Selected, 'namespace' | 'name'>[],
): ClusterReport['counts'] {
  return {
    [what]: counts,
    ...(waiting.length > 0 && { waiting: waiting.slice(0, maxWaiting).map(titleOf) }),
  };
}
