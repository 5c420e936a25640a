import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionsFrom, type Finding } from '../api/conditions.ts';
import type { Hold } from '../api/holds.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import {
  splitKey,
  type Condition,
  type KubeObject,
  type Namespace,
  type Pod,
} from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { holdsOf } from '../guardrails/holds/plan.ts';
import { probeFence } from '../guardrails/kill-switch/fence.ts';
import { stopCounts, stopFindings, type StopProgress } from '../guardrails/kill-switch/findings.ts';
import { isLive, runsUnder } from '../guardrails/kill-switch/plan.ts';
import { isGuarded, namespaceNotCovered } from '../guardrails/requirements.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isNotFound } from '../runtime/errors.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';

export interface OutOfReachControllerOptions {
  client: KubeClient;
  statusWriter: Pick<StatusWriter, 'write'>;
  metrics: { setHeld(kind: string, key: string, reason: string | undefined): void };
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  killSwitches: Pick<ReadStore<KillSwitch>, 'get'>;
  namespaces: Pick<ReadStore<Namespace>, 'get'>;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  pods: IndexedStore<Pod>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Says on what stands in a namespace in which the operator doesn't act that nobody does what it asks
 * for. Of a kill it says how far admission alone has come: the fence holds without an operator. It
 * writes status and nothing else.
 */
export class OutOfReachController implements Reconciler {
  readonly name = 'out-of-reach';
  readonly #options: OutOfReachControllerOptions;

  constructor(options: OutOfReachControllerOptions) {
    this.#options = options;
  }

  /** @param key `namespace/name` of a Workflow, an AutomationIdentity, a KillSwitch, or of each */
  async reconcile(key: string, { signal }: ReconcileContext): Promise<ReconcileResult> {
    const { workflows, identities, killSwitches } = this.#options;
    await this.#hold(resources.workflows, key, workflows.get(key), signal);
    await this.#hold(resources.automationIdentities, key, identities.get(key), signal);
    const killSwitch = killSwitches.get(key);
    if (killSwitch === undefined) return {};
    await this.#reportKill(killSwitch, signal);
    return { requeueAfterMs: fenceCheckMs };
  }

  async #hold(
    resource: Resource,
    key: string,
    object: Held | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { metrics, clock } = this.#options;
    const isThere = object !== undefined && object.metadata.deletionTimestamp === undefined;
    const problem = namespaceNotCovered(splitKey(key).namespace ?? '');
    metrics.setHeld(resource.kind, key, isThere ? problem.reason : undefined);
    if (!isThere) return;
    const holds = holdsOf([problem], object, clock());
    await this.#write(
      resource,
      object,
      [
        { type: 'Ready', status: 'False', ...problem },
        { type: 'Held', status: 'True', ...problem },
      ],
      // What is recorded there stays true of what was made when the namespace was covered.
      { ...object.status, holds },
      signal,
    );
  }

  async #reportKill(killSwitch: KillSwitch, signal: AbortSignal): Promise<void> {
    const { client, namespaces, workloads, pods, clock } = this.#options;
    const { namespace = '' } = killSwitch.metadata;
    const guarded = isGuarded(namespaces.get(namespace));
    const progress: StopProgress = {
      namespace,
      guarded,
      fence: guarded ? await probeFence(client, killSwitch, signal) : 'Allowed',
      workloads: runsUnder(killSwitch, workloads),
      pods: runsUnder(killSwitch, pods).filter(isLive),
      rungs: [],
      now: clock(),
    };
    const seen = stopFindings(progress).filter(
      ({ type }) => type !== 'Effective' && type !== 'Ready',
    );
    const uncovered = namespaceNotCovered(namespace);
    const findings: Finding[] = [
      ...seen,
      { type: 'Effective', status: 'False', ...uncovered },
      { type: 'Ready', status: 'False', ...uncovered },
    ];
    await this.#write(
      resources.killSwitches,
      killSwitch,
      findings,
      stopCounts(progress, []),
      signal,
    );
  }

  async #write(
    resource: Resource,
    object: Held,
    findings: readonly Finding[],
    rest: object,
    signal: AbortSignal,
  ): Promise<void> {
    const { statusWriter, clock } = this.#options;
    const { generation } = object.metadata;
    const status = {
      ...rest,
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions: conditionsFrom(findings, object.status?.conditions, generation, clock()),
    };
    try {
      await statusWriter.write(resource, object, status, signal);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}

interface Held extends KubeObject {
  status?: {
    conditions?: readonly Condition[] | undefined;
    holds?: readonly Hold[] | undefined;
  };
}

/** How often it is looked at how far a kill is. */
const fenceCheckMs = 60_000;
