import type { Approval } from '../api/approval.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { Finding } from '../api/conditions.ts';
import { bareMetadata, keyOf, splitKey, type KubeObject } from '../api/objects.ts';
import type { ApproverGroups, Workflow } from '../api/workflow.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import type { Workload } from '../api/workload.ts';
import {
  approvedFinding,
  codeOf,
  decide,
  revisionOf,
  type Decision,
  type Revision,
} from '../guardrails/approval/plan.ts';
import { isHeldBack } from '../guardrails/requester/plan.ts';
import { barredFrom } from '../guardrails/revisions/plan.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { ReadStore } from '../runtime/store.ts';
import type { PolicyInForce } from './policy-in-force.ts';
import { readSpec, resolveTargets } from './workflow-targets.ts';

/** Whether what runs of a Workflow is approved. */
export interface ApprovalState {
  /** The condition `Approved`. */
  finding: Finding;
  /** Approvals that it needs. */
  required: number;
  /** Groups whose approvals count; `undefined`: everybody's do. */
  approvers?: ApproverGroups | undefined;
  /** `undefined` where nothing has to be approved, or its spec can't be read. */
  revision: Revision | undefined;
  /** Milliseconds since the epoch at which it changes by itself. */
  changesAt: number | undefined;
  /** Who approves what runs now. */
  people?: readonly string[];
  /** Who asked for it isn't allowed that himself, so that what is approved doesn't start. */
  isHeldBack?: boolean;
  /** What may start; `everything` where nothing has to be approved. */
  mayStart: ReadonlySet<string> | 'everything';
  /** Of what is in force, and has to be approved; `undefined` where nothing is. */
  inForce: { digest: string; approvedBy: readonly string[] } | undefined;
}

export interface WorkflowApprovalsOptions {
  policy: Pick<PolicyInForce, 'approvalsOf' | 'approversOf'>;
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  /** Indexed by `workflow` (`namespace/name`). */
  approvals: Pick<ReadStore<Approval>, 'byIndex'>;
  /** Indexed by `workflow` (`namespace/name`). */
  revisions: Pick<ReadStore<WorkflowRevision>, 'byIndex'>;
  /** Indexed by `namespace`. */
  workloads: IndexedStore<Workload>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** What the approvals of each Workflow come to, for whoever grants or starts something. */
export class WorkflowApprovals {
  readonly #options: WorkflowApprovalsOptions;

  constructor(options: WorkflowApprovalsOptions) {
    this.#options = options;
  }

  /**
   * @param key `namespace/name` of a Workflow
   * @returns `undefined` where there is no such Workflow
   */
  of(key: string): ApprovalState | undefined {
    const { workflows, identities, approvals, revisions, workloads, policy, clock } = this.#options;
    const workflow = workflows.get(key);
    if (workflow === undefined) return undefined;
    const required = policy.approvalsOf(workflow);
    if (required === 0) return notRequired;
    const read = readSpec(workflow);
    if (!('spec' in read)) return { ...unreadable, required };
    const { namespace = '' } = splitKey(key);
    const identity = identities.get(key);
    const neighbours = workloads.byIndex('namespace', namespace);
    const targets = resolveTargets(workflow, read.spec.targets, neighbours);
    const revision = revisionOf(workflow, identity, targets.workloads);
    const approvers = policy.approversOf(workflow);
    const recorded = revisions.byIndex('workflow', key);
    const former = workflow.status?.revision?.approved;
    const ask = (digest: string, isFormer: boolean): Decision => {
      const { barred, isBack, isCrowded } = barredFrom(recorded, digest, former?.digest);
      return decide({
        wasApproved: isFormer || isBack,
        // What was approved before revisions were recorded: nobody knows.
        barred: isFormer && !isBack ? [] : barred,
        isCrowded,
        required,
        approvers,
        workflow,
        identity,
        targets: targets.workloads,
        digest,
        approvals: approvals.byIndex('workflow', key),
        now: clock(),
      });
    };
    const decision = ask(revision.digest, false);
    const ofFormer =
      former === undefined || former.digest === revision.digest
        ? undefined
        : ask(former.digest, true);
    const isApproved = decision.outcome === 'Approved';
    const isFormerApproved = ofFormer?.outcome === 'Approved';
    const heldBack = isHeldBack(workflow);
    return {
      finding: approvedFinding(workflow, decision),
      people: decision.outcome === 'Approved' ? decision.people : [],
      isHeldBack: heldBack,
      required,
      approvers,
      revision,
      changesAt: decision.changesAt,
      mayStart: new Set([
        ...(isApproved && !heldBack ? codeOf(revision.parts) : []),
        ...(isFormerApproved ? codeOf(former?.parts ?? []) : []),
      ]),
      inForce: isApproved
        ? { digest: revision.digest, approvedBy: decision.people }
        : former !== undefined && isFormerApproved
          ? { digest: former.digest, approvedBy: ofFormer.people }
          : undefined,
    };
  }
}

/** Of what nobody has to approve. */
export const notRequired: ApprovalState = {
  finding: {
    type: 'Approved',
    status: 'True',
    reason: 'NotRequired',
    message: 'Its risk asks for no approval.',
  },
  required: 0,
  revision: undefined,
  changesAt: undefined,
  mayStart: 'everything',
  inForce: undefined,
};

const unreadable: Omit<ApprovalState, 'required'> = {
  finding: {
    type: 'Approved',
    status: 'Unknown',
    reason: 'SpecMalformed',
    message: "Its spec can't be read, so nothing of it can be approved.",
  },
  revision: undefined,
  changesAt: undefined,
  mayStart: new Set(),
  inForce: undefined,
};

/** Index of revisions: the key of the Workflow that they are of. */
export function workflowOfRevision({ metadata, spec }: WorkflowRevision): string[] {
  return [keyOf({ metadata: { namespace: metadata.namespace ?? '', name: spec.workflow } })];
}

/**
 * Whether a decision may be one that counts for a Workflow, as its status has it: on a run, or on
 * what stands or was approved last. That any other one goes, nobody waits for.
 *
 * @param workflow `undefined`: it is gone
 */
export function mayCount({ spec }: Approval, workflow: Workflow | undefined): boolean {
  const { revision } = workflow?.status ?? {};
  return (
    spec.run !== undefined ||
    (workflow !== undefined && revision === undefined) ||
    spec.digest === revision?.digest ||
    spec.digest === revision?.approved?.digest
  );
}

/** What is cached of a decision: nothing of its metadata that whoever makes thousands can make long. */
export function projectApproval(object: KubeObject): Approval {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- by the schema of its kind
  const { metadata, spec } = object as Approval;
  return { metadata: bareMetadata(metadata), spec };
}

/** Index of approvals: the key of the Workflow that they decide on. */
export function workflowOfApproval({ metadata, spec }: Approval): string[] {
  return [keyOf({ metadata: { namespace: metadata.namespace ?? '', name: spec.workflow } })];
}
