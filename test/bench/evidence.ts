import { generateKeyPairSync } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { publicKeyOf } from '../../src/evidence/head.ts';
import { EvidenceLog } from '../../src/evidence/log.ts';
import { silentLogger } from '../../src/observability/logger.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { BenchCluster, namesOf } from './cluster.ts';
import { prepare, untilRunning, untilStopped } from './kill.ts';
import { median, type Report } from './report.ts';

const namespace = 'evidence';
const chains = 50;
const home = 'kill-recorded';
const workflow = 'bench';

/**
 * Records a second that the log takes, and what they cost the API server; the queue at 500 a
 * second; and a kill with and without the log, in turn.
 */
export async function benchEvidence(
  report: Report,
  { size, rounds }: { size: number; rounds: number },
): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  await cluster.createNamespace(namespace);
  await burst(cluster);
  await steady(cluster);
  await killBeside(cluster, size, rounds);
}

interface Counts {
  writes: number;
  records: number;
}

function logOf(cluster: BenchCluster): {
  log: EvidenceLog;
  counts: Counts;
  close: () => Promise<void>;
} {
  const counts: Counts = { writes: 0, records: 0 };
  const { privateKey } = generateKeyPairSync('ed25519');
  const key = { privateKey, publicKey: publicKeyOf(privateKey) };
  const kubeConfig = new PooledKubeConfig().load({
    kubeconfig: cluster.controlPlane.kubeconfigPath,
  });
  const client = new ApiServerClient({
    kubeConfig,
    userAgent: 'bench evidence',
    connections: 8,
    metrics: {
      observeRequest: (verb) => {
        if (verb === 'create' || verb === 'patch') counts.writes += 1;
      },
    },
  });
  const log = new EvidenceLog({
    client,
    signingKey: () => Promise.resolve(key),
    limits: { segmentBytes: 96 * 1024, segments: 100, retentionMs: 1e12, requireExport: false },
    logger: silentLogger(),
    clock: Date.now,
    onCommitted: ({ entries }) => {
      counts.records += entries.length;
    },
    maxPending: 100_000,
  });
  return { log, counts, close: () => kubeConfig.closeConnections() };
}

let told = 0;

function tell(log: EvidenceLog): void {
  told += 1;
  const state = String(told);
  log.observe(`${namespace}/chain-${told % chains}`, {
    facts: [
      {
        subject: `subject-${told % 500}`,
        state,
        draft: () => ({
          action: 'BenchmarkRecord',
          outcome: 'Succeeded',
          actor: { name: 'alice@example.com', basis: 'authenticated' },
          message: 'A sentence of the length that conditions and reasons usually have, no more.',
          environment: 'prod',
          change: '0a1b2c3d-g7',
          objects: [
            {
              apiVersion: 'v1',
              kind: 'Pod',
              name: 'x',
              namespace,
              uid: state,
              resourceVersion: state,
            },
          ],
        }),
      },
    ],
  });
}

async function burst(cluster: BenchCluster): Promise<void> {
  const { log, counts, close } = logOf(cluster);
  const total = 20_000;
  const stop = new AbortController();
  for (let index = 0; index < total; index++) tell(log);
  const start = performance.now();
  const running = log.run(stop.signal);
  while (counts.records < total) await delay(20);
  const seconds = (performance.now() - start) / 1000;
  stop.abort();
  await running;
  cluster.report.figure('evidence, burst, records a second', total / seconds, '1/s', total);
  const perThousand = (counts.writes * 1000) / counts.records;
  cluster.report.figure(
    'evidence, burst, API writes per 1,000 records',
    perThousand,
    'writes',
    total,
  );
  await close();
}

/** Seconds that are measured, and those before, in which code and segments get warm. */
const steadySeconds = 60;
const warmSeconds = 5;
const quarters = 4;

async function steady(cluster: BenchCluster): Promise<void> {
  const { log, counts, close } = logOf(cluster);
  const stop = new AbortController();
  const running = log.run(stop.signal);
  const rate = 500;
  const depths: { seconds: number; records: number }[] = [];
  const start = performance.now();
  const from = told;
  const elapsed = (): number => (performance.now() - start) / 1000;
  while (elapsed() < warmSeconds + steadySeconds) {
    const due = elapsed() * rate;
    while (told - from < due) tell(log);
    if (elapsed() >= warmSeconds) depths.push({ seconds: elapsed(), records: log.pending });
    await delay(20);
  }
  const total = told - from;
  const late = performance.now();
  while (counts.records < total) await delay(20);
  const drain = performance.now() - late;
  stop.abort();
  await running;
  const { report } = cluster;
  const what = 'evidence, 500 records a second';
  for (let quarter = 0; quarter < quarters; quarter++) {
    const own = depths.filter(
      ({ seconds }) => Math.floor(((seconds - warmSeconds) / steadySeconds) * quarters) === quarter,
    );
    const records = median(own.map((depth) => depth.records));
    report.figure(`${what}, queue, quarter ${quarter + 1}`, records, 'records', own.length);
  }
  report.figure(`${what}, queue, growth`, slopeOf(depths), 'records/s', depths.length);
  const most = Math.max(...depths.map(({ records }) => records));
  report.figure(`${what}, queue, most`, most, 'records', depths.length);
  report.figure(`${what}, until the last is written`, drain, 'ms', 1);
  const perThousand = (counts.writes * 1000) / counts.records;
  report.figure(`${what}, API writes per 1,000`, perThousand, 'writes', total);
  await close();
}

/** By least squares: of a queue that is level, about 0; of one that nobody empties, the rate. */
function slopeOf(depths: readonly { seconds: number; records: number }[]): number {
  const mean = (numbers: readonly number[]): number =>
    numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const [x, y] = [mean(depths.map(({ seconds }) => seconds)), mean(depths.map((d) => d.records))];
  const over = depths.map(({ seconds, records }) => (seconds - x) * (records - y));
  return mean(over) / mean(depths.map(({ seconds }) => (seconds - x) ** 2));
}

async function killBeside(cluster: BenchCluster, size: number, rounds: number): Promise<void> {
  const { report } = cluster;
  await cluster.startOperator();
  const names = namesOf('target', size);
  await prepare(cluster, home, names);
  const stops = { without: [] as number[], with: [] as number[] };
  for (let round = 1; round <= rounds; round++) {
    // Whatever gets slower or faster with time does so for both.
    const ways = ['without', 'with'] as const;
    for (const way of round % 2 === 1 ? ways : ways.toReversed()) {
      await cluster.stopOperator();
      await cluster.startOperator([`--evidence=${way === 'with'}`]);
      report.progress(`${size} Deployments, round ${round} of ${rounds}: ${way} evidence`);
      const stop = await untilStopped(cluster, home, size, () => cluster.engage(home, workflow));
      report.progress(`told ${Math.round(stop.told)} ms, gone ${Math.round(stop.gone)} ms`);
      stops[way].push(stop.told);
      await cluster.release(home, workflow);
      await untilRunning(cluster, home, size);
    }
  }
  for (const way of ['without', 'with'] as const) {
    report.figure(
      `told to stop, ${way} evidence, ${size} Deployments`,
      median(stops[way]),
      'ms',
      rounds,
    );
  }
  const ratios = stops.with.map((ms, round) => ms / (stops.without[round] ?? Number.NaN));
  report.figure(
    `told to stop, with / without evidence in the same round, ${size} Deployments`,
    median(ratios),
    'ratio',
    rounds,
  );
}
