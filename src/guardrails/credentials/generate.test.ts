import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { generateValue } from './generate.ts';

const secret = (type: 'Password' | 'Token', length?: number) => ({
  name: 'erp',
  type,
  ...(length !== undefined && { length }),
});

/** Repeatable pseudo-random bytes (mulberry32). */
function seededBytes(): (size: number) => Uint8Array {
  let state = 1;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) & 0xff;
  };
  return (size) => Uint8Array.from({ length: size }, next);
}

function stuckBytes(size: number): Uint8Array {
  return new Uint8Array(size).fill(255);
}

describe('generateValue', () => {
  it.each(['Password', 'Token'] as const)(
    'makes a %s of 32 characters, or as long as asked',
    (type) => {
      expect(generateValue(secret(type), randomBytes)).toHaveLength(32);
      for (const length of [16, 17, 43, 256]) {
        expect(generateValue(secret(type, length), randomBytes)).toHaveLength(length);
      }
    },
  );

  it.each([
    ['Password', /^[A-Za-z0-9._~-]+$/],
    ['Token', /^[A-Za-z0-9_-]+$/],
  ] as const)('makes a %s of characters that need no escaping', (type, characters) => {
    for (let round = 0; round < 50; round++) {
      expect(generateValue(secret(type), randomBytes)).toMatch(characters);
    }
  });

  it.each([
    ['Password', 66],
    ['Token', 64],
  ] as const)('uses every character of a %s equally often', (type, size) => {
    const source = seededBytes();
    const counts = new Map<string, number>();
    for (let round = 0; round < 1000; round++) {
      for (const character of generateValue(secret(type, 256), source)) {
        counts.set(character, (counts.get(character) ?? 0) + 1);
      }
    }
    expect(counts.size).toBe(size);
    const frequencies = [...counts.values()];
    // Taking the remainder of a byte alone would make it 4 to 3.
    expect(Math.max(...frequencies) / Math.min(...frequencies)).toBeLessThan(1.2);
  });

  it('ends when the random source is broken', () => {
    expect(() => generateValue(secret('Password'), stuckBytes)).toThrow('random source');
  });
});
