import { readFile } from 'node:fs/promises';
import { annotation } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { projectWorkload } from '../../src/api/workload.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { BenchCluster, namesOf, parallelism } from './cluster.ts';
import { median, type Report } from './report.ts';

const workflow = 'bench';

/** Of one loop of writes, for each of them, in milliseconds. */
interface Cost {
  wall: number;
  /** Processor time of the API server. */
  cpu: number;
}

/**
 * What one write of a Deployment costs the API server, without operator and controller manager: a
 * plain one where no policy is bound, the same beside the policies, and the operator's touch that
 * an engaged KillSwitch answers by pausing. Processor time says more than time on a machine that
 * others use as well.
 */
export async function benchTouch(
  report: Report,
  { workloads, rounds }: { workloads: number; rounds: number },
): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  const names = namesOf('target', workloads);
  const [first = ''] = names;
  await cluster.createNamespace('unguarded', false);
  await cluster.createNamespace('guarded');
  await cluster.controlPlane.stopComponent('controllerManager');
  for (const namespace of ['unguarded', 'guarded']) {
    await cluster.createDeployments(namespace, names, workflow);
  }
  const costs = { bare: [] as Cost[], guarded: [] as Cost[], touch: [] as Cost[] };
  for (let round = 1; round <= rounds; round++) {
    report.progress(`touch, round ${round} of ${rounds}`);
    for (const [what, namespace] of [
      ['bare', 'unguarded'],
      ['guarded', 'guarded'],
    ] as const) {
      costs[what].push(await costOf(cluster, namespace, names, { spec: { replicas: 0 } }));
      await resume(cluster, namespace, names);
    }
    await cluster.engage('guarded', workflow);
    await cluster.untilPausing('guarded', first, true);
    const touch = { metadata: { annotations: { [annotation.touch]: `round-${round}` } } };
    costs.touch.push(await costOf(cluster, 'guarded', names, touch));
    await cluster.breakGlass('guarded', workflow);
    await cluster.untilPausing('guarded', first, false);
    await resume(cluster, 'guarded', names);
  }
  const middle = (what: keyof typeof costs, of: keyof Cost): number =>
    median(costs[what].map((cost) => cost[of]));
  const described = {
    bare: 'PATCH of replicas, no policy bound',
    guarded: 'PATCH of replicas beside the policies',
    touch: 'touch that pauses',
  };
  for (const what of ['bare', 'guarded', 'touch'] as const) {
    const n = workloads * rounds;
    report.figure(`API server's processor time, ${described[what]}`, middle(what, 'cpu'), 'ms', n);
    report.figure(`time, ${described[what]}`, middle(what, 'wall'), 'ms', n);
  }
  report.figure(
    "API server's processor time, touch / bare PATCH",
    middle('touch', 'cpu') / middle('bare', 'cpu'),
    'ratio',
    rounds,
  );
}

async function costOf(
  { client, controlPlane }: BenchCluster,
  namespace: string,
  names: readonly string[],
  patch: object,
): Promise<Cost> {
  const pid = controlPlane.pid('apiServer');
  const before = await processorMs(pid);
  const started = performance.now();
  const outcomes = await forEachBounded(names, parallelism, async (name) => {
    const stored = await client.mergePatch(resources.deployments, { namespace, name }, patch);
    if (!projectWorkload('Deployment', stored).isPaused) throw new Error(`${name} still runs`);
  });
  assertAllDone(outcomes, 'write Deployments');
  const wall = performance.now() - started;
  const cpu = (await processorMs(pid)) - before;
  return { wall: wall / names.length, cpu: cpu / names.length };
}

/** Milliseconds of processor time that a process has had. */
async function processorMs(pid = 0): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const [user = Number.NaN, system = Number.NaN] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
    .map(Number);
  // Linux counts them in hundredths of a second.
  return (user + system) * 10;
}

async function resume(
  { client }: BenchCluster,
  namespace: string,
  names: readonly string[],
): Promise<void> {
  const annotations = { [annotation.restoreReplicas]: null, [annotation.touch]: null };
  const outcomes = await forEachBounded(names, parallelism, (name) =>
    client.mergePatch(
      resources.deployments,
      { namespace, name },
      { metadata: { annotations }, spec: { replicas: 1 } },
    ),
  );
  assertAllDone(outcomes, 'resume');
}
