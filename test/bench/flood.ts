/** A thread that lists Workflows as fast as it can, over many connections, until it is ended. */
import { workerData } from 'node:worker_threads';
import { resources } from '../../src/api/resources.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';

/** What the thread is given. */
export interface Flood {
  /** Path of a kubeconfig that may list Workflows. */
  kubeconfig: string;
  namespace: string;
  connections: number;
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- given by `new Worker`
const { kubeconfig, namespace, connections } = workerData as Flood;
const client = new ApiServerClient({
  kubeConfig: new PooledKubeConfig().load({ kubeconfig }),
  userAgent: 'flood',
  connections,
  timeoutMs: 60_000,
});
const flood = async (): Promise<never> => {
  for (;;) {
    try {
      await client.listPage(resources.workflows, { namespace, limit: 100 });
    } catch {
      // Turned away: that is what a flood meets.
    }
  }
};
await Promise.all(Array.from({ length: connections }, flood));
