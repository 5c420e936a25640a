import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { annotation, label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import { projectWorkload } from '../../src/api/workload.ts';
import { ApiServerClient, errorOfEvent, type WatchEvent } from '../../src/runtime/client.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { assertAllDone, forEachBounded } from '../../src/runtime/parallel.ts';
import {
  startControlPlane,
  type ControlPlane,
  type ControlPlaneOptions,
} from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { installGuardrails, waitForCondition } from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import type { Report } from './report.ts';

/** Requests in flight at a time: those of the operator, and those of what it is compared with. */
export const parallelism = 64;

export interface Deployment extends KubeObject {
  spec: { replicas: number };
}

export const owner = { team: 'payments', contact: 'payments@example.com', escalation: 'pager' };

/** A control plane with the policies installed, and the means to load it. */
export class BenchCluster implements AsyncDisposable {
  readonly controlPlane: ControlPlane;
  readonly report: Report;
  readonly client: ApiServerClient;
  readonly #operatorKubeconfig: string;
  readonly #kubeConfig: PooledKubeConfig;
  #operator: OperatorProcess | undefined;

  private constructor(controlPlane: ControlPlane, operatorKubeconfig: string, report: Report) {
    this.controlPlane = controlPlane;
    this.report = report;
    this.#operatorKubeconfig = operatorKubeconfig;
    this.#kubeConfig = new PooledKubeConfig().load({ kubeconfig: controlPlane.kubeconfigPath });
    this.client = new ApiServerClient({
      kubeConfig: this.#kubeConfig,
      userAgent: 'bench',
      fieldManager: 'bench',
      connections: parallelism,
      timeoutMs: 60_000,
    });
  }

  /** @param options default: a controller manager that its limits don't hold up */
  static async start(
    report: Report,
    options: ControlPlaneOptions = { controllerManagerQps: 500 },
  ): Promise<BenchCluster> {
    const log = (line: string): void => report.progress(line);
    const controlPlane = await startControlPlane({ log, ...options });
    try {
      return new BenchCluster(controlPlane, await installGuardrails(controlPlane), report);
    } catch (error) {
      await controlPlane.stop();
      throw error;
    }
  }

  async stopOperator(): Promise<void> {
    await this.#operator?.stop();
    this.#operator = undefined;
  }

  /** @param args further flags */
  async startOperator(args: readonly string[] = []): Promise<OperatorProcess> {
    this.#operator = await startOperator({ kubeconfigPath: this.#operatorKubeconfig, args });
    return this.#operator;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopOperator();
    await this.#kubeConfig.closeConnections();
    await this.controlPlane.stop();
  }

  /** @param guarded policies are bound to it */
  async createNamespace(name: string, guarded = true): Promise<void> {
    const labels = guarded ? { [label.environment]: 'test' } : {};
    await this.controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } },
    ]);
    await waitFor('the default ServiceAccount', async () => {
      return (
        (await this.client.get(resources.serviceAccounts, { namespace: name, name: 'default' })) !==
        undefined
      );
    });
  }

  /** Workflows, and on request their identities, in parallel. */
  async createWorkflows(
    namespace: string,
    names: readonly string[],
    { identities = false }: { identities?: boolean } = {},
  ): Promise<void> {
    this.report.progress(`creating ${names.length} Workflows`);
    const outcomes = await forEachBounded(names, parallelism, async (name) => {
      if (identities) {
        await this.client.create(resources.automationIdentities, identityOf(namespace, name));
      }
      await this.client.create(resources.workflows, workflowOf(namespace, name));
    });
    assertAllDone(outcomes, 'create Workflows');
  }

  async createDeployments(
    namespace: string,
    names: readonly string[],
    serviceAccountName: string,
  ): Promise<void> {
    this.report.progress(`creating ${names.length} Deployments`);
    const outcomes = await forEachBounded(names, parallelism, (name) =>
      this.client.create(
        resources.deployments,
        deploymentOf({ namespace, name, serviceAccountName }),
      ),
    );
    assertAllDone(outcomes, 'create Deployments');
  }

  /** As `kubectl guardrails kill` does. */
  async engage(namespace: string, name: string): Promise<void> {
    const killSwitch: KillSwitch = {
      metadata: { namespace, name },
      spec: { workflow: name, reason: 'benchmark' },
    };
    await this.client.create(resources.killSwitches, killSwitch);
  }

  /** Waits until a write of a Deployment that runs comes out paused, or doesn't any more. */
  async untilPausing(namespace: string, name: string, isPausing: boolean): Promise<void> {
    await waitFor('the policies to have seen it', async () => {
      const answer = await this.client.mergePatch(
        resources.deployments,
        { namespace, name },
        { spec: { replicas: 1 } },
        { dryRun: true },
      );
      return projectWorkload('Deployment', answer).isPaused === isPausing;
    });
  }

  /** Takes a KillSwitch away without an operator. */
  async breakGlass(namespace: string, name: string): Promise<void> {
    const annotations = { [annotation.release]: 'next round', [annotation.breakGlass]: 'alone' };
    const labels = { [label.releasing]: 'true' };
    const key = { namespace, name };
    await this.client.mergePatch(resources.killSwitches, key, {
      metadata: { annotations, labels },
    });
    await this.client.delete(resources.killSwitches, key);
  }

  /**
   * Watches until `size` objects of different names have counted. A watch that the API server ends,
   * as it does with a reader that lags, goes on where it ended.
   *
   * @returns when the last one was seen, as `performance.now()`
   */
  async untilSeen(
    resource: Resource,
    size: number,
    {
      namespace,
      resourceVersion,
      signal,
      counts,
    }: {
      namespace: string;
      resourceVersion: string;
      signal: AbortSignal;
      counts: (event: WatchEvent) => boolean;
    },
  ): Promise<number> {
    const seen = new Set<string>();
    for (let from = resourceVersion; ;) {
      const options = { namespace, resourceVersion: from, timeoutSeconds: 1200, signal };
      for await (const event of this.client.watch(resource, options)) {
        if (event.type === 'ERROR') throw errorOfEvent(event.object);
        from = event.object.metadata.resourceVersion ?? from;
        if (event.type === 'BOOKMARK' || !counts(event)) continue;
        if (seen.add(event.object.metadata.name).size === size) return performance.now();
      }
      this.report.progress(`a watch ended with ${seen.size} of ${size}, and goes on`);
    }
  }

  async engageByAnnotation(namespace: string, name: string): Promise<void> {
    await this.client.mergePatch(
      resources.workflows,
      { namespace, name },
      { metadata: { annotations: { [annotation.killSwitch]: 'benchmark' } } },
    );
  }

  /** Releases as somebody else than who engaged, and waits until the KillSwitch is gone. */
  async release(namespace: string, name: string): Promise<void> {
    await waitForCondition(this.controlPlane, { kind: 'ksw', name, namespace }, 'Ready');
    const workflow = await this.client.get(resources.workflows, { namespace, name });
    if (workflow?.metadata.annotations?.[annotation.killSwitch] !== undefined) {
      await this.client.mergePatch(
        resources.workflows,
        { namespace, name },
        { metadata: { annotations: { [annotation.killSwitch]: null } } },
      );
    }
    const { code, stderr } = await this.controlPlane.kubectl(
      ['annotate', 'ksw', name, `-n=${namespace}`, `${annotation.release}=next round`],
      { as: 'releaser', asGroups: ['system:masters'] },
    );
    if (code !== 0) throw new Error(stderr);
    await waitFor(
      'the release',
      async () =>
        (await this.client.get(resources.killSwitches, { namespace, name })) === undefined,
      { timeoutMs: 600_000, intervalMs: 250 },
    );
  }
}

function identityOf(namespace: string, name: string): never {
  const spec = { purpose: 'benchmark', owner };
  return { metadata: { namespace, name }, spec } as unknown as never;
}

function workflowOf(namespace: string, name: string): never {
  const targets = [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: { app: name } } }];
  return { metadata: { namespace, name }, spec: { owner, targets } } as unknown as never;
}

/** One replica, whose pod ends as soon as it is told to. */
export function deploymentOf({
  namespace,
  name,
  serviceAccountName,
}: {
  namespace: string;
  name: string;
  serviceAccountName: string;
}): Deployment {
  const labels = { app: serviceAccountName, deployment: name };
  return {
    metadata: { namespace, name, labels: { app: serviceAccountName } },
    spec: {
      replicas: 1,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          // Nothing is to be learnt of the scheduler here, whose default limits would take minutes.
          nodeName: 'node-0',
          serviceAccountName,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          containers: [{ name: 'main', image: 'registry.example/automation:1' }],
        },
      },
    },
  } as unknown as Deployment;
}

export function namesOf(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
}
