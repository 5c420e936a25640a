import type { Approval } from '../../api/approval.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import { isPerRun } from '../../guardrails/approval/plan.ts';
import { decideRun, sentenceOf } from '../../guardrails/approval/runs.ts';
import { runsOf } from '../waiting-runs.ts';
import { exit, outputOptions, type Command, type Session } from '../command.ts';
import { print, type Columns } from '../print.ts';

/** Who decided what, and on which revision. */
export const approvalsCommand: Command = {
  name: 'approvals',
  usage: [['approvals [NAME]', 'who decided what, the newest first']],
  options: { ...outputOptions, 'all-namespaces': { type: 'boolean', short: 'A' } },
  run: async (session) => approvals(session, session.names[0]),
};

interface ApprovalRow {
  namespace: string;
  workflow: string;
  digest: string;
  /** Kind and name, where it is of one run alone. */
  run: string;
  /** `current`, `approved before`, or empty for one that is no more. */
  revision: string;
  decision: string;
  approver: string;
  when: string;
  expires: string;
  ticket: string;
  reason: string;
}

async function approvals(session: Session, name: string | undefined): Promise<number> {
  const { client, namespace } = session;
  const scope = session.flag('all-namespaces') ? {} : { namespace };
  const [workflows, decisions] = await Promise.all([
    client.list(resources.workflows, scope),
    client.list(resources.approvals, scope),
  ]);
  const rows = approvalRows(workflows, decisions).filter(
    ({ workflow }) => name === undefined || workflow === name,
  );
  print(session, rows, approvalColumns, 'No decision found.');
  if (session.output === 'table' || session.output === 'wide') {
    const asking = workflows.filter(
      (workflow) => isPerRun(workflow) && (name === undefined || workflow.metadata.name === name),
    );
    for (const line of await waitingLines(session, asking, decisions)) session.stdout(line);
  }
  return name !== undefined && rows.length === 0 ? exit.failed : exit.ok;
}

/** The runs that wait, and how each is approved. */
async function waitingLines(
  { client }: Session,
  workflows: readonly Workflow[],
  decisions: readonly Approval[],
): Promise<string[]> {
  const lines = await Promise.all(
    workflows.map(async (workflow) => {
      const { namespace = '' } = workflow.metadata;
      return (await runsOf(client, workflow)).map((run) => {
        const ofHere = decisions.filter(({ metadata }) => metadata.namespace === namespace);
        const approvers = workflow.status?.revision?.approvers;
        const decision = decideRun(workflow, run, ofHere, approvers, Date.now());
        return sentenceOf(workflow, run, decision);
      });
    }),
  );
  return lines.flat();
}

const approvalColumns: Columns<ApprovalRow> = {
  NAMESPACE: ({ namespace }) => namespace,
  WORKFLOW: ({ workflow }) => workflow,
  DIGEST: ({ digest }) => digest.slice(0, 12),
  REVISION: ({ revision, run }) => (run === '' ? revision : run),
  DECISION: ({ decision }) => decision,
  BY: ({ approver }) => approver,
  WHEN: ({ when }) => when,
  EXPIRES: ({ expires }) => expires,
  REASON: ({ reason }) => reason,
};

/** One row for each decision, the newest first. */
export function approvalRows(
  workflows: readonly Workflow[],
  decisions: readonly Approval[],
): ApprovalRow[] {
  const revisions = new Map(
    workflows.map(({ metadata, status }) => [
      `${metadata.namespace ?? ''}/${metadata.name}`,
      status?.revision,
    ]),
  );
  return decisions
    .map(({ metadata, spec }): ApprovalRow => {
      const { namespace = '' } = metadata;
      const known = revisions.get(`${namespace}/${spec.workflow}`);
      const former = known?.approved?.digest === spec.digest ? 'approved before' : '';
      return {
        namespace,
        workflow: spec.workflow,
        digest: spec.digest,
        run: spec.run === undefined ? '' : `${spec.run.kind.toLowerCase()}/${spec.run.name}`,
        revision: known?.digest === spec.digest ? 'current' : former,
        decision: spec.decision,
        approver: spec.approver ?? '',
        when: metadata.creationTimestamp ?? '',
        expires: spec.expires ?? '',
        ticket: spec.ticket ?? '',
        reason: spec.reason,
      };
    })
    .toSorted((a, b) => b.when.localeCompare(a.when) || a.approver.localeCompare(b.approver));
}
