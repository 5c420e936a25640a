import { isTrue } from '../../src/api/conditions.ts';
import { resources } from '../../src/api/resources.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster, namesOf } from './cluster.ts';
import type { Report } from './report.ts';

/** Memory of the operator before and after `count` Workflows with their identities. */
export async function benchMemory(report: Report, count: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  // The ServiceAccounts of all these would only be watched by it.
  await cluster.controlPlane.stopComponent('controllerManager');
  const operator = await cluster.startOperator();
  const namespace = 'memory';
  await cluster.controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
  ]);
  const before = await memoryOf(operator.metricsUrl());
  await cluster.createWorkflows(namespace, namesOf('workflow', count), { identities: true });
  await waitFor(
    'all Workflows to be ready',
    async () => {
      const workflows = await cluster.client.list(resources.workflows, { namespace });
      return workflows.every(({ status }) => isTrue(status?.conditions, 'Ready'));
    },
    { timeoutMs: 600_000, intervalMs: 1000 },
  );
  const after = await memoryOf(operator.metricsUrl());
  const perWorkflow = (bytes: number): number => bytes / 1024 / count;
  report.figure('operator RSS before', before.rss / 1024 / 1024, 'MiB', 1);
  report.figure(`operator RSS at ${count} Workflows`, after.rss / 1024 / 1024, 'MiB', 1);
  report.figure(
    'RSS for each Workflow with its identity',
    perWorkflow(after.rss - before.rss),
    'KiB',
    count,
  );
  report.figure(
    'heap used for each Workflow with its identity',
    perWorkflow(after.heap - before.heap),
    'KiB',
    count,
  );
}

/** Bytes, as the operator's own metrics have them. */
export async function memoryOf(metricsUrl: string): Promise<{ rss: number; heap: number }> {
  const text = await (await fetch(metricsUrl)).text();
  const read = (metric: RegExp): number => Number(metric.exec(text)?.[1] ?? Number.NaN);
  return {
    rss: read(/^\w*process_resident_memory_bytes (\S+)/m),
    heap: read(/^\w*nodejs_heap_size_used_bytes (\S+)/m),
  };
}
