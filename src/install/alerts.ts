import { GROUP } from '../api/names.ts';

/** A rule of Prometheus that alerts. */
export interface AlertRule {
  alert: string;
  expr: string;
  /** How long it holds before somebody is told. */
  for: string;
  labels: { severity: 'critical' | 'warning' };
  annotations: { summary: string; description: string; runbook: string };
}

interface RuleGroup {
  name: string;
  rules: AlertRule[];
}

const fenceRunbook = 'docs/runbooks/fence-not-in-force.md';
const killRunbook = 'docs/runbooks/kill-switch.md';
const excessRunbook = 'docs/runbooks/excess-permissions.md';

/** Alerts on kill switches, identities and tokens, as Prometheus reads them. */
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
        expr: 'max(automation_guardrails_kill_switches{state="engaged"}) > 0',
        for: '5m',
        labels: { severity: 'critical' },
        annotations: {
          summary: 'A kill switch has been engaged for minutes, and not everything is stopped',
          description: 'See kubectl get ksw -A, and describe those that are not Ready.',
          runbook: killRunbook,
        },
      },
      {
        alert: 'AutomationGuardrailsReleaseNotComplete',
        expr: 'max(automation_guardrails_kill_switches{state="releasing"}) > 0',
        for: '15m',
        labels: { severity: 'warning' },
        annotations: {
          summary: 'The release of a kill switch does not come to its end',
          description: 'See kubectl get ksw -A; the message of Ready says what it waits for.',
          runbook: killRunbook,
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
          runbook: 'docs/guides/tokens.md',
        },
      },
    ],
  },
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
    spec: { groups: alertGroups },
  };
}
