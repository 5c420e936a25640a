import type { AutomationIdentity } from '../../src/api/automation-identity.ts';
import { isTrue } from '../../src/api/conditions.ts';
import { annotation } from '../../src/api/names.ts';
import { resources } from '../../src/api/resources.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster, namesOf, owner, parallelism } from './cluster.ts';
import { memoryOf } from './memory.ts';
import { percentile, type Report } from './report.ts';

const secretsEach = 3;
const patience = { timeoutMs: 1_200_000, intervalMs: 2000 };

/**
 * Identities with three secrets each and the same schedule: how far their rotations are spread, and
 * what it takes to rotate all of them at once, which only a person can ask for.
 */
export async function benchRotation(report: Report, count: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  // Nothing here needs its controllers.
  await cluster.controlPlane.stopComponent('controllerManager');
  const operator = await cluster.startOperator();
  const namespace = 'rotation';
  await cluster.controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { 'automationguardrails.dev/environment': 'test' } },
    },
  ]);
  const names = namesOf('identity', count);
  report.progress(`creating ${count} identities with ${secretsEach} secrets each`);
  const created = await forEachBounded(names, parallelism, (name) =>
    cluster.client.create(resources.automationIdentities, identityOf(namespace, name)),
  );
  assertAllDone(created, 'create identities');
  const all = (): Promise<AutomationIdentity[]> =>
    cluster.client.list(resources.automationIdentities, { namespace });
  await waitFor(
    'all identities to be ready',
    async () => (await all()).every(({ status }) => isTrue(status?.conditions, 'Ready')),
    patience,
  );

  const due = (await all())
    .flatMap(({ status }) => status?.secrets ?? [])
    .map(({ nextRotationTime = '' }) => Date.parse(nextRotationTime) / 1000);
  const first = Math.min(...due);
  const minutes = Math.ceil((Math.max(...due) - first + 1) / 60);
  const perMinute = Array.from(
    { length: minutes },
    (_, minute) => due.filter((time) => Math.floor((time - first) / 60) === minute).length,
  );
  report.progress(`rotations due in each minute from the first: ${perMinute.join(' ')}`);
  const seconds = new Map<number, number>();
  for (const time of due) seconds.set(time, (seconds.get(time) ?? 0) + 1);
  report.figure(
    'rotations of one schedule, from the first to the last',
    minutes,
    'min',
    due.length,
  );
  report.figure('rotations in the fullest minute', Math.max(...perMinute), '', due.length);
  report.figure('rotations in the fullest second', Math.max(...seconds.values()), '', due.length);
  report.figure(
    'rotations a second that are due, p99',
    percentile([...seconds.values()], 99),
    '',
    seconds.size,
  );

  const before = await memoryOf(operator.metricsUrl());
  const requestsBefore = await requestsOf(operator.metricsUrl());
  const begun = performance.now();
  const asked = await forEachBounded(names, parallelism, (name) =>
    cluster.client.mergePatch(
      resources.automationIdentities,
      { namespace, name },
      { metadata: { annotations: { [annotation.rotate]: 'all' } } },
    ),
  );
  assertAllDone(asked, 'ask for rotations');
  await waitFor(
    'all of them to be rotated',
    async () => (await all()).every(({ status }) => status?.lastHandledRotation === 'all'),
    patience,
  );
  const took = (performance.now() - begun) / 1000;
  const after = await memoryOf(operator.metricsUrl());
  const requests = await requestsOf(operator.metricsUrl());
  const rotations = count * secretsEach;
  for (const what of ['reads', 'writes'] as const) {
    const each = (requests[what] - requestsBefore[what]) / rotations;
    report.figure(
      `${what} of the operator for each rotation, events included`,
      each,
      '',
      rotations,
    );
  }
  report.figure('rotations a second, all at once', rotations / took, '1/s', rotations);
  report.figure('operator RSS before', before.rss / 1024 / 1024, 'MiB', 1);
  report.figure('operator RSS after', after.rss / 1024 / 1024, 'MiB', 1);
}

function identityOf(namespace: string, name: string): AutomationIdentity {
  const rotation = { schedule: '0 3 * * *', overlap: '1h' };
  return {
    metadata: { namespace, name },
    spec: {
      purpose: 'benchmark',
      owner,
      secrets: ['a', 'b', 'c'].map((secret) => ({ name: secret, type: 'Password', rotation })),
    },
  };
}

/** Requests that were answered; watches are reads. */
async function requestsOf(metricsUrl: string): Promise<{ reads: number; writes: number }> {
  const text = await (await fetch(metricsUrl)).text();
  const total = { reads: 0, writes: 0 };
  for (const [, labels = '', value = ''] of text.matchAll(
    /^\w*kube_api_requests_total\{([^}]*)\} (\S+)/gm,
  )) {
    const verb = /verb="(\w+)"/.exec(labels)?.[1]?.toLowerCase() ?? '';
    total[['get', 'list', 'watch'].includes(verb) ? 'reads' : 'writes'] += Number(value);
  }
  return total;
}
