import { conditionOf } from '../../src/api/conditions.ts';
import { API_VERSION } from '../../src/api/names.ts';
import { keyOf } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { EgressEntry } from '../../src/api/workflow.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster, namesOf, owner, parallelism } from './cluster.ts';
import type { Report } from './report.ts';

/** One Workflow in so many reaches the API server. */
export const oneIn = 10;
const entries = 20;
const namespace = 'scale';
const minutes = { timeoutMs: 1_200_000, intervalMs: 2_000 };

/** How many objects were written, of the policies unless said otherwise. */
export interface EgressWrites {
  /** Policies that stand. */
  policies: number;
  /**
   * By a restart of the operator, other pods of the DNS, and an API server that moved, together:
   * those that depend on the last alone.
   */
  ofTheApiServer: number;
  /** Workflows, by the same. */
  workflows: number;
  /** By another Service of the DNS. */
  ofTheDns: number;
}

/** What many Workflows of 20 entries each write at rest, and after changes that concern some or all. */
export async function benchEgress(report: Report, count: number): Promise<EgressWrites> {
  await using cluster = await BenchCluster.start(report);
  const { controlPlane, client } = cluster;
  await cluster.createNamespace(namespace);
  await controlPlane.apply([
    dns('kube-dns'),
    slice('default', 'kubernetes', 'https', 6443, '192.0.2.10'),
    slice('kube-system', 'kube-dns', 'dns', 53, '10.244.0.2'),
  ]);
  report.progress(`creating ${count} Workflows of ${entries} entries`);
  const names = namesOf('w', count);
  assertAllDone(
    await forEachBounded([...names.entries()], parallelism, ([index, name]) =>
      declare(cluster, name, index % oneIn === 0),
    ),
    'declare automations',
  );
  const versionsOf = async (resource: Resource): Promise<Versions> => {
    const objects = await client.list(resource, { namespace });
    return new Map(objects.map((object) => [keyOf(object), object.metadata.resourceVersion ?? '']));
  };
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1_000;
  await cluster.startOperator();
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
  report.figure(`until ${count} Workflows have their egress`, seconds(), 's', count);
  const policies = await versionsOf(resources.networkPolicies);
  const workflows = await versionsOf(resources.workflows);

  await cluster.stopOperator();
  const operator = await cluster.startOperator();
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
      return changed(policies, after) >= Math.ceil(count / oneIn) && after;
    },
    minutes,
  );
  const ofTheApiServer = changed(policies, dependent);
  const written = changed(workflows, await versionsOf(resources.workflows));
  report.figure('policies written for another API server', ofTheApiServer, 'writes', count);
  report.figure('Workflows written meanwhile', written, 'writes', count);

  const before = seconds();
  await controlPlane.apply([dns('other-dns')]);
  const all = await waitFor(
    'all of them',
    async () => {
      const after = await versionsOf(resources.networkPolicies);
      return changed(dependent, after) >= count && after;
    },
    minutes,
  );
  report.figure('until all follow another Service of the DNS', seconds() - before, 's', count);
  return {
    policies: policies.size,
    ofTheApiServer,
    workflows: written,
    ofTheDns: changed(dependent, all),
  };
}

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

async function declare(
  { client }: BenchCluster,
  name: string,
  reachesApiServer: boolean,
): Promise<void> {
  const metadata = { name, namespace };
  const egress = Array.from({ length: entries }, (_, entry): EgressEntry =>
    entry === 0 && reachesApiServer
      ? { peer: 'KubeAPI', reason: 'its own API' }
      : {
          cidr: `203.0.${entry}.0/24`,
          except: [`203.0.${entry}.128/25`],
          ports: [{ port: 443, protocol: 'TCP' }],
          reason: 'a partner',
        },
  );
  await client.create(resources.automationIdentities, {
    apiVersion: API_VERSION,
    kind: 'AutomationIdentity',
    metadata,
    spec: { purpose: 'a test', owner },
  });
  await client.create(resources.workflows, {
    apiVersion: API_VERSION,
    kind: 'Workflow',
    metadata,
    spec: { owner, targets: [{ group: 'apps', kind: 'Deployment', name: 'none' }], egress },
  });
}

type Versions = ReadonlyMap<string, string>;

function changed(before: Versions, after: Versions): number {
  return [...after].filter(([key, version]) => before.get(key) !== version).length;
}
