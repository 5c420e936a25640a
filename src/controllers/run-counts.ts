import { keyOf } from '../api/objects.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import type { RunEvent, RunTally } from '../observability/run-tally.ts';
import type { Change, Informer } from '../runtime/list-watch.ts';

/** What a change of a Job says of its run. What is told by the first list is from before. */
export function runEvents(
  { type, object, previous }: Change<Workload>,
  { isFirstList }: { isFirstList: boolean },
): RunEvent[] {
  if (isFirstList || type === 'deleted' || object.kind !== 'Job') return [];
  const isBegun = !object.isPaused && (previous === undefined || previous.isPaused);
  const { end } = object;
  const isOver = end !== undefined && previous?.end === undefined;
  return [
    // One that is suspended while it ends has begun before.
    ...(isBegun && previous?.end === undefined ? (['started'] as const) : []),
    ...(isOver ? [end.succeeded ? ('succeeded' as const) : ('failed' as const)] : []),
  ];
}

/** Counts the runs of Workflows. Every replica does: one that doesn't lead sees the same. */
export function countRuns(
  {
    workflows,
    workloads,
  }: { workflows: Informer<Workflow>; workloads: readonly Informer<Workload>[] },
  tally: RunTally,
): void {
  workflows.onChange(({ type, object }) => {
    if (type === 'deleted') tally.forget(keyOf(object));
    else tally.know(keyOf(object), object.spec?.owner);
  });
  for (const cache of workloads) {
    cache.onChange((change) => {
      const { metadata, serviceAccountName } = change.object;
      const automation = `${metadata.namespace}/${serviceAccountName}`;
      if (workflows.store.get(automation) === undefined) return;
      for (const event of runEvents(change, { isFirstList: !cache.hasSynced })) {
        tally.add(automation, event);
      }
    });
  }
}
