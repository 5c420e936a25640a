import { digestOf } from '../../api/digest.ts';
import { annotation } from '../../api/names.ts';
import type { NetworkPolicy } from '../../api/objects.ts';
import type { Entry, EgressRule } from './rules.ts';
import { asEgress, asIngress } from './rules.ts';

/*
 * When rules of a policy end: written down with the policy, since it outlives the Workflow whose
 * entries say it.
 */

/** Digests of rules by the time at which they end, RFC 3339. */
export type Expiries = Readonly<Record<string, readonly string[]>>;

type Direction = 'egress' | 'ingress';

/** Of one rule, long enough that no two of a policy have the same. */
function nameOf(direction: Direction, rule: EgressRule): string {
  return digestOf({ [direction]: rule }).slice(0, 16);
}

/**
 * Of the rules that a policy allows, in either direction, those that end.
 *
 * @param granted each entry with the rules that it stands for
 * @param always rules of egress that no entry has to list
 */
export function expiriesOf(
  granted: readonly { entry: Entry; direction: Direction; rules: readonly EgressRule[] }[],
  always: readonly EgressRule[],
): Expiries {
  const ends = new Map<string, string>();
  const lasting = new Set(always.map((rule) => nameOf('egress', rule)));
  for (const { entry, direction, rules } of granted) {
    for (const name of rules.map((rule) => nameOf(direction, rule))) {
      if (entry.expires === undefined) lasting.add(name);
      else if (Date.parse(entry.expires) >= Date.parse(ends.get(name) ?? entry.expires)) {
        ends.set(name, entry.expires);
      }
    }
  }
  const byTime = Map.groupBy(
    [...ends].filter(([name]) => !lasting.has(name)),
    ([, at]) => at,
  );
  return Object.fromEntries(
    [...byTime]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([at, some]) => [at, some.map(([name]) => name).toSorted()]),
  );
}

/** What a policy that nobody plans any more becomes as time goes on. */
export interface Aged {
  policy: NetworkPolicy;
  /** Some of its rules have ended. */
  isChanged: boolean;
  /** Milliseconds until the next one ends. */
  nextMs: number | undefined;
}

/** @param now milliseconds since the epoch */
export function withoutEnded(policy: NetworkPolicy, now: number): Aged {
  const times = expiriesIn(policy).map(([at, names]) => ({ ms: Date.parse(at), names }));
  const ended = new Set(times.flatMap(({ ms, names }) => (ms <= now ? names : [])));
  const next = times.flatMap(({ ms }) => (ms > now ? [ms - now] : []));
  const { egress = [], ingress = [] } = policy.spec;
  const left = {
    egress: egress.filter((rule) => !ended.has(nameOf('egress', rule))),
    ingress: asEgress(ingress).filter((rule) => !ended.has(nameOf('ingress', rule))),
  };
  return {
    policy: {
      ...policy,
      spec: { ...policy.spec, egress: left.egress, ingress: asIngress(left.ingress) },
    },
    isChanged: left.egress.length < egress.length || left.ingress.length < ingress.length,
    nextMs: next.length === 0 ? undefined : Math.min(...next),
  };
}

/** Total; what can't be read ends nothing, and the policy stays as it is. */
function expiriesIn({ metadata }: NetworkPolicy): [string, string[]][] {
  const text = metadata.annotations?.[annotation.egressExpiries];
  if (text === undefined) return [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return [];
  }
  if (typeof parsed !== 'object' || parsed === null) return [];
  return Object.entries(parsed).flatMap(([at, names]: [string, unknown]) =>
    Array.isArray(names) && !Number.isNaN(Date.parse(at))
      ? [[at, names.filter((name) => typeof name === 'string')]]
      : [],
  );
}
