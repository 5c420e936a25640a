import { afterAll, beforeAll, expect, it } from 'vitest';
import type { KubeObject } from '../../src/api/objects.ts';
import { label } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import type { Ledger } from '../../src/api/limits.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { ApiServerClient, type WriteOptions } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { installGuardrails } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { endedStatus, runManifest } from '../operator/runs.ts';

const namespace = 'limits';
const name = 'busy';
const args = ['--leader-elect=false'];

let controlPlane: ControlPlane;
let kubeconfigPath: string;
let kubeConfig: PooledKubeConfig;
let client: ApiServerClient;
let operator: OperatorProcess | undefined;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
  client = new ApiServerClient({ kubeConfig, userAgent: 'limits-test', metrics: new Metrics() });
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'test' } },
    },
  ]);
});

afterAll(async () => {
  await operator?.stop();
  await kubeConfig?.closeConnections();
  await controlPlane?.stop();
});

async function each(
  from: number,
  to: number,
  act: (name: string) => Promise<unknown>,
): Promise<void> {
  const names = Array.from({ length: to - from }, (_, index) => `run-${from + index}`);
  assertAllDone(await forEachBounded(names, 16, act), 'do what the automation does');
}

function create(run: string, options: WriteOptions = {}): Promise<KubeObject> {
  const job = runManifest({ namespace, name: run, runsAs: name });
  return client.create(resources.jobs, job, options);
}

/** Every other one is gone at once. */
async function fail(run: string): Promise<void> {
  const patch = { status: endedStatus('Failed', Date.now()) };
  const key = { namespace, name: run };
  await client.mergePatch(resources.jobs, key, patch, { subresource: 'status' });
  if (/[02468]$/.test(run)) await client.delete(resources.jobs, key);
}

async function ledger(): Promise<Ledger | undefined> {
  return (await client.get<Workflow>(resources.workflows, { namespace, name }))?.status?.runs;
}

async function counted(created: number, failures: number): Promise<void> {
  await waitFor(
    `${created} runs and ${failures} failures`,
    async () => {
      const runs = await ledger();
      const sum = runs?.perMinute?.created.reduce((total, count) => total + count, 0) ?? 0;
      if (sum > created) throw new Error(`counted ${sum} runs of ${created}`);
      return sum === created && runs?.consecutiveFailures === failures;
    },
    { timeoutMs: 120_000 },
  );
}

it('counts 1,000 runs exactly through two restarts, and holds the next but one', async () => {
  const limits = { maxRunsPerHour: 1_000, maxConsecutiveFailures: 1_000 };
  const targets = [{ group: 'batch', kind: 'CronJob', name }];
  await controlPlane.apply([
    {
      apiVersion: 'automationguardrails.dev/v1alpha1',
      kind: 'Workflow',
      metadata: { name, namespace },
      spec: { targets, limits },
    },
  ]);
  operator = await startOperator({ kubeconfigPath, args });
  await counted(0, 0);
  await each(0, 400, (run) => create(run));
  await each(0, 200, fail);
  await counted(400, 200);
  for (const [from, to] of [
    [400, 700],
    [700, 1_000],
  ] as const) {
    operator.kill();
    await operator.exited;
    await each(from, to, (run) => create(run));
    operator = await startOperator({ kubeconfigPath, args });
    await each(from - 200, to - 200, fail);
    await counted(to, to - 200);
  }
  await each(800, 1_000, fail);
  await counted(1_000, 1_000);
  expect((await ledger())?.breaches).toBeUndefined();

  await create('one-too-many');
  const crossedAt = performance.now();
  await waitFor('the hold', async () =>
    create('next', { dryRun: true }).then(
      () => false,
      (error: unknown) => String(error).includes('limit breached'),
    ),
  );
  const stoppedAfter = performance.now() - crossedAt;
  console.log(`refused ${stoppedAfter.toFixed(0)} ms after the run that crossed the limit`);
  expect((await ledger())?.breaches).toMatchObject([{ limit: 'maxRunsPerHour', counted: 1_001 }]);
});
