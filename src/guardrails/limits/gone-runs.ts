import type { Workload } from '../../api/workload.ts';
import { dropOldest } from '../../runtime/bounded-map.ts';
import { runOf, type Run } from './plan.ts';

/** Deleted Jobs that are remembered, of all Workflows together. */
const maxRuns = 5_000;

/**
 * Jobs that were deleted, and perhaps before anybody has counted them: one that has no time to live
 * after its end is gone within milliseconds. The oldest are forgotten first.
 */
export class GoneRuns {
  /** By UID, in the order in which they went. */
  readonly #runs = new Map<string, { key: string; run: Run }>();

  /** @param job as it was last */
  add(job: Workload): void {
    const { namespace, uid } = job.metadata;
    this.#runs.delete(uid);
    this.#runs.set(uid, {
      key: `${namespace}/${job.serviceAccountName}`,
      run: runOf(job, true),
    });
    dropOldest(this.#runs, maxRuns);
  }

  /** @param key `namespace/name` of the Workflow */
  of(key: string): Run[] {
    return [...this.#runs.values()].flatMap(({ key: of, run }) => (of === key ? [run] : []));
  }

  /** What is stored as counted. */
  forget(runs: readonly Run[]): void {
    for (const { uid, state } of runs) if (state === 'Gone') this.#runs.delete(uid);
  }
}
