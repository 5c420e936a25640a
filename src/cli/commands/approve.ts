import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { approvalCreationPolicyName } from '../../admission/index.ts';
import type { Approval } from '../../api/approval.ts';
import { conditionOf, timestamp } from '../../api/conditions.ts';
import { parseDuration } from '../../api/duration.ts';
import { stampOf, type KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { defaultQuorums, type RevisionPart, type Workflow } from '../../api/workflow.ts';
import type { WorkflowRevision } from '../../api/workflow-revision.ts';
import { podTemplateOf } from '../../api/workload.ts';
import { approvedFinding, decide, isPerRun, quorumOf } from '../../guardrails/approval/plan.ts';
import { decideRun, sentenceOf, type WaitingRun } from '../../guardrails/approval/runs.ts';
import { approvedDigestOf, barredFrom, sourceOf } from '../../guardrails/revisions/plan.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { exit, reasonOf, required, UsageError, type Command, type Session } from '../command.ts';
import { plain } from '../plain.ts';
import { revisionsOf } from '../revisions.ts';
import { stamped } from '../stamped.ts';
import { runsOf } from '../waiting-runs.ts';
import { whatRuns, type WhatRuns } from '../what-runs.ts';

const options = {
  reason: { type: 'string' },
  ticket: { type: 'string' },
  run: { type: 'string' },
  timeout: { type: 'string' },
} as const;

/** Approves what a Workflow runs now, after it was shown. */
export const approveCommand: Command = {
  name: 'approve',
  usage: [
    ['approve NAME --reason TEXT', 'let what Workflow NAME runs now start'],
    [
      'approve NAME --run job/JOB --reason TEXT',
      'let this run of it start; approvals lists those that wait',
    ],
  ],
  options: { ...options, 'expires-in': { type: 'string' } },
  run: async (session) => decideOn(session, 'Approve', 'approve NAME --reason TEXT'),
};

/** Rejects what a Workflow runs now. */
export const rejectCommand: Command = {
  name: 'reject',
  usage: [['reject NAME --reason TEXT', 'hold what Workflow NAME runs now']],
  options,
  run: async (session) => decideOn(session, 'Reject', 'reject NAME --reason TEXT'),
};

async function decideOn(
  session: Session,
  decision: Approval['spec']['decision'],
  form: string,
): Promise<number> {
  const { client, namespace, stdout } = session;
  const name = required(session.names[0], form);
  const reason = reasonOf(session, form);
  const expiresInMs = durationOf(session);
  const seen = await whatOperatorSees(session, name);
  if (typeof seen === 'string') {
    session.stderr(`Error: ${seen}`);
    return exit.failed;
  }
  const { workflow, identity, targets, revision } = seen;
  const asked = session.option('run');
  const run = asked === undefined ? undefined : await runCalled(client, workflow, asked);
  if (typeof run === 'string') {
    session.stderr(`Error: ${run}`);
    return exit.failed;
  }
  // What others wrote mustn't look like ours.
  const recorded = await revisionsOf(client, namespace, name);
  for (const line of shown(seen, recorded)) stdout(plain(line));
  const ticket = session.option('ticket');
  const approvers = workflow.status?.revision?.approvers;
  const counted = approvers?.groups ?? [];
  await stamped(client, approvalCreationPolicyName, (approver, groups = []) =>
    client.create(resources.approvals, {
      metadata: { namespace, name: `${name}-${revision.digest.slice(0, 8)}-${nonce()}` },
      spec: {
        workflow: name,
        // Exactly what was shown: whatever is changed meanwhile has another.
        digest: revision.digest,
        ...(run !== undefined && { run: { kind: run.kind, name: run.name, uid: run.uid } }),
        decision,
        reason,
        ...(ticket !== undefined && { ticket }),
        ...(expiresInMs !== undefined && { expires: timestamp(Date.now() + expiresInMs) }),
        ...(approver !== undefined && {
          approver,
          approverGroups: groups.filter((group) => counted.includes(group)),
        }),
      },
    }),
  );
  const approvals = await client.list(resources.approvals, { namespace });
  if (run !== undefined) {
    const decided = decideRun(workflow, run, approvals, approvers, Date.now());
    stdout(plain(sentenceOf(workflow, run, decided)));
    return exit.ok;
  }
  const { digest } = revision;
  const { barred, isBack, isCrowded } = barredFrom(recorded, digest, approvedDigestOf(workflow));
  const outcome = decide({
    workflow,
    required: requiredOf(workflow),
    approvers,
    identity,
    targets,
    digest,
    approvals,
    now: Date.now(),
    wasApproved: isBack,
    barred,
    isCrowded,
  });
  stdout(approvedFinding(workflow, outcome).message);
  return exit.ok;
}

/** @returns a sentence where no such run waits */
async function runCalled(
  client: KubeClient,
  workflow: Workflow,
  asked: string,
): Promise<WaitingRun | string> {
  if (!isPerRun(workflow)) {
    return `Workflow ${workflow.metadata.name} doesn't ask for each run (spec.approval.per: Run): leave --run out.`;
  }
  const [kind, name] = asked.includes('/') ? asked.split('/') : ['job', asked];
  const runs = await runsOf(client, workflow);
  const found = runs.find((run) => run.kind.toLowerCase() === kind && run.name === name);
  if (found !== undefined) return found;
  const names = runs.map((run) => `${run.kind.toLowerCase()}/${run.name}`);
  return `no run ${asked} waits; ${names.length === 0 ? 'none does' : `there is ${names.slice(0, 10).join(', ')}`}.`;
}

function nonce(): string {
  return randomBytes(4).toString('hex');
}

function durationOf(session: Session): number | undefined {
  const text = session.option('expires-in');
  if (text === undefined) return undefined;
  const milliseconds = parseDuration(text);
  if (milliseconds === undefined || milliseconds < 1000) {
    throw new UsageError("--expires-in takes a duration such as '8h' or '90m'");
  }
  return milliseconds;
}

interface Seen extends WhatRuns {
  /** Of each target: kind and name, and the images of its containers. */
  images: readonly { target: string; images: readonly string[] }[];
}

/**
 * Reads what runs, and waits until the operator sees the same.
 *
 * @returns a sentence where there is nothing to decide on
 */
async function whatOperatorSees(session: Session, name: string): Promise<Seen | string> {
  const { namespace, timeoutMs } = session;
  const deadline = performance.now() + Math.min(timeoutMs, 15_000);
  for (;;) {
    const seen = await look(session, name);
    if (typeof seen === 'string') return seen;
    if (seen.workflow.status?.revision?.digest === seen.revision.digest) return seen;
    if (performance.now() > deadline) {
      return `what runs of ${namespace}/${name} has the digest ${seen.revision.digest}, and the operator says ${seen.workflow.status?.revision?.digest ?? 'none'}. Is it running, and of the same version as this command?`;
    }
    await delay(250);
  }
}

/** Approvals that it needs, as the operator says, who knows the GuardrailPolicy; else by its risk. */
function requiredOf(workflow: Workflow): number {
  const { conditions, revision, observedGeneration } = workflow.status ?? {};
  const isSeen = observedGeneration === workflow.metadata.generation;
  if (isSeen && conditionOf(conditions, 'Approved')?.reason === 'NotRequired') return 0;
  return revision?.required ?? quorumOf(workflow, defaultQuorums);
}

async function look(session: Session, name: string): Promise<Seen | string> {
  const seen = await whatRuns(session, name);
  if (typeof seen === 'string') return seen;
  if (requiredOf(seen.workflow) === 0) {
    return `Workflow ${session.namespace}/${name} needs no approval: its risk asks for none.`;
  }
  return {
    ...seen,
    images: seen.targets.map((target) => ({
      target: `${target.kind} ${target.metadata.name} (changed by: ${changerOf(target)})`,
      images: imagesOf(seen.objects.get(target)),
    })),
  };
}

function imagesOf(object: KubeObject | undefined): string[] {
  const template = object && podTemplateOf(object);
  return ['initContainers', 'containers'].flatMap((field) => {
    const containers: unknown = template?.spec?.[field];
    if (!Array.isArray(containers)) return [];
    return containers.map(({ image }: { image?: unknown }) =>
      typeof image === 'string' ? image : 'no image',
    );
  });
}

function changerOf(object: KubeObject): string {
  return stampOf(object) ?? 'unknown';
}

/** For who decides: what it is, who changed it, and what differs from what was approved last. */
function shown(
  { workflow, identity, revision, images }: Seen,
  recorded: readonly WorkflowRevision[],
): string[] {
  const { namespace = '', name } = workflow.metadata;
  const { change = {}, risk = 'Low' } = workflow.spec;
  const before = workflow.status?.revision?.approved;
  const told = [
    ['version', change.version],
    ['reason', change.reason],
    ['ticket', change.ticket],
    ['asked for by', change.requestedBy && `${change.requestedBy} (asserted)`],
  ].flatMap(([what, text]) => (text === undefined ? [] : [`  ${what}: ${text}`]));
  return [
    `Workflow ${namespace}/${name}, risk ${risk}, digest ${revision.digest}`,
    ...told,
    ...promotion(workflow, recorded[0]),
    `  changed by: ${changerOf(workflow)} (Workflow), ${identity === undefined ? 'nobody' : changerOf(identity)} (AutomationIdentity)`,
    before === undefined
      ? '  nothing of it was approved before'
      : `  differs from what was approved last: ${differences(before.parts, revision.parts).join(', ') || 'nothing'}`,
    ...(before === undefined
      ? []
      : [`  each field: kubectl guardrails diff ${name} -n ${namespace}`]),
    ...images.flatMap(({ target, images: list }) =>
      list.map(
        (image) =>
          `  ${target}: ${image}${image.includes('@sha256:') ? '' : ' (a tag: what it names can change)'}`,
      ),
    ),
  ];
}

/** Where the Workflow says that it comes from, and whether the operator found the same there. */
function promotion(workflow: Workflow, newest: WorkflowRevision | undefined): string[] {
  const from = sourceOf(workflow);
  if (from === undefined) return [];
  const found = newest?.spec.promotedFrom;
  return found?.namespace === from
    ? [`  promoted from: ${from}, where the same is revision ${found.revision}`]
    : [`  promoted from: ${from}, as it says; the same was never in force there`];
}

function differences(before: readonly RevisionPart[], after: readonly RevisionPart[]): string[] {
  const known = new Map(before.map(({ name, digest }) => [name, digest]));
  const present = new Set(after.map(({ name }) => name));
  return [
    ...after.filter(({ name, digest }) => known.get(name) !== digest).map(({ name }) => name),
    ...before.filter(({ name }) => !present.has(name)).map(({ name }) => `${name} (gone)`),
  ];
}
