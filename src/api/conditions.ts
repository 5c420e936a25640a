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
    const before = previous?.find(({ type }) => type === finding.type);
    return {
      ...finding,
      lastTransitionTime:
        before?.status === finding.status ? before.lastTransitionTime : timestamp(now),
      ...(generation !== undefined && { observedGeneration: generation }),
    };
  });
}

/** Whether a condition of that type stands at `True`. */
export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return (
    conditions?.some((condition) => condition.type === type && condition.status === 'True') ?? false
  );
}

/** RFC 3339 in UTC with whole seconds, as the API server writes `metav1.Time`. */
export function timestamp(milliseconds: number): string {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}
