/**
 * `npm run bench`: figures of the kill switch and of memory, each beside what it is compared with,
 * measured in one run. `--json` prints one JSON line a figure.
 */
import { parseArgs } from 'node:util';
import { resources } from '../../src/api/resources.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { installGuardrails, waitForCondition } from '../operator/cluster.ts';
import { startOperator } from '../operator/operator-process.ts';

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
    sizes: { type: 'string', default: '100,1000' },
    workflows: { type: 'string', default: '1000' },
  },
});
const rounds = Number(values.rounds);
const sizes = values.sizes.split(',').map(Number);
const workflowCount = Number(values.workflows);

function figure(name: string, value: number, unit: string, n: number): void {
  const rounded = Number(value.toPrecision(4));
  console.log(
    values.json
      ? JSON.stringify({ name, value: rounded, unit, n })
      : `${name.padEnd(58)} ${String(rounded).padStart(9)} ${unit}  (n=${n})`,
  );
}
const progress = (line: string): void => {
  if (!values.json) console.error(line);
};
const median = (numbers: readonly number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

const controlPlane = await startControlPlane({ log: progress, controllerManagerQps: 500 });
const stopping = async (): Promise<void> => controlPlane.stop();
process.once('SIGINT', () => void stopping());
const kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
const client = new ApiServerClient({
  kubeConfig,
  userAgent: 'bench',
  fieldManager: 'bench',
  connections: 64,
  timeoutMs: 60_000,
});
const parallelism = 64;

interface Deployment extends KubeObject {
  spec: { replicas: number };
}

function deployment(namespace: string, name: string, workflow: string): Deployment {
  const labels = { app: workflow };
  return {
    metadata: { namespace, name, labels },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: workflow, deployment: name } },
      template: {
        metadata: { labels: { app: workflow, deployment: name } },
        spec: {
          serviceAccountName: workflow,
          containers: [{ name: 'main', image: 'registry.example/automation:1' }],
        },
      },
    },
  } as unknown as Deployment;
}

const owner = { team: 'payments', contact: 'payments@example.com', escalation: 'pager' };

function workflowManifests(namespace: string, name: string): KubeObject[] {
  return [
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'AutomationIdentity',
      metadata: { namespace, name },
      spec: { purpose: 'benchmark', owner },
    },
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'Workflow',
      metadata: { namespace, name },
      spec: {
        owner,
        targets: [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: { app: name } } }],
      },
    },
  ] as unknown as KubeObject[];
}

/** Milliseconds until a watch has seen every Deployment of the namespace at 0 since `act` began. */
async function untilStopped(
  namespace: string,
  count: number,
  act: () => Promise<void>,
): Promise<number> {
  const { resourceVersion } = await client.listPage(resources.deployments, { namespace });
  const ended = new AbortController();
  const stopped = new Set<string>();
  const started = performance.now();
  const seen = (async (): Promise<number> => {
    for await (const { object } of client.watch(resources.deployments, {
      namespace,
      resourceVersion,
      timeoutSeconds: 600,
      signal: ended.signal,
    })) {
      const { metadata, spec } = object as Deployment;
      if (spec?.replicas === 0) stopped.add(metadata.name);
      if (stopped.size === count) return performance.now() - started;
    }
    throw new Error(`the watch ended with ${stopped.size} of ${count} stopped`);
  })();
  try {
    await act();
    return await seen;
  } finally {
    ended.abort();
  }
}

async function benchKill(count: number): Promise<void> {
  const namespace = `bench-${count}`;
  const name = 'bench';
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
    ...workflowManifests(namespace, name),
  ]);
  const names = Array.from({ length: count }, (_, index) => `target-${index}`);
  progress(`creating ${count} Deployments`);
  await forEachBounded(names, parallelism, (target) =>
    client.create(resources.deployments, deployment(namespace, target, name)),
  );
  await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
  const loops: number[] = [];
  const kills: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    progress(`${count} Deployments, round ${round} of ${rounds}`);
    const patchAll = async (replicas: number): Promise<void> => {
      await forEachBounded(names, parallelism, (target) =>
        client.mergePatch(
          resources.deployments,
          { namespace, name: target },
          { spec: { replicas } },
        ),
      );
    };
    loops.push(await untilStopped(namespace, count, () => patchAll(0)));
    await patchAll(1);
    await waitFor(
      'the operator to have seen it',
      async () => {
        const workflow = await client.get(resources.workflows, { namespace, name });
        return workflow?.status?.targets?.running === count;
      },
      { timeoutMs: 120_000 },
    );

    kills.push(
      await untilStopped(namespace, count, async () => {
        await client.mergePatch(
          resources.workflows,
          { namespace, name },
          { metadata: { annotations: { 'automationguardrails.dev/kill-switch': 'benchmark' } } },
        );
      }),
    );
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, 'Ready');
    await client.mergePatch(
      resources.workflows,
      { namespace, name },
      { metadata: { annotations: { 'automationguardrails.dev/kill-switch': null } } },
    );
    const { code, stderr } = await controlPlane.kubectl(
      ['annotate', 'ksw', name, `-n=${namespace}`, 'automationguardrails.dev/release=next round'],
      { as: 'releaser', asGroups: ['system:masters'] },
    );
    if (code !== 0) throw new Error(stderr);
    await waitFor(
      'the release',
      async () => (await client.get(resources.killSwitches, { namespace, name })) === undefined,
      { timeoutMs: 120_000 },
    );
  }
  figure(`bare parallel PATCH loop, ${count} Deployments`, median(loops), 'ms', rounds);
  figure(`annotation until all told to stop, ${count} Deployments`, median(kills), 'ms', rounds);
  figure(`told / bare loop, ${count} Deployments`, median(kills) / median(loops), 'ratio', rounds);
}

async function memory(metricsUrl: string): Promise<{ rss: number; heap: number }> {
  const text = await (await fetch(metricsUrl)).text();
  const read = (metric: RegExp): number => Number(metric.exec(text)?.[1] ?? Number.NaN);
  return {
    rss: read(/^\w*process_resident_memory_bytes (\S+)/m),
    heap: read(/^\w*nodejs_heap_size_used_bytes (\S+)/m),
  };
}

async function benchMemory(metricsUrl: string): Promise<void> {
  const namespace = 'bench-memory';
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
  ]);
  const before = await memory(metricsUrl);
  progress(`creating ${workflowCount} Workflows with their identities`);
  const manifests = Array.from({ length: workflowCount }, (_, index) =>
    workflowManifests(namespace, `workflow-${index}`),
  ).flat();
  await forEachBounded(manifests, parallelism, (manifest) =>
    client.create(
      manifest.kind === 'Workflow' ? resources.workflows : resources.automationIdentities,
      manifest as never,
    ),
  );
  await waitFor(
    'all Workflows to be ready',
    async () => {
      const workflows = await client.list(resources.workflows, { namespace });
      return workflows.every((workflow) =>
        workflow.status?.conditions?.some(
          ({ type, status }) => type === 'Ready' && status === 'True',
        ),
      );
    },
    { timeoutMs: 300_000, intervalMs: 1000 },
  );
  const after = await memory(metricsUrl);
  const perWorkflow = (bytes: number): number => bytes / 1024 / workflowCount;
  figure('operator RSS before', before.rss / 1024 / 1024, 'MiB', 1);
  figure(`operator RSS at ${workflowCount} Workflows`, after.rss / 1024 / 1024, 'MiB', 1);
  figure(
    'RSS per Workflow with its identity',
    perWorkflow(after.rss - before.rss),
    'KiB',
    workflowCount,
  );
  figure(
    'heap used per Workflow with its identity',
    perWorkflow(after.heap - before.heap),
    'KiB',
    workflowCount,
  );
}

try {
  const operatorKubeconfig = await installGuardrails(controlPlane);
  // Deployments get no pods: what is measured are our writes beside a bare loop's, not the pods'.
  await controlPlane.stopComponent('controllerManager');
  const operator = await startOperator({ kubeconfigPath: operatorKubeconfig });
  try {
    await benchMemory(operator.metricsUrl());
    for (const size of sizes) await benchKill(size);
  } finally {
    await operator.stop();
  }
} finally {
  await kubeConfig.closeConnections();
  await stopping();
}
