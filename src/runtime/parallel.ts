import { messageOf } from './errors.ts';

/** What became of one item: its result, or the error that its task threw. */
export type Outcome<T, R> = { item: T; result: R } | { item: T; error: unknown };

/**
 * Runs `task` for every item, at most `limit` at a time. One failure stops nothing: each item's
 * outcome is in the answer, in the order of the items.
 */
export async function forEachBounded<T, R>(
  items: readonly T[],
  limit: number,
  task: (item: T) => Promise<R>,
): Promise<Outcome<T, R>[]> {
  const outcomes: Outcome<T, R>[] = [];
  const next = items.entries();
  const lane = async (): Promise<void> => {
    for (const [index, item] of next) {
      try {
        outcomes[index] = { item, result: await task(item) };
      } catch (error) {
        outcomes[index] = { item, error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  return outcomes;
}

/**
 * Throws what went wrong, if anything did: the one error, or an AggregateError.
 *
 * @throws the error of the failed items
 */
export function assertAllDone(outcomes: readonly Outcome<unknown, unknown>[], what: string): void {
  const errors = outcomes.flatMap((outcome) => ('error' in outcome ? [outcome.error] : []));
  if (errors.length === 0) return;
  if (errors.length === 1) throw errors[0];
  const [first] = errors;
  throw new AggregateError(
    errors.slice(0, 10),
    `${errors.length} of ${outcomes.length} failed: ${what}: ${messageOf(first)}`,
  );
}
