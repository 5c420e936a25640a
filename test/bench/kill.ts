import { resources } from '../../src/api/resources.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { waitFor } from '../control-plane/wait.ts';
import { waitForCondition } from '../operator/cluster.ts';
import { BenchCluster, namesOf, parallelism, type Deployment } from './cluster.ts';
import { median, type Report } from './report.ts';

const workflow = 'bench';

/** Milliseconds from the beginning of an act. */
interface Stop {
  /** Until a watch has seen each workload at 0. */
  told: number;
  /** Until a watch has seen the last pod go. */
  gone: number;
}

/**
 * Time until workloads are told to stop, and until their pods are gone: by the kill switch, by a
 * bare loop of the same writes, and by `kubectl scale`.
 */
export async function benchKill(
  report: Report,
  { sizes, rounds }: { sizes: readonly number[]; rounds: number },
): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  await cluster.startOperator();
  for (const size of sizes) await benchSize(cluster, size, rounds);
}

async function benchSize(cluster: BenchCluster, size: number, rounds: number): Promise<void> {
  const { report, controlPlane } = cluster;
  const namespace = `kill-${size}`;
  const names = namesOf('target', size);
  await prepare(cluster, namespace, names);

  const ways = {
    loop: { act: () => scaleAll(cluster, namespace, names, 0), stops: [] as Stop[] },
    kubectl: { act: () => kubectlScale(cluster, namespace), stops: [] as Stop[] },
    kill: { act: () => cluster.engageByAnnotation(namespace, workflow), stops: [] as Stop[] },
  };
  for (let round = 1; round <= rounds; round++) {
    for (const [name, { act, stops }] of Object.entries(ways)) {
      report.progress(`${size} Deployments, round ${round} of ${rounds}: ${name}`);
      stops.push(await untilStopped(cluster, namespace, size, act));
      if (name === 'kill') await cluster.release(namespace, workflow);
      else await scaleAll(cluster, namespace, names, 1);
      await untilRunning(cluster, namespace, size);
    }
  }
  const told = (way: keyof typeof ways): number => median(ways[way].stops.map((one) => one.told));
  const gone = (way: keyof typeof ways): number => median(ways[way].stops.map((one) => one.gone));
  const what = `${size} Deployment${size === 1 ? '' : 's'}`;
  report.figure(`told to stop, bare loop of PATCH, ${what}`, told('loop'), 'ms', rounds);
  report.figure(`told to stop, kubectl scale, ${what}`, told('kubectl'), 'ms', rounds);
  report.figure(`told to stop, kill switch, ${what}`, told('kill'), 'ms', rounds);
  report.figure(`told to stop, kill / loop, ${what}`, told('kill') / told('loop'), 'ratio', rounds);
  report.figure(`pods gone, bare loop of PATCH, ${what}`, gone('loop'), 'ms', rounds);
  report.figure(`pods gone, kubectl scale, ${what}`, gone('kubectl'), 'ms', rounds);
  report.figure(`pods gone, kill switch, ${what}`, gone('kill'), 'ms', rounds);
  await controlPlane.kubectl(['delete', 'namespace', namespace, '--wait=false']);
}

/**
 * Time until the pods of `size` workloads are gone when they are only scaled, with the limits that
 * a controller manager has by default.
 */
export async function benchDefaultLimits(report: Report, size: number): Promise<void> {
  await using cluster = await BenchCluster.start(report, {});
  const namespace = `limits-${size}`;
  const names = namesOf('target', size);
  await cluster.startOperator();
  await prepare(cluster, namespace, names);
  report.progress(`${size} Deployments with default limits: scaling alone`);
  const scaled = await untilStopped(cluster, namespace, size, () =>
    scaleAll(cluster, namespace, names, 0),
  );
  await scaleAll(cluster, namespace, names, 1);
  await untilRunning(cluster, namespace, size);
  report.progress(`${size} Deployments with default limits: kill switch`);
  const killed = await untilStopped(cluster, namespace, size, () =>
    cluster.engageByAnnotation(namespace, workflow),
  );
  const what = `${size} Deployments, default limits`;
  report.figure(`pods gone, scaling alone, ${what}`, scaled.gone, 'ms', 1);
  report.figure(`pods gone, kill switch, ${what}`, killed.gone, 'ms', 1);
  report.figure(`pods gone, scaling / kill, ${what}`, scaled.gone / killed.gone, 'ratio', 1);
}

async function prepare(
  cluster: BenchCluster,
  namespace: string,
  names: readonly string[],
): Promise<void> {
  await cluster.createNamespace(namespace);
  await cluster.createWorkflows(namespace, [workflow], { identities: true });
  await waitForCondition(cluster.controlPlane, { kind: 'awf', name: workflow, namespace }, 'Ready');
  await cluster.createDeployments(namespace, names, workflow);
  await untilRunning(cluster, namespace, names.length);
}

async function scaleAll(
  { client }: BenchCluster,
  namespace: string,
  names: readonly string[],
  replicas: number,
): Promise<void> {
  const outcomes = await forEachBounded(names, parallelism, (name) =>
    client.mergePatch(resources.deployments, { namespace, name }, { spec: { replicas } }),
  );
  assertAllDone(outcomes, 'scale');
}

async function kubectlScale({ controlPlane }: BenchCluster, namespace: string): Promise<void> {
  const { code, stderr } = await controlPlane.kubectl(
    ['scale', 'deployment', `-n=${namespace}`, `--selector=app=${workflow}`, '--replicas=0'],
    { timeoutMs: 600_000 },
  );
  if (code !== 0) throw new Error(stderr);
}

/** All pods run, and the operator has seen all workloads. */
async function untilRunning(
  { client, report }: BenchCluster,
  namespace: string,
  size: number,
): Promise<void> {
  report.progress('waiting until all pods run');
  await waitFor(
    'all pods to run',
    async () => {
      const pods = await client.list(resources.pods, { namespace });
      const running = pods.filter(
        ({ status, metadata }) =>
          status?.phase === 'Running' && metadata.deletionTimestamp === undefined,
      );
      return running.length === size && pods.length === size;
    },
    { timeoutMs: 1_200_000, intervalMs: 500 },
  );
  await waitFor(
    'the operator to have seen it',
    async () => {
      const found = await client.get(resources.workflows, { namespace, name: workflow });
      return found?.status?.targets?.running === size;
    },
    { timeoutMs: 300_000, intervalMs: 250 },
  );
}

async function untilStopped(
  { client }: BenchCluster,
  namespace: string,
  size: number,
  act: () => Promise<void>,
): Promise<Stop> {
  const [deployments, pods] = await Promise.all([
    client.listPage(resources.deployments, { namespace, limit: 1 }),
    client.listPage(resources.pods, { namespace, limit: 1 }),
  ]);
  const ended = new AbortController();
  const started = performance.now();
  const told = seenAll(size, async (see) => {
    for await (const { object } of client.watch(resources.deployments, {
      namespace,
      resourceVersion: deployments.resourceVersion,
      timeoutSeconds: 1200,
      signal: ended.signal,
    })) {
      const { metadata, spec } = object as Deployment;
      if (spec?.replicas === 0 && see(metadata.name)) return;
    }
  });
  const gone = seenAll(size, async (see) => {
    for await (const { type, object } of client.watch(resources.pods, {
      namespace,
      resourceVersion: pods.resourceVersion,
      timeoutSeconds: 1200,
      signal: ended.signal,
    })) {
      if (type === 'DELETED' && see((object as Deployment).metadata.name)) return;
    }
  });
  try {
    const [, ...times] = await Promise.all([act(), told, gone]);
    return { told: times[0] - started, gone: times[1] - started };
  } finally {
    ended.abort();
  }
}

/** @returns when the last of `size` different names was seen */
async function seenAll(
  size: number,
  look: (see: (name: string) => boolean) => Promise<void>,
): Promise<number> {
  const seen = new Set<string>();
  await look((name) => seen.add(name).size === size);
  if (seen.size < size) throw new Error(`the watch ended with ${seen.size} of ${size}`);
  return performance.now();
}
