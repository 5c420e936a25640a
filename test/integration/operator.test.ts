import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { secretNameOf } from '../../src/api/names.ts';
import { workloadKinds } from '../../src/api/workload.ts';
import { auditEvents } from '../control-plane/audit-log.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy } from '../fault/api-proxy.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
} from '../operator/cluster.ts';
import { endStateOf } from '../operator/end-state.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let proxy: ApiProxy;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500, audit: true });
  kubeconfigPath = await installGuardrails(controlPlane);
  proxy = new ApiProxy({ controlPlane, kubeconfigPath });
  operator = await startOperator({ kubeconfigPath: await proxy.start() });
});

afterAll(async () => {
  operator?.kill();
  await proxy?.stop();
  await controlPlane?.stop();
});

const killSwitch = 'automationguardrails.dev/kill-switch';
const user = 'system:serviceaccount:automation-guardrails:automation-guardrails';

interface AuditEvent {
  verb: string;
  user: { username: string };
  objectRef?: { resource?: string; subresource?: string };
  responseStatus?: { code: number };
  requestURI: string;
}

/** Requests of the operator that the API server has recorded, in order. */
async function audited(): Promise<AuditEvent[]> {
  const events = await auditEvents<AuditEvent>(controlPlane);
  return events.filter((event) => event.user.username === user);
}

describe('the operator at rest', () => {
  it('writes nothing but its Lease during a minute of silence, with 50 Workflows', async () => {
    const namespaces = Array.from({ length: 50 }, (_, index) => `rest-${index}`);
    await controlPlane.apply(namespaces.flatMap((namespace) => automation({ namespace })));
    await waitFor(
      'all to be ready',
      async () => {
        const text = await kubectlOk(controlPlane, [
          'get',
          'awf,aid',
          '-A',
          '-o=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}',
        ]);
        return text.split(' ').filter((status) => status === 'True').length === 100;
      },
      { timeoutMs: 300_000, intervalMs: 500 },
    );
    await waitFor(
      'what the cluster makes of them',
      async () => {
        const phases = ['get', 'pods', '-A', '-o=jsonpath={.items[*].status.phase}'];
        const running = (await kubectlOk(controlPlane, phases)).match(/Running/g) ?? [];
        return running.length === namespaces.length * automationPods;
      },
      { timeoutMs: 300_000, intervalMs: 500 },
    );
    // Quiet begins when nothing was written for a while; then nothing may be written at all.
    let before = -1;
    await waitFor(
      'the writes to end',
      () => {
        const isQuiet = before === proxy.writes.length;
        before = proxy.writes.length;
        return isQuiet;
      },
      { timeoutMs: 120_000, intervalMs: 10_000 },
    );
    const leaseBefore = await renewal();
    await waitFor(
      'a minute of renewals of the Lease',
      async () => (await renewal()) - leaseBefore >= 60_000,
      { timeoutMs: 120_000, intervalMs: 1_000 },
    );
    expect(proxy.writes.slice(before)).toEqual([]);
  }, 900_000);

  async function renewal(): Promise<number> {
    const lease = await getObject<{ spec: { renewTime: string } }>(
      controlPlane,
      'lease',
      'automation-guardrails',
      'automation-guardrails',
    );
    return Date.parse(lease?.spec.renewTime ?? '');
  }

  it('reports itself: metrics, health and readiness', async () => {
    expect((await fetch(`${operator.healthUrl()}/healthz`)).status).toBe(200);
    expect((await fetch(`${operator.healthUrl()}/readyz`)).status).toBe(200);
    const text = await (await fetch(operator.metricsUrl())).text();
    for (const line of [
      /^automation_guardrails_leader 1$/m,
      /^automation_guardrails_reconcile_total\{.*controller="workflow".*\} \d+$/m,
      // Two of them are those of the standing probe.
      /^automation_guardrails_cached_objects\{kind="Workflow"\} 52$/m,
      /^automation_guardrails_kube_api_requests_total\{verb="patch",code="200"\} \d+$/m,
      /^automation_guardrails_kill_switches\{state="engaged"\} 0$/m,
      /^automation_guardrails_secret_rotations_total\{result="success"\} \d+$/m,
    ]) {
      expect(text).toMatch(line);
    }
  });
});

describe('the operator when the API server fails it', () => {
  it('is correct after its watches were cut in the middle of a burst of 200 changes', async () => {
    const namespace = 'burst';
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    const changes = Array.from({ length: 200 }, (_, index) => ({
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'AutomationIdentity',
      metadata: { name: `burst-${index}`, namespace },
      spec: {
        purpose: 'burst',
        owner: { team: 'payments', contact: 'payments@example.com', escalation: 'pager' },
      },
    }));
    const applied = controlPlane.apply(changes);
    await waitFor(
      'the burst to have begun',
      async () => {
        const identities = await listObjects(controlPlane, 'aid', namespace);
        return identities.length > 20;
      },
      { timeoutMs: 120_000 },
    );
    expect(proxy.cutWatches()).toBeGreaterThan(5);
    await applied;
    await waitFor(
      'every identity to have its ServiceAccount',
      async () => {
        const accounts = await listObjects<{ metadata: { name: string } }>(
          controlPlane,
          'serviceaccounts',
          namespace,
        );
        return accounts.filter(({ metadata }) => metadata.name.startsWith('burst-')).length === 200;
      },
      { timeoutMs: 120_000, intervalMs: 250 },
    );
  });

  it('releases what the API server holds, while its own watches of workloads are silent', async () => {
    const namespace = 'silent';
    const ref = { kind: 'ksw', name: 'invoice', namespace };
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { ...ref, kind: 'awf' }, 'Ready');
    await waitForPods(controlPlane, namespace, automationPods);
    const before = await endStateOf(controlPlane, namespace);
    expect(proxy.silenceWatches(/\/apis\/(apps|batch)\//)).toBe(workloadKinds.length);
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'KillSwitch',
        metadata: { name: 'invoice', namespace },
        spec: { workflow: 'invoice', reason: 'runaway' },
      }),
    });
    await waitForCondition(controlPlane, ref, 'Fenced');
    await waitFor('all to be paused', async () => {
      const { 'Deployment/invoice-poster': deployment } = (await endStateOf(
        controlPlane,
        namespace,
      )) as Record<string, { spec?: { replicas?: number } }>;
      return deployment?.spec?.replicas === 0;
    });
    await kubectlOk(
      controlPlane,
      ['annotate', 'ksw/invoice', `-n=${namespace}`, 'automationguardrails.dev/release=fixed'],
      { as: 'bob', asGroups: ['system:masters'] },
    );
    await waitFor(
      'the release',
      async () => (await getObject(controlPlane, 'ksw', 'invoice', namespace)) === undefined,
    );
    // Their controllers say for a moment still that they were refused pods.
    await waitFor('all to be as before', async () => {
      const after = await endStateOf(controlPlane, namespace);
      for (const name of [
        'Deployment/invoice-poster',
        'StatefulSet/invoice-store',
        'Job/invoice-backfill',
        'CronJob/invoice-import',
      ]) {
        expect(after[name]).toEqual(before[name]);
      }
      return true;
    });
    proxy.cutWatches();
  });

  it('goes on after the API server was restarted, in the same process', async () => {
    const namespace = 'restart';
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    await controlPlane.restartApiServer();
    // Fail-closed: until it knows our kinds again, the API server refuses what a policy guards.
    const engage = ['annotate', 'awf/invoice', `-n=${namespace}`, `${killSwitch}=runaway`];
    await waitFor('the policies', async () => (await controlPlane.kubectl(engage)).code === 0);
    const deletion = ['delete', 'networkpolicies', '--all', `-n=${namespace}`];
    await waitFor('theirs, too', async () => (await controlPlane.kubectl(deletion)).code === 0);
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
    await waitFor(
      'the policies to be back',
      async () => (await listObjects(controlPlane, 'networkpolicies', namespace)).length > 0,
      { timeoutMs: 120_000 },
    );
    expect(await Promise.race([operator.exited, Promise.resolve('running')])).toBe('running');
  });
});

describe('secret values', () => {
  it('are in no log, event, status or metric', async () => {
    const namespace = 'canary';
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'aid', name: 'invoice', namespace }, 'Ready');
    const values = new Set<string>();
    const collect = async (): Promise<Record<string, string>> => {
      const secret = await getObject<{ data: Record<string, string> }>(
        controlPlane,
        'secret',
        secretNameOf('invoice', 'database'),
        namespace,
      );
      for (const value of Object.values(secret?.data ?? {})) {
        values.add(value);
        values.add(Buffer.from(value, 'base64').toString());
      }
      return secret?.data ?? {};
    };
    await collect();
    await kubectlOk(controlPlane, [
      'annotate',
      'aid/invoice',
      `-n=${namespace}`,
      'automationguardrails.dev/rotate=now',
    ]);
    await waitFor('the rotation', async () => 'previous.password' in (await collect()), {
      timeoutMs: 120_000,
    });
    // A Secret that somebody else owns and one that is broken make errors; a value of theirs must
    // not be in those either.
    const planted = 'CANARY-planted-by-somebody-else';
    values.add(planted);
    values.add(Buffer.from(planted).toString('base64'));
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: secretNameOf('other', 'database'), namespace },
        stringData: { password: planted },
      },
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'AutomationIdentity',
        metadata: { name: 'other', namespace },
        spec: {
          purpose: 'meets a foreign Secret',
          owner: { team: 'payments', contact: 'payments@example.com', escalation: 'pager' },
          secrets: [{ name: 'database', type: 'Password' }],
        },
      },
    ]);
    await waitForCondition(
      controlPlane,
      { kind: 'aid', name: 'other', namespace },
      'Ready',
      'False',
    );
    const everywhere = [
      operator.logs.join('\n'),
      await (await fetch(operator.metricsUrl())).text(),
      await kubectlOk(controlPlane, ['get', 'events', '-A', '-o=json']),
      await kubectlOk(controlPlane, ['get', 'awf,aid,ksw,cksw,awa,arv,evs', '-A', '-o=json']),
    ];
    expect(values.size).toBeGreaterThanOrEqual(6);
    for (const value of values) {
      for (const text of everywhere) expect(text.includes(value)).toBe(false);
    }
  });
});

describe('the rights of the operator', () => {
  it('are enough: no request of its own was forbidden, but what admission refused', async () => {
    const requests = (await audited()).filter(({ requestURI }) => !requestURI.includes('dryRun'));
    const kindOf = ({ verb, objectRef }: AuditEvent): string =>
      [verb, objectRef?.resource, objectRef?.subresource].join(' ');
    // An API server that has just started refuses everybody for a moment; what it granted to the
    // same request at another time is no missing right.
    const granted = new Set(
      requests.filter(({ responseStatus }) => (responseStatus?.code ?? 500) < 300).map(kindOf),
    );
    const refused = requests
      .filter(({ responseStatus }) => responseStatus?.code === 403)
      .map(kindOf);
    expect([...new Set(refused)].filter((kind) => !granted.has(kind))).toEqual([]);
  });

  it('include no list or watch of Secrets, and it never tried', async () => {
    const secrets = (await audited()).filter(({ objectRef }) => objectRef?.resource === 'secrets');
    expect(new Set(secrets.map(({ verb }) => verb))).not.toContain('list');
    expect(new Set(secrets.map(({ verb }) => verb))).not.toContain('watch');
    expect(secrets.length).toBeGreaterThan(0);
  });

  it('never ask for a list as old as the cache of the API server may be', async () => {
    const old = (await audited()).filter(({ requestURI }) =>
      /[?&]resourceVersion=0(&|$)/.test(requestURI),
    );
    expect(old).toEqual([]);
  });
});

describe('SIGTERM', () => {
  it('ends the process with 0, and gives the Lease back', async () => {
    expect(await operator.stop()).toBe(0);
    const lease = await getObject<{ spec: { holderIdentity?: string } }>(
      controlPlane,
      'lease',
      'automation-guardrails',
      'automation-guardrails',
    );
    expect(lease?.spec.holderIdentity ?? '').toBe('');
  });
});
