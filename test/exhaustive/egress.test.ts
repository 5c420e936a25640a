import { afterAll, beforeAll, expect, it } from 'vitest';
import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { API_VERSION, label } from '../../src/api/names.ts';
import { keyOf } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { conditionOf } from '../../src/api/conditions.ts';
import type { EgressEntry, Workflow } from '../../src/api/workflow.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { installGuardrails } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const count = 250;
/** One in so many reaches the API server. */
const oneIn = 10;
const namespace = 'scale';
const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };
const minutes = { timeoutMs: 240_000, intervalMs: 2_000 };

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let kubeConfig: PooledKubeConfig;
let client: ApiServerClient;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
  client = new ApiServerClient({ kubeConfig, userAgent: 'egress-test', metrics: new Metrics() });
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'test' } },
    },
    dns('kube-dns'),
    slice('default', 'kubernetes', 'https', 6443, '192.0.2.10'),
    slice('kube-system', 'kube-dns', 'dns', 53, '10.244.0.2'),
  ]);
  const names = Array.from({ length: count }, (_, index) => index);
  assertAllDone(await forEachBounded(names, 16, declare), 'declare automations');
  operator = await startOperator({ kubeconfigPath });
}, 300_000);

afterAll(async () => {
  await operator?.stop();
  await kubeConfig?.closeConnections();
  await controlPlane?.stop();
});

function dns(selector: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kube-dns', namespace: 'kube-system' },
    spec: {
      selector: { 'k8s-app': selector },
      ports: [
        { name: 'dns', port: 53, protocol: 'UDP' },
        { name: 'dns-tcp', port: 53, protocol: 'TCP' },
      ],
    },
  };
}

function slice(of: string, service: string, name: string, port: number, ip: string): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: service,
      namespace: of,
      labels: { 'kubernetes.io/service-name': service },
    },
    addressType: 'IPv4',
    endpoints: [{ addresses: [ip], conditions: { ready: true } }],
    ports: [{ name, port, protocol: name === 'dns' ? 'UDP' : 'TCP' }],
  };
}

async function declare(index: number): Promise<void> {
  const metadata = { name: `w-${index}`, namespace };
  const egress = Array.from({ length: 20 }, (_, entry): EgressEntry =>
    entry === 0 && index % oneIn === 0
      ? { peer: 'KubeAPI', reason: 'its own API' }
      : {
          cidr: `203.0.${entry}.0/24`,
          except: [`203.0.${entry}.128/25`],
          ports: [{ port: 443, protocol: 'TCP' }],
          reason: 'a partner',
        },
  );
  await client.create<AutomationIdentity>(resources.automationIdentities, {
    apiVersion: API_VERSION,
    kind: 'AutomationIdentity',
    metadata,
    spec: { purpose: 'a test', owner },
  });
  await client.create<Workflow>(resources.workflows, {
    apiVersion: API_VERSION,
    kind: 'Workflow',
    metadata,
    spec: { owner, targets: [{ group: 'apps', kind: 'Deployment', name: 'none' }], egress },
  });
}

type Versions = ReadonlyMap<string, string>;

async function versionsOf(resource: Resource): Promise<Versions> {
  const objects = await client.list(resource, { namespace });
  return new Map(objects.map((object) => [keyOf(object), object.metadata.resourceVersion ?? '']));
}

function changed(before: Versions, after: Versions): number {
  return [...after].filter(([key, version]) => before.get(key) !== version).length;
}

async function untilSettled(): Promise<void> {
  await waitFor(
    'all to have their egress',
    async () => {
      const all = await client.list(resources.workflows, { namespace });
      return all.every(
        ({ status }) => conditionOf(status?.conditions, 'EgressDeclared')?.status === 'True',
      );
    },
    minutes,
  );
}

it('many Workflows write nothing at rest, and of a change only what depends on it', async () => {
  await untilSettled();
  const policies = await versionsOf(resources.networkPolicies);
  const workflows = await versionsOf(resources.workflows);
  expect(policies.size).toBe(count);

  // All of them are looked at anew.
  await operator.stop();
  operator = await startOperator({ kubeconfigPath });
  await waitFor(
    'all to be looked at',
    async () => {
      const text = await (await fetch(operator.metricsUrl())).text();
      const looks = text.matchAll(
        /^automation_guardrails_reconcile_total\{controller="workflow".*\} (\d+)$/gm,
      );
      return [...looks].reduce((sum, [, some]) => sum + Number(some), 0) >= count;
    },
    minutes,
  );
  // Other pods of the DNS, which policies select by their labels.
  await controlPlane.apply([slice('kube-system', 'kube-dns', 'dns', 53, '10.244.0.9')]);
  await controlPlane.apply([slice('default', 'kubernetes', 'https', 6443, '192.0.2.11')]);
  const dependent = await waitFor(
    'those that reach the API server',
    async () => {
      const after = await versionsOf(resources.networkPolicies);
      return changed(policies, after) >= count / oneIn && after;
    },
    minutes,
  );
  const followers = changed(policies, dependent);
  const touched = changed(workflows, await versionsOf(resources.workflows));

  await controlPlane.apply([dns('other-dns')]);
  const all = await waitFor(
    'all of them',
    async () => {
      const after = await versionsOf(resources.networkPolicies);
      return changed(dependent, after) >= count && after;
    },
    minutes,
  );
  const rewritten = changed(policies, all);
  // oxlint-disable-next-line no-console -- what a tier of its own is for
  console.log(
    `${count} Workflows of 20 entries: a restart and other pods of the DNS wrote 0 policies, another API server ${followers}, another Service of the DNS ${changed(dependent, all)}; status of ${touched} written`,
  );
  expect({ followers, touched, rewritten }).toEqual({
    followers: count / oneIn,
    touched: 0,
    rewritten: count,
  });
}, 600_000);
