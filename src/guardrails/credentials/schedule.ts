import { Cron } from 'croner';
import type { GeneratedSecret } from '../../api/automation-identity.ts';
import { parseDuration } from '../../api/duration.ts';

type Rotation = NonNullable<GeneratedSecret['rotation']>;

/** Why rotation isn't what the spec asks for. */
export interface RotationDefect {
  reason: 'RotationUnreadable' | 'RotationNeverDue' | 'OverlapTooLong';
  /** What is wrong with which field, to follow the name of the credential. */
  message: string;
}

/** When a value is to be replaced, and for how long the one before it stays readable. */
export interface RotationSchedule {
  /** Milliseconds since the epoch; `undefined` where nothing is scheduled. */
  readonly nextAfter: (rotatedAt: number) => number | undefined;
  /** Milliseconds; 0 keeps no previous value. */
  readonly overlapMs: number;
  readonly defects: readonly RotationDefect[];
}

/** 9999-12-31T23:59:59Z: the last second that RFC 3339 can write. */
const endOfTime = 253_402_300_799_000;

/** Shorter would do nothing but rotate. */
const minEveryMs = 1000;

/** Occurrences of a schedule among which the shortest time between two is looked for. */
const sampledOccurrences = 16;

/** The longest time by which a rotation is moved to spread those of many identities. */
const maxSpreadMs = 30 * 60_000;

/**
 * Compiles what a spec says of rotation; total, whatever its texts are.
 *
 * @param spread from 0 to below 1: the part of the possible delay that this one has. `every` is a
 *   promise that no value is older, so such a rotation comes earlier; `schedule` may begin a time
 *   window, so such a one comes later.
 */
export function rotationSchedule(
  { every, schedule, timeZone, overlap }: Rotation = {},
  spread = 0,
): RotationSchedule {
  const everyMs = every === undefined ? undefined : parseDuration(every);
  const cron = schedule === undefined ? undefined : parseCron(schedule, timeZone);
  const overlapMs = overlap === undefined ? 0 : parseDuration(overlap);
  const defects: RotationDefect[] = [
    ...(every !== undefined && everyMs === undefined ? [unreadable('every')] : []),
    ...(cron !== undefined && 'defect' in cron ? [cron.defect] : []),
    ...(overlapMs === undefined ? [unreadable('overlap')] : []),
  ];
  const times = cron !== undefined && 'cron' in cron ? cron.cron : undefined;
  if (times !== undefined && overlapMs !== undefined && overlapMs > 0) {
    if (overlapMs >= shortestPeriod(times)) defects.push(overlapTooLong);
  }

  const period = everyMs === undefined ? undefined : periodOf(everyMs, overlapMs ?? 0, spread);
  return {
    nextAfter: (rotatedAt) => {
      const next = [
        period === undefined ? undefined : rotatedAt + period,
        times === undefined ? undefined : occurrenceAfter(times, rotatedAt, spread),
      ].filter((time) => time !== undefined);
      return next.length === 0 ? undefined : Math.min(...next, endOfTime);
    },
    overlapMs: Math.min(overlapMs ?? 0, endOfTime),
    defects,
  };
}

/** Never so short that the next rotation cuts an overlap off. */
function periodOf(everyMs: number, overlapMs: number, spread: number): number {
  const every = Math.max(everyMs, minEveryMs);
  const most = Math.min(every / 10, (every - overlapMs) / 2, maxSpreadMs);
  return every - Math.floor(Math.max(0, most) * spread);
}

/** Never so late that it comes near the next one. */
function occurrenceAfter(cron: Cron, time: number, spread: number): number | undefined {
  const [next, following] = cron.nextRuns(2, new Date(time)).map((run) => run.getTime());
  if (next === undefined) return undefined;
  const most = Math.min(((following ?? endOfTime) - next) / 10, maxSpreadMs);
  return next + Math.floor(most * spread);
}

const overlapTooLong: RotationDefect = {
  reason: 'OverlapTooLong',
  message:
    'rotation.overlap is not shorter than the time between two occurrences of rotation.schedule, so the previous value is replaced before it is over',
};

function unreadable(field: 'every' | 'schedule' | 'timeZone' | 'overlap'): RotationDefect {
  return { reason: 'RotationUnreadable', message: `rotation.${field} can't be read` };
}

/** Five fields; a time that clocks skip comes after the gap, and one that they repeat once. */
function parseCron(
  expression: string,
  timeZone = 'UTC',
): { cron: Cron } | { defect: RotationDefect } {
  try {
    // oxlint-disable-next-line eslint/no-new -- throws for what isn't a time zone
    new Intl.DateTimeFormat('en', { timeZone });
  } catch {
    return { defect: unreadable('timeZone') };
  }
  try {
    const cron = new Cron(expression, { timezone: timeZone, mode: '5-part', paused: true });
    if (cron.nextRun(new Date(0)) !== null) return { cron };
  } catch {
    return { defect: unreadable('schedule') };
  }
  return {
    defect: {
      reason: 'RotationNeverDue',
      message: 'no date fits rotation.schedule, such as 31 February',
    },
  };
}

function shortestPeriod(cron: Cron): number {
  const times = cron.nextRuns(sampledOccurrences, new Date(0)).map((time) => time.getTime());
  return Math.min(...times.slice(1).map((time, index) => time - (times[index] ?? 0)));
}
