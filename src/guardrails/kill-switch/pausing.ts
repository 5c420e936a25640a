import { annotation, FIELD_MANAGER, stoppedSelector } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import {
  pauses,
  projectWorkload,
  workloadResources,
  type Workload,
  type WorkloadKind,
} from '../../api/workload.ts';
import type { JsonPatchOperation, KubeClient } from '../../runtime/client.ts';
import { ApiError, isConflict, isNotFound } from '../../runtime/errors.ts';
import { pointer } from '../../runtime/json-patch.ts';
import {
  freezeNonce,
  isPausable,
  isThawNonce,
  isToBeTouched,
  thawNonce,
  type Restore,
} from './plan.ts';

/** What became of a workload that was to be paused. */
export interface Paused {
  /** What the API server stores by now. */
  stored: KubeObject;
  /** With `managedFields` that tell who set the field by which it is paused, before that. */
  found: KubeObject;
}

/** How a workload is paused, and how its value comes back. */
export interface Pausing {
  /**
   * Pauses a workload, and keeps what its owner asked for in its annotations.
   *
   * @returns `undefined` where the workload is gone
   */
  pause(
    killSwitch: KillSwitch,
    workload: Workload,
    signal: AbortSignal,
  ): Promise<Paused | undefined>;
  /**
   * The write that puts the value back, to be sent with a `test` of the restore annotation. The
   * annotations stay until the answer shows that it did.
   */
  resume(
    killSwitch: KillSwitch,
    workload: Workload,
    restore: Restore,
    signal: AbortSignal,
  ): Promise<JsonPatchOperation[]>;
}

/**
 * The operator touches, and admission writes the value: so the field stays with its owner. The
 * touch carries no resourceVersion: nobody's competing write can make it lose.
 */
export function pausingByAdmission(client: KubeClient): Pausing {
  return {
    async pause(killSwitch, { kind, metadata: { namespace, name } }, signal) {
      const patch = { metadata: { annotations: { [annotation.touch]: freezeNonce(killSwitch) } } };
      try {
        const stored = await client.mergePatch(
          workloadResources[kind],
          { namespace, name },
          patch,
          { signal },
        );
        // Admission leaves the field with who owns it.
        return { stored, found: stored };
      } catch (error) {
        if (isNotFound(error)) return undefined;
        throw error;
      }
    },
    resume: async (killSwitch, workload) => [
      {
        op: 'add',
        path: pointer('metadata', 'annotations', annotation.touch),
        value: thawNonce(killSwitch, workload),
      },
    ],
  };
}

/**
 * Where admission rewrites nothing, the operator writes restore annotation and paused value itself,
 * in one request. It tests what it read instead of naming a resourceVersion: only a write of the
 * same field can get in between, and then the newer value is what is kept.
 */
export function pausingByPatch(client: KubeClient): Pausing {
  return {
    async pause(killSwitch, workload, signal) {
      const { kind } = workload;
      const { namespace, name, uid } = workload.metadata;
      const key = { namespace, name };
      for (let attempt = 1; ; attempt++) {
        const live = await client.get(workloadResources[kind], key, { signal });
        // Another one of that name is a change of its own, and comes by itself.
        if (live === undefined || live.metadata.uid !== uid) return undefined;
        const current = projectWorkload(kind, live);
        if (!isPausable(current)) {
          return isToBeTouched(killSwitch, current)
            ? pausingByAdmission(client).pause(killSwitch, current, signal)
            : { stored: live, found: live };
        }
        try {
          const operations = pauseOperations(killSwitch, kind, live);
          const stored = await client.jsonPatch(workloadResources[kind], key, operations, {
            signal,
          });
          return { stored, found: live };
        } catch (error) {
          if (isNotFound(error)) return undefined;
          if (attempt === maxAttempts || !(isConflict(error) || isTestFailed(error))) throw error;
        }
      }
    },
    resume: async (_, { kind }, { text }) => resumeOperations(kind, text),
  };
}

/** Each one is lost to somebody's write of the very same field. */
const maxAttempts = 5;

/** Admission's refusals are 403; a `test` that fails is answered with 422. */
function isTestFailed(error: unknown): boolean {
  return error instanceof ApiError && error.status === 422;
}

/** Which of two ways is taken, as the API server turns out to work. */
export interface AdaptiveOptions {
  byAdmission: Pausing;
  byPatch: Pausing;
  mutation: {
    readonly isInForce: boolean | undefined;
    ask(signal: AbortSignal): Promise<boolean | undefined>;
  };
}

/**
 * By admission where it rewrites, else by patch. A touch that is refused or changes nothing raises
 * the question again: policies come and go while the operator runs.
 */
export function adaptivePausing({ byAdmission, byPatch, mutation }: AdaptiveOptions): Pausing {
  return {
    async pause(killSwitch, workload, signal) {
      if (mutation.isInForce === false) return byPatch.pause(killSwitch, workload, signal);
      let outcome: { paused: Paused } | { error: unknown };
      try {
        const paused = await byAdmission.pause(killSwitch, workload, signal);
        if (paused === undefined) return undefined;
        if (!isPausable(projectWorkload(workload.kind, paused.stored))) return paused;
        outcome = { paused };
      } catch (error) {
        outcome = { error };
      }
      if ((await mutation.ask(signal)) === false) {
        return byPatch.pause(killSwitch, workload, signal);
      }
      if ('error' in outcome) throw outcome.error;
      return outcome.paused;
    },
    async resume(killSwitch, workload, restore, signal) {
      const isUnanswered = isThawNonce(
        killSwitch,
        workload.metadata.annotations?.[annotation.touch],
      );
      const isInForce = isUnanswered ? await mutation.ask(signal) : mutation.isInForce;
      const pausing = isInForce === false ? byPatch : byAdmission;
      return pausing.resume(killSwitch, workload, restore, signal);
    },
  };
}

interface RawWorkload extends KubeObject {
  spec?: {
    replicas?: number;
    suspend?: boolean;
    template?: { spec?: { nodeSelector?: Record<string, string> } };
  };
}

function pauseOperations(
  killSwitch: KillSwitch,
  kind: WorkloadKind,
  { metadata, spec = {} }: RawWorkload,
): JsonPatchOperation[] {
  const { restore } = pauses[kind];
  const kept = { [annotation.touch]: freezeNonce(killSwitch) };
  const uid: JsonPatchOperation = { op: 'test', path: '/metadata/uid', value: metadata.uid };
  switch (restore) {
    case annotation.restoreReplicas: {
      const { replicas = 1 } = spec;
      return [
        uid,
        { op: 'test', path: '/spec/replicas', value: replicas },
        { op: 'replace', path: '/spec/replicas', value: 0 },
        ...annotate(metadata, { ...kept, [restore]: String(replicas) }),
      ];
    }
    case annotation.restoreSuspend:
      return [
        uid,
        { op: 'test', path: '/spec/suspend', value: spec.suspend ?? false },
        { op: 'replace', path: '/spec/suspend', value: true },
        ...annotate(metadata, { ...kept, [restore]: 'false' }),
      ];
    default: {
      const nodeSelector = spec.template?.spec?.nodeSelector;
      return [
        uid,
        // The value `null` tests that there is none.
        { op: 'test', path: selectorPath, value: nodeSelector ?? null },
        { op: 'add', path: selectorPath, value: { ...nodeSelector, [stoppedSelector]: 'true' } },
        ...annotate(metadata, { ...kept, [restore]: 'false' }),
      ];
    }
  }
}

const selectorPath = '/spec/template/spec/nodeSelector';
const stoppedPath = `${selectorPath}${pointer(stoppedSelector)}`;

function annotate(
  { annotations }: KubeObject['metadata'],
  added: Record<string, string>,
): JsonPatchOperation[] {
  if (annotations === undefined) {
    return [
      { op: 'test', path: '/metadata/annotations', value: null },
      { op: 'add', path: '/metadata/annotations', value: added },
    ];
  }
  return Object.entries(added).map(([name, value]) => ({
    op: 'add',
    path: pointer('metadata', 'annotations', name),
    value,
  }));
}

function resumeOperations(kind: WorkloadKind, text: string): JsonPatchOperation[] {
  switch (pauses[kind].restore) {
    case annotation.restoreReplicas:
      return [
        { op: 'test', path: '/spec/replicas', value: 0 },
        { op: 'replace', path: '/spec/replicas', value: Number(text) },
      ];
    case annotation.restoreSuspend:
      return [
        { op: 'test', path: '/spec/suspend', value: true },
        { op: 'replace', path: '/spec/suspend', value: text === 'true' },
      ];
    default:
      return [
        { op: 'test', path: stoppedPath, value: 'true' },
        { op: 'remove', path: stoppedPath },
      ];
  }
}

/**
 * Gives up what the operator owns of an object: who writes a field owns it, and the next server-side
 * apply of its real owner would meet a conflict. The fields then belong to nobody.
 *
 * @param stored as the API server answered last
 * @param owns whether an entry of `managedFields` is one to give up; default: each of ours
 */
export function disownOperations(
  { metadata: { managedFields = [] } }: KubeObject,
  owns: (fields: unknown) => boolean = () => true,
): JsonPatchOperation[] {
  const path = '/metadata/managedFields';
  const ours = managedFields.flatMap(({ manager, operation, subresource = '', fieldsV1 }, index) =>
    manager === FIELD_MANAGER && operation === 'Update' && subresource === '' && owns(fieldsV1)
      ? [index]
      : [],
  );
  // Their order changes with every write: what goes is what was seen.
  const tests = ours.map((index): JsonPatchOperation => ({
    op: 'test',
    path: `${path}/${index}`,
    value: managedFields[index],
  }));
  // An empty list means "as before", one with an empty entry means none.
  if (ours.length > 0 && ours.length === managedFields.length) {
    return [...tests, { op: 'replace', path, value: [{}] }];
  }
  const removals = ours
    .toReversed()
    .map((index): JsonPatchOperation => ({ op: 'remove', path: `${path}/${index}` }));
  return [...tests, ...removals];
}
