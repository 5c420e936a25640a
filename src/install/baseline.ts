/**
 * What is usual for an automation at this time of the week, and the alerts on what isn't. The week
 * is the season: jobs run by hours and by weekdays.
 */
import type { AlertRule } from './alerts.ts';

/** A rule of Prometheus that stores what it computes. */
export interface RecordingRule {
  record: string;
  expr: string;
}

const runbook = 'docs/runbooks/run-spike.md';
const prefix = 'automation:automation_guardrails_';
const weeks = [1, 2, 3, 4] as const;

/** Both replicas count every run; what is told of many together has no usual. */
const byOwner = 'max by (automation, team, escalation)';
const started = 'automation_guardrails_runs_started_total{automation!="other"}';
const ended = 'automation_guardrails_runs_ended_total{automation!="other"}';
const failed = 'automation_guardrails_runs_ended_total{automation!="other",result="failed"}';

const volume = `${prefix}runs_started:increase1h`;
const endedRuns = `${prefix}runs_ended:increase1h`;
const failures = `${prefix}runs_failed:ratio1h`;

/** The same hour of the last weeks; at least two of them, or nothing is usual yet. */
function seasonal(
  series: string,
  more: (average: string, deviation: string) => string,
): RecordingRule[] {
  const past = weeks
    .map(
      (week) =>
        `label_replace(max by (automation) (${series} offset ${week}w), "week", "${week}", "", "")`,
    )
    .join(' or ');
  const average = `${series}:average4w`;
  const deviation = `${series}:deviation4w`;
  return [
    {
      record: average,
      expr: `avg by (automation) (${past}) and count by (automation) (${past}) >= 2`,
    },
    { record: deviation, expr: `stddev by (automation) (${past})` },
    { record: `${series}:threshold`, expr: more(average, deviation) },
  ];
}

/** The greater of two. */
function greater(one: string, another: string): string {
  return `(${one} > ${another}) or ${another}`;
}

/** In this order: each rests on those before it. */
export const baselineRules: readonly RecordingRule[] = [
  { record: volume, expr: `${byOwner} (increase(${started}[1h]))` },
  { record: endedRuns, expr: `${byOwner} (sum without (result) (increase(${ended}[1h])))` },
  {
    record: failures,
    expr: `${byOwner} (increase(${failed}[1h])) / (${endedRuns} > 0)`,
  },
  // Where each week was like the other, the deviation is none: then twice as many are too many.
  ...seasonal(volume, (average, deviation) =>
    greater(`(${average} + 3 * ${deviation})`, `2 * ${average}`),
  ),
  ...seasonal(failures, (average, deviation) =>
    greater(`(${average} + 3 * ${deviation})`, `(${average} + 0.2)`),
  ),
];

/** On what is not usual. An automation that is new has its limits, and no usual yet. */
export const baselineAlerts: readonly AlertRule[] = [
  {
    alert: 'AutomationGuardrailsRunVolumeSpike',
    // A few more are nothing to call somebody for.
    expr: `(${volume} > 10) > on (automation) group_left () ${volume}:threshold`,
    for: '15m',
    labels: { severity: 'warning' },
    annotations: {
      summary: '{{ $labels.automation }} runs far more often than usual',
      description:
        '{{ $value | humanize }} runs started within the last hour; at this time of the week that is more than three deviations, and more than twice, above the last four weeks. Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}.',
      runbook,
    },
  },
  {
    alert: 'AutomationGuardrailsFailureRateSpike',
    // One failure of two runs is no rate.
    expr: `(${failures} > on (automation) group_left () ${failures}:threshold) and on (automation) ${endedRuns} >= 5`,
    for: '15m',
    labels: { severity: 'warning' },
    annotations: {
      summary: 'Runs of {{ $labels.automation }} fail far more often than usual',
      description:
        '{{ $value | humanizePercentage }} of the runs that ended within the last hour failed; at this time of the week that is more than three deviations, and more than 20 percentage points, above the last four weeks. Owner: {{ $labels.team }}, escalation: {{ $labels.escalation }}.',
      runbook,
    },
  },
];
