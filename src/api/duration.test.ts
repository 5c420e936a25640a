import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { durationMaxLength, formatDuration, parseDuration } from './duration.ts';

describe('parseDuration', () => {
  it.each([
    ['24h', 86_400_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['90s', 90_000],
    ['100ms', 100],
    ['1.5s', 1500],
    ['250us', 0.25],
    ['250µs', 0.25],
    ['250μs', 0.25],
    ['5ns', 0.000005],
    ['1m1h', 3_660_000],
    ['0s', 0],
    ['1.1h', 3_960_000],
    ['99999h', 359_996_400_000],
  ])('reads %s', (text, milliseconds) => {
    expect(parseDuration(text)).toBe(milliseconds);
  });

  it.each([
    '',
    '0',
    '5',
    'h',
    '1d',
    '1 h',
    ' 1h',
    '1h ',
    '1h\n',
    '-1h',
    '+1h',
    '1.h',
    '.5h',
    '1,5h',
    '1H',
    '100000h',
    'PT1H',
    '1h30',
    '٣h',
  ])('refuses %j', (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it('refuses a text longer than the CRD takes', () => {
    const text = '1h'.repeat(durationMaxLength / 2);
    expect(parseDuration(text)).toBeDefined();
    expect(parseDuration(`${text}1h`)).toBeUndefined();
  });

  it('never reaches the limit of an int64 of nanoseconds, beyond which Go refuses', () => {
    const component = fc.constantFrom('99999h', '9999999m', '999999999s', '999999999.999999999s');
    fc.assert(
      fc.property(fc.array(component, { minLength: 1, maxLength: 8 }), (components) => {
        const milliseconds = parseDuration(components.join(''));
        expect(milliseconds ?? 0).toBeLessThan(2 ** 63 / 1e6);
      }),
    );
  });

  it('is total', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(['number', 'undefined']).toContain(typeof parseDuration(text));
      }),
    );
  });
});

describe('formatDuration', () => {
  it.each([
    [86_400_000, '24h'],
    [5_400_000, '1h30m'],
    [90_000, '1m30s'],
    [1500, '1.5s'],
    [100, '100ms'],
    [0.25, '250us'],
    [0.000005, '5ns'],
    [61_000.5, '1m1.0005s'],
    [0, '0s'],
    [-5, '0s'],
    [NaN, '0s'],
  ])('writes %d ms as %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });

  it('writes what parseDuration reads back', () => {
    const wholeMilliseconds = fc.integer({ min: 0, max: 99_999 * 3_600_000 });
    const nanoseconds = fc.integer({ min: 0, max: 10 ** 12 }).map((count) => count / 1e6);
    fc.assert(
      fc.property(fc.oneof(wholeMilliseconds, nanoseconds), (milliseconds) => {
        expect(parseDuration(formatDuration(milliseconds))).toBeCloseTo(milliseconds, 6);
      }),
    );
  });
});
