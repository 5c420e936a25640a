import { createHash } from 'node:crypto';
import type { AutomationIdentity, GeneratedSecret } from '../../api/automation-identity.ts';
import { parseDuration } from '../../api/duration.ts';
import { annotation } from '../../api/names.ts';
import type { KubeObject, ObjectMeta, PodTemplate, Secret } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import {
  defaultHookMinutes,
  defaultHookRetries,
  type RotationHook,
} from '../../api/rotation-hook.ts';
import type { Workload } from '../../api/workload.ts';
import { isControlledBy } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isAlreadyExists } from '../../runtime/errors.ts';
import type { IndexedStore } from '../../runtime/merged-store.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import type { Problem } from '../requirements.ts';
import type { HookStep, Pending } from './pending.ts';

/** What has become of the Job of a step. */
export type HookRun =
  | { state: 'Absent' | 'Running' | 'Succeeded' }
  | { state: 'Failed'; reason: string };

/** A Job of a hook that has ended stays for so long, for whoever reads its logs. */
const keptMs = 24 * 3_600_000;

/** Of a Job that doesn't say why it failed. */
const unnamed = 'Failed';

/** Requests in flight at a time, for one identity. */
const parallelism = 8;

/**
 * Name of the Job of a step. The same value, step and attempt always have the same one: whoever
 * comes after a crash finds the Job that is there, and none runs twice.
 */
export function hookJobName(
  { metadata }: Secret,
  { identity, credential }: { identity: string; credential: string },
  { rotation, attempt }: Pending,
  step: HookStep,
): string {
  const id = createHash('sha256')
    .update(JSON.stringify([metadata.uid, rotation, attempt, step]))
    .digest('hex')
    .slice(0, 10);
  const whose = `${identity}-${credential}`.slice(0, 44).replace(/-+$/, '');
  return `${whose}-${step.toLowerCase()}-${id}`;
}

/** How long the next attempt waits after so many that failed: ten minutes, and ever longer. */
export function hookRetryMs(attempt: number): number {
  return Math.min(10 * 60_000 * 2 ** (attempt - 1), 6 * 3_600_000);
}

/** The CronJob that a step's Job is made of; `undefined` where the hook has no such step. */
function cronJobOf(hook: RotationHook, step: HookStep): string | undefined {
  return step === 'Set' ? hook.set : hook.test;
}

/** A Job of a hook that is to be there. */
export interface HookRequest {
  identity: AutomationIdentity;
  credential: GeneratedSecret;
  hook: RotationHook;
  step: HookStep;
  /** Its name, labels and controller. */
  metadata: ObjectMeta;
  signal: AbortSignal;
}

interface CronJob extends KubeObject {
  spec?: {
    suspend?: boolean;
    jobTemplate?: { spec?: { template?: PodTemplate } };
  };
}

export interface HookRunnerOptions {
  client: KubeClient;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Makes the Jobs of hooks, sees what becomes of them, and clears them away. */
export class HookRunner {
  readonly #options: HookRunnerOptions;

  constructor(options: HookRunnerOptions) {
    this.#options = options;
  }

  /** What has become of the Job of that name, as far as it is the identity's. */
  runOf(identity: AutomationIdentity, name: string): HookRun {
    const job = this.#jobsOf(identity).find(({ metadata }) => metadata.name === name);
    if (job === undefined) return { state: 'Absent' };
    if (job.end === undefined) return { state: 'Running' };
    if (job.end.succeeded) return { state: 'Succeeded' };
    const { reason = unnamed } = job.end;
    return { state: 'Failed', reason };
  }

  /**
   * Makes the Job of a step from the CronJob that the spec names. Its pods have that template and
   * nothing else, so that whoever approved the template approved what runs here.
   *
   * @returns why there can't be one now
   * @throws ApiError where the API server refuses the Job, or for what a retry may cure
   */
  async start(request: HookRequest): Promise<Problem | undefined> {
    const { identity, credential, hook, step, metadata, signal } = request;
    const { client } = this.#options;
    const { namespace = '', name: identityName } = identity.metadata;
    const name = cronJobOf(hook, step) ?? '';
    const found: CronJob | undefined = await client.get(
      resources.cronJobs,
      { namespace, name },
      { signal },
    );
    const template = found?.spec?.jobTemplate?.spec?.template;
    const why =
      found === undefined || template === undefined
        ? "doesn't exist"
        : template.spec?.serviceAccountName !== identityName
          ? `doesn't run as ${identityName}: write serviceAccountName: ${identityName} in its pod template`
          : found.spec?.suspend === true
            ? undefined
            : 'would run by its schedule as well: write suspend: true';
    if (why !== undefined) {
      return {
        reason: 'RotationHookUnusable',
        message: `Credential ${credential.name} waits for its hook: the CronJob ${name} ${why}.`,
      };
    }
    const seconds = Math.ceil((hookTimeoutMs(hook) ?? 0) / 1000);
    const job = {
      metadata: { ...metadata, annotations: { [annotation.rotationHook]: step } },
      spec: {
        activeDeadlineSeconds: Math.max(seconds, 1),
        backoffLimit: hook.maxRetries ?? defaultHookRetries,
        template,
      },
    };
    try {
      await client.create(resources.jobs, job, { signal });
      return undefined;
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const key = { namespace, name: metadata.name };
      const live = await client.get(resources.jobs, key, { metadataOnly: true, signal });
      // Ours from before a crash, that the cache doesn't show yet; or gone again.
      if (live === undefined || isControlledBy(live, identity)) return undefined;
      return {
        reason: 'RotationHookUnusable',
        message: `Credential ${credential.name} waits for its hook: somebody else has a Job ${metadata.name}. Delete it.`,
      };
    }
  }

  /**
   * Deletes the identity's Jobs of hooks that nobody waits for: of values that are gone, and of
   * those that ended a day ago.
   *
   * @param expected names of Jobs that somebody waits for
   * @throws ApiError for what a retry may cure
   */
  async tidy(
    identity: AutomationIdentity,
    expected: ReadonlySet<string>,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, clock } = this.#options;
    const stale = this.#jobsOf(identity).filter(
      ({ metadata, end }) =>
        !expected.has(metadata.name) &&
        metadata.deletionTimestamp === undefined &&
        (end === undefined || !(Date.parse(end.at) + keptMs > clock())),
    );
    const outcomes = await forEachBounded(
      stale,
      parallelism,
      async ({ metadata: { namespace, name, uid } }) => {
        const options = { uid, propagationPolicy: 'Background', signal } as const;
        await client.delete(resources.jobs, { namespace, name }, options);
      },
    );
    assertAllDone(outcomes, 'delete Jobs of hooks');
  }

  #jobsOf(identity: AutomationIdentity): Workload[] {
    const { namespace = '', name } = identity.metadata;
    return this.#options.workloads
      .byIndex('identity', `${namespace}/${name}`)
      .filter(
        (workload) =>
          workload.kind === 'Job' &&
          workload.metadata.annotations?.[annotation.rotationHook] !== undefined &&
          isControlledBy(workload, identity),
      );
  }
}

/** Milliseconds; one that can't be read is the default. */
function hookTimeoutMs({ timeout }: RotationHook): number {
  const asked = timeout === undefined ? undefined : parseDuration(timeout);
  return asked ?? defaultHookMinutes * 60_000;
}
