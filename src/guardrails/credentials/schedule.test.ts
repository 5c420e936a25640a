import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rotationSchedule } from './schedule.ts';

const at = (text: string): number => Date.parse(text);

describe('rotationSchedule', () => {
  it.each<{ rotation: Parameters<typeof rotationSchedule>[0]; next: string | undefined }>([
    { rotation: undefined, next: undefined },
    { rotation: {}, next: undefined },
    { rotation: { every: '24h' }, next: '2026-03-29T00:30:00Z' },
    { rotation: { every: '1h30m' }, next: '2026-03-28T02:00:00Z' },
    { rotation: { schedule: '0 3 * * *' }, next: '2026-03-28T03:00:00Z' },
    // The night in which European clocks skip 02:30: UTC has it all the same.
    { rotation: { schedule: '30 2 29 3 *' }, next: '2026-03-29T02:30:00Z' },
    { rotation: { schedule: '30 0 * * *' }, next: '2026-03-29T00:30:00Z' },
    { rotation: { schedule: '*/5 * * * SUN' }, next: '2026-03-29T00:00:00Z' },
    { rotation: { schedule: '0 3 * * *', timeZone: 'Asia/Kolkata' }, next: '2026-03-28T21:30:00Z' },
    // Of European clocks: after the gap of that night.
    {
      rotation: { schedule: '30 2 29 3 *', timeZone: 'Europe/Berlin' },
      next: '2026-03-29T01:00:00Z',
    },
  ])('$rotation after 00:30 comes at $next', ({ rotation, next }) => {
    const { nextAfter, defects } = rotationSchedule(rotation);
    expect(defects).toEqual([]);
    expect(nextAfter(at('2026-03-28T00:30:00Z'))).toBe(next && at(next));
  });

  it.each<{ rotation: Parameters<typeof rotationSchedule>[0]; says: [string, string][] }>([
    { rotation: { every: 'daily' }, says: [['RotationUnreadable', 'rotation.every']] },
    { rotation: { schedule: '61 * * * *' }, says: [['RotationUnreadable', 'rotation.schedule']] },
    { rotation: { schedule: '0 0 5-3 * *' }, says: [['RotationUnreadable', 'rotation.schedule']] },
    { rotation: { schedule: '* * * * * *' }, says: [['RotationUnreadable', 'rotation.schedule']] },
    {
      rotation: { every: '1h', overlap: '1 hour' },
      says: [['RotationUnreadable', 'rotation.overlap']],
    },
    {
      rotation: { schedule: '0 3 * * *', timeZone: 'Europe/Atlantis' },
      says: [['RotationUnreadable', 'rotation.timeZone']],
    },
    { rotation: { schedule: '0 0 31 2 *' }, says: [['RotationNeverDue', 'no date fits']] },
    { rotation: { schedule: '0 0 31 4,6,9,11 *' }, says: [['RotationNeverDue', 'no date fits']] },
    {
      rotation: { schedule: '*/30 * * * *', overlap: '30m' },
      says: [['OverlapTooLong', 'not shorter than']],
    },
    {
      rotation: { schedule: '0 8,9 * * MON', overlap: '2h' },
      says: [['OverlapTooLong', 'not shorter than']],
    },
  ])('says what is wrong with $rotation', ({ rotation, says }) => {
    const { defects, nextAfter } = rotationSchedule(rotation);
    expect(defects.map(({ reason }) => reason)).toEqual(says.map(([reason]) => reason));
    says.forEach(([, text], index) => expect(defects[index]?.message).toContain(text));
    const hasNone = defects.some(({ message }) => /schedule|timeZone/.test(message));
    if (hasNone && says[0]?.[0] !== 'OverlapTooLong') expect(nextAfter(0)).toBeUndefined();
  });

  it('takes an overlap that is shorter than any time between two occurrences', () => {
    expect(rotationSchedule({ schedule: '*/30 * * * *', overlap: '29m' }).defects).toEqual([]);
    expect(rotationSchedule({ schedule: '0 0 29 2 *', overlap: '1000h' }).defects).toEqual([]);
  });

  it('comes once a day in every time zone, whatever clocks do, and however late it is seen', () => {
    const zones = fc.constantFrom(
      'UTC',
      'Europe/Berlin',
      'America/New_York',
      // By half an hour.
      'Australia/Lord_Howe',
      // At midnight.
      'America/Santiago',
      'Africa/Cairo',
      'Asia/Kolkata',
      // Of which one year has no 30 December.
      'Pacific/Apia',
    );
    const starts = fc.constantFrom('2026-01-01T00:00:00Z', '2011-06-01T00:00:00Z');
    const time = fc.tuple(fc.integer({ min: 0, max: 23 }), fc.integer({ min: 0, max: 59 }));
    const delays = fc.array(fc.integer({ min: 0, max: 20 * 3_600_000 }), { minLength: 1 });
    fc.assert(
      fc.property(zones, starts, time, delays, (timeZone, start, [hour, minute], late) => {
        const schedule = `${minute} ${hour} * * *`;
        const { nextAfter } = rotationSchedule({ schedule, timeZone });
        const day = new Intl.DateTimeFormat('en-CA', { timeZone, dateStyle: 'short' });
        let rotatedAt = at(start);
        const seen: string[] = [];
        for (let count = 0; count < 380; count++) {
          const next = nextAfter(rotatedAt) ?? 0;
          expect(next).toBeGreaterThan(rotatedAt);
          seen.push(day.format(next));
          rotatedAt = next + (late[count % late.length] ?? 0);
        }
        expect(new Set(seen).size).toBe(seen.length);
        // No day between the first and the last is left out, but for one that there wasn't.
        const days = (at(seen.at(-1) ?? '') - at(seen[0] ?? '')) / 86_400_000 + 1;
        expect(days - seen.length).toBe(
          timeZone === 'Pacific/Apia' && start.startsWith('2011') ? 1 : 0,
        );
      }),
      { numRuns: 30 },
    );
  });

  it('spreads identities: `every` earlier, a schedule later, by a tenth or half an hour', () => {
    const midnight = at('2026-03-28T00:00:00Z');
    const next = (rotation: Parameters<typeof rotationSchedule>[0], spread: number): string =>
      new Date(rotationSchedule(rotation, spread).nextAfter(midnight) ?? 0).toISOString();
    expect(next({ every: '24h' }, 0.5)).toBe('2026-03-28T23:45:00.000Z');
    expect(next({ every: '1h' }, 0.5)).toBe('2026-03-28T00:57:00.000Z');
    // The overlap isn't cut off.
    expect(next({ every: '1h', overlap: '59m' }, 0.5)).toBe('2026-03-28T00:59:45.000Z');
    expect(next({ schedule: '0 3 * * *' }, 0.5)).toBe('2026-03-28T03:15:00.000Z');
    expect(next({ schedule: '*/5 * * * *' }, 0.5)).toBe('2026-03-28T00:05:15.000Z');
  });

  it('comes once for each occurrence, whatever the spread', () => {
    const rotations = fc.constantFrom(
      { schedule: '*/7 * * * *' },
      { schedule: '0,1 3 * * *' },
      { schedule: '30 2 * * *', timeZone: 'Europe/Berlin' },
    );
    const spreads = fc.double({ min: 0, max: 0.999, noNaN: true });
    fc.assert(
      fc.property(rotations, spreads, (rotation, spread) => {
        const exact = rotationSchedule(rotation);
        const spreadOut = rotationSchedule(rotation, spread);
        let [occurrence, rotatedAt] = [at('2026-03-27T00:00:00Z'), at('2026-03-27T00:00:00Z')];
        for (let count = 0; count < 20; count++) {
          occurrence = exact.nextAfter(occurrence) ?? 0;
          rotatedAt = spreadOut.nextAfter(rotatedAt) ?? 0;
          expect(rotatedAt).toBeGreaterThanOrEqual(occurrence);
          expect(rotatedAt).toBeLessThan(exact.nextAfter(occurrence) ?? 0);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('is total', () => {
    const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9*/, -]{1,20}$/));
    fc.assert(
      fc.property(
        text,
        text,
        text,
        text,
        fc.integer(),
        (every, schedule, timeZone, overlap, rotatedAt) => {
          const { nextAfter, overlapMs } = rotationSchedule({ every, schedule, timeZone, overlap });
          const next = nextAfter(rotatedAt);
          expect(next === undefined || next > rotatedAt).toBe(true);
          expect(overlapMs).toBeGreaterThanOrEqual(0);
        },
      ),
    );
  });
});
