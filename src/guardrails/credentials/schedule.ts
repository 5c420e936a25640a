import { Cron } from 'croner';
import type { GeneratedSecret } from '../../api/automation-identity.ts';
import { parseDuration } from '../../api/duration.ts';

type Rotation = NonNullable<GeneratedSecret['rotation']>;

/** When a value is to be replaced, and for how long the one before it stays readable. */
export interface RotationSchedule {
  /** Milliseconds since the epoch; `undefined` where nothing is scheduled. */
  readonly nextAfter: (rotatedAt: number) => number | undefined;
  /** Milliseconds; 0 keeps no previous value. */
  readonly overlapMs: number;
  /** What of the rotation can't be read, and so doesn't happen. */
  readonly unreadable: readonly string[];
}

/** 9999-12-31T23:59:59Z: the last second that RFC 3339 can write. */
const endOfTime = 253_402_300_799_000;

/** Shorter would do nothing but rotate. */
const minEveryMs = 1000;

/** Compiles what a spec says of rotation; total, whatever its texts are. */
export function rotationSchedule({ every, schedule, overlap }: Rotation = {}): RotationSchedule {
  const unreadable: string[] = [];
  const everyMs = every === undefined ? undefined : parseDuration(every);
  if (every !== undefined && everyMs === undefined) unreadable.push('rotation.every');
  const cron = schedule === undefined ? undefined : parseCron(schedule);
  if (schedule !== undefined && cron === undefined) unreadable.push('rotation.schedule');
  const overlapMs = overlap === undefined ? 0 : parseDuration(overlap);
  if (overlapMs === undefined) unreadable.push('rotation.overlap');

  return {
    nextAfter: (rotatedAt) => {
      const times = [
        everyMs === undefined ? undefined : rotatedAt + Math.max(everyMs, minEveryMs),
        cron?.nextRun(new Date(rotatedAt))?.getTime(),
      ].filter((time) => time !== undefined);
      return times.length === 0 ? undefined : Math.min(...times, endOfTime);
    },
    overlapMs: Math.min(overlapMs ?? 0, endOfTime),
    unreadable,
  };
}

/** Five fields, UTC; one that never fires (30 February) counts as unreadable. */
function parseCron(expression: string): Cron | undefined {
  try {
    const cron = new Cron(expression, { timezone: 'UTC', mode: '5-part', paused: true });
    return cron.nextRun(new Date(0)) === null ? undefined : cron;
  } catch {
    return undefined;
  }
}
