import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isTrue } from '../../src/api/conditions.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { ApiProxy } from '../fault/api-proxy.ts';
import { Api } from '../integration/admission/api.ts';
import { automation } from '../operator/automation.ts';
import { installGuardrails, waitForCondition } from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { Load } from '../operator/load.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const namespace = 'contested';
const invoice = { namespace, name: 'invoice' };

let controlPlane: ControlPlane;
let admin: Api;
let incident: Incident;
let rival: ApiServerClient;
let proxy: ApiProxy;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
  rival = new ApiServerClient({
    kubeConfig: new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath }),
    userAgent: 'rival-autoscaler',
    fieldManager: 'rival-autoscaler',
  });
  proxy = new ApiProxy({ controlPlane, kubeconfigPath });
  operator = await startOperator({ kubeconfigPath: await proxy.start() });
});

afterAll(async () => {
  await operator?.stop();
  await proxy?.stop();
  await rival?.close();
  await admin?.close();
  await controlPlane?.stop();
});

describe('something that keeps scaling a stopped workload', () => {
  it('is named, starts no pod, and is answered ever less often', async () => {
    await controlPlane.apply(automation({ namespace }));
    await waitForCondition(controlPlane, { kind: 'awf', ...invoice }, 'Ready');
    await incident.engage(invoice);
    await incident.reached(invoice, 'Ready');

    const name = 'invoice-poster';
    const ours = (): number =>
      proxy.writes.filter(({ path }) => path.endsWith(`/deployments/${name}`)).length;
    const before = ours();
    const reportsBefore = proxy.writes.length;
    const contest = new Load({
      perSecond: 50,
      inFlight: 4,
      call: (index) =>
        rival.mergePatch<KubeObject>(
          resources.deployments,
          { namespace, name },
          { spec: { replicas: 3 + (index % 2) } },
          { subresource: 'scale' },
        ),
    });
    try {
      const { status } = await incident.reached(invoice, 'Contested');
      const { reason, message } =
        status?.conditions?.find(({ type }) => type === 'Contested') ?? {};
      expect(reason).toBe('PausedAgain');
      expect(message).toContain(`Deployment ${name}`);
      expect(message).toContain("'rival-autoscaler' (through scale)");
      expect(isTrue(status?.conditions, 'Fenced')).toBe(true);

      await waitFor('600 writes of the rival', () => contest.ended - contest.failed >= 600, {
        timeoutMs: 300_000,
      });
    } finally {
      await contest.stop();
    }
    // At once, then after 1, 2, 4, … seconds: the delays double while the rival writes on.
    const seconds = contest.ended / contest.rate;
    const most = 3 + Math.ceil(Math.log2(seconds + 1));
    console.log(
      `${contest.ended} writes of the rival in ${seconds.toFixed(0)} s, ${ours() - before} answers, ${proxy.writes.length - reportsBefore} writes of the operator in all`,
    );
    expect(ours() - before).toBeLessThanOrEqual(most);
    // Each answer changes the report twice at most, in the KillSwitch and in the Workflow.
    expect(proxy.writes.length - reportsBefore).toBeLessThanOrEqual(5 * most);
    const pods = await admin.get(resources.pods, { namespace, name: '' });
    expect(pods.object).toMatchObject({ items: [] });

    await incident.reached(invoice, 'Ready');
    await incident.askForRelease(invoice);
    await incident.released(invoice);
    const { object } = await admin.get(resources.deployments, { namespace, name });
    expect(object.spec?.replicas).toBeGreaterThanOrEqual(3);
  });

  it('is counted, and told in an event', async () => {
    const text = await (await fetch(operator.metricsUrl())).text();
    const counted =
      /^automation_guardrails_kill_switch_contested_writes_total\{kind="Deployment"\} (\d+)/m.exec(
        text,
      );
    expect(Number(counted?.[1])).toBeGreaterThanOrEqual(3);
    await waitFor('the event', async () => {
      const { stdout } = await controlPlane.kubectl([
        'get',
        'events.events.k8s.io',
        `-n=${namespace}`,
        '-o=jsonpath={.items[*].reason}',
      ]);
      return stdout.split(' ').includes('Contested');
    });
  });
});
