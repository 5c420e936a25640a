import { timestamp } from '../../api/conditions.ts';
import {
  countedLimits,
  countedMinutes,
  maxOutcomes,
  type Breach,
  type CountedLimit,
  type Ledger,
  type Limits,
} from '../../api/limits.ts';
import type { Workload } from '../../api/workload.ts';
import { advance } from './marks.ts';

/** A Job, as it is counted. */
export interface Run {
  uid: string;
  /** Milliseconds since the epoch. */
  createdAt: number;
  /** When (milliseconds since the epoch) and how it ended. */
  ended?: { at: number; failed: boolean };
  /** `Gone` was deleted, whatever had become of it. */
  state: 'UnderWay' | 'Suspended' | 'Over' | 'Gone';
}

/** A Job as a run. Total: a time that can't be read is long ago. */
export function runOf({ metadata, end, isPaused }: Workload, isGone = false): Run {
  const createdAt = Date.parse(metadata.creationTimestamp ?? '') || 0;
  return {
    uid: metadata.uid,
    createdAt,
    ...(end !== undefined && {
      ended: { failed: !end.succeeded, at: Date.parse(end.at) || createdAt },
    }),
    state: stateOf(isGone || metadata.deletionTimestamp !== undefined, end, isPaused),
  };
}

function stateOf(isGone: boolean, end: Workload['end'], isPaused: boolean): Run['state'] {
  if (isGone) return 'Gone';
  if (end !== undefined) return 'Over';
  return isPaused ? 'Suspended' : 'UnderWay';
}

export interface Observed {
  /** What was counted so far; `undefined` where nothing was. */
  ledger: Ledger | undefined;
  limits: Limits | undefined;
  /** All Jobs of the Workflow that exist, and those that went since the ledger was stored. */
  runs: readonly Run[];
  /** Milliseconds since the epoch. */
  now: number;
  /** A person says that the breach in the ledger is known, and why the automation may go on. */
  acknowledgement?: { by: string; reason: string } | undefined;
  /** The KillSwitch that stood for the breach in the ledger was released. */
  isReleased?: boolean;
}

export interface Counted {
  /** `undefined` where nothing is counted. */
  ledger: Ledger | undefined;
  /** Breaches that are new. */
  crossed: readonly Breach[];
  /** Milliseconds after which a number falls by itself, and a breach may end. */
  recheckAfterMs?: number;
}

const minuteMs = 60_000;

/**
 * Counts each run once, and says which limits are breached.
 *
 * A breach is a number above its limit, and stays: until it is acknowledged, until the KillSwitch
 * that stands for it is released, or, where the number can fall by itself, until that is below the
 * limit again. After the first two, counting begins anew.
 */
export function plan(observed: Observed): Counted {
  const { ledger: stored, limits, runs, now, acknowledgement, isReleased = false } = observed;
  const isCounting = countedLimits.some((limit) => limits?.[limit] !== undefined);
  const standing = stored?.breaches ?? [];
  if (!isCounting && standing.length === 0) return { ledger: undefined, crossed: [] };

  const counts = count(stored, runs, now);
  const isForgiven =
    standing.length > 0 && (isReleased || (acknowledgement !== undefined && !isKilled(stored)));
  const unfinished = runs.filter(({ state }) => state === 'UnderWay' || state === 'Suspended');
  const ledger = isForgiven ? forgiven(counts, unfinished.length) : counts;
  const tolerated = Math.min(ledger.tolerated ?? 0, unfinished.length);
  const outcomes = outcomesOf(ledger, limits);
  const numbers: Record<CountedLimit, number> = {
    maxConcurrentRuns: runs.filter(({ state }) => state === 'UnderWay').length,
    maxRunsPerHour: runsOfLastHour(ledger, now),
    maxConsecutiveFailures: ledger.consecutiveFailures,
    maxFailureRate: failuresIn(outcomes),
  };
  const kept = isForgiven
    ? []
    : standing.filter(({ limit }) => isKilled(stored) || lasts(limit, limits, numbers[limit]));
  const crossed = countedLimits.flatMap((limit): Breach[] => {
    if (kept.some((breach) => breach.limit === limit)) return [];
    if (limit === 'maxFailureRate') return rateBreach(outcomes, limits, now);
    const allowed = limits?.[limit];
    if (allowed === undefined) return [];
    const most = limit === 'maxConcurrentRuns' ? Math.max(allowed, tolerated) : allowed;
    const counted = numbers[limit];
    return counted > most ? [{ limit, allowed, counted, since: timestamp(now) }] : [];
  });
  const breaches = [...kept, ...crossed];
  if (!isCounting && breaches.length === 0) return { ledger: undefined, crossed: [] };
  const isTolerant = tolerated > (limits?.maxConcurrentRuns ?? Infinity);
  const { perMinute, consecutiveFailures, created, ended } = ledger;
  return {
    crossed,
    ledger: {
      ...(perMinute !== undefined && { perMinute }),
      consecutiveFailures,
      ...(outcomes !== '' && { outcomes }),
      ...(created !== undefined && { created }),
      ...(ended !== undefined && { ended }),
      ...(isTolerant && { tolerated }),
      ...(breaches.length > 0 && { breaches }),
      ...(!isForgiven && stored?.killSwitch !== undefined && { killSwitch: stored.killSwitch }),
      ...acknowledgedIn(observed, isForgiven, breaches),
    },
    ...(!isKilled(ledger) &&
      kept.some(({ limit }) => limit === 'maxRunsPerHour') && {
        recheckAfterMs: minuteMs - (now % minuteMs),
      }),
  };
}

/** A breach stands with its KillSwitch, whatever becomes of the numbers. */
function isKilled(ledger: Ledger | undefined): boolean {
  return ledger?.killSwitch !== undefined;
}

/** Failures are outweighed by successes, too; but nobody would have looked at them. */
function lasts(limit: CountedLimit, limits: Limits | undefined, number: number): boolean {
  if (limit === 'maxConsecutiveFailures' || limit === 'maxFailureRate') return true;
  const allowed = limits?.[limit];
  return allowed !== undefined && number >= allowed;
}

/** How the runs ended that a rate is of. */
function outcomesOf({ outcomes = '' }: Ledger, limits: Limits | undefined): string {
  const over = limits?.maxFailureRate?.over;
  return over === undefined ? '' : outcomes.slice(-over);
}

function failuresIn(outcomes: string): number {
  return outcomes.split('F').length - 1;
}

/** In whole numbers: no rounding decides. */
function rateBreach(outcomes: string, limits: Limits | undefined, now: number): Breach[] {
  const limit = limits?.maxFailureRate;
  if (limit === undefined || outcomes.length < limit.minRuns) return [];
  const failures = failuresIn(outcomes);
  if (failures * 100 <= limit.percent * outcomes.length) return [];
  return [
    {
      limit: 'maxFailureRate',
      allowed: limit.percent,
      counted: failures,
      of: outcomes.length,
      since: timestamp(now),
    },
  ];
}

/** The last acknowledgement; a new breach isn't acknowledged by it. */
function acknowledgedIn(
  { ledger, acknowledgement, isReleased = false, now }: Observed,
  isForgiven: boolean,
  breaches: readonly Breach[],
): Pick<Ledger, 'acknowledged'> {
  if (breaches.length > 0) return {};
  if (!isForgiven) {
    return ledger?.acknowledged === undefined ? {} : { acknowledged: ledger.acknowledged };
  }
  if (isReleased || acknowledgement === undefined) return {};
  return { acknowledged: { ...acknowledgement, time: timestamp(now) } };
}

/** What counts from now on: nothing that was. */
function forgiven({ created, ended }: Ledger, unfinished: number): Ledger {
  return {
    consecutiveFailures: 0,
    ...(created !== undefined && { created }),
    ...(ended !== undefined && { ended }),
    tolerated: unfinished,
  };
}

function count(stored: Ledger | undefined, runs: readonly Run[], now: number): Ledger {
  const created = advance(
    stored?.created,
    runs.map(({ uid, createdAt }) => ({ uid, at: createdAt })),
    now,
  );
  const ended = advance(
    stored?.ended,
    runs.flatMap(({ uid, ended: end }) => (end === undefined ? [] : [{ uid, ...end }])),
    now,
  );
  const perMinute = withCreated(
    stored?.perMinute,
    created.fresh.map(({ at }) => at),
    now,
  );
  const inOrder = ended.fresh.toSorted((a, b) => a.at - b.at || (a.uid < b.uid ? -1 : 1));
  return {
    ...stored,
    ...(perMinute !== undefined && { perMinute }),
    outcomes: (
      (stored?.outcomes ?? '') + inOrder.map(({ failed }) => (failed ? 'F' : 'S')).join('')
    )
      // Of a burst after which nobody has looked, what crossed the line is among these.
      .slice(-maxOutcomes),
    consecutiveFailures: inOrder.reduce(
      (failures, { failed }) => (failed ? failures + 1 : 0),
      stored?.consecutiveFailures ?? 0,
    ),
    created: created.mark,
    ended: ended.mark,
  };
}

type PerMinute = Ledger['perMinute'];

/** Minutes since the epoch, and the runs that were created in each. */
function readMinutes(perMinute: PerMinute): Map<number, number> {
  const from = Math.floor((Date.parse(perMinute?.from ?? '') || 0) / minuteMs);
  return new Map(
    (perMinute?.created ?? []).flatMap((runs, index) => (runs > 0 ? [[from + index, runs]] : [])),
  );
}

/**
 * The hour ends now, or with the newest run where the clock says that this is yet to come: a clock
 * that was set back must not count less, nor one that was set forth forget.
 */
function withCreated(perMinute: PerMinute, times: readonly number[], now: number): PerMinute {
  if (times.length === 0) return perMinute;
  const minutes = readMinutes(perMinute);
  const latest = Math.max(Math.floor(now / minuteMs), ...minutes.keys());
  for (const time of times) {
    const minute = Math.min(Math.floor(time / minuteMs), latest);
    minutes.set(minute, (minutes.get(minute) ?? 0) + 1);
  }
  const newest = Math.max(...minutes.keys());
  const hour = [...minutes.keys()].filter((minute) => minute > newest - countedMinutes);
  const from = Math.min(...hour);
  return {
    from: timestamp(from * minuteMs),
    created: Array.from(
      { length: newest - from + 1 },
      (_, index) => minutes.get(from + index) ?? 0,
    ),
  };
}

/** Runs that were created in this minute and the 59 before it. */
export function runsOfLastHour({ perMinute }: Pick<Ledger, 'perMinute'>, now: number): number {
  const oldest = Math.floor(now / minuteMs) - countedMinutes;
  let runs = 0;
  for (const [minute, created] of readMinutes(perMinute)) if (minute > oldest) runs += created;
  return runs;
}
