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
  ])('$rotation after 00:30 comes at $next', ({ rotation, next }) => {
    const { nextAfter, unreadable } = rotationSchedule(rotation);
    expect(unreadable).toEqual([]);
    expect(nextAfter(at('2026-03-28T00:30:00Z'))).toBe(next && at(next));
  });

  it.each<{ rotation: Parameters<typeof rotationSchedule>[0]; unreadable: string[] }>([
    { rotation: { every: 'daily' }, unreadable: ['rotation.every'] },
    { rotation: { schedule: '61 * * * *' }, unreadable: ['rotation.schedule'] },
    { rotation: { schedule: '0 0 30 2 *' }, unreadable: ['rotation.schedule'] },
    { rotation: { schedule: '0 0 5-3 * *' }, unreadable: ['rotation.schedule'] },
    { rotation: { schedule: '* * * * * *' }, unreadable: ['rotation.schedule'] },
    { rotation: { every: '1h', overlap: '1 hour' }, unreadable: ['rotation.overlap'] },
  ])('says what of $rotation it can’t read', ({ rotation, unreadable }) => {
    expect(rotationSchedule(rotation).unreadable).toEqual(unreadable);
  });

  it('is total', () => {
    const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9*/, -]{1,20}$/));
    fc.assert(
      fc.property(text, text, text, fc.integer(), (every, schedule, overlap, rotatedAt) => {
        const { nextAfter, overlapMs } = rotationSchedule({ every, schedule, overlap });
        const next = nextAfter(rotatedAt);
        expect(next === undefined || next > rotatedAt).toBe(true);
        expect(overlapMs).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});
