import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { dump } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run as runCommand } from '../../src/cli/run.ts';
import { verifyBundle } from '../../src/evidence/bundle.ts';
import { unpack } from '../../src/evidence/tar.ts';
import { alertGroups, ruleGroups, type AlertRule } from '../../src/install/alerts.ts';
import { dashboardRows } from '../../src/install/dashboard.ts';
import { freePort, startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { waitFor } from '../control-plane/wait.ts';
import { runProgram } from '../install/helm.ts';
import { findPrometheus, type Prometheus } from '../install/prometheus.ts';
import { automation } from '../operator/automation.ts';
import { installGuardrails, waitForCondition } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

let folder: string;
let controlPlane: ControlPlane;
let operator: OperatorProcess;
let programs: Prometheus;
let server: SupervisedProcess;
let url: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-monitoring-'));
  [programs, controlPlane] = await Promise.all([
    findPrometheus((line) => console.log(line)),
    startControlPlane({ controllerManagerQps: 500 }),
  ]);
  operator = await startOperator({ kubeconfigPath: await installGuardrails(controlPlane) });
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const rules = await write('rules.json', JSON.stringify({ groups: ruleGroups }));
  const config = await write(
    'prometheus.yaml',
    dump({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [rules],
      scrape_configs: [
        {
          job_name: 'automation-guardrails',
          static_configs: [{ targets: [new URL(operator.metricsUrl()).host] }],
        },
      ],
    }),
  );
  server = new SupervisedProcess({
    name: 'prometheus',
    program: programs.prometheus,
    args: [
      `--config.file=${config}`,
      `--storage.tsdb.path=${path.join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    cwd: folder,
    env: process.env,
    logPath: path.join(folder, 'prometheus.log'),
  });
});

afterAll(async () => {
  await server?.stop('SIGTERM', 5_000);
  operator?.kill();
  await controlPlane?.stop();
  await rm(folder, { recursive: true, force: true });
});

async function write(name: string, text: string): Promise<string> {
  const file = path.join(folder, name);
  await writeFile(file, text);
  return file;
}

const rules = alertGroups.flatMap((group) => group.rules);

interface Case {
  /** `series` and its samples, a minute apart, in promtool's notation. */
  fires: Record<string, string>;
  quiet: Record<string, string>;
  /** Of the alert, beside its severity. */
  labels?: Record<string, string>;
  at?: string;
  /** Samples are a quarter of an hour apart: it compares with weeks ago. */
  isSeasonal?: boolean;
}

const prefix = 'automation_guardrails_';
const owner = { team: 'finance', escalation: 'pager' };

/** A case of an alert on one object that has waited for so many seconds. */
function waited(
  condition: string,
  reason: string,
  fires: number,
  quiet: number,
  kind = 'KillSwitch',
): Case {
  const labels = { kind, automation: 'finance/invoice', reason, ...owner };
  const series = (pod: string): string =>
    `${prefix}attention_seconds{${Object.entries({ ...labels, condition, pod })
      .map(([key, value]) => `${key}="${value}"`)
      .join(',')}}`;
  return {
    // Both replicas tell it, and it is told once.
    fires: { [series('a')]: `${fires}x20`, [series('b')]: `${fires - 1}x20` },
    quiet: { [series('a')]: `${quiet}x20`, [series('b')]: `${quiet}x20` },
    labels,
  };
}

const policy = { policy: 'automation-guardrails-fence-pods' };
const controller = { controller: 'workflow' };
const limit = { limit: 'maxRunsPerHour' };
const breaches = `${prefix}limit_breaches_total{limit="maxRunsPerHour"}`;
const egress = (condition: string, status: string): string =>
  `${prefix}workflow_egress{condition="${condition}",status="${status}"}`;
const inForce = `${prefix}fence_in_force{policy="automation-guardrails-fence-pods"}`;
const depth = `${prefix}workqueue_depth{controller="workflow"}`;
const done = (result: string): string =>
  `${prefix}reconcile_total{controller="workflow",result="${result}"}`;
const requests = (code: string): string =>
  `${prefix}kube_api_requests_total{verb="get",code="${code}"}`;

const quartersAWeek = 7 * 24 * 4;

/**
 * A counter over five weeks that rises by `busy` in each quarter of the first four hours of a week,
 * and by `usual` in the others; in those four hours of the last week by `now`.
 */
function weekly({ busy, usual, now }: Record<'busy' | 'usual' | 'now', number>): string {
  let count = 0;
  const run = (step: number, length: number): string => {
    const from = count;
    count += step * length;
    return `${from}+${step}x${length - 1}`;
  };
  const week = (step: number): string => `${run(step, 16)} ${run(usual, quartersAWeek - 16)}`;
  return [busy, busy, busy, busy, now].map(week).join(' ');
}

const runsStarted = (name: string, pod = 'a'): string =>
  `${prefix}runs_started_total{automation="${name}",team="finance",escalation="pager",pod="${pod}"}`;
const runsEnded = (result: string): string =>
  `${prefix}runs_ended_total{automation="finance/invoice",team="finance",escalation="pager",result="${result}",pod="a"}`;
/** An hour and a half within the first hours of the fifth week. */
const seasonal = {
  isSeasonal: true,
  at: '674h',
  labels: { automation: 'finance/invoice', ...owner },
} as const;

/** When each alert fires, and when it doesn't. */
const cases: Record<string, Case> = {
  AutomationGuardrailsFenceNotInForce: {
    fires: { [inForce]: '0x20' },
    quiet: { [inForce]: '1x20' },
    labels: policy,
  },
  AutomationGuardrailsFenceUnknown: {
    fires: { [inForce]: '-1x20' },
    quiet: { [inForce]: '1 1 -1 1 -1 1 1x20' },
    labels: policy,
  },
  AutomationGuardrailsFenceNotProbed: { fires: {}, quiet: { [inForce]: '1x20' } },
  AutomationGuardrailsPolicyEdited: {
    fires: { [`${prefix}policy_edited{policy="automation-guardrails-fence-pods"}`]: '1x20' },
    quiet: { [`${prefix}policy_edited{policy="automation-guardrails-fence-pods"}`]: '0x20' },
    labels: policy,
  },
  AutomationGuardrailsKillNotComplete: waited('Effective', 'Stopping', 301, 299),
  AutomationGuardrailsKillNotFenced: waited('Fenced', 'ProbeAllowed', 61, 59),
  AutomationGuardrailsContested: waited('Contested', 'PausedAgain', 601, 599),
  AutomationGuardrailsReleaseNotComplete: waited('Releasing', 'Releasing', 901, 899),
  AutomationGuardrailsBreakGlass: {
    fires: { [`${prefix}kill_switch_break_glass_total`]: '0x5 1x15' },
    quiet: { [`${prefix}kill_switch_break_glass_total`]: '1x20' },
    at: '10m',
  },
  AutomationGuardrailsExcessPermissions: {
    fires: { [`${prefix}excess_permissions{state="excess"}`]: '1x20' },
    quiet: { [`${prefix}excess_permissions{state="excess"}`]: '0x20' },
  },
  AutomationGuardrailsPermissionsUnknown: {
    fires: { [`${prefix}excess_permissions{state="unknown"}`]: '1x20' },
    quiet: { [`${prefix}excess_permissions{state="unknown"}`]: '0x20' },
  },
  AutomationGuardrailsAccessReviewOverdue: {
    fires: { [`${prefix}overdue_access_reviews`]: '1x80' },
    quiet: { [`${prefix}overdue_access_reviews`]: '0x80' },
    at: '70m',
  },
  AutomationGuardrailsEgressWidened: {
    fires: { [egress('EgressWidened', 'True')]: '1x20' },
    quiet: { [egress('EgressWidened', 'True')]: '0x20' },
  },
  AutomationGuardrailsEgressNotEnforced: {
    fires: { [egress('EgressEnforced', 'False')]: '1x20' },
    quiet: { [egress('EgressEnforced', 'Unknown')]: '1x20' },
  },
  AutomationGuardrailsEvidenceNotWritten: {
    fires: { [`${prefix}evidence_write_failures_total`]: '0+1x20' },
    quiet: { [`${prefix}evidence_write_failures_total`]: '0 1 2 2x20' },
  },
  AutomationGuardrailsTokenNotRenewed: {
    fires: { [`${prefix}soonest_token_expiry_seconds`]: '59x20' },
    quiet: { [`${prefix}soonest_token_expiry_seconds`]: '61x20' },
  },
  AutomationGuardrailsCopiesRemain: {
    fires: { [`${prefix}secret_store_copies_remaining`]: '1x30' },
    quiet: { [`${prefix}secret_store_copies_remaining`]: '1x8 0x30' },
  },
  AutomationGuardrailsLimitBreached: {
    fires: { [breaches]: '0x10 1x10' },
    quiet: { [breaches]: '1x20' },
    labels: limit,
  },
  AutomationGuardrailsLimitNotAcknowledged: waited(
    'LimitBreached',
    'TooManyConsecutiveFailures',
    1801,
    1799,
    'Workflow',
  ),
  AutomationGuardrailsHeld: waited('Held', 'OwnerMissing', 3601, 86_401, 'Workflow'),
  AutomationGuardrailsHeldForADay: waited('Held', 'OwnerMissing', 86_402, 86_400, 'Workflow'),
  AutomationGuardrailsNotReady: waited('Ready', 'ForeignObject', 901, 899, 'Workflow'),
  AutomationGuardrailsLeftOut: {
    fires: { [`${prefix}attention_objects_left_out`]: '1x20' },
    quiet: { [`${prefix}attention_objects_left_out`]: '0x20' },
  },
  AutomationGuardrailsRotationFailing: waited(
    'Ready',
    'RotationFailed',
    301,
    299,
    'AutomationIdentity',
  ),
  AutomationGuardrailsRotationOverdue: waited(
    'RotationOverdue',
    'SecretOverdue',
    3601,
    3599,
    'AutomationIdentity',
  ),
  AutomationGuardrailsOperatorDown: {
    fires: {},
    quiet: { [`${prefix}build_info{version="1"}`]: '1x20' },
  },
  AutomationGuardrailsNoLeader: {
    fires: { [`${prefix}leader{pod="a"}`]: '0x20', [`${prefix}leader{pod="b"}`]: '0x20' },
    quiet: { [`${prefix}leader{pod="a"}`]: '0x20', [`${prefix}leader{pod="b"}`]: '1x20' },
  },
  AutomationGuardrailsWatchStale: {
    fires: { [`${prefix}watch_last_event_age_seconds{kind="Pod"}`]: '181x20' },
    quiet: { [`${prefix}watch_last_event_age_seconds{kind="Pod"}`]: '70x20' },
    labels: { kind: 'Pod' },
  },
  AutomationGuardrailsStalled: {
    fires: { [depth]: '3x20', [done('success')]: '7x20', [done('error')]: '1x20' },
    quiet: { [depth]: '3x20', [done('success')]: '0+1x20', [done('error')]: '1x20' },
    labels: controller,
  },
  AutomationGuardrailsQueueGrowing: {
    fires: { [depth]: '11+1x20' },
    quiet: { [depth]: '50 50 50 50 50 50 50 0 50 50x20' },
    labels: controller,
  },
  AutomationGuardrailsReconcileErrors: {
    fires: { [done('error')]: '0+10x20' },
    quiet: { [done('error')]: '0+1x20' },
    labels: controller,
  },
  AutomationGuardrailsRunVolumeSpike: {
    fires: {
      [runsStarted('finance/invoice')]: weekly({ busy: 1.5, usual: 1.5, now: 10 }),
      [runsStarted('finance/invoice', 'b')]: weekly({ busy: 1.5, usual: 1.5, now: 9 }),
    },
    quiet: {
      // The same number, at an hour at which it is usual.
      [runsStarted('finance/invoice')]: weekly({ busy: 10, usual: 1, now: 12 }),
      // Ten times as many, and still few.
      [runsStarted('finance/small')]: weekly({ busy: 0.2, usual: 0.2, now: 2 }),
      // Nothing is usual for one that is new.
      [runsStarted('finance/new')]: `_x${4 * quartersAWeek - 1} 0+10x16`,
      [runsStarted('other')]: weekly({ busy: 1.5, usual: 1.5, now: 90 }),
    },
    ...seasonal,
  },
  AutomationGuardrailsFailureRateSpike: {
    fires: {
      [runsEnded('succeeded')]: weekly({ busy: 3.6, usual: 4, now: 2 }),
      [runsEnded('failed')]: weekly({ busy: 0.4, usual: 0, now: 2 }),
    },
    quiet: {
      // As many fail each week at this hour.
      [runsEnded('succeeded')]: weekly({ busy: 2, usual: 4, now: 2 }),
      [runsEnded('failed')]: weekly({ busy: 2, usual: 0, now: 2 }),
    },
    ...seasonal,
  },
  AutomationGuardrailsApiServerErrors: {
    fires: { [requests('200')]: '0+60x20', [requests('500')]: '0+30x20' },
    quiet: { [requests('200')]: '0+60x20', [requests('404')]: '0+60x20' },
  },
};

/** For promtool: at that time the alert fires, or nothing of that name does. */
function ruleTest(rule: AlertRule, series: Record<string, string>, fires: boolean): object {
  const { labels = {}, at = '18m', isSeasonal = false } = cases[rule.alert] ?? {};
  return {
    interval: isSeasonal ? '15m' : '1m',
    input_series: Object.entries(series).map(([name, values]) => ({
      series: name,
      values: values.replaceAll(/(?<![+\d._])(-?\d+)x/g, '$1+0x'),
    })),
    alert_rule_test: [
      {
        eval_time: at,
        alertname: rule.alert,
        exp_alerts: fires ? [{ exp_labels: { ...rule.labels, ...labels } }] : [],
      },
    ],
  };
}

describe('the alerts, as promtool sees them', () => {
  it('are well formed, their annotations too', async () => {
    const file = path.join(root, 'config/prometheus/rules.yaml');
    const { code, output } = await runProgram(programs.promtool, controlPlane, [
      'check',
      'rules',
      file,
    ]);
    expect(code, output).toBe(0);
    const count = ruleGroups.flatMap((group) => group.rules).length;
    expect(output).toContain(`${count} rules found`);
  });

  it('fire when they have to, once for all replicas and with the owner, and not before', async () => {
    expect(Object.keys(cases).toSorted()).toEqual(rules.map(({ alert }) => alert).toSorted());
    // promtool compares annotations word by word; they are checked above.
    const groups = ruleGroups.map(({ name, rules: all }) => ({
      name,
      rules: all.map((rule) => {
        if (!('alert' in rule)) return rule;
        const { annotations, ...bare } = rule;
        expect(annotations.summary).not.toBe('');
        return bare;
      }),
    }));
    for (const isSeasonal of [false, true]) {
      const tested = rules.filter(
        ({ alert }) => (cases[alert]?.isSeasonal ?? false) === isSeasonal,
      );
      const tests = tested.flatMap((rule) => {
        const { fires = {}, quiet = {} } = cases[rule.alert] ?? {};
        return [ruleTest(rule, fires, true), ruleTest(rule, quiet, false)];
      });
      expect(tests.length).toBeGreaterThan(2);
      // What is seasonal is evaluated for four weeks: those rules alone, and by the hour.
      const isUsual = ({ name }: { name: string }): boolean => /\/(usual|runs)$/.test(name);
      const evaluated = groups.filter((group) => isUsual(group) === isSeasonal);
      await write('bare-rules.json', JSON.stringify({ groups: evaluated }));
      const suite = {
        rule_files: ['bare-rules.json'],
        evaluation_interval: isSeasonal ? '1h' : '1m',
        // Otherwise in any order; an hour after, what a rule before it stored is too old to be seen.
        group_eval_order: evaluated.map(({ name }) => name),
        tests,
      };
      const file = await write('tests.json', JSON.stringify(suite));
      const { code, output } = await runProgram(programs.promtool, controlPlane, [
        'test',
        'rules',
        file,
      ]);
      expect(code, output).toBe(0);
    }
  });
});

describe('the routes of docs/operations/monitoring.md, as amtool sees them', () => {
  let config: string;

  beforeAll(async () => {
    const page = await readFile(path.join(root, 'docs/operations/monitoring.md'), 'utf8');
    const block = /^```yaml\n(route:[\s\S]*?)^```$/m.exec(page)?.[1] ?? '';
    const receivers = [...block.matchAll(/receiver: (\S+)/g)].map(([, name]) => ({ name }));
    config = await write('alertmanager.yaml', `${block}${dump({ receivers })}`);
  });

  it.each([
    ['finance-automation', 'warning', 'finance'],
    ['finance-automation', 'critical', 'finance-on-call'],
    ['another', 'critical', 'platform'],
    ['', 'warning', 'platform'],
  ])('of team "%s", %s: to %s', async (team, severity, receiver) => {
    const { code, output } = await runProgram(programs.amtool, controlPlane, [
      'config',
      'routes',
      'test',
      `--config.file=${config}`,
      `team=${team}`,
      `severity=${severity}`,
      'alertname=AutomationGuardrailsHeld',
    ]);
    expect(code, output).toBe(0);
    expect(output.split('\n')).toContain(receiver);
  });
});

interface Sample {
  metric: Record<string, string>;
  value: [number, string];
}

async function ask<T>(at: string, parameters: Record<string, string> = {}): Promise<T> {
  const asked = new URLSearchParams(parameters).toString();
  const response = await fetch(`${url}/api/v1/${at}?${asked}`);
  const body = (await response.json()) as { status: string; error?: string; data: T };
  if (body.status !== 'success') throw new Error(`${asked}: ${body.error ?? ''}`);
  return body.data;
}

async function query(expr: string): Promise<Sample[]> {
  return (await ask<{ result: Sample[] }>('query', { query: expr })).result;
}

describe('a real Prometheus that scrapes a running operator', () => {
  const ownerless = {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'AutomationIdentity',
    metadata: { name: 'ownerless', namespace: 'monitored' },
    spec: { purpose: 'nobody answers for it' },
  };
  const withToken = {
    ...ownerless,
    metadata: { name: 'outside', namespace: 'monitored' },
    spec: {
      purpose: 'runs outside of the cluster',
      owner: { team: 'payments', contact: 'payments@example.com', escalation: 'pager' },
      tokens: [{ name: 'erp', audience: 'https://erp.example.com', expirationSeconds: 600 }],
    },
  };
  /** Its ServiceAccount isn't the operator's, so that its kill can't become effective. */
  const foreign = [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'old', namespace: 'monitored' } },
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'KillSwitch',
      metadata: { name: 'old', namespace: 'monitored' },
      spec: { workflow: 'old', reason: 'runaway' },
    },
  ];

  it('has data for every query of the dashboard, and finds nothing wrong with an alert', async () => {
    await controlPlane.apply(automation({ namespace: 'monitored' }));
    await controlPlane.apply([ownerless, withToken, ...foreign]);
    const namespace = 'monitored';
    await waitForCondition(controlPlane, { kind: 'aid', name: 'outside', namespace }, 'Ready');
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'old', namespace }, 'PodsGone');

    const [attention] = await waitFor(
      'the held identity to be told of',
      async () => {
        const found = await query(`${prefix}attention_seconds{condition="Held"}`);
        return found.length > 0 && found;
      },
      { timeoutMs: 120_000 },
    );
    expect(attention?.metric).toMatchObject({
      kind: 'AutomationIdentity',
      automation: 'monitored/ownerless',
      reason: 'OwnerMissing',
    });

    /** They have data only while something contests a kill, and after some minutes. */
    const seldom = new Set([
      'Woken and paused again, per hour',
      'Watches that were started again, per hour',
    ]);
    for (const { title, queries } of dashboardRows.flatMap((row) => row.panels)) {
      for (const { expr } of queries) {
        if (seldom.has(title)) await query(expr);
        else {
          await waitFor(`data of the panel ${title}`, async () => (await query(expr)).length > 0, {
            timeoutMs: 120_000,
          });
        }
      }
    }

    const { groups } = await ask<{
      groups: { rules: { name: string; health: string; state: string; lastError?: string }[] }[];
    }>('rules');
    const evaluated = groups.flatMap((group) => group.rules);
    expect(evaluated.map(({ name }) => name).toSorted()).toEqual(
      ruleGroups
        .flatMap((group) => group.rules)
        .map((rule) => ('alert' in rule ? rule.alert : rule.record))
        .toSorted(),
    );
    const unwell = evaluated.filter(({ health }) => health !== 'ok');
    expect(unwell).toEqual([]);
    // A cluster in which nothing but that is wrong: a minute later there is no false alarm.
    const firing = evaluated.filter(({ state }) => state === 'firing').map(({ name }) => name);
    expect(firing).toEqual([]);

    const metrics = new Set(
      rules.flatMap(({ expr }) => expr.match(/(?<![:\w])automation_guardrails_\w+/g) ?? []),
    );
    for (const metric of metrics) expect(await query(`count(${metric})`), metric).toHaveLength(1);
  });

  it('is asked for what needed attention when a case is exported, and the report says it', async () => {
    const file = path.join(folder, 'case.tar.gz');
    const argv = ['evidence', 'export', 'workflow/ownerless', '-n=monitored', '-o', file];
    const at = [`--kubeconfig=${controlPlane.kubeconfigPath}`, '--since=1h', '--prometheus', url];
    const ignore = (): void => undefined;
    const files = await waitFor(
      'the metrics to be in the bundle',
      async () => {
        const code = await runCommand({ argv: [...argv, ...at], stdout: ignore, stderr: ignore });
        if (code !== 0) return undefined;
        const unpacked = unpack(await readFile(file));
        const series = JSON.parse(unpacked.get('metrics.json') ?? '[]') as unknown[];
        return series.length > 0 ? unpacked : undefined;
      },
      { timeoutMs: 120_000 },
    );
    const text = (name: string): string => files.get(name) ?? '';
    expect(JSON.parse(text('metrics.json'))).toContainEqual(
      expect.objectContaining({
        labels: expect.objectContaining({
          __name__: `${prefix}attention_seconds`,
          automation: 'monitored/ownerless',
          condition: 'Held',
          reason: 'OwnerMissing',
        }),
      }),
    );
    expect(text('report.html')).toContain(`${prefix}attention_seconds, Held, OwnerMissing`);
    expect(verifyBundle(files).problems).toEqual([]);
  });
});
