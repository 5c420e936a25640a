import { annotation } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { waitFor } from '../control-plane/wait.ts';
import { waitForCondition } from '../operator/cluster.ts';
import { BenchCluster, namesOf, parallelism, type Deployment } from './cluster.ts';
import { median, type Report } from './report.ts';

const home = 'kill';
const workflow = 'bench';

/** Milliseconds from the beginning of an act. */
interface Stop {
  /** Until a watch has seen each workload at 0. */
  told: number;
  /** Until a watch has seen the last pod go. */
  gone: number;
}

interface Way {
  what: string;
  /** Before the clock starts. */
  before?: () => Promise<void>;
  act: () => Promise<void>;
  /** Lets the workloads run again. */
  undo: () => Promise<void>;
}

/**
 * Time until workloads are told to stop, and until their pods are gone: by the kill switch, engaged
 * in both ways; by a bare loop of PATCH; by a bare loop of the operator's own touches, with the
 * KillSwitch engaged and no operator; and by `kubectl scale`.
 */
export async function benchKill(
  report: Report,
  { sizes, rounds }: { sizes: readonly number[]; rounds: number },
): Promise<void> {
  for (const size of sizes) {
    // Thousands take minutes each time.
    await benchSize(report, size, size > 1000 ? 1 : rounds);
  }
}

async function benchSize(report: Report, size: number, rounds: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  await cluster.startOperator();
  const names = namesOf('target', size);
  await prepare(cluster, home, names);

  const resume = (): Promise<void> => scaleAll(cluster, home, names, 1);
  const release = (): Promise<void> => cluster.release(home, workflow);
  const ways = {
    loop: {
      what: 'bare loop of PATCH',
      act: () => scaleAll(cluster, home, names, 0),
      undo: resume,
    },
    touches: {
      what: 'bare loop of touches',
      before: async () => {
        await cluster.stopOperator();
        await cluster.engage(home, workflow);
        await cluster.untilPausing(home, names[0] ?? '', true);
      },
      act: () => touchAll(cluster, names),
      undo: async () => {
        await cluster.startOperator();
        await release();
      },
    },
    kubectl: { what: 'kubectl scale', act: () => kubectlScale(cluster, home), undo: resume },
    annotation: {
      what: 'kill switch by annotation',
      act: () => cluster.engageByAnnotation(home, workflow),
      undo: release,
    },
    kill: {
      what: 'kill switch',
      act: () => cluster.engage(home, workflow),
      undo: release,
    },
  } satisfies Record<string, Way>;
  const stops = new Map<Way, Stop[]>(Object.values(ways).map((way) => [way, []]));
  const last = Object.values(ways).at(-1);
  for (let round = 1; round <= rounds; round++) {
    for (const [way, measured] of stops) {
      report.progress(`${size} Deployments, round ${round} of ${rounds}: ${way.what}`);
      await way.before?.();
      const stop = await untilStopped(cluster, home, size, way.act);
      report.progress(`told ${Math.round(stop.told)} ms, gone ${Math.round(stop.gone)} ms`);
      measured.push(stop);
      if (round === rounds && way === last) break;
      await way.undo();
      await untilRunning(cluster, home, size);
    }
  }
  const of = (way: Way, what: keyof Stop): number =>
    median((stops.get(way) ?? []).map((stop) => stop[what]));
  const targets = `${size} Deployment${size === 1 ? '' : 's'}`;
  for (const [what, until] of [
    ['told to stop', 'told'],
    ['pods gone', 'gone'],
  ] as const) {
    for (const way of Object.values(ways)) {
      report.figure(`${what}, ${way.what}, ${targets}`, of(way, until), 'ms', rounds);
    }
  }
  for (const way of [ways.loop, ways.touches]) {
    const ratio = of(ways.kill, 'told') / of(way, 'told');
    report.figure(`told to stop, kill switch / ${way.what}, ${targets}`, ratio, 'ratio', rounds);
  }
}

/**
 * Time until the pods of `size` workloads are gone when they are only scaled, with the limits that
 * a controller manager has by default, and by the kill switch beside it.
 */
export async function benchDefaultLimits(report: Report, size: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  await cluster.startOperator();
  const names = namesOf('target', size);
  for (const place of ['scaled', 'killed']) await prepare(cluster, place, names);
  await cluster.controlPlane.stopComponent('controllerManager');
  const defaults = ['--kube-api-qps=20', '--kube-api-burst=30'];
  await cluster.controlPlane.startComponent('controllerManager', defaults);
  report.progress(`${size} Deployments with default limits: scaling alone`);
  const scaled = await untilStopped(cluster, 'scaled', size, () =>
    scaleAll(cluster, 'scaled', names, 0),
  );
  report.progress(`told ${Math.round(scaled.told)} ms, gone ${Math.round(scaled.gone)} ms`);
  report.progress(`${size} Deployments with default limits: kill switch`);
  const killed = await untilStopped(cluster, 'killed', size, () =>
    cluster.engage('killed', workflow),
  );
  report.progress(`told ${Math.round(killed.told)} ms, gone ${Math.round(killed.gone)} ms`);
  const what = `${size} Deployments, default limits`;
  report.figure(`pods gone, scaling alone, ${what}`, scaled.gone, 'ms', 1);
  report.figure(`pods gone, kill switch, ${what}`, killed.gone, 'ms', 1);
  report.figure(`pods gone, scaling / kill, ${what}`, scaled.gone / killed.gone, 'ratio', 1);
}

export async function prepare(
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

/** The writes of the operator, by somebody else: each must come out paused. */
async function touchAll({ client }: BenchCluster, names: readonly string[]): Promise<void> {
  const patch = { metadata: { annotations: { [annotation.touch]: 'by-hand' } } };
  const outcomes = await forEachBounded(names, parallelism, (name) =>
    client.mergePatch(resources.deployments, { namespace: home, name }, patch),
  );
  assertAllDone(outcomes, 'touch');
}

async function kubectlScale({ controlPlane }: BenchCluster, namespace: string): Promise<void> {
  const { code, stderr } = await controlPlane.kubectl(
    ['scale', 'deployment', `-n=${namespace}`, `--selector=app=${workflow}`, '--replicas=0'],
    { timeoutMs: 600_000 },
  );
  if (code !== 0) throw new Error(stderr);
}

/** All pods run, and the operator has seen all workloads. */
export async function untilRunning(
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
    // Each look lists them all.
    { timeoutMs: 1_200_000, intervalMs: Math.max(250, 3 * size) },
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

export async function untilStopped(
  cluster: BenchCluster,
  namespace: string,
  size: number,
  act: () => Promise<void>,
): Promise<Stop> {
  const { client } = cluster;
  const [deployments, pods] = await Promise.all([
    client.listPage(resources.deployments, { namespace, limit: 1 }),
    client.listPage(resources.pods, { namespace, limit: 1 }),
  ]);
  const ended = new AbortController();
  const { signal } = ended;
  const started = performance.now();
  const told = cluster.untilSeen(resources.deployments, size, {
    namespace,
    resourceVersion: deployments.resourceVersion,
    signal,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the kind that is watched
    counts: ({ object }) => (object as Deployment).spec.replicas === 0,
  });
  const gone = cluster.untilSeen(resources.pods, size, {
    namespace,
    resourceVersion: pods.resourceVersion,
    signal,
    counts: ({ type }) => type === 'DELETED',
  });
  try {
    const [, ...times] = await Promise.all([act(), told, gone]);
    return { told: times[0] - started, gone: times[1] - started };
  } finally {
    ended.abort();
  }
}
