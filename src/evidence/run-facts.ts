import { digestOf } from '../api/digest.ts';
import { annotation } from '../api/names.ts';
import type { KubeObject, Pod } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import { referenceTo, draftOf, operator, type Place } from './drafts.ts';
import { hourOf, runScope, startScope, type Fact, type Observation } from './observation.ts';
import type { Actor } from './record.ts';

/** What is known where runs are told. */
export interface RunContext {
  /** Those that run as the Workflow; asked for only where a Job failed. */
  pods: () => readonly Pod[];
  place: Place;
  /** Whether each run is approved by itself: then none is only counted. */
  isPerRun: boolean;
  /** Whether somebody rejected the run of this UID. */
  isRejected: (uid: string) => boolean;
}

/** A run: a Job, or a pod that nothing controls. What isn't one gives no facts. */
export type Run = Workload | Pod;

/** That a run started, how it ended, and that it was not approved. */
export function runFacts(run: Run, context: RunContext): Fact[] {
  return [startFact(run, context), endFact(run, context), gateFact(run, context)].filter(
    (fact) => fact !== undefined,
  );
}

function startFact(run: Run, { place, isPerRun }: RunContext): Fact | undefined {
  const at = startOf(run);
  if (at === undefined) return undefined;
  return {
    subject: subjectOf(startScope, run),
    state: at,
    ...(!isPerRun && { foldInto: hourOf(at) }),
    draft: () =>
      draftOf(place, {
        action: isPerRun ? 'RunStarted' : 'RunsStarted',
        actor: actorOf(run),
        happened: at,
        ...(isPerRun && { objects: [referenceOf(run)], details: cronJobOf(run) }),
      }),
  };
}

function endFact(run: Run, { pods, place, isPerRun }: RunContext): Fact | undefined {
  const found = isJob(run) ? jobEnd(run, pods) : podEnd(run);
  if (found === undefined) return undefined;
  const { succeeded, at, reason, details } = found;
  const isFolded = succeeded && !isPerRun;
  const started = startOf(run);
  return {
    subject: subjectOf(runScope, run),
    state: at,
    ...(isFolded && { foldInto: hourOf(at) }),
    draft: () =>
      draftOf(place, {
        action: isFolded
          ? 'RunsSucceeded'
          : succeeded
            ? 'RunSucceeded'
            : reason === 'DeadlineExceeded'
              ? 'RunTimedOut'
              : 'RunFailed',
        outcome: succeeded ? 'Succeeded' : 'Failed',
        actor: actorOf(run),
        happened: at,
        ...(reason !== undefined && { reason }),
        // Of those there are many: they are counted.
        ...(!isFolded && {
          objects: [referenceOf(run)],
          details: { ...cronJobOf(run), ...(started !== undefined && { started }), ...details },
        }),
      }),
  };
}

/** What a Job says of its approval, as long as it may not start. */
function gateFact(run: Run, { place, isPerRun, isRejected }: RunContext): Fact | undefined {
  if (!isPerRun || !isJob(run) || !run.isPaused || run.finished) return undefined;
  const message = run.metadata.annotations?.[annotation.runRejected];
  if (message === undefined) return undefined;
  return {
    subject: subjectOf(gateScope, run),
    state: digestOf(message).slice(0, 16),
    draft: () =>
      draftOf(place, {
        action: isRejected(run.metadata.uid) ? 'RunRejected' : 'GateTimedOut',
        outcome: 'Observed',
        // Whoever may change a Job could have written that.
        actor: { ...operator, basis: 'asserted' },
        message,
        objects: [referenceOf(run)],
        details: cronJobOf(run),
      }),
  };
}

const gateScope = 'gate/';

/** @param runs all that are still there; others have nothing left to tell */
export function allRuns(runs: readonly Run[], context: RunContext): Observation[] {
  const facts = runs.flatMap((run) => runFacts(run, context));
  return [startScope, runScope, gateScope].map((scope) => ({
    scope,
    facts: facts.filter(({ subject }) => subject.startsWith(scope)),
  }));
}

/** A run of which nothing is left to tell. */
export function runGone(run: KubeObject): Observation {
  return {
    scope: [startScope, runScope, gateScope].map((scope) => subjectOf(scope, run)),
    facts: [],
  };
}

/**
 * That runs are missing in the counts.
 *
 * @param count starts and successes that were dropped, some of which may stand in the log
 * @param now milliseconds since the epoch
 */
export function droppedRunsFact(count: number, now: number): Fact {
  const at = new Date(now).toISOString();
  return {
    subject: 'runs-dropped',
    state: at,
    draft: () =>
      draftOf(
        {},
        {
          action: 'RunsDropped',
          outcome: 'Observed',
          happened: at,
          message:
            'Nothing could be written for so long that starts and successes of runs were dropped.',
          details: { count: String(count) },
        },
      ),
  };
}

/** Whether there is something to tell of a run, and something else than before. */
export function hasNews(run: Run, before: Run | undefined): boolean {
  const known = before === undefined ? [] : said(before);
  return said(run).some((part, index) => part !== known[index]);
}

/** Cheap: it is asked at each change of each pod of the cluster. */
function said(run: Run): readonly (string | undefined)[] {
  if (!isJob(run)) return isControlled(run) ? [] : [startOf(run), run.end?.at];
  const refused = run.isPaused ? run.metadata.annotations?.[annotation.runRejected] : undefined;
  return [startOf(run), run.end?.at, refused];
}

function subjectOf(scope: string, { metadata }: KubeObject): string {
  return `${scope}${(metadata.uid ?? '').replaceAll('-', '').slice(0, 16)}/`;
}

function isJob(run: Run): run is Workload {
  return 'isPaused' in run;
}

function referenceOf(run: Run): ReturnType<typeof referenceTo> {
  return referenceTo(isJob(run) ? resources.jobs : resources.pods, run);
}

function actorOf(run: Run): Actor {
  return { name: ownerOf(run) ?? run.metadata.name, basis: 'asserted' };
}

function cronJobOf(run: Run): Record<string, string> {
  const cronJob = isJob(run) ? ownerOf(run) : undefined;
  return cronJob === undefined ? {} : { cronJob };
}

function startOf(run: Run): string | undefined {
  if (isJob(run)) return run.kind === 'Job' ? run.startedAt : undefined;
  return isControlled(run) ? undefined : run.status?.startTime;
}

interface End {
  succeeded: boolean;
  at: string;
  reason?: string | undefined;
  details: Record<string, string>;
}

function jobEnd({ end, metadata }: Workload, pods: RunContext['pods']): End | undefined {
  if (end === undefined || end.at === '') return undefined;
  const own = (end.succeeded ? [] : pods()).filter(({ metadata: { ownerReferences = [] } }) =>
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
      ...(codes.length > 0 && { exitCodes: codes.slice(0, 16).join(', ') }),
      ...(reasons.length > 0 && { podReasons: reasons.join(', ') }),
    },
  };
}

function podEnd(pod: Pod): End | undefined {
  const { status, end } = pod;
  if (isControlled(pod) || end?.at === undefined) return undefined;
  const { exitCode, reason } = end;
  return {
    succeeded: status?.phase === 'Succeeded',
    at: end.at,
    reason: status?.reason ?? reason,
    details: exitCode === undefined ? {} : { exitCodes: String(exitCode) },
  };
}

function isControlled({ metadata }: KubeObject): boolean {
  return (metadata.ownerReferences ?? []).length > 0;
}

function ownerOf({ metadata }: KubeObject): string | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true)?.name;
}
