import type { KillSwitch } from '../../src/api/kill-switch.ts';
import type { Pod } from '../../src/api/objects.ts';
import { resources } from '../../src/api/resources.ts';
import { waitFor } from '../control-plane/wait.ts';
import { BenchCluster } from './cluster.ts';
import { median, type Report } from './report.ts';

/**
 * An API server that is restarted while a kill switch is engaged: from its first answer until it
 * lets pods of others in, where no policy is bound and in the guarded namespace.
 */
export async function benchRestart(report: Report, restarts: number): Promise<void> {
  await using cluster = await BenchCluster.start(report);
  const { client, controlPlane } = cluster;
  await cluster.createNamespace('unguarded', false);
  await cluster.createNamespace('guarded');
  const killSwitch: KillSwitch = {
    metadata: { namespace: 'guarded', name: 'automation' },
    spec: { workflow: 'automation', reason: 'benchmark' },
  };
  await client.create(resources.killSwitches, killSwitch);
  const places = ['unguarded', 'kube-system', 'guarded'];
  const times = new Map(places.map((place) => [place, [] as number[]]));
  for (let restart = 1; restart <= restarts; restart++) {
    report.progress(`restart ${restart} of ${restarts}`);
    await controlPlane.stopComponent('apiServer');
    const starting = controlPlane.startComponent('apiServer');
    await waitFor('the first answer', () => answers(cluster), {
      timeoutMs: 120_000,
      intervalMs: 5,
    });
    const answered = performance.now();
    await Promise.all(
      places.map(async (place) => {
        await waitFor(`a pod in ${place}`, () => letsIn(cluster, place), {
          timeoutMs: 120_000,
          intervalMs: 20,
        });
        times.get(place)?.push(performance.now() - answered);
      }),
    );
    await starting;
  }
  for (const [place, all] of times) {
    const what = `first answer after a restart until a pod in ${place} is let in`;
    report.figure(`${what}, median`, median(all), 'ms', restarts);
    report.figure(`${what}, longest`, Math.max(...all), 'ms', restarts);
  }
}

async function answers({ client }: BenchCluster): Promise<boolean> {
  return (await client.get(resources.namespaces, { name: 'default' })) !== undefined;
}

async function letsIn({ client }: BenchCluster, namespace: string): Promise<boolean> {
  const pod = {
    metadata: { namespace, name: 'unrelated' },
    spec: {
      automountServiceAccountToken: false,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  } as Pod;
  await client.create(resources.pods, pod, { dryRun: true });
  return true;
}
