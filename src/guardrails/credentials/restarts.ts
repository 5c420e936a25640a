import type { AutomationIdentity } from '../../api/automation-identity.ts';
import type { ObjectMeta, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workload } from '../../api/workload.ts';
import type { Logger } from '../../observability/logger.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import { forEachBounded, type Outcome } from '../../runtime/parallel.ts';
import type { Problem } from '../requirements.ts';
import { some } from '../wording.ts';
import { needsRestart, planRestarts, restart, type RestartPlan } from './consumers.ts';
import { earliest, refusedMs } from './refusal.ts';
import { completionPatch } from './secret.ts';

/** A credential whose value may have been replaced. */
export interface Replaced {
  status: { secretName: string };
  /** The Secret as it is stored; `undefined` where there is none. */
  live: Secret | undefined;
  /** Who started before holds another value; milliseconds since the epoch. `undefined`: nobody. */
  restartSince: number | undefined;
  /** Workloads that may restart at a time. */
  atOnce: number;
}

export interface RestartRequest {
  identity: AutomationIdentity;
  /** The kill switch of the identity is engaged: its own workloads aren't touched. */
  isKilled: boolean;
  notify: (notice: { type: 'normal'; reason: string; message: string }) => void;
  signal: AbortSignal;
  log: Logger;
}

export interface RestartOptions {
  client: KubeClient;
  /** Indexed by `secret` (`namespace/secretName`). */
  workloads: IndexedStore<Workload>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Time that a cache gets to show workloads which were there before a rotation. */
const settleMs = 5_000;
/** Restarts that take longer than this are told. */
const restartsSlowMs = 30 * 60_000;
/** Requests in flight at a time, for one identity. */
const parallelism = 8;

/**
 * Restarts whoever may still hold a replaced value, each once however many Secrets it reads, some
 * at a time. A rotation is complete when, some time after it, no such workload is left.
 */
export async function restartConsumers(
  results: readonly Replaced[],
  request: RestartRequest,
  { client, clock, workloads }: RestartOptions,
): Promise<{ problems: Problem[]; dueAt: number | undefined }> {
  const { identity, isKilled, signal } = request;
  const { namespace = '', name } = identity.metadata;
  const now = clock();
  const rollovers = results.flatMap(({ live, restartSince, atOnce, status }) => {
    if (live === undefined || restartSince === undefined) return [];
    const consumers = workloads.byIndex('secret', `${namespace}/${status.secretName}`);
    return [{ live, rotatedAt: restartSince, atOnce, consumers }];
  });
  // A killed identity's pods are being stopped; what release starts reads the current value.
  const plan = planRestarts(
    rollovers,
    ({ serviceAccountName }) => isKilled && serviceAccountName === name,
    now,
  );
  const completed = rollovers.filter(
    ({ rotatedAt, consumers }) =>
      now >= rotatedAt + settleMs && !consumers.some((one) => needsRestart(one, rotatedAt, now)),
  );

  const restarted = await forEachBounded([...plan.now], parallelism, ([workload, rotatedAt]) =>
    restart(client, workload, rotatedAt, signal),
  );
  const latched = await forEachBounded(completed, parallelism, ({ live }) =>
    client.mergePatch(
      resources.secrets,
      { namespace, name: live.metadata.name },
      completionPatch(live),
      { signal },
    ),
  );
  const since = Math.max(...rollovers.map(({ rotatedAt }) => rotatedAt));
  const isSlow = now >= since + restartsSlowMs;
  const isUnfinished =
    plan.now.size > 0 || plan.later.length > 0 || latched.some((outcome) => 'error' in outcome);
  return {
    problems: [
      ...reportRestarts(restarted, request),
      ...(isSlow && plan.later.length > 0 ? [restartsSlow(plan)] : []),
    ],
    dueAt: earliest([
      ...(isUnfinished ? [now + (isSlow ? refusedMs : settleMs)] : []),
      // Status tells of it, and the previous value may go, with the next look.
      ...(completed.length > 0 ? [now] : []),
      // In the future where the clock was ahead when it was rotated.
      ...rollovers
        .map(({ rotatedAt }) => rotatedAt + settleMs)
        .filter((settledAt) => now < settledAt),
    ]),
  };
}

function restartsSlow({ later, underWay }: RestartPlan): Problem {
  const blocking = underWay.length === 0 ? '' : ` Not available again: ${some(namesOf(underWay))}.`;
  return {
    reason: 'RestartsWaiting',
    message: `${later.length} workloads still wait to be restarted, and may use the value before: ${some(namesOf(later))}.${blocking}`,
  };
}

/** @returns the problem, where a workload couldn't be restarted */
function reportRestarts(
  restarted: readonly Outcome<[Workload, number], boolean>[],
  { notify, log }: RestartRequest,
): Problem[] {
  const named = (outcomes: readonly { item: [Workload, number] }[]): string =>
    some(namesOf(outcomes.map(({ item: [workload] }) => workload)));
  const done = restarted.filter((outcome) => 'result' in outcome && outcome.result);
  if (done.length > 0) {
    log.info('Consumers of a rotated credential restarted', { count: done.length });
    notify({
      type: 'normal',
      reason: 'ConsumersRestarted',
      message: `${done.length} workloads were restarted to read the new value: ${named(done)}.`,
    });
  }
  const failed = restarted.filter((outcome) => 'error' in outcome);
  const [first] = failed;
  if (first === undefined) return [];
  log.warn('Consumers of a rotated credential could not be restarted', { error: first.error });
  return [
    {
      reason: 'ConsumersNotRestarted',
      message: `${failed.length} workloads could not be restarted and may still use the value before: ${named(failed)}.`,
    },
  ];
}

/** As people name objects. */
function namesOf(objects: readonly { kind: string; metadata: ObjectMeta }[]): string[] {
  return objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
}
