import type { Approval } from '../api/approval.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { Finding } from '../api/conditions.ts';
import { keyOf, splitKey } from '../api/objects.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import {
  approvedFinding,
  codeOf,
  decide,
  quorumOf,
  revisionOf,
  type Decision,
  type Revision,
} from '../guardrails/approval/plan.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { ReadStore } from '../runtime/store.ts';
import { readSpec, resolveTargets } from './workflow-targets.ts';

/** Whether what runs of a Workflow is approved. */
export interface ApprovalState {
  /** The condition `Approved`. */
  finding: Finding;
  /** `undefined` where nothing has to be approved, or its spec can't be read. */
  revision: Revision | undefined;
  /** Milliseconds since the epoch at which it changes by itself. */
  changesAt: number | undefined;
  /** What may start; `everything` where nothing has to be approved. */
  mayStart: ReadonlySet<string> | 'everything';
}

export interface WorkflowApprovalsOptions {
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  /** Indexed by `workflow` (`namespace/name`). */
  approvals: Pick<ReadStore<Approval>, 'byIndex'>;
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
    const { workflows, identities, approvals, workloads, clock } = this.#options;
    const workflow = workflows.get(key);
    if (workflow === undefined) return undefined;
    if (quorumOf(workflow) === 0) return notRequired;
    const read = readSpec(workflow);
    if (!('spec' in read)) return unreadable;
    const { namespace = '' } = splitKey(key);
    const identity = identities.get(key);
    const neighbours = workloads.byIndex('namespace', namespace);
    const targets = resolveTargets(workflow, read.spec.targets, neighbours);
    const revision = revisionOf(workflow, identity, targets.workloads);
    const ask = (digest: string, wasApproved: boolean): Decision =>
      decide({
        wasApproved,
        workflow,
        identity,
        targets: targets.workloads,
        digest,
        approvals: approvals.byIndex('workflow', key),
        now: clock(),
      });
    const decision = ask(revision.digest, false);
    const former = workflow.status?.revision?.approved;
    const isFormerApproved =
      former !== undefined &&
      former.digest !== revision.digest &&
      ask(former.digest, true).outcome === 'Approved';
    return {
      finding: approvedFinding(workflow, decision),
      revision,
      changesAt: decision.changesAt,
      mayStart: new Set([
        ...(decision.outcome === 'Approved' ? codeOf(revision.parts) : []),
        ...(isFormerApproved ? codeOf(former.parts) : []),
      ]),
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
  revision: undefined,
  changesAt: undefined,
  mayStart: 'everything',
};

const unreadable: ApprovalState = {
  finding: {
    type: 'Approved',
    status: 'Unknown',
    reason: 'SpecMalformed',
    message: "Its spec can't be read, so nothing of it can be approved.",
  },
  revision: undefined,
  changesAt: undefined,
  mayStart: new Set(),
};

/** Index of approvals: the key of the Workflow that they decide on. */
export function workflowOfApproval({ metadata, spec }: Approval): string[] {
  return [keyOf({ metadata: { namespace: metadata.namespace ?? '', name: spec.workflow } })];
}
