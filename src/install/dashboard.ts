/** A panel, as far as people decide; the rest is the same for all. */
export interface Panel {
  title: string;
  /** One sentence behind the little i. */
  description: string;
  kind: 'stat' | 'timeseries' | 'table';
  queries: readonly Query[];
  /** Of Grafana; default none. */
  unit?: 's' | 'reqps' | 'percentunit' | 'bytes';
  /** Colour from this value on, in rising order; below the first it is green. */
  thresholds?: readonly { from: number; color: 'yellow' | 'red' }[];
}

/** A query of Prometheus. */
export interface Query {
  expr: string;
  /** Name of each series, with `{{label}}`; default its labels. */
  legend?: string;
}

interface Row {
  title: string;
  panels: readonly Panel[];
}

const red = [{ from: 1, color: 'red' }] as const;
const yellow = [{ from: 1, color: 'yellow' }] as const;

/** What the dashboard shows, in its order. Kill switches come first: it is opened at 3 a.m. */
export const dashboardRows: readonly Row[] = [
  {
    title: 'Kill switches',
    panels: [
      {
        title: 'Engaged, not everything stopped',
        description: 'Kill switches that have not reached every rung yet.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_kill_switches{state="engaged"})' }],
        thresholds: red,
      },
      {
        title: 'Stopped',
        description: 'Kill switches of which every rung was verified.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_kill_switches{state="stopped"})' }],
        thresholds: yellow,
      },
      {
        title: 'Releasing',
        description: 'Kill switches that are being released.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_kill_switches{state="releasing"})' }],
        thresholds: yellow,
      },
      {
        title: 'Policies not in force',
        description: 'Admission policies that did not do their part, or of which nothing is known.',
        kind: 'stat',
        queries: [
          {
            expr: 'count(min by (policy) (automation_guardrails_fence_in_force) < 1) or vector(0)',
          },
        ],
        thresholds: red,
      },
      {
        title: 'Policies edited',
        description: 'Admission policies that differ from what this version installs.',
        kind: 'stat',
        queries: [{ expr: 'sum(max by (policy) (automation_guardrails_policy_edited))' }],
        thresholds: yellow,
      },
      {
        title: 'Released without a second person, 30 days',
        description: 'Kill switches that were released by breaking the glass.',
        kind: 'stat',
        queries: [
          { expr: 'sum(increase(automation_guardrails_kill_switch_break_glass_total[30d]))' },
        ],
        thresholds: yellow,
      },
      {
        title: 'Kills that are not effective, and releases that are not complete',
        description: 'Each with the time that it has waited and whom to call.',
        kind: 'table',
        queries: [
          {
            expr: 'max by (automation, condition, reason, team, escalation) (automation_guardrails_attention_seconds{kind="KillSwitch"})',
          },
        ],
        unit: 's',
      },
      {
        title: 'Time from the kill to each rung, 95 of 100',
        description: 'How long kills of the last day took.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'histogram_quantile(0.95, sum by (rung, le) (increase(automation_guardrails_kill_switch_stop_duration_seconds_bucket[1d])))',
            legend: '{{rung}}',
          },
        ],
        unit: 's',
      },
      {
        title: 'Woken and paused again, per hour',
        description: 'Workloads that something woke while they were stopped.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (kind) (increase(automation_guardrails_kill_switch_contested_writes_total[1h]))',
            legend: '{{kind}}',
          },
        ],
      },
    ],
  },
  {
    title: 'Automations',
    panels: [
      {
        title: 'Automations',
        description: 'Workflows in the cluster, the one of the standing probe among them.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_cached_objects{kind="Workflow"})' }],
      },
      {
        title: 'Identities',
        description:
          'AutomationIdentities in the cluster, the one of the standing probe among them.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_cached_objects{kind="AutomationIdentity"})' }],
      },
      {
        title: 'Held',
        description: 'Objects that are granted nothing new because something is missing.',
        kind: 'stat',
        queries: [{ expr: 'sum(automation_guardrails_held_objects) or vector(0)' }],
        thresholds: yellow,
      },
      {
        title: 'Excess permissions',
        description: 'Identities that others let do more than they declare.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_excess_permissions{state="excess"})' }],
        thresholds: yellow,
      },
      {
        title: 'What needs attention',
        description: 'Each with the time that it has waited and whom to call; at most 200.',
        kind: 'table',
        queries: [
          {
            expr: 'max by (kind, automation, condition, reason, team, escalation) (automation_guardrails_attention_seconds{kind!="KillSwitch"})',
          },
        ],
        unit: 's',
      },
      {
        title: 'Held, by reason',
        description: 'What is missing.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (kind, reason) (automation_guardrails_held_objects)',
            legend: '{{kind}} {{reason}}',
          },
        ],
      },
    ],
  },
  {
    title: 'Runs',
    panels: [
      {
        title: 'Runs started, per hour',
        description: 'The ten Workflows that run most.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'topk(10, max by (automation) (increase(automation_guardrails_runs_started_total[1h])))',
            legend: '{{automation}}',
          },
        ],
      },
      {
        title: 'Runs that failed, per hour',
        description: 'The ten Workflows that fail most.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'topk(10, max by (automation) (increase(automation_guardrails_runs_ended_total{result="failed"}[1h])))',
            legend: '{{automation}}',
          },
        ],
      },
    ],
  },
  {
    title: 'Credentials',
    panels: [
      {
        title: 'Oldest generated credential',
        description: 'Time since the rotation that is longest ago.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_oldest_credential_age_seconds)' }],
        unit: 's',
      },
      {
        title: 'Next token to expire',
        description: 'Of those that are published for runners outside of pods.',
        kind: 'stat',
        queries: [{ expr: 'min(automation_guardrails_soonest_token_expiry_seconds)' }],
        unit: 's',
      },
      {
        title: 'Rotations and tokens, per hour',
        description: 'Tried, by result.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (result) (increase(automation_guardrails_secret_rotations_total[1h]))',
            legend: 'rotations: {{result}}',
          },
          {
            expr: 'sum by (result) (increase(automation_guardrails_token_issues_total[1h]))',
            legend: 'tokens: {{result}}',
          },
        ],
      },
    ],
  },
  {
    title: 'Operator',
    panels: [
      {
        title: 'Replicas',
        description: 'Replicas that are scraped.',
        kind: 'stat',
        queries: [{ expr: 'count(automation_guardrails_build_info)' }],
      },
      {
        title: 'Leaders',
        description: 'One leads; for some seconds after it was lost, none.',
        kind: 'stat',
        queries: [{ expr: 'sum(automation_guardrails_leader)' }],
      },
      {
        title: 'Rewrites requests',
        description: '1 where the API server serves MutatingAdmissionPolicy v1 and it is in force.',
        kind: 'stat',
        queries: [{ expr: 'min(automation_guardrails_admission_mutation)' }],
      },
      {
        title: 'Oldest sign of life of a watch',
        description: 'The API server sends one about once a minute.',
        kind: 'stat',
        queries: [{ expr: 'max(automation_guardrails_watch_last_event_age_seconds)' }],
        unit: 's',
        thresholds: [
          { from: 120, color: 'yellow' },
          { from: 180, color: 'red' },
        ],
      },
      {
        title: 'Reconciles',
        description: 'By controller and result.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (controller, result) (rate(automation_guardrails_reconcile_total[5m]))',
            legend: '{{controller}} {{result}}',
          },
        ],
        unit: 'reqps',
      },
      {
        title: 'Time of a reconcile, 95 of 100',
        description: 'By controller.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'histogram_quantile(0.95, sum by (controller, le) (rate(automation_guardrails_reconcile_duration_seconds_bucket[5m])))',
            legend: '{{controller}}',
          },
        ],
        unit: 's',
      },
      {
        title: 'Objects that wait',
        description: 'Depth of the queue of each controller.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'max by (controller) (automation_guardrails_workqueue_depth)',
            legend: '{{controller}}',
          },
        ],
      },
      {
        title: 'Time in the queue, 95 of 100',
        description: 'By controller.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'histogram_quantile(0.95, sum by (controller, le) (rate(automation_guardrails_workqueue_queue_duration_seconds_bucket[5m])))',
            legend: '{{controller}}',
          },
        ],
        unit: 's',
      },
      {
        title: 'Requests to the API server',
        description: 'By verb and answer.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (verb, code) (rate(automation_guardrails_kube_api_requests_total[5m]))',
            legend: '{{verb}} {{code}}',
          },
        ],
        unit: 'reqps',
      },
      {
        title: 'Watches that were started again, per hour',
        description: 'By reason; `timeout` is as asked for.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'sum by (reason) (increase(automation_guardrails_watch_restarts_total[1h]))',
            legend: '{{reason}}',
          },
        ],
      },
      {
        title: 'Memory',
        description: 'Resident set of each replica.',
        kind: 'timeseries',
        queries: [
          {
            expr: 'process_resident_memory_bytes and on (instance) automation_guardrails_build_info',
            legend: '{{instance}}',
          },
        ],
        unit: 'bytes',
      },
    ],
  },
];

/** Grafana's grid has 24 columns. */
const sizes = {
  stat: { w: 4, h: 4 },
  timeseries: { w: 12, h: 8 },
  table: { w: 24, h: 7 },
} as const satisfies Record<Panel['kind'], { w: number; h: number }>;

const gridWidth = 24;

/** The dashboard, as Grafana imports it. */
export function dashboard(): object {
  let nextId = 1;
  let y = 0;
  const panels: object[] = [];
  for (const row of dashboardRows) {
    panels.push({
      id: nextId++,
      type: 'row',
      title: row.title,
      collapsed: false,
      gridPos: { x: 0, y, w: gridWidth, h: 1 },
      panels: [],
    });
    y += 1;
    let x = 0;
    let height = 0;
    for (const panel of row.panels) {
      const { w, h } = sizes[panel.kind];
      if (x + w > gridWidth || (height > 0 && h !== height)) {
        y += height;
        x = 0;
      }
      panels.push(panelJson(panel, nextId++, { x, y, w, h }));
      x += w;
      height = h;
    }
    y += height;
  }
  return {
    uid: 'automation-guardrails',
    title: 'Automation Guardrails',
    tags: ['automation-guardrails'],
    schemaVersion: 39,
    editable: true,
    refresh: '30s',
    time: { from: 'now-6h', to: 'now' },
    templating: {
      list: [
        {
          name: 'datasource',
          label: 'Data source',
          type: 'datasource',
          query: 'prometheus',
        },
      ],
    },
    panels,
  };
}

const datasource = { type: 'prometheus', uid: '${datasource}' };

function panelJson(
  { title, description, kind, queries, unit, thresholds = [] }: Panel,
  id: number,
  gridPos: object,
): object {
  return {
    id,
    type: kind,
    title,
    description,
    gridPos,
    datasource,
    targets: queries.map(({ expr, legend }, index) => ({
      refId: String.fromCodePoint('A'.charCodeAt(0) + index),
      datasource,
      expr,
      ...(legend !== undefined && { legendFormat: legend }),
      // A number and a table show how it is now.
      ...(kind !== 'timeseries' && { instant: true, range: false }),
      ...(kind === 'table' && { format: 'table' }),
    })),
    fieldConfig: {
      defaults: {
        ...(unit !== undefined && { unit }),
        thresholds: {
          mode: 'absolute',
          steps: [
            { color: 'green', value: null },
            ...thresholds.map(({ from, color }) => ({ color, value: from })),
          ],
        },
      },
      overrides: [],
    },
    ...(kind === 'table' && {
      transformations: [
        {
          id: 'organize',
          options: { excludeByName: { Time: true }, renameByName: { Value: 'for' } },
        },
      ],
    }),
  };
}

/** The same as a ConfigMap, for the sidecar of Grafana's chart. */
export function dashboardConfigMap(): object {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: {
      name: 'automation-guardrails-dashboard',
      namespace: 'automation-guardrails',
      labels: { 'app.kubernetes.io/name': 'automation-guardrails', grafana_dashboard: '1' },
    },
    data: { 'automation-guardrails.json': dashboardText() },
  };
}

/** As a file. */
export function dashboardText(): string {
  return `${JSON.stringify(dashboard(), undefined, 2)}\n`;
}
