import type { Fact, Observation } from './observation.ts';

/** Of each scope the last observation, and of each subject the last level, in order. */
export function latestOf(observations: readonly Observation[]): Observation[] {
  const last = new Map<string, Observation>();
  for (const observation of observations) {
    const { scope, facts } = observation;
    if (scope !== undefined) {
      const key = `scope ${[scope].flat().join(' ')}`;
      last.delete(key);
      last.set(key, observation);
      continue;
    }
    for (const fact of facts) {
      last.delete(fact.subject);
      last.set(fact.subject, { ...observation, facts: [fact] });
    }
  }
  return [...last.values()];
}

/** What waits, after some was let go. */
export interface Backlog {
  kept: Observation[];
  /** What no record will count. */
  dropped: Fact[];
}

/**
 * Lets the oldest runs go that would only be counted, as many as it takes for no more than `most`
 * observations to wait, and the end of what has nothing left to tell. Nothing else goes: more wait
 * where there aren't as many of those.
 */
export function withoutRuns(observations: readonly Observation[], most: number): Backlog {
  if (observations.length <= most) return { kept: [...observations], dropped: [] };
  const all = latestOf(observations);
  const dropped: Fact[] = [];
  let surplus = all.length - most;
  const kept = all.filter((observation) => {
    if (surplus <= 0 || !isExpendable(observation)) return true;
    surplus -= 1;
    dropped.push(...observation.facts);
    return false;
  });
  return { kept, dropped };
}

/** Whether nothing but a count is less without it. */
function isExpendable({ facts, scope, gone }: Observation): boolean {
  // Without a record, the chain only remembers for longer what doesn't stand any more.
  if (scope !== undefined) return facts.length === 0 && gone === undefined;
  return facts.every(({ foldInto }) => foldInto !== undefined);
}
