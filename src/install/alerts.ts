import { GROUP } from '../api/names.ts';
import { baselineAlerts, baselineRules, type RecordingRule } from './baseline.ts';

/** A rule of Prometheus that alerts. */
export interface AlertRule {
  alert: string;
  expr: string;
  /** How long it holds before somebody is told. */
  for: string;
  labels: { severity: 'critical' | 'warning' };
  annotations: { summary: string; description: string; runbook: string };
}

interface RuleGroup<Rule = AlertRule> {
  name: string;
  rules: readonly Rule[];
}

const fenceRunbook = 'docs/runbooks/fence-not-in-force.md';
const killRunbook = 'docs/runbooks/kill-switch.md';
const reviewRunbook = 'docs/runbooks/access-review.md';
const widenedRunbook = 'docs/runbooks/egress-widened.md';
const limitRunbook = 'docs/runbooks/limit-breached.md';
const excessRunbook = 'docs/runbooks/excess-permissions.md';
const heldRunbook = 'docs/runbooks/held.md';
const rotationRunbook = 'docs/runbooks/rotation.md';
const operatorRunbook = 'docs/runbooks/operator.md';

/** Every replica tells the same; the owner's labels stay, so that Alertmanager routes by them. */
function attention(selector: string): string {
  return `max by (kind, automation, reason, team, escalation) (automation_guardrails_attention_seconds{${selector}})`;
}

const heldExpr = attention(
  'condition="Held",reason!~"IdentityHeld|IdentityNotReady|LimitBreached"',
);

/** Why an identity isn't ready, where a rotation is concerned. */
const rotationReasons =
  'RotationFailed|RotationHookFailed|RotationHookUnusable|RotationUnreadable|RotationNeverDue|OverlapTooLong|ConsumersNotRestarted|RestartsWaiting';

/** Every alert, as Prometheus reads them. */
export const alertGroups: readonly RuleGroup[] = [
  {
    name: `${GROUP}/kill-switch`,
    rules: [
      {
        alert: 'AutomationGuardrailsFenceNotInForce',
        expr: 'min by (policy) (automation_guardrails_fence_in_force) == 0',
        // The probe has asked three times before it says so.
        for: '0m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Admission policy {{ $labels.policy }} is not in force',
          description:
            'The API server does what this policy has to keep it from. A kill switch that is engaged now may not hold. See kubectl -n automation-guardrails-probe describe ksw canary.',
          runbook: fenceRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsFenceUnknown',
        expr: 'min by (policy) (automation_guardrails_fence_in_force) == -1',
        for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Nothing is known of admission policy {{ $labels.policy }}',
          description:
            'The standing probe gets no answer that proves anything. See kubectl -n automation-guardrails-probe describe ksw canary.',
          runbook: fenceRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsFenceNotProbed',
        expr: 'absent(automation_guardrails_fence_in_force)',
        for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Nobody asks whether the admission policies are in force',
          description:
            'No replica of the operator leads, its metrics are not scraped, or the namespace automation-guardrails-probe is missing.',
          runbook: fenceRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsPolicyEdited',
        expr: 'max by (policy) (automation_guardrails_policy_edited) == 1',
        // While an upgrade is under way, policies and operator are of different versions.
        for: '1m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Admission policy {{ $labels.policy }} is not as it was installed',
          description:
            'It, or its binding, was changed, or is of another version than the operator. It may leave out a namespace that the probe is not in.',
          runbook: fenceRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsKillNotComplete',
        expr: `${attention('condition="Effective"')} > 300`,
        for: '0m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The kill of {{ $labels.automation }} is not effective after minutes',
          description:
            'Something of it still runs, or can still be used ({{ $labels.reason }}). Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}. See kubectl get ksw -A, and describe it.',
          runbook: killRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsKillNotFenced',
        // A probe that fails once is asked again within seconds.
        expr: `${attention('condition="Fenced"')} > 60`,
        for: '0m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The kill of {{ $labels.automation }} does not hold',
          description:
            'Nothing keeps it from starting again ({{ $labels.reason }}). Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}.',
          runbook: killRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsContested',
        expr: `${attention('condition="Contested"')} > 600`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Something keeps waking {{ $labels.automation }}, which is stopped',
          description:
            'No pod of it starts, but an autoscaler or another controller writes against the kill. The condition Contested names it.',
          runbook: killRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsReleaseNotComplete',
        expr: `${attention('condition="Releasing"')} > 900`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The release of {{ $labels.automation }} does not come to its end',
          description: 'See kubectl get ksw -A; the message of Ready says what it waits for.',
          runbook: killRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsBreakGlass',
        expr: 'sum(increase(automation_guardrails_kill_switch_break_glass_total[15m])) > 0',
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A kill switch was released without a second person',
          description:
            'Somebody broke the glass. The event BreakGlass says who and why: kubectl events -A | grep BreakGlass.',
          runbook: 'docs/runbooks/break-glass.md',
        },
      },
    ],
  },
  {
    name: `${GROUP}/identities`,
    rules: [
      {
        alert: 'AutomationGuardrailsExcessPermissions',
        expr: 'max(automation_guardrails_excess_permissions{state="excess"}) > 0',
        // Who declares what he has just bound, or the other way round, needs a moment.
        for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Automations may do more than they declare',
          description:
            'Bindings that the operator did not make reach {{ $value }} AutomationIdentities. See the condition ExcessPermissions: kubectl get aid -A.',
          runbook: excessRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsPermissionsUnknown',
        expr: 'max(automation_guardrails_excess_permissions{state="unknown"}) > 0',
        for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'It is not known what automations may do',
          description:
            'The operator may not list ClusterRoles and ClusterRoleBindings, so nobody compares what they grant with what is declared.',
          runbook: excessRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsAccessReviewOverdue',
        expr: 'max(automation_guardrails_overdue_access_reviews) > 0',
        // Who changes permissions has them reviewed in the same sitting, or soon after.
        for: '1h',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Nobody has reviewed in time what automations may do',
          description:
            'The access review of {{ $value }} AutomationIdentities is overdue, or void since they may do something else now. See the column REVIEW-OVERDUE: kubectl get aid -A.',
          runbook: reviewRunbook,
        },
      },
    ],
  },
  {
    name: `${GROUP}/egress`,
    rules: [
      {
        alert: 'AutomationGuardrailsEgressWidened',
        expr: 'max(automation_guardrails_workflow_egress{condition="EgressWidened",status="True"}) > 0',
        // Who moves a policy from one namespace to another needs a moment.
        for: '5m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Automations may reach more than their allowlist',
          description:
            'Policies that the operator did not make let the pods of {{ $value }} Workflows out further. See the condition EgressWidened: kubectl get awf -A.',
          runbook: widenedRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsEgressNotEnforced',
        expr: 'max(automation_guardrails_workflow_egress{condition="EgressEnforced",status="False"}) > 0',
        for: '0m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The cluster does not enforce NetworkPolicies',
          description:
            'Pods of {{ $value }} Workflows reached a destination that no policy allows. See the condition EgressEnforced: kubectl get awf -A.',
          runbook: widenedRunbook,
        },
      },
    ],
  },
  {
    name: `${GROUP}/evidence`,
    rules: [
      {
        alert: 'AutomationGuardrailsEvidenceNotWritten',
        expr: 'sum(rate(automation_guardrails_evidence_write_failures_total[5m])) > 0',
        // Races and an API server that restarts are over by then.
        for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Evidence is not written',
          description:
            'What still stands is recorded later; what comes and goes meanwhile may not be. The log of the operator says why.',
          runbook: 'docs/runbooks/evidence-not-written.md',
        },
      },
    ],
  },
  {
    name: `${GROUP}/limits`,
    rules: [
      {
        alert: 'AutomationGuardrailsLimitBreached',
        expr: 'sum by (limit) (increase(automation_guardrails_limit_breaches_total[15m])) > 0',
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'An automation breached its limit {{ $labels.limit }}',
          description:
            'It is held, or its kill switch is engaged. See the condition LimitBreached: kubectl get awf -A.',
          runbook: limitRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsLimitNotAcknowledged',
        expr: `${attention('condition="LimitBreached"')} > 1800`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: '{{ $labels.automation }} has breached a limit for half an hour',
          description:
            'Nobody has acknowledged it. The team is {{ $labels.team }}; call {{ $labels.escalation }}. See kubectl describe awf.',
          runbook: limitRunbook,
        },
      },
    ],
  },
  {
    name: `${GROUP}/tokens`,
    rules: [
      {
        alert: 'AutomationGuardrailsTokenNotRenewed',
        // A token that is renewed in time has a fifth of its life left, 120 s at least.
        expr: 'min(automation_guardrails_soonest_token_expiry_seconds) < 60',
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A token for a runner outside of pods is about to expire',
          description:
            'It was not renewed. See kubectl get aid -A, and describe those that are not Ready.',
          runbook: 'docs/runbooks/token-not-renewed.md',
        },
      },
      {
        alert: 'AutomationGuardrailsCopiesRemain',
        // A vault that is unsealed after a restart is asked again within a minute.
        expr: 'max(automation_guardrails_secret_store_copies_remaining) > 0',
        for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Credentials of deleted automations, or in a vault of before, can still be read',
          description:
            '{{ $value }} copies are not known to be destroyed. See kubectl get events -A --field-selector reason=CopiesRemain, and kubectl get aid -A for SecretStoreNotConfigured.',
          runbook: 'docs/runbooks/copies-remain.md',
        },
      },
    ],
  },
  {
    name: `${GROUP}/automations`,
    rules: [
      {
        alert: 'AutomationGuardrailsHeld',
        // What waits for another object is told for that one.
        expr: `(${heldExpr} > 3600) <= 86400`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: '{{ $labels.kind }} {{ $labels.automation }} is held',
          description:
            'Something is missing ({{ $labels.reason }}), and it is granted nothing new until it is there. Owner: {{ $labels.team }}. Who takes care of it says so: kubectl guardrails acknowledge.',
          runbook: heldRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsHeldForADay',
        expr: `${heldExpr} > 86400`,
        for: '0m',
        labels: { severity: 'critical' },
        annotations: {
          summary: '{{ $labels.kind }} {{ $labels.automation }} has been held for a day',
          description:
            'Something is missing ({{ $labels.reason }}), and nobody has added or acknowledged it. Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}.',
          runbook: heldRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsNotReady',
        expr: `${attention(`condition="Ready",reason!~"${rotationReasons}"`)} > 900`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: '{{ $labels.kind }} {{ $labels.automation }} is not ready',
          description:
            'Its guardrails are not as it asks for ({{ $labels.reason }}). Owner: {{ $labels.team }}.',
          runbook: heldRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsLeftOut',
        expr: 'max(automation_guardrails_attention_objects_left_out) > 0',
        for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'More automations need attention than the metrics name',
          description:
            'Beside the 200 that alerts can name there are {{ $value }} more. See kubectl guardrails status -A.',
          runbook: heldRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsRotationFailing',
        expr: `${attention(`condition="Ready",reason=~"${rotationReasons}"`)} > 300`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A credential of {{ $labels.automation }} is not rotated as asked',
          description:
            'Why: {{ $labels.reason }}. The value before is still in use. Owner: {{ $labels.team }}.',
          runbook: rotationRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsRotationOverdue',
        expr: `${attention('condition="RotationOverdue"')} > 3600`,
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'A credential of {{ $labels.automation }} is overdue',
          description:
            'Why: {{ $labels.reason }}. Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}.',
          runbook: rotationRunbook,
        },
      },
    ],
  },
  {
    name: `${GROUP}/operator`,
    rules: [
      {
        alert: 'AutomationGuardrailsOperatorDown',
        expr: 'absent(automation_guardrails_build_info)',
        for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'No replica of the operator is scraped',
          description:
            'Admission still holds what is stopped. Nothing new is stopped beyond the fence, rotated or granted.',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsNoLeader',
        expr: 'max(automation_guardrails_leader) == 0',
        for: '2m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'No replica of the operator leads',
          description: 'Kills go on. Nothing is rotated, granted or probed.',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsWatchStale',
        // The API server sends a sign of life about once a minute.
        expr: 'max by (kind) (automation_guardrails_watch_last_event_age_seconds) > 180',
        for: '1m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'The operator hears nothing of {{ $labels.kind }} objects',
          description: 'What it does rests on what it knew minutes ago.',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsStalled',
        expr: 'max by (controller) (automation_guardrails_workqueue_depth) > 0 and sum by (controller) (increase(automation_guardrails_reconcile_total[5m])) == 0',
        for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'Controller {{ $labels.controller }} has work, and does none of it',
          description: 'Objects wait, and no reconcile has ended for minutes.',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsQueueGrowing',
        // A queue that gets empty now and then keeps up.
        expr: 'max by (controller) (min_over_time(automation_guardrails_workqueue_depth[15m])) > 10',
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Controller {{ $labels.controller }} does not keep up',
          description: 'At least {{ $value }} objects have waited all the time for 15 minutes.',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsReconcileErrors',
        // One object that fails for good is tried once a minute, and is told as not ready.
        expr: 'sum by (controller) (increase(automation_guardrails_reconcile_total{result="error"}[15m])) > 50',
        for: '0m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'Reconciles of controller {{ $labels.controller }} fail',
          description: 'Its log says why: the field error of "Reconcile failed".',
          runbook: operatorRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsApiServerErrors',
        expr: 'sum(rate(automation_guardrails_kube_api_requests_total{code=~"5..|429|timeout|error"}[5m])) / sum(rate(automation_guardrails_kube_api_requests_total[5m])) > 0.2',
        for: '10m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The API server fails the operator',
          description:
            "More than a fifth of the operator's requests were answered by an error, or not at all.",
          runbook: operatorRunbook,
        },
      },
    ],
  },
  { name: `${GROUP}/runs`, rules: baselineAlerts },
];

/** Every rule, in its order: what alerts rest on comes first. */
export const ruleGroups: readonly RuleGroup<AlertRule | RecordingRule>[] = [
  { name: `${GROUP}/usual`, rules: baselineRules },
  ...alertGroups,
];

/** The same for the Prometheus operator. */
export function prometheusRule(): object {
  return {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: {
      name: 'automation-guardrails',
      namespace: 'automation-guardrails',
      labels: { 'app.kubernetes.io/name': 'automation-guardrails' },
    },
    spec: { groups: ruleGroups },
  };
}
