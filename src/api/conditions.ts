import type { Condition } from './objects.ts';

/** What a controller found to be true of an object now; the transition time is derived. */
export type Finding = Omit<Condition, 'lastTransitionTime' | 'observedGeneration'>;

/**
 * The conditions that an object should carry: exactly `findings`, in their order, each with the
 * time at which its status last changed (RFC 3339, whole seconds, as `metav1.Time`).
 *
 * @param now milliseconds since the epoch
 */
export function conditionsFrom(
  findings: readonly Finding[],
  previous: readonly Condition[] | undefined,
  generation: number | undefined,
  now: number,
): Condition[] {
  return findings.map((finding) => {
    const before = conditionOf(previous, finding.type);
    return {
      ...finding,
      lastTransitionTime:
        before?.status === finding.status ? before.lastTransitionTime : timestamp(now),
      ...(generation !== undefined && { observedGeneration: generation }),
    };
  });
}

/** The condition of that type. */
export function conditionOf(
  conditions: readonly Condition[] | undefined,
  type: string,
): Condition | undefined {
  return conditions?.find((condition) => condition.type === type);
}

/** Whether a condition of that type stands at `True`. */
export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditionOf(conditions, type)?.status === 'True';
}

/** RFC 3339 in UTC with whole seconds, as the API server writes `metav1.Time`. */
export function timestamp(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}
