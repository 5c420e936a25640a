import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64Forms, tokenMarks } from './token-marks.ts';

const encode = (text: string): string => Buffer.from(text).toString('base64');

describe('the base64 forms of a text', () => {
  it('find it wherever it stands', () => {
    const text = fc.string({ unit: 'binary-ascii' });
    fc.assert(
      fc.property(
        text,
        text,
        fc.constantFrom(...Object.values(tokenMarks)),
        (before, after, mark) => {
          const encoded = encode(before + mark + after);
          expect(base64Forms(mark).some((form) => encoded.includes(form))).toBe(true);
        },
      ),
    );
  });

  it('are those of no other mark, and too long to come about by chance', () => {
    const forms = Object.values(tokenMarks).flatMap(base64Forms);
    expect(new Set(forms).size).toBe(9);
    for (const form of forms) expect(form.length).toBeGreaterThanOrEqual(7);
    for (const [one, mark] of Object.entries(tokenMarks)) {
      for (const [other, foreign] of Object.entries(tokenMarks)) {
        const encoded = ['', 'x', 'xy'].map((before) => encode(`${before}${mark}0123456789`));
        const isFound = base64Forms(foreign).some((form) => encoded.some((e) => e.includes(form)));
        expect(isFound, `${one} and ${other}`).toBe(one === other);
      }
    }
  });
});
