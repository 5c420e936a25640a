import { describe, expect, it } from 'vitest';
import type { AutomationIdentityMetrics } from '../controllers/automation-identity.ts';
import type { KillSwitchMetrics } from '../controllers/kill-switch-report.ts';
import type { ClientMetrics } from '../runtime/client.ts';
import type { ControllerMetrics } from '../runtime/controller.ts';
import type { EvidenceMetrics } from '../evidence/log.ts';
import type { ListWatchMetrics } from '../runtime/list-watch.ts';
import { Metrics, metricsReference, type KillSwitchState } from './metrics.ts';

const prefix = 'automation_guardrails_';

/** Our own samples, as `name{labels} value`, without the prefix. */
async function samples(metrics: Metrics): Promise<string[]> {
  const { body } = await metrics.scrape();
  return body
    .split('\n')
    .filter((line) => line.startsWith(prefix))
    .map((line) => line.slice(prefix.length));
}

describe('Metrics', () => {
  it('is what every part of the operator reports to', () => {
    const metrics = new Metrics() satisfies ClientMetrics &
      ControllerMetrics &
      ListWatchMetrics &
      KillSwitchMetrics &
      AutomationIdentityMetrics &
      EvidenceMetrics;

    expect(metrics).toBeInstanceOf(Metrics);
  });

  it('counts and times what it is told', async () => {
    const metrics = new Metrics();

    metrics.observeReconcile('workflow', 'success', 0.2);
    metrics.observeReconcile('workflow', 'error', 0.4);
    metrics.setQueueDepth('workflow', 3);
    metrics.observeQueueLatency('workflow', 1);
    metrics.watchRestarted('Pod', 'inactive');
    metrics.relisted('Pod', 'expired');
    metrics.observeStop('Fenced', 0.07);
    metrics.countRotation('success');
    metrics.countTokenIssue('error');
    metrics.observeRequest('patch', '409', 0.01);
    metrics.countDroppedEvent();
    metrics.countRecords(3);
    metrics.countEvidenceFailure();
    metrics.countDroppedRuns(4);
    metrics.setEvidencePending(2);

    expect(await samples(metrics)).toEqual(
      expect.arrayContaining([
        'reconcile_total{controller="workflow",result="success"} 1',
        'reconcile_total{controller="workflow",result="error"} 1',
        'reconcile_duration_seconds_count{controller="workflow"} 2',
        'workqueue_depth{controller="workflow"} 3',
        'workqueue_queue_duration_seconds_sum{controller="workflow"} 1',
        'watch_restarts_total{kind="Pod",reason="inactive"} 1',
        'relists_total{kind="Pod",reason="expired"} 1',
        'kill_switch_stop_duration_seconds_bucket{le="0.1",rung="Fenced"} 1',
        'secret_rotations_total{result="success"} 1',
        'secret_rotations_total{result="error"} 0',
        'token_issues_total{result="success"} 0',
        'token_issues_total{result="error"} 1',
        'kube_api_requests_total{verb="patch",code="409"} 1',
        'kube_api_request_duration_seconds_count{verb="patch"} 1',
        'events_dropped_total 1',
        'evidence_records_total 3',
        'evidence_write_failures_total 1',
        'evidence_runs_dropped_total 4',
        'evidence_pending 2',
      ]),
    );
  });

  it('tells no age of a watch that has not begun: its kind may not be served', async () => {
    const metrics = new Metrics();
    metrics.track('Pod', { hasSynced: false, stalenessMs: 600_000, store: { size: 0 } });
    const all = await samples(metrics);
    expect(all.filter((line) => line.startsWith('watch_last_event_age'))).toEqual([]);
    expect(all).toContain('cached_objects{kind="Pod"} 0');
  });

  it('names at most 200 objects that need attention, and counts the others', async () => {
    const metrics = new Metrics();
    const attention = Array.from({ length: 203 }, (_, index) => ({
      kind: 'Workflow' as const,
      automation: `finance/a${index}`,
      condition: 'Held',
      reason: 'OwnerMissing',
      team: 'finance',
      escalation: 'pager',
      since: 40_000,
    }));
    metrics.observe({
      remainingCopies: () => 0,
      isLeader: () => true,
      killSwitchStates: () => [],
      attention: () => attention,
      runs: () => [],
      clock: () => 100_000,
    });
    const all = await samples(metrics);
    expect(all.filter((line) => line.startsWith('attention_seconds'))).toHaveLength(200);
    expect(all).toContain(
      'attention_seconds{kind="Workflow",automation="finance/a0",condition="Held",reason="OwnerMissing",team="finance",escalation="pager"} 60',
    );
    expect(all).toContain('attention_objects_left_out 3');
    attention.length = 0;
    expect(await samples(metrics)).toContain('attention_objects_left_out 0');
  });

  it('reads the caches when it is asked: the oldest sign of life, all objects', async () => {
    const metrics = new Metrics();
    const cache = { hasSynced: true, stalenessMs: 1_000, store: { size: 1 } };
    metrics.track('Pod', cache);
    metrics.track('Pod', { hasSynced: true, stalenessMs: 2_000, store: { size: 10 } });
    await metrics.scrape();

    cache.stalenessMs = 90_000;
    cache.store.size = 5;

    expect(await samples(metrics)).toEqual(
      expect.arrayContaining([
        'watch_last_event_age_seconds{kind="Pod"} 90',
        'cached_objects{kind="Pod"} 15',
      ]),
    );
  });

  it('asks for leadership and kill switches when it is asked', async () => {
    const metrics = new Metrics();
    let isLeader = false;
    let states: KillSwitchState[] = [];
    expect(await samples(metrics)).toEqual(
      expect.arrayContaining(['leader 0', 'kill_switches{state="stopped"} 0']),
    );
    metrics.observe({
      remainingCopies: () => 0,
      isLeader: () => isLeader,
      killSwitchStates: () => states,
      attention: () => [],
      runs: () => [],
    });

    isLeader = true;
    states = ['engaged', 'stopped', 'stopped'];

    expect(await samples(metrics)).toEqual(
      expect.arrayContaining([
        'leader 1',
        'kill_switches{state="engaged"} 1',
        'kill_switches{state="stopped"} 2',
        'kill_switches{state="releasing"} 0',
      ]),
    );
    expect(await samples(metrics)).toContain('kill_switches{state="stopped"} 2');
  });

  it('knows the age of the oldest credential, and none where there is none', async () => {
    const metrics = new Metrics();
    metrics.observe({
      remainingCopies: () => 0,
      isLeader: () => true,
      killSwitchStates: () => [],
      attention: () => [],
      runs: () => [],
      clock: () => 100_000,
    });
    const age = async (): Promise<string | undefined> =>
      (await samples(metrics)).find((line) => line.startsWith('oldest_credential_age'));
    expect(await age()).toBeUndefined();

    metrics.setOldestCredential('a/b', 40_000);
    metrics.setOldestCredential('a/c', 70_000);
    expect(await age()).toBe('oldest_credential_age_seconds 60');
    metrics.setOldestCredential('a/b', undefined);
    expect(await age()).toBe('oldest_credential_age_seconds 30');
    metrics.setOldestCredential('a/c', 200_000);
    expect(await age()).toBe('oldest_credential_age_seconds 0');
    metrics.forgetObjects();
    expect(await age()).toBeUndefined();
  });

  it('counts held objects by reason, each once', async () => {
    const metrics = new Metrics();
    const held = async (): Promise<string[]> =>
      (await samples(metrics)).filter((line) => line.startsWith('held_objects'));

    metrics.setHeld('Workflow', 'a/b', 'OwnerMissing');
    metrics.setHeld('Workflow', 'a/b', 'NamespaceNotGuarded');
    metrics.setHeld('Workflow', 'a/c', 'NamespaceNotGuarded');
    metrics.setHeld('AutomationIdentity', 'a/b', 'OwnerMissing');
    metrics.setHeld('AutomationIdentity', 'a/b', undefined);

    expect(await held()).toEqual(['held_objects{kind="Workflow",reason="NamespaceNotGuarded"} 2']);
    expect(await held()).toHaveLength(1);
    metrics.forgetObjects();
    expect(await held()).toEqual([]);
  });

  it('counts identities with rights that they do not declare, and says 0 where there are none', async () => {
    const metrics = new Metrics();
    const excess = async (): Promise<string[]> =>
      (await samples(metrics)).filter((line) => line.startsWith('excess_permissions'));

    metrics.setExcess('a/b', 'excess');
    metrics.setExcess('a/b', 'excess');
    metrics.setExcess('a/c', 'excess');
    metrics.setExcess('a/d', 'unknown');
    metrics.setExcess('a/d', undefined);

    const none = ['excess_permissions{state="excess"} 0', 'excess_permissions{state="unknown"} 0'];
    expect(await excess()).toEqual(['excess_permissions{state="excess"} 2', none[1]]);
    metrics.forgetObjects();
    expect(await excess()).toEqual(none);
  });

  it('has no name of an object in any label, and bounds the values of each', async () => {
    const metrics = new Metrics();
    metrics.setOldestCredential('c4n4ry/name', 1);
    metrics.setHeld('Workflow', 'c4n4ry/name', 'OwnerMissing');
    metrics.setExcess('c4n4ry/name', 'excess');
    for (let n = 0; n < 1_000; n++) {
      metrics.watchRestarted(`Kind${n}`, 'timeout');
      metrics.observeRequest('get', String(n), 0.1);
    }

    const lines = await samples(metrics);

    expect(lines.join('\n')).not.toContain('c4n4ry');
    const restarts = lines.filter((line) => line.startsWith('watch_restarts_total'));
    expect(restarts).toHaveLength(65);
    expect(restarts).toContain('watch_restarts_total{kind="other",reason="timeout"} 936');
  });

  it('keeps two instances apart', async () => {
    const [one, other] = [new Metrics(), new Metrics()];

    one.countDroppedEvent();

    expect(await samples(other)).toContain('events_dropped_total 0');
  });

  it('follows the conventions of Prometheus', async () => {
    const metrics = new Metrics({ version: '1.2.3' });

    for (const { name, type, help } of await metrics.registry.getMetricsAsJSON()) {
      if (!name.startsWith(prefix)) continue;
      expect(name).toMatch(/^[a-z_]+$/);
      expect(name.endsWith('_total')).toBe(String(type) === 'counter');
      if (String(type) === 'histogram') expect(name).toMatch(/_seconds$/);
      expect(name).not.toMatch(/_(ms|milliseconds|minutes|count|sum|bucket)$/);
      expect(help).toMatch(/\.$/);
    }
    expect(await samples(metrics)).toContain(
      `build_info{version="1.2.3",node_version="${process.version}"} 1`,
    );
  });

  it('serves those of the process too, the lag of the event loop among them', async () => {
    const { body, contentType } = await new Metrics().scrape();

    expect(contentType).toContain('text/plain; version=0.0.4');
    expect(body).toContain('process_resident_memory_bytes');
    expect(body).toContain('nodejs_eventloop_lag_p99_seconds');
  });

  it('has a page that documents all of its metrics and labels', async () => {
    const reference = metricsReference();

    for (const metric of await new Metrics().registry.getMetricsAsJSON()) {
      if (!metric.name.startsWith(prefix)) continue;
      expect(reference).toContain(`## ${metric.name}\n`);
      expect(reference).toContain(metric.help);
    }
    expect(reference).not.toContain('undefined');
  });
});
