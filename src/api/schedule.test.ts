import { Cron } from 'croner';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { schedulePattern } from './schedule.ts';

const pattern = new RegExp(schedulePattern);

describe('schedulePattern', () => {
  it.each([
    '0 3 * * *',
    '*/15 * * * *',
    '0 3 * * SUN',
    '0 8-18/2 * * MON-FRI',
    '5,35 0 1,15 JAN-JUN 0',
    '0  3   * *  7',
    '59 23 31 12 6',
  ])('takes %s', (text) => {
    expect(text).toMatch(pattern);
  });

  it.each([
    '',
    '* * * *',
    '* * * * * *',
    '60 * * * *',
    '* 24 * * *',
    '* * 0 * *',
    '* * 32 * *',
    '* * * 13 *',
    '* * * * 8',
    '*/0 * * * *',
    '*/60 * * * *',
    '0 0 * */13 *',
    '5/15 * * * *',
    '@daily',
    ' 0 3 * * *',
    '0 3 * * *\n',
    '0 3 * * FUN',
    '0 3 L * *',
    '0 3 * * 1#2',
    'every day',
  ])('refuses %j', (text) => {
    expect(text).not.toMatch(pattern);
  });

  it('takes nothing that croner does not understand, except ranges that run backwards', () => {
    const expression = fc
      .tuple(
        values(0, 59),
        values(0, 23),
        values(1, 31),
        values(1, 12, ['JAN', 'MAY', 'DEC']),
        values(0, 7, ['SUN', 'FRI']),
      )
      .map((fields) => fields.join(' '));
    fc.assert(
      fc.property(expression, (text) => {
        expect(text).toMatch(pattern);
        expect(() => new Cron(text, { mode: '5-part', paused: true })).not.toThrow();
      }),
    );
  });
});

/** What may stand in a field whose values go from `min` to `max`. */
function values(min: number, max: number, names: readonly string[] = []): fc.Arbitrary<string> {
  const value = fc.integer({ min, max });
  const range = fc.tuple(value, value).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`);
  const step = fc.integer({ min: 1, max });
  return fc.oneof(
    fc.constant('*'),
    value.map(String),
    ...(names.length === 0 ? [] : [fc.constantFrom(...names)]),
    range,
    fc.tuple(fc.oneof(fc.constant('*'), range), step).map(([of, by]) => `${of}/${by}`),
    fc.tuple(value, range).map((items) => items.join(',')),
  );
}
