import { Worker } from 'node:worker_threads';
import { resources } from '../../src/api/resources.ts';
import { waitFor } from '../control-plane/wait.ts';
import { kubectlOk, serviceAccountKubeconfig } from '../operator/cluster.ts';
import type { OperatorProcess } from '../operator/operator-process.ts';
import { BenchCluster, namesOf, type Deployment } from './cluster.ts';
import type { Flood } from './flood.ts';
import { median, type Report } from './report.ts';

const namespace = 'lane';
const workflow = 'bench';
const targets = 100;

/**
 * Time until a kill has told 100 workloads to stop: while the operator has nothing else to do, with
 * thousands of other reconciles queued, and while another client floods the API server, with the
 * priority level for kills and without it.
 */
export async function benchLane(
  report: Report,
  { workflows, rounds }: { workflows: number; rounds: number },
): Promise<void> {
  // Few seats, so that a flood from this one machine fills them.
  const apiServerArgs = ['--max-requests-inflight=40', '--max-mutating-requests-inflight=20'];
  await using cluster = await BenchCluster.start(report, { apiServerArgs });
  await cluster.createNamespace(namespace);
  await cluster.createNamespace('others');
  // Deployments get no pods: what is measured is the operator.
  await cluster.controlPlane.stopComponent('controllerManager');
  const operator = await cluster.startOperator();
  await cluster.createWorkflows(namespace, [workflow], { identities: true });
  await cluster.createDeployments(namespace, namesOf('target', targets), workflow);
  await kubectlOk(cluster.controlPlane, [
    'create',
    'clusterrolebinding',
    'flood',
    '--clusterrole=automation-guardrails-viewer',
    '--serviceaccount=others:default',
  ]);
  await cluster.createWorkflows('others', namesOf('other', workflows), { identities: true });
  await untilQuiet(operator);

  const times = { idle: [] as number[], queued: [] as number[] };
  for (let round = 1; round <= rounds; round++) {
    report.progress(`lane, round ${round} of ${rounds}`);
    times.idle.push(await kill(cluster));
    // Every Workflow and identity of a namespace depends on that: all are queued at once.
    await queueAll(cluster, operator, round);
    times.queued.push(await kill(cluster));
    await untilQuiet(operator);
  }
  const what = `${workflows} Workflows and identities queued`;
  report.figure('told to stop, operator idle', median(times.idle), 'ms', rounds);
  report.figure(`told to stop, ${what}`, median(times.queued), 'ms', rounds);
  report.figure(
    `told to stop, ${what} / idle`,
    median(times.queued) / median(times.idle),
    'ratio',
    rounds,
  );

  const flooded = { with: [] as number[], without: [] as number[] };
  for (let round = 1; round <= rounds; round++) {
    report.progress(`flood, round ${round} of ${rounds}`);
    flooded.with.push(await withFlood(cluster, () => kill(cluster)));
    await kubectlOk(cluster.controlPlane, ['delete', '-k', 'config/flow-control']);
    flooded.without.push(await withFlood(cluster, () => kill(cluster)));
    await kubectlOk(cluster.controlPlane, ['apply', '-k', 'config/flow-control']);
  }
  report.figure('told to stop, API server flooded', median(flooded.with), 'ms', rounds);
  report.figure(
    'told to stop, API server flooded, no level for kills',
    median(flooded.without),
    'ms',
    rounds,
  );
}

/** Milliseconds from the request that engages until a watch has seen every target at 0; releases. */
async function kill(cluster: BenchCluster): Promise<number> {
  const { client } = cluster;
  const { resourceVersion } = await client.listPage(resources.deployments, { namespace });
  const ended = new AbortController();
  const started = performance.now();
  const seen = cluster.untilSeen(resources.deployments, targets, {
    namespace,
    resourceVersion,
    signal: ended.signal,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the kind that is watched
    counts: ({ object }) => (object as Deployment).spec.replicas === 0,
  });
  try {
    await cluster.engageByAnnotation(namespace, workflow);
    const time = (await seen) - started;
    await cluster.release(namespace, workflow);
    return time;
  } finally {
    ended.abort();
  }
}

async function depth(operator: OperatorProcess): Promise<number> {
  const text = await (await fetch(operator.metricsUrl())).text();
  const lines = text.matchAll(/^automation_guardrails_workqueue_depth\{[^}]*\} (\d+)$/gm);
  return [...lines].reduce((sum, [, value]) => sum + Number(value), 0);
}

async function untilQuiet(operator: OperatorProcess): Promise<void> {
  let quiet = 0;
  await waitFor(
    'the queues to be empty',
    async () => {
      quiet = (await depth(operator)) === 0 ? quiet + 1 : 0;
      return quiet >= 5;
    },
    { timeoutMs: 900_000, intervalMs: 500 },
  );
}

async function queueAll(
  { client }: BenchCluster,
  operator: OperatorProcess,
  round: number,
): Promise<void> {
  const labels = { 'example.com/round': String(round) };
  await client.mergePatch(resources.namespaces, { name: 'others' }, { metadata: { labels } });
  await waitFor('the queues to be full', async () => (await depth(operator)) > 100, {
    intervalMs: 0,
  });
}

/** While another ServiceAccount lists as fast as it can. */
async function withFlood(cluster: BenchCluster, act: () => Promise<number>): Promise<number> {
  const workerData: Flood = {
    kubeconfig: await serviceAccountKubeconfig(cluster.controlPlane, {
      namespace: 'others',
      name: 'default',
    }),
    namespace: 'others',
    connections: 200,
  };
  // What it reads would hold up the measurement in this thread.
  const flood = new Worker(new URL('flood.ts', import.meta.url), { workerData });
  try {
    return await act();
  } finally {
    await flood.terminate();
  }
}
