import type { KubeObject, Pod } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import { referenceTo, draftOf, type Place } from './drafts.ts';
import { hourOf, runScope, type Fact, type Observation } from './observation.ts';

/** A Job that ended, or a pod that nothing controls. */
export function runFact(run: Workload | Pod, pods: readonly Pod[], place: Place): Fact | undefined {
  const found = 'kind' in run && 'isPaused' in run ? jobRun(run, pods) : podRun(run);
  if (found === undefined) return undefined;
  const { succeeded, at, reason, details } = found;
  const isJob = 'isPaused' in run;
  return {
    subject: runSubject(run),
    state: at,
    ...(succeeded && { foldInto: hourOf(at) }),
    draft: () =>
      draftOf(place, {
        action: succeeded
          ? 'RunsSucceeded'
          : reason === 'DeadlineExceeded'
            ? 'RunTimedOut'
            : 'RunFailed',
        outcome: succeeded ? 'Succeeded' : 'Failed',
        actor: {
          name: isJob ? (ownerOf(run) ?? run.metadata.name) : run.metadata.name,
          basis: 'asserted',
        },
        happened: at,
        ...(reason !== undefined && { reason }),
        // Of successes there are many: they are counted.
        ...(!succeeded && {
          objects: [referenceTo(isJob ? resources.jobs : resources.pods, run)],
          details,
        }),
      }),
  };
}

/** @param runs all that are still there */
export function runFacts(runs: readonly Fact[]): Observation {
  return { scope: runScope, facts: runs };
}

/** A run of which nothing is left to count. */
export function runGone(run: KubeObject): Observation {
  return { scope: runSubject(run), facts: [] };
}

function runSubject({ metadata }: KubeObject): string {
  return `${runScope}${(metadata.uid ?? '').replaceAll('-', '').slice(0, 16)}/`;
}

interface Run {
  succeeded: boolean;
  at: string;
  reason?: string | undefined;
  details: Record<string, string>;
}

function jobRun({ end, metadata, ...job }: Workload, pods: readonly Pod[]): Run | undefined {
  if (end === undefined || end.at === '') return undefined;
  const own = pods.filter(({ metadata: { ownerReferences = [] } }) =>
    ownerReferences.some(({ uid }) => uid === metadata.uid),
  );
  const failed = own.filter(({ end: of }) => (of?.exitCode ?? 0) !== 0);
  const codes = failed.flatMap(({ end: of }) => of?.exitCode ?? []);
  const reasons = [...new Set(failed.flatMap(({ end: of }) => of?.reason ?? []))];
  return {
    succeeded: end.succeeded,
    at: end.at,
    reason: end.reason,
    details: {
      ...(ownerOf({ metadata, ...job }) !== undefined && {
        cronJob: ownerOf({ metadata, ...job }) ?? '',
      }),
      ...(end.startedAt !== undefined && { started: end.startedAt }),
      ...(codes.length > 0 && { exitCodes: codes.slice(0, 16).join(', ') }),
      ...(reasons.length > 0 && { podReasons: reasons.join(', ') }),
    },
  };
}

function podRun({ metadata, status, end }: Pod): Run | undefined {
  const isControlled = (metadata.ownerReferences ?? []).length > 0;
  if (isControlled || end?.at === undefined) return undefined;
  const { exitCode, reason } = end;
  return {
    succeeded: status?.phase === 'Succeeded',
    at: end.at,
    reason: status?.reason ?? reason,
    details: exitCode === undefined ? {} : { exitCodes: String(exitCode) },
  };
}

function ownerOf({ metadata }: KubeObject): string | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true)?.name;
}
