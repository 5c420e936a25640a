import type { Pod } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import { ApiError } from '../../src/runtime/errors.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster, deploymentOf, namesOf } from './cluster.ts';
import { median, type Report } from './report.ts';

/**
 * Without an operator, since only the API server counts here: how long after a kill the first pod
 * is refused, and what a write of somebody else's Deployment takes, in namespaces with 1 and with
 * many Workflows, and where no policy is bound.
 */
export async function benchFence(
  report: Report,
  { workflows, rounds }: { workflows: number; rounds: number },
): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  const counts = [1, workflows];
  for (const count of counts) {
    await cluster.createNamespace(`workflows-${count}`);
    await cluster.createWorkflows(`workflows-${count}`, namesOf('workflow', count));
  }
  await cluster.createNamespace('unguarded', false);

  const latencies = counts.map(() => [] as number[]);
  for (let round = 0; round < rounds; round++) {
    for (const [index, count] of counts.entries()) {
      latencies[index]?.push(await fenceLatency(cluster, `workflows-${count}`, round));
    }
  }
  const [one = [], many = []] = latencies;
  report.figure('engaged until the first pod is refused, 1 Workflow', median(one), 'ms', rounds);
  report.figure(
    `engaged until the first pod is refused, ${workflows} Workflows`,
    median(many),
    'ms',
    rounds,
  );
  report.figure(
    `fence, ${workflows} Workflows / 1 Workflow`,
    median(many) / median(one),
    'ratio',
    rounds,
  );

  const places = ['unguarded', ...counts.map((count) => `workflows-${count}`)];
  for (const namespace of places) {
    await cluster.client.create(
      resources.deployments,
      deploymentOf({ namespace, name: 'unrelated', serviceAccountName: 'default' }),
    );
  }
  const writes = 200;
  const times = places.map(() => [] as number[]);
  for (let write = 0; write < writes; write++) {
    for (const [index, namespace] of places.entries()) {
      times[index]?.push(await writeTime(cluster, namespace, write));
    }
  }
  const [bare = [], few = [], beside = []] = times;
  report.figure('write of a Deployment, no policy bound', median(bare), 'ms', writes);
  report.figure('write of a Deployment, beside 1 Workflow', median(few), 'ms', writes);
  report.figure(
    `write of a Deployment, beside ${workflows} Workflows`,
    median(beside),
    'ms',
    writes,
  );
  report.figure(
    `write beside ${workflows} Workflows / without policies`,
    median(beside) / median(bare),
    'ratio',
    writes,
  );
}

/** From before the request that engages until the answer that refuses a pod, in milliseconds. */
async function fenceLatency(
  cluster: BenchCluster,
  namespace: string,
  round: number,
): Promise<number> {
  const { client } = cluster;
  // Each round has its own, so none has to be released.
  const name = `automation-${round}`;
  await client.create(resources.serviceAccounts, { metadata: { namespace, name } });
  const pod = {
    metadata: { namespace, name: `${name}-pod` },
    spec: {
      serviceAccountName: name,
      automountServiceAccountToken: false,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  } as Pod;
  const started = performance.now();
  await cluster.engage(namespace, name);
  await waitFor(
    'a pod to be refused',
    async () => {
      try {
        await client.create(resources.pods, pod, { dryRun: true });
        return false;
      } catch (error) {
        return error instanceof ApiError && error.message.includes('kill switch: ');
      }
    },
    { intervalMs: 0 },
  );
  const latency = performance.now() - started;
  await cluster.breakGlass(namespace, name);
  return latency;
}

async function writeTime(
  { client }: BenchCluster,
  namespace: string,
  value: number,
): Promise<number> {
  const started = performance.now();
  await client.mergePatch(
    resources.deployments,
    { namespace, name: 'unrelated' },
    { metadata: { annotations: { 'example.com/write': String(value) } } },
  );
  return performance.now() - started;
}
