import type { Approval } from '../../api/approval.ts';
import { parseDuration } from '../../api/duration.ts';
import { annotation } from '../../api/names.ts';
import type { Pod } from '../../api/objects.ts';
import { defaultQuorums, type ApproverGroups, type Workflow } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { fieldOf } from '../requirements.ts';
import { groupsNote, isEnough, isOfGroups, lastDecisions, quorumOf } from './plan.ts';

/** How long a run waits where its Workflow doesn't say, in milliseconds. */
const defaultTimeoutMs = 24 * 3_600_000;

/** A Job, or a pod that belongs to none, some of whose pods wait. */
export interface WaitingRun {
  kind: 'Job' | 'Pod';
  name: string;
  uid: string;
  /** Of a Job that is known. */
  job: Workload | undefined;
  /** Those that wait. */
  pods: readonly Pod[];
  /** The authenticated user who created it; `undefined` where nobody knows. */
  askedBy: string | undefined;
  /** Of what no person created: the authenticated user who said when its CronJob makes it, if known. */
  scheduledBy?: string | undefined;
  /** Since when the first of them waits: milliseconds since the epoch. */
  since: number;
}

/** What its approvals come to. */
export interface RunDecision {
  outcome: 'Approved' | 'Waiting' | 'Rejected' | 'TimedOut';
  /** Who approves it, or rejects it. */
  people: readonly string[];
  /** Approvals that it needs. */
  required: number;
  /** Groups whose approvals count; `undefined`: everybody's do. */
  approvers: ApproverGroups | undefined;
  /** When it changes by itself: milliseconds since the epoch. */
  changesAt: number | undefined;
}

/**
 * The runs that pods belong to. A controller of a pod is named by the cluster's own controllers
 * alone, which admission sees to.
 *
 * @param pods that wait
 * @param jobs that run as the Workflow
 */
export function waitingRuns(pods: readonly Pod[], jobs: readonly Workload[]): WaitingRun[] {
  const byUid = new Map(jobs.map((job) => [job.metadata.uid, job]));
  const runs = Map.groupBy(pods, (pod) => jobOf(pod)?.uid ?? pod.metadata.uid ?? '');
  return [...runs].flatMap(([uid, members]): WaitingRun[] => {
    const [first] = members;
    if (first === undefined) return [];
    const owner = jobOf(first);
    const job = byUid.get(uid);
    const stamped = owner === undefined ? first : job;
    const askedBy = stamped?.metadata.annotations?.[annotation.changedBy] ?? madeBy(first, owner);
    // A Job that somebody creates from a CronJob has the annotations of those that it makes.
    const isByPerson = askedBy !== undefined && isPerson(askedBy);
    return [
      {
        kind: owner === undefined ? 'Pod' : 'Job',
        name: owner?.name ?? first.metadata.name,
        uid,
        job,
        pods: members,
        askedBy,
        scheduledBy: isByPerson ? undefined : job?.metadata.annotations?.[annotation.scheduledBy],
        since: Math.min(
          ...members.map(({ metadata }) => Date.parse(metadata.creationTimestamp ?? '') || 0),
        ),
      },
    ];
  });
}

/**
 * Whether a pod runs what its Job says: what was approved is that, and another pod of a Job has no
 * part in it. One of a Job that isn't known has none either.
 */
export function isPartOf({ kind, job }: WaitingRun, { codeDigest }: Pod): boolean {
  return kind === 'Pod' || (job !== undefined && codeDigest === job.codeDigest);
}

function jobOf({ metadata }: Pod): { name: string; uid: string } | undefined {
  return metadata.ownerReferences?.find(
    ({ kind, controller }) => kind === 'Job' && controller === true,
  );
}

/** What a controller of the cluster made of another workload, nobody asked for by himself. */
function madeBy({ metadata }: Pod, job: object | undefined): string | undefined {
  const isMade = metadata.ownerReferences?.some(({ controller }) => controller === true) === true;
  return job === undefined && isMade ? 'system:kube-controller-manager' : undefined;
}

/**
 * Whether a run may start: as many as the Workflow needs have approved exactly this one, and none
 * who asked for it, or said when, among them. One rejection stops it, and so does its time.
 *
 * @param approvers groups whose approvals count; `undefined`: everybody's do
 * @param now milliseconds since the epoch
 */
export function decideRun(
  workflow: Workflow,
  run: WaitingRun,
  approvals: readonly Approval[],
  approvers: ApproverGroups | undefined,
  now: number,
): RunDecision {
  // The GuardrailPolicy may ask for more than the risk; the status has what it asks for.
  const required = Math.max(
    quorumOf(workflow, defaultQuorums),
    workflow.status?.revision?.required ?? 0,
  );
  const decisions = lastDecisions(
    approvals.filter(
      ({ spec }) => spec.workflow === workflow.metadata.name && spec.run?.uid === run.uid,
    ),
  );
  const people = (of: readonly Approval[]): string[] =>
    of.map(({ spec }) => spec.approver ?? '').toSorted();
  const rejecting = decisions.filter(({ spec }) => spec.decision === 'Reject');
  const decision = { required, approvers, people: [], changesAt: undefined };
  if (rejecting.length > 0) {
    return { ...decision, outcome: 'Rejected', people: people(rejecting) };
  }
  const askers = askersOf(run).map((name) => name.toLowerCase());
  const valid = decisions.filter(
    (approval) =>
      !askers.includes(approval.spec.approver?.toLowerCase() ?? '') &&
      isOfGroups(approval, approvers) &&
      (approval.spec.expires === undefined || Date.parse(approval.spec.expires) > now),
  );
  if (run.askedBy !== undefined && isEnough(valid, decision)) {
    return { ...decision, outcome: 'Approved', people: people(valid) };
  }
  const asked: unknown = fieldOf(fieldOf(workflow.spec, 'approval'), 'timeout');
  const timeoutMs = (typeof asked === 'string' && parseDuration(asked)) || defaultTimeoutMs;
  const changesAt = run.since + timeoutMs;
  return now >= changesAt
    ? { ...decision, outcome: 'TimedOut' }
    : { ...decision, outcome: 'Waiting', people: people(valid), changesAt };
}

/** Who can't approve it. */
function askersOf({ askedBy, scheduledBy }: WaitingRun): string[] {
  return [askedBy ?? [], scheduledBy ?? []].flat();
}

function isPerson(user: string): boolean {
  return !user.startsWith('system:');
}

/** Why a run waits, or doesn't run; a sentence. */
export function sentenceOf(
  { metadata }: Workflow,
  waiting: WaitingRun,
  { outcome, people, required, approvers }: RunDecision,
): string {
  const { name: workflow, namespace = '' } = metadata;
  const { kind, name, askedBy } = waiting;
  const run = `${kind === 'Job' ? 'job' : 'pod'}/${name}`;
  switch (outcome) {
    case 'Approved':
      return `${run} is approved by ${people.join(', ')}.`;
    case 'Rejected':
      return `${run} is rejected by ${people.join(', ')}, and does not run.`;
    case 'TimedOut':
      return `${run} was not approved in time, and does not run. Create it anew to ask again.`;
    case 'Waiting': {
      if (askedBy === undefined) {
        return `${run} waits, and can't be approved: nobody knows who asked for it. Create it anew, with ${annotation.changedBy} where admission writes nothing.`;
      }
      const askers = askersOf(waiting).filter(isPerson);
      const who = askers.length === 0 ? 'somebody' : `somebody else than ${askers.join(' and ')}`;
      // Of enough people, all may be of one group.
      const missing = Math.max(required - people.length, 1);
      const whose = approvers === undefined ? '' : ` ${groupsNote(approvers)}`;
      return `${run} waits for ${missing} of ${required} approvals.${whose} As ${who}: kubectl guardrails approve ${workflow} -n ${namespace} --run ${run} --reason "…"`;
    }
  }
}
