import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../api/digest.ts';
import { canonicalJson, CanonicalError, type Json } from './canonical.ts';

describe('canonical JSON', () => {
  it('is as RFC 8785 has it', () => {
    // The example of its section 3.2.2 and 3.2.3, and its sorting test.
    const value: Json = {
      numbers: [
        Number('333333333.33333329'),
        1e30,
        4.5,
        2e-3,
        0.000_000_000_000_000_000_000_000_001,
      ],
      string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    };
    expect(canonicalJson(value)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    );
    const keys = {
      '\u20ac': 1,
      '\r': 2,
      '\ufb33': 3,
      '1': 4,
      '\ud83d\ude00': 5,
      '\u0080': 6,
      ö: 7,
    };
    expect([...canonicalJson(keys).matchAll(/:(\d)/g)].map(([, digit]) => digit).join('')).toBe(
      '2467153',
    );
  });

  it.each([[Number.NaN], [Infinity], ['\ud800']])('refuses what has no such form: %s', (value) => {
    expect(() => canonicalJson(value)).toThrow(CanonicalError);
  });

  it('does not depend on the order of fields, and says the same', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue()), (value) => {
        const turned = Object.fromEntries(Object.entries(value).toReversed());
        expect(digestOf(turned)).toBe(digestOf(value));
        const text = canonicalJson(JSON.parse(JSON.stringify(value)));
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});
