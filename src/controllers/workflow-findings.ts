import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionOf, isTrue, type Finding } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import type { Ledger } from '../api/limits.ts';
import { annotation, label } from '../api/names.ts';
import { stampOf, type KubeObject, type Namespace } from '../api/objects.ts';
import type { Workflow } from '../api/workflow.ts';
import { notApproved } from '../guardrails/approval/plan.ts';
import type { Workload } from '../api/workload.ts';
import type { Allowlist } from '../guardrails/egress/allowlist.ts';
import { overlapFinding } from '../guardrails/duties/plan.ts';
import { whatEgressMisses } from '../guardrails/egress/plan.ts';
import { limitBreached, limitFinding } from '../guardrails/limits/findings.ts';
import { secretFinding, secretInSpec } from '../guardrails/secrets-in-specs/plan.ts';
import { isEngaging, isLifted, latchOf, phaseOf } from '../guardrails/kill-switch/plan.ts';
import {
  heldFinding,
  heldReason,
  isGuarded,
  namespaceNotGuarded,
  ownerMissing,
  sentencesOf,
  type Problem,
  type Transition,
} from '../guardrails/requirements.ts';
import { clip, some } from '../guardrails/wording.ts';
import type { HostsView } from './workflow-hosts.ts';
import type { PolicyVerdict } from './policy-in-force.ts';
import type { RequesterVerdict } from './requester.ts';
import { idOf, type Targets } from './workflow-targets.ts';

/** What is known of a Workflow and of what it depends on. */
export interface WorkflowView {
  workflow: Workflow;
  /** Places in the spec that can't be read; then there are no targets. */
  malformed: readonly string[];
  targets: Targets;
  /** Those whose pods are found by labels of their own, since the identity's isn't certain. */
  foundByOwnLabels: readonly Workload[];
  /** Admission puts the label of the identity on every new pod. */
  isLabelled: boolean;
  /** What of the spec's allowlist is in force. */
  allowlist: Allowlist;
  /** How hosts of it are allowed. */
  hosts: HostsView;
  /** `undefined` where it isn't known (yet). */
  namespace: Namespace | undefined;
  /** The AutomationIdentity of the same name. */
  identity: AutomationIdentity | undefined;
  /** The KillSwitch of the same name. */
  killSwitch: KillSwitch | undefined;
  /** The condition `Approved`. */
  approved: Finding;
  /** Who approves what runs now. */
  approvers: readonly string[];
  /** What the GuardrailPolicy makes of it. */
  policy: PolicyVerdict;
  /** What is known of who asked for it. */
  requester: RequesterVerdict;
  /** What is counted of its runs; `undefined` where nothing is. */
  ledger: Ledger | undefined;
}

/** What a Workflow needs before anything is granted to it. This list is the specification. */
const requirements: readonly ((view: WorkflowView) => Problem | readonly Problem[] | undefined)[] =
  [
    specMalformed,
    ({ workflow }) => ownerMissing(workflow.spec),
    ({ workflow, namespace }) => namespaceNotGuarded(namespace, workflow.metadata),
    ({ policy }) => policy.missing,
    ({ requester }) => requester.problem,
    identityMissing,
    identityHeld,
    identityNotReady,
    targetRunsAsAnother,
    ({ foundByOwnLabels }) => whatEgressMisses(foundByOwnLabels),
    ({ allowlist }) => allowlist.problems,
    ({ hosts }) => hosts.problems,
    ({ approved }) => notApproved(approved),
    ({ workflow, ledger }) => limitBreached(workflow, ledger),
    ({ workflow, targets }) => secretInSpec(workflow, targets.workloads),
  ];

/** Everything that is missing, in the order of the list; empty when nothing is held. */
export function whatIsMissing(view: WorkflowView): Problem[] {
  return requirements.flatMap((requirement) => requirement(view) ?? []);
}

function specMalformed({ malformed }: WorkflowView): Problem | undefined {
  if (malformed.length === 0) return undefined;
  return { reason: 'SpecMalformed', message: `Can't be read: ${malformed.join(', ')}.` };
}

function identityMissing({ workflow, identity }: WorkflowView): Problem | undefined {
  if (identity !== undefined) return undefined;
  const { name, namespace = '' } = workflow.metadata;
  return {
    reason: 'IdentityMissing',
    message: `Missing AutomationIdentity ${name} in namespace ${namespace}: a Workflow runs as the identity of the same name.`,
  };
}

function identityHeld({ identity, namespace }: WorkflowView): Problem | undefined {
  const held = conditionOf(identity?.status?.conditions, 'Held');
  if (identity === undefined || held?.status !== 'True') return undefined;
  // Said already, of the Workflow itself.
  if (held.reason === 'NamespaceNotGuarded' && !isGuarded(namespace)) return undefined;
  if (held.reason === 'NotApproved' || held.reason === 'EnvironmentUnknown') return undefined;
  return {
    reason: 'IdentityHeld',
    message: `AutomationIdentity ${identity.metadata.name} is held: ${clip(held.message, 1024)}`,
  };
}

function identityNotReady({ identity }: WorkflowView): Problem | undefined {
  const ready = conditionOf(identity?.status?.conditions, 'Ready');
  if (identity === undefined || ready?.status !== 'False') return undefined;
  if (isTrue(identity.status?.conditions, 'Held') || passing.has(ready.reason)) return undefined;
  return {
    reason: 'IdentityNotReady',
    message: `AutomationIdentity ${identity.metadata.name} isn't ready: ${clip(ready.message, 1024)}`,
  };
}

/** Reasons of an identity that isn't ready and lacks nothing. */
const passing = new Set(['Provisioning', 'KillSwitchEngaged']);

/** The identity was created, or approved, just now, and nobody has looked at it yet. */
function isIdentityPending({ identity, approved }: WorkflowView): boolean {
  const held = conditionOf(identity?.status?.conditions, 'Held');
  if (held?.reason === 'NotApproved' && approved.status === 'True') return true;
  const ready = conditionOf(identity?.status?.conditions, 'Ready');
  return identity !== undefined && (ready === undefined || ready.reason === 'Provisioning');
}

function targetRunsAsAnother({ workflow, targets }: WorkflowView): Problem | undefined {
  const { name } = workflow.metadata;
  const others = targets.workloads.filter(({ serviceAccountName }) => serviceAccountName !== name);
  if (others.length === 0) return undefined;
  const list = some(
    others.map((target) => `${idOf(target)} (as ${target.serviceAccountName})`).toSorted(),
  );
  return {
    reason: 'TargetRunsAsAnother',
    message: `Targets that don't run as the identity: ${list}. Set serviceAccountName: ${name} in their pod templates.`,
  };
}

/** Whether nothing may be granted now that isn't there yet. */
export function isWithheld(view: WorkflowView, missing: readonly Problem[]): boolean {
  return missing.length > 0 || isIdentityPending(view) || isKilled(view);
}

/** Whether a kill switch holds: engaged, or not lifted yet. */
function isKilled(view: WorkflowView): boolean {
  const { killSwitch } = view;
  const phase = phaseOf(killSwitch, carriersOf(view));
  if (phase !== 'Release') return phase !== 'Idle';
  return killSwitch !== undefined && !isLifted(killSwitch);
}

/** Whether its egress is closed: a KillSwitch holds, and not the annotation alone. */
export function isEgressClosed(view: WorkflowView): boolean {
  return view.killSwitch !== undefined && isKilled(view) && isGuarded(view.namespace);
}

/**
 * The conditions of a Workflow: `Ready` and `Approved`, and `Held`, `Stopped`, where a policy sets
 * ceilings `PolicyViolation`, and where runs are counted `LimitBreached`, which are true when it is
 * bad.
 *
 * @param problems whatever else keeps it from being ready, the most important first
 */
export function workflowFindings(
  view: WorkflowView,
  missing: readonly Problem[],
  problems: readonly Problem[],
): Finding[] {
  const { workflow, ledger, targets } = view;
  return [
    readyFinding(view, missing, problems),
    heldFinding(missing),
    view.approved,
    view.requester.finding,
    stoppedFinding(view),
    ...[
      view.policy.finding,
      limitFinding(workflow, ledger),
      secretFinding(workflow, targets.workloads),
      overlapOf(view),
    ].flatMap((one) => one ?? []),
  ];
}

function overlapOf({
  workflow,
  approvers,
  killSwitch,
  targets,
}: WorkflowView): Finding | undefined {
  const { namespace = '', name } = workflow.metadata;
  return overlapFinding({
    executor: `system:serviceaccount:${namespace}:${name}`,
    approvers,
    releaser: killSwitch?.metadata.annotations?.[annotation.releasedBy],
    templates: targets.workloads.map((target) => ({
      name: idOf(target),
      changedBy: stampOf(target),
    })),
  });
}

function readyFinding(
  view: WorkflowView,
  missing: readonly Problem[],
  problems: readonly Problem[],
): Finding {
  const stopped = stoppedFinding(view);
  if (stopped.status === 'True') {
    return {
      type: 'Ready',
      status: 'False',
      reason: 'KillSwitchEngaged',
      message: stopped.message,
    };
  }
  const reason = heldReason(missing) ?? problems[0]?.reason;
  if (reason !== undefined) {
    const message = sentencesOf([...missing, ...problems]);
    return { type: 'Ready', status: 'False', reason, message };
  }
  const { name } = view.workflow.metadata;
  if (isIdentityPending(view)) {
    return {
      type: 'Ready',
      status: 'False',
      reason: 'Provisioning',
      message: `Waiting for AutomationIdentity ${name} to be provisioned.`,
    };
  }
  const notes = [missingTargets(view.targets), untargetedWorkloads(view)];
  const message = 'Its targets run as its identity, and reach DNS and the allowlist alone.';
  return {
    type: 'Ready',
    status: 'True',
    reason: 'Provisioned',
    message: [message, ...notes.flatMap((note) => note ?? [])].join(' '),
  };
}

function missingTargets({ missing }: Targets): string | undefined {
  if (missing.length === 0) return undefined;
  return `Targets that don't exist yet: ${some(missing.toSorted())}.`;
}

function untargetedWorkloads({ workflow, targets, isLabelled }: WorkflowView): string | undefined {
  const { untargeted } = targets;
  if (untargeted.length === 0) return undefined;
  const { name } = workflow.metadata;
  const holds = isLabelled
    ? 'The allowlist holds, too, for'
    : `The allowlist holds for pods with the label ${label.identity} alone of`;
  return `${holds} what runs as ServiceAccount ${name} and isn't a target: ${some(untargeted.map(idOf).toSorted())}.`;
}

/** What can carry the annotation that stops this Workflow. */
function carriersOf({ workflow, identity, namespace }: WorkflowView): readonly KubeObject[] {
  return [workflow, identity, namespace].filter((carrier) => carrier !== undefined);
}

/** The KillSwitch that stops the Workflow, or the one that is about to be made of an annotation. */
function killSwitchOf(view: WorkflowView): KillSwitch | undefined {
  const engaging = carriersOf(view).find(isEngaging);
  return view.killSwitch ?? (engaging && latchOf(engaging));
}

function stoppedFinding(view: WorkflowView): Finding {
  const phase = phaseOf(view.killSwitch, carriersOf(view));
  const killSwitch = killSwitchOf(view);
  if (phase === 'Idle' || killSwitch === undefined) {
    const message = 'The kill switch is not engaged.';
    return { type: 'Stopped', status: 'False', reason: 'NotEngaged', message };
  }
  const { name, namespace = '' } = killSwitch.metadata;
  const engaged = engagement(killSwitch);
  if (phase === 'Release') {
    const by = killSwitch.metadata.annotations?.[annotation.releasedBy] ?? 'unknown';
    const message = `${engaged} It is being released; ${by} asked for it.`;
    return { type: 'Stopped', status: 'True', reason: 'Releasing', message };
  }
  const message = `${engaged} To release it, as another person: kubectl guardrails release ${name} -n ${namespace} --reason "…"`;
  return { type: 'Stopped', status: 'True', reason: 'KillSwitchEngaged', message };
}

/** Who engaged, when and why. */
function engagement({ metadata, spec }: KillSwitch): string {
  const { reason, engagedBy = 'unknown', wholeNamespace = false } = spec;
  const since = metadata.creationTimestamp;
  return `${wholeNamespace ? 'The whole namespace is stopped. ' : ''}Engaged by ${engagedBy}${since === undefined ? '' : ` at ${since}`}: "${clip(reason, 1024)}".`;
}

/** Reasons whose message is told anew when it changes. */
const renewed: ReadonlySet<string> = new Set([
  'EntriesExpired',
  'HostsUnresolved',
  'PoliciesOfOthers',
]);

/** What changed since the conditions that stood before, as events tell it. */
export function transitionsOf(view: WorkflowView, findings: readonly Finding[]): Transition[] {
  const previous = view.workflow.status?.conditions;
  const isHeld = findings.some(({ type, status }) => type === 'Held' && status === 'True');
  return findings.flatMap(({ type, status, reason, message }): Transition[] => {
    const before = conditionOf(previous, type);
    // Each entry that ends, and each policy that widens, is told, not only the first.
    const isTold = !renewed.has(reason) || before?.message === message;
    if (before?.status === status && before.reason === reason && isTold) return [];
    switch (type) {
      case 'Held':
        if (status === 'True') return [{ type: 'warning', reason: 'Held', message }];
        return before?.status === 'True'
          ? [{ type: 'normal', reason: 'NoLongerHeld', message }]
          : [];
      case 'Approved':
        if (status === 'True' && reason === 'Approved')
          return [{ type: 'normal', reason, message }];
        return reason === 'Rejected' || reason === 'Expired'
          ? [{ type: 'warning', reason, message }]
          : [];
      case 'RequesterAllowed':
        // Held tells it where it holds, and nobody waits to hear that all is well.
        return [];
      case 'DutiesOverlap':
        return [{ type: 'warning', reason: 'DutiesOverlap', message }];
      case 'PolicyViolation':
        if (status === 'True') return [{ type: 'warning', reason: 'PolicyViolation', message }];
        return before?.status === 'True' ? [{ type: 'normal', reason, message }] : [];
      case 'LimitBreached':
        return limitTransition(view, before?.status, { status, message });
      case 'SecretInSpec':
        return status === 'True' ? [{ type: 'warning', reason: 'SecretInSpec', message }] : [];
      case 'Stopped': {
        // Its release is told by who does it.
        if (status !== 'True' || before?.status === 'True') return [];
        const { engagedBy = 'unknown', reason: why = '' } = killSwitchOf(view)?.spec ?? {};
        const text = `Engaged by ${engagedBy}: ${why}`;
        return [{ type: 'warning', reason: 'KillSwitchEngaged', message: text }];
      }
      case 'EgressDeclared':
        // What else there is to say of it, Ready and Held say.
        if (!['EntriesExpired', 'PeersUnknown', 'HostsUnresolved'].includes(reason)) return [];
        return [{ type: 'warning', reason, message }];
      case 'EgressEnforced':
        if (status === 'Unknown') return [];
        return status === 'True'
          ? [{ type: 'normal', reason: 'EgressEnforced', message }]
          : [{ type: 'warning', reason: 'EgressNotEnforced', message }];
      case 'UnusualDestinations':
        if (status !== 'True') return [];
        return [{ type: 'warning', reason: 'PacketsRefused', message }];
      case 'EgressWidened':
        if (status === 'True') return [{ type: 'warning', reason: 'EgressWidened', message }];
        return before?.status === 'True'
          ? [{ type: 'normal', reason: 'EgressAsListed', message }]
          : [];
      default:
        if (status === 'True') return [{ type: 'normal', reason: type, message }];
        // The other conditions say it already; what is under way ends in an event of its own.
        if (isHeld || reason === 'KillSwitchEngaged' || reason === 'Provisioning') return [];
        return [{ type: 'warning', reason, message }];
    }
  });
}

function limitTransition(
  { ledger }: WorkflowView,
  before: Finding['status'] | undefined,
  { status, message }: Pick<Finding, 'status' | 'message'>,
): Transition[] {
  if (status === 'True') return [{ type: 'warning', reason: 'LimitBreached', message }];
  if (before !== 'True') return [];
  if (ledger?.acknowledged === undefined) {
    return [{ type: 'normal', reason: 'LimitNoLongerBreached', message }];
  }
  const { by, reason: why } = ledger.acknowledged;
  const text = `Acknowledged by ${by}: ${why}`;
  return [{ type: 'normal', reason: 'LimitAcknowledged', message: text }];
}
