import type { Approval } from '../../api/approval.ts';
import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { timestamp, type Finding } from '../../api/conditions.ts';
import { digestOf } from '../../api/digest.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import {
  maxParts,
  type ApproverGroups,
  type Quorums,
  type RevisionPart,
  type Workflow,
} from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { fieldOf, type Problem } from '../requirements.ts';
import { some } from '../wording.ts';

/**
 * Approvals that a Workflow needs: as many as its risk asks for, or more where it says so. A risk
 * that can't be read is the highest.
 */
export function quorumOf({ spec }: Pick<Workflow, 'spec'>, quorums: Quorums): number {
  const risk: unknown = fieldOf(spec, 'risk') ?? 'Low';
  const ofRisk = risk === 'Low' || risk === 'Medium' ? quorums[risk] : quorums.High;
  const byRisk = ofRisk === 0 && isPerRun({ spec }) ? 1 : ofRisk;
  const asked = fieldOf(fieldOf(spec, 'approval'), 'required');
  return typeof asked === 'number' && asked > byRisk ? asked : byRisk;
}

/** Whether each run is asked for by itself. */
export function isPerRun({ spec }: Pick<Workflow, 'spec'>): boolean {
  return fieldOf(fieldOf(spec, 'approval'), 'per') === 'Run';
}

/** Everything that runs, and the digest that approvals name. */
export interface Revision {
  /** Hexadecimal SHA-256 of all parts. */
  digest: string;
  parts: readonly RevisionPart[];
}

/**
 * What runs of a Workflow: its spec, that of its identity, and the pod template of each target that
 * exists. Any change of any of them makes another digest.
 */
export function revisionOf(
  workflow: Pick<Workflow, 'spec'>,
  identity: Pick<AutomationIdentity, 'spec'> | undefined,
  targets: readonly Pick<Workload, 'kind' | 'metadata' | 'codeDigest'>[],
): Revision {
  const templates = targets
    .map(({ kind, metadata, codeDigest }) => ({
      name: `${kind} ${metadata.name}`,
      digest: codeDigest,
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const parts = [
    { name: 'Workflow', digest: digestOf(workflow.spec) },
    { name: 'AutomationIdentity', digest: digestOf(identity?.spec ?? null) },
    ...templates,
  ];
  return { digest: digestOf(parts), parts };
}

/** As much of the parts as a status holds. */
export function recorded({ digest, parts }: Revision): {
  digest: string;
  parts: RevisionPart[];
} {
  return { digest, parts: parts.slice(0, maxParts) };
}

/** Digests of what the pods of a revision may run. */
export function codeOf(parts: readonly RevisionPart[]): ReadonlySet<string> {
  const isSpec = ({ name }: RevisionPart): boolean =>
    name === 'Workflow' || name === 'AutomationIdentity';
  return new Set(parts.filter((part) => !isSpec(part)).map(({ digest }) => digest));
}

/** What is asked of a digest. */
export interface Question {
  workflow: Workflow;
  /** Approvals that it needs. */
  required: number;
  /** Groups whose approvals count; `undefined`: everybody's do. */
  approvers?: ApproverGroups | undefined;
  identity: AutomationIdentity | undefined;
  /** Its targets. */
  targets: readonly Pick<Workload, 'metadata'>[];
  digest: string;
  /** All of the Workflow. */
  approvals: readonly Approval[];
  /** Milliseconds since the epoch. */
  now: number;
  /**
   * It was approved once, by others than those who had changed it then: who has changed it since
   * doesn't matter.
   */
  wasApproved?: boolean;
  /** Who else can't approve it: those who changed it before. */
  barred?: readonly string[];
  /** More people changed it than are known. */
  isCrowded?: boolean;
}

/** What the approvals of a digest come to. */
export interface Decision {
  outcome: 'Approved' | 'NotApproved' | 'Rejected' | 'Expired';
  /** Approvals that it needs. */
  required: number;
  /** Who approves it, now; or, where it is `Rejected`, who rejects it. */
  people: readonly string[];
  /** When the outcome changes by itself: milliseconds since the epoch. */
  changesAt: number | undefined;
  /** Why some who decided don't count; sentences. */
  notes: readonly string[];
}

/**
 * Of a Workflow that needs approvals. The last decision of each person counts, and one rejection holds. An approval by who changed what
 * is approved counts for nothing, whenever it was given.
 */
export function decide(question: Question): Decision {
  const {
    required,
    approvers,
    now,
    wasApproved = false,
    barred = [],
    isCrowded = false,
  } = question;
  const latest = latestByPerson(question);
  const rejecting = latest.filter(({ spec }) => spec.decision === 'Reject');
  if (rejecting.length > 0) {
    return {
      ...nothing,
      outcome: 'Rejected',
      required,
      people: rejecting.map(personOf).toSorted(),
    };
  }
  const unknown = wasApproved
    ? undefined
    : (unknownChangers(question) ?? (isCrowded ? crowded : undefined));
  if (unknown !== undefined) {
    return { ...nothing, outcome: 'NotApproved', required, notes: [unknown] };
  }
  const changers = new Set([
    ...(wasApproved ? [] : changersOf(question)),
    ...barred.map((name) => name.toLowerCase()),
  ]);
  const own = latest.filter((approval) => changers.has(personOf(approval).toLowerCase()));
  const others = latest.filter((approval) => !own.includes(approval));
  const counted = others.filter((approval) => isOfGroups(approval, approvers));
  const outside = others.filter((approval) => !counted.includes(approval));
  const valid = counted.filter((approval) => expiryOf(approval) > now);
  const names = (approvals: readonly Approval[]): string =>
    some(approvals.map(personOf).toSorted());
  const notes = [
    own.length === 0
      ? ''
      : `${names(own)} changed it, and so can't approve it: somebody else has to.`,
    outside.length === 0 ? '' : `${names(outside)} approved it, and is in none of these groups.`,
    approvers === undefined ? '' : groupsNote(approvers),
  ].filter((note) => note !== '');
  const people = valid.map(personOf).toSorted();
  if (isEnough(valid, question)) {
    return {
      outcome: 'Approved',
      required,
      people,
      changesAt: endOf(valid, question),
      // Who else approved it, and who might have, is of no interest any more.
      notes: notes.slice(0, own.length === 0 ? 0 : 1),
    };
  }
  const outcome = isEnough(counted, question) ? 'Expired' : 'NotApproved';
  return { ...nothing, outcome, required, people, notes };
}

/** Whose approvals count; a sentence. */
export function groupsNote({ groups, oneOfEach = false }: ApproverGroups): string {
  return oneOfEach
    ? `Each of these groups has to approve, by a person of its own: ${some(groups)}.`
    : `Approvals count of these groups: ${some(groups)}.`;
}

const groupsOf = ({ spec }: Approval): readonly string[] => spec.approverGroups ?? [];

/**
 * Whether who approved is in a group whose approvals count.
 *
 * @param approvers `undefined`: everybody's count
 */
export function isOfGroups(approval: Approval, approvers: ApproverGroups | undefined): boolean {
  if (approvers === undefined) return true;
  return groupsOf(approval).some((group) => approvers.groups.includes(group));
}

/** As many people as it needs and, where that is asked for, one of each group. */
export function isEnough(
  approvals: readonly Approval[],
  { required, approvers }: Pick<Question, 'required' | 'approvers'>,
): boolean {
  if (approvals.length < required) return false;
  return approvers?.oneOfEach !== true || isEachOfItsOwn(approvers.groups, approvals);
}

/** Whether every group has somebody who isn't needed for another one. */
function isEachOfItsOwn(groups: readonly string[], approvals: readonly Approval[]): boolean {
  const speaksFor = new Map<Approval, string>();
  /** Finds somebody, and for whom he would have spoken, somebody else. */
  const find = (group: string, asked: Set<Approval>): boolean =>
    approvals.some((approval) => {
      if (asked.has(approval) || !groupsOf(approval).includes(group)) return false;
      asked.add(approval);
      const other = speaksFor.get(approval);
      if (other !== undefined && !find(other, asked)) return false;
      speaksFor.set(approval, group);
      return true;
    });
  return groups.every((group) => find(group, new Set()));
}

/** When so many of them have run out that the rest isn't enough. */
function endOf(
  approvals: readonly Approval[],
  needs: Pick<Question, 'required' | 'approvers'>,
): number | undefined {
  const ends = approvals.map(expiryOf).toSorted((a, b) => a - b);
  const last = ends.find(
    (end) =>
      !isEnough(
        approvals.filter((approval) => expiryOf(approval) > end),
        needs,
      ),
  );
  return last === Infinity ? undefined : last;
}

const nothing = { people: [], changesAt: undefined, notes: [] };

const crowded =
  'More people changed it since the last approval than are kept, so that nobody can be told from them: roll back to what was approved, and make the change anew.';

/** The decision of each person on the digest that was made last; of one second, a rejection. */
function latestByPerson({ workflow, digest, approvals }: Question): Approval[] {
  return lastDecisions(
    approvals.filter(
      ({ spec }) =>
        spec.workflow === workflow.metadata.name &&
        spec.digest === digest &&
        // Of one run alone.
        spec.run === undefined,
    ),
  );
}

/** Of decisions on the same thing, the last of each person; of one second, a rejection. */
export function lastDecisions(all: readonly Approval[]): Approval[] {
  const latest = new Map<string, Approval>();
  const decisions = all.filter(
    ({ metadata, spec }) =>
      metadata.deletionTimestamp === undefined &&
      (spec.approver ?? '') !== '' &&
      !isAccount(spec.approver),
  );
  for (const approval of inOrder(decisions)) latest.set(personOf(approval).toLowerCase(), approval);
  return [...latest.values()];
}

/** The oldest first. */
function inOrder(approvals: readonly Approval[]): Approval[] {
  // There may be thousands: each time is read once.
  return approvals
    .map((approval) => ({ approval, time: timeOf(approval), name: approval.metadata.name }))
    .toSorted(
      (a, b) =>
        a.time - b.time || rank(a.approval) - rank(b.approval) || (a.name < b.name ? -1 : 1),
    )
    .map(({ approval }) => approval);
}

const rank = ({ spec }: Approval): number => (spec.decision === 'Reject' ? 1 : 0);

/** Whether it is a ServiceAccount, and no person. */
export function isAccount(user: string | undefined): boolean {
  return user?.startsWith('system:serviceaccount:') === true;
}

function timeOf({ metadata }: Approval): number {
  return Date.parse(metadata.creationTimestamp ?? '') || 0;
}

/** One that can't be read is over. */
function expiryOf({ spec: { expires } }: Approval): number {
  if (expires === undefined) return Infinity;
  return Date.parse(expires) || 0;
}

function personOf({ spec }: Approval): string {
  return spec.approver ?? '';
}

/**
 * Who may not approve it, in lower case: authenticated by the stamps, or asserted. A workload that
 * was there before it needed approval has no stamp.
 */
function changersOf({ workflow, identity, targets }: Question): ReadonlySet<string> {
  const asserted: unknown = fieldOf(fieldOf(workflow.spec, 'change'), 'requestedBy');
  const names = [...[workflow, identity, ...targets].map(stampOf), asserted];
  return new Set(names.flatMap((name) => (typeof name === 'string' ? name.toLowerCase() : [])));
}

/** Without the stamps nobody knows who may not approve it. */
function unknownChangers({ workflow, identity }: Question): string | undefined {
  const unstamped = [workflow, identity].filter(
    (object) => object !== undefined && stampOf(object) === undefined,
  );
  if (unstamped.length === 0) return undefined;
  const names = unstamped.map((object) => (object === workflow ? 'awf' : 'aid'));
  const { name, namespace = '' } = workflow.metadata;
  return `It isn't known who changed it last: ${names
    .map((kind) => `kubectl annotate ${kind} ${name} -n ${namespace} ${annotation.changedBy}=YOU`)
    .join('; ')}, with the name that the API server knows you by (kubectl auth whoami).`;
}

function stampOf(object: Pick<KubeObject, 'metadata'> | undefined): string | undefined {
  return object?.metadata.annotations?.[annotation.changedBy];
}

/** The condition `Approved`. */
export function approvedFinding(
  { metadata }: Workflow,
  { outcome, required, people, changesAt, notes }: Decision,
): Finding {
  const { name, namespace = '' } = metadata;
  const decideOn = `kubectl guardrails approve ${name} -n ${namespace} --reason "…"`;
  const missing = required - people.length;
  const more = `${missing} of ${required} approval${required === 1 ? '' : 's'} missing. As somebody who didn't change it: ${decideOn}`;
  const finding = (of: Pick<Finding, 'status' | 'reason'>, message: string): Finding => ({
    type: 'Approved',
    ...of,
    message: [message, ...notes].join(' '),
  });
  switch (outcome) {
    case 'Approved': {
      const until = changesAt === undefined ? '' : `, until ${timestamp(changesAt)}`;
      const by = `What runs is approved by ${some(people)}${until}.`;
      return finding({ status: 'True', reason: 'Approved' }, by);
    }
    case 'Rejected':
      return finding(
        { status: 'False', reason: 'Rejected' },
        `Rejected by ${some(people)}: kubectl guardrails approvals ${name} -n ${namespace} says why. Change it, or have who rejected it decide again.`,
      );
    case 'Expired':
      return finding({ status: 'False', reason: 'Expired' }, `Approvals have expired: ${more}`);
    case 'NotApproved':
      return finding({ status: 'False', reason: 'NotApproved' }, more);
  }
}

/** What keeps anything new from being granted, and from starting. */
export function notApproved(approved: Finding): Problem | undefined {
  if (approved.status === 'True') return undefined;
  return { reason: 'NotApproved', message: `Not approved: ${approved.message}` };
}

/** Decisions that count no more, which are kept for each Workflow. */
const keptSuperseded = 20;

/**
 * Decisions that nobody needs any more: of what neither is nor was approved last, or that the same
 * person made again; all but the newest of them.
 *
 * @param approvals all of one Workflow
 * @param current digests that count
 * @param runs UIDs of runs that aren't over
 */
export function superseded(
  approvals: readonly Approval[],
  current: readonly (string | undefined)[],
  runs: ReadonlySet<string>,
): Approval[] {
  if (approvals.length <= keptSuperseded) return [];
  const ordered = inOrder(approvals);
  const isOfCurrent = ({ spec }: Approval): boolean =>
    spec.run === undefined ? current.includes(spec.digest) : runs.has(spec.run.uid);
  const last = new Map(
    ordered
      .filter(isOfCurrent)
      .map((approval) => [
        `${approval.spec.run?.uid ?? approval.spec.digest} ${personOf(approval).toLowerCase()}`,
        approval,
      ]),
  );
  const needed = new Set(last.values());
  return ordered
    .filter(
      (approval) => !needed.has(approval) && approval.metadata.deletionTimestamp === undefined,
    )
    .toReversed()
    .slice(keptSuperseded);
}
