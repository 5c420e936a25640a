/** Made-up data for a picture of the dashboard: six hours of a small company's cluster. */

/** Seconds between two samples. */
const STEP = 30;
const HOURS = 6;
/** Rates look back: what is drawn first has a past, too. */
const HOURS_BEFORE = 1;

interface Series {
  name: string;
  labels?: Record<string, string | number>;
  /** @param at seconds since the beginning */
  value: (at: number) => number;
}

const prefix = 'automation_guardrails_';
const pods = ['operator-7c9f-a', 'operator-7c9f-b'] as const;
const hour = 3600;

/** A wave between two values, for what is never still. */
function wave(low: number, high: number, period: number, shift = 0): (at: number) => number {
  return (at) => low + ((high - low) * (1 + Math.sin((at / period + shift) * 2 * Math.PI))) / 2;
}

/** A counter whose rate, per second, is that. */
function counter(rate: (at: number) => number): (at: number) => number {
  let sum = 0;
  return (at) => {
    sum += rate(at) * STEP;
    return Math.floor(sum);
  };
}

/** A histogram, as its buckets: all of it is below `typical`, or twice of it. */
function histogram(
  name: string,
  labels: Record<string, string>,
  buckets: readonly number[],
  typical: (at: number) => number,
  perSecond: number,
): Series[] {
  return [...buckets, Infinity].map((le) => {
    let sum = 0;
    return {
      name: `${prefix}${name}_bucket`,
      labels: { ...labels, le: le === Infinity ? '+Inf' : le },
      value: (at) => {
        const share = Math.min(1, Math.max(0, le / (2 * typical(at))));
        sum += perSecond * STEP * (le === Infinity ? 1 : share);
        return sum;
      },
    };
  });
}

/** One at first, then that many from there on. */
function from(at: number, value: number, until = Infinity): (now: number) => number {
  return (now) => (now >= at && now < until ? value : 0);
}

function each(
  labels: readonly Record<string, string>[],
  of: (one: Record<string, string>, index: number) => Series,
): Series[] {
  return labels.map((one, index) => of(one, index));
}

function story(): Series[] {
  const gauge = (name: string, value: Series['value'], labels: Series['labels'] = {}): Series => ({
    name: prefix + name,
    labels,
    value,
  });
  const controllers = ['workflow', 'automation-identity', 'kill-switch', 'fence-in-force'];
  const attention = (labels: Record<string, string>, since: number): Series => ({
    name: `${prefix}attention_seconds`,
    labels,
    value: (at) => (at < since ? NaN : at - since),
  });
  const finance = { team: 'finance-platform', escalation: 'on-call rota finance-platform' };
  const crm = { team: 'crm', escalation: '+49 30 5550199' };
  const runs: readonly [string, number][] = [
    ['finance/invoice-posting', 4],
    ['finance/dunning', 1],
    ['crm/lead-import', 12],
    ['crm/newsletter', 2],
    ['ops/backup-check', 6],
  ];
  return [
    gauge('kill_switches', from(5.2 * hour, 1), { state: 'engaged' }),
    gauge('kill_switches', (at) => from(2 * hour, 1, 3.4 * hour)(at) + 1, { state: 'stopped' }),
    gauge('kill_switches', () => 0, { state: 'releasing' }),
    ...each([{ policy: 'fence-pods' }, { policy: 'fence-tokens' }], (labels) =>
      gauge('fence_in_force', () => 1, labels),
    ),
    gauge('policy_edited', () => 0, { policy: 'fence-pods' }),
    gauge('kill_switch_break_glass_total', () => 0),
    attention(
      {
        kind: 'KillSwitch',
        automation: 'crm/lead-import',
        condition: 'Effective',
        reason: 'Contested',
        ...crm,
      },
      5.2 * hour,
    ),
    attention(
      {
        kind: 'Workflow',
        automation: 'finance/dunning',
        condition: 'Held',
        reason: 'ApprovalMissing',
        ...finance,
      },
      1.6 * hour,
    ),
    attention(
      {
        kind: 'AutomationIdentity',
        automation: 'ops/backup-check',
        condition: 'ReviewOverdue',
        reason: 'Overdue',
        team: 'platform',
        escalation: 'platform on call',
      },
      0.2 * hour,
    ),
    attention(
      {
        kind: 'Workflow',
        automation: 'crm/lead-import',
        condition: 'LimitBreached',
        reason: 'TooManyRunsPerHour',
        ...crm,
      },
      5.1 * hour,
    ),
    ...['Fenced', 'PermissionsRevoked', 'PodsGone', 'TokensRevoked', 'Effective'].flatMap(
      (rung, index) =>
        histogram(
          'kill_switch_stop_duration_seconds',
          { rung },
          [0.1, 0.5, 1, 2, 5, 10, 20, 60],
          () => [0.2, 0.9, 2.2, 9, 11][index] ?? 1,
          0.002,
        ),
    ),
    gauge(
      'kill_switch_contested_writes_total',
      counter((at) => (at > 5.2 * hour ? 0.004 : 0)),
      { kind: 'Deployment' },
    ),
    gauge('cached_objects', () => 48, { kind: 'Workflow' }),
    gauge('cached_objects', () => 51, { kind: 'AutomationIdentity' }),
    gauge('held_objects', from(1.6 * hour, 1), { kind: 'Workflow', reason: 'ApprovalMissing' }),
    gauge('held_objects', from(5.1 * hour, 1), { kind: 'Workflow', reason: 'LimitBreached' }),
    gauge('held_objects', from(0, 2, 3 * hour), {
      kind: 'AutomationIdentity',
      reason: 'OwnerMissing',
    }),
    gauge('excess_permissions', () => 1, { state: 'excess' }),
    ...runs.flatMap(([automation, perHour]) => [
      gauge(
        'runs_started_total',
        counter(
          (at) => (perHour * (automation === 'crm/lead-import' && at > 4.6 * hour ? 6 : 1)) / hour,
        ),
        { automation },
      ),
      gauge(
        'runs_ended_total',
        counter((at) =>
          automation === 'crm/lead-import' && at > 4.6 * hour ? 40 / hour : 0.1 / hour,
        ),
        { automation, result: 'failed' },
      ),
    ]),
    gauge('oldest_credential_age_seconds', (at) => 19 * 24 * hour + at),
    gauge('soonest_token_expiry_seconds', (at) => 600 - (at % 480)),
    gauge('secret_rotations_total', counter(wave(0, 4 / hour, 3 * hour)), { result: 'success' }),
    gauge(
      'secret_rotations_total',
      counter(() => 0),
      { result: 'error' },
    ),
    gauge('token_issues_total', counter(wave(6 / hour, 9 / hour, 2 * hour)), { result: 'success' }),
    ...pods.flatMap((instance, index) => [
      gauge('build_info', () => 1, { version: '0.1.0', instance }),
      gauge('leader', () => (index === 0 ? 1 : 0), { instance }),
      gauge('admission_mutation', () => 1, { instance }),
      gauge('watch_last_event_age_seconds', wave(4, 52, 900, index / 3), { kind: 'Pod', instance }),
      {
        name: 'process_resident_memory_bytes',
        labels: { instance },
        value: (at: number) => wave(104e6, 121e6, 1.7 * hour, index / 2)(at),
      },
    ]),
    ...controllers.flatMap((controller, index) => [
      gauge(
        'reconcile_total',
        counter(wave(0.2 + index * 0.1, 0.9 - index * 0.1, 2.3 * hour, index / 4)),
        { controller, result: 'success' },
      ),
      gauge('workqueue_depth', (at) => Math.round(wave(0, 3 - index / 2, 1400, index / 3)(at)), {
        controller,
      }),
      ...histogram(
        'reconcile_duration_seconds',
        { controller },
        [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
        wave(0.02 + index * 0.012, 0.06 + index * 0.02, 1.3 * hour, index / 4),
        0.5,
      ),
      ...histogram(
        'workqueue_queue_duration_seconds',
        { controller },
        [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5],
        wave(0.002, 0.012 + index * 0.004, 1.1 * hour, index / 4),
        0.5,
      ),
    ]),
    ...(['get 200', 'list 200', 'patch 200', 'create 201', 'watch 200', 'patch 409'] as const).map(
      (of, index) => {
        const [verb = '', code = ''] = of.split(' ');
        return gauge(
          'kube_api_requests_total',
          counter(wave(0.1 + index * 0.05, 1.4 - index * 0.2, 1.9 * hour, index / 6)),
          { verb, code },
        );
      },
    ),
    gauge(
      'watch_restarts_total',
      counter(() => 11 / hour),
      { reason: 'timeout' },
    ),
  ];
}

/**
 * @param end of the six hours, in seconds since the epoch
 * @returns the samples as OpenMetrics, as promtool reads them
 */
export function openMetrics(end: number): string {
  const count = (HOURS * hour) / STEP;
  const lines = story().flatMap(({ name, labels = {}, value }) => {
    const set = Object.entries(labels).map(([key, text]) => `${key}="${text}"`);
    const samples: string[] = [];
    for (let step = (-HOURS_BEFORE * hour) / STEP; step <= count; step++) {
      const sample = value(step * STEP);
      const at = end - (count - step) * STEP;
      if (!Number.isNaN(sample)) samples.push(`${name}{${set.join(',')}} ${sample} ${at}`);
    }
    return samples;
  });
  return `${lines.join('\n')}\n# EOF\n`;
}
