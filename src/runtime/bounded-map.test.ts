import { describe, expect, it } from 'vitest';
import { dropOldest } from './bounded-map.ts';

describe('a map that is bounded', () => {
  it('keeps everything up to the bound', () => {
    const map = new Map([
      ['a', 1],
      ['b', 2],
    ]);
    dropOldest(map, 2);
    expect([...map.keys()]).toEqual(['a', 'b']);
  });

  it('forgets what was set first, however much is over the bound', () => {
    const map = new Map(['a', 'b', 'c', 'd'].map((key, index) => [key, index]));
    dropOldest(map, 2);
    expect([...map.keys()]).toEqual(['c', 'd']);
    dropOldest(map, 0);
    expect(map.size).toBe(0);
  });

  it('takes a key as the newest only where it was deleted before it was set again', () => {
    const map = new Map([
      ['a', 1],
      ['b', 1],
      ['c', 1],
    ]);
    map.set('a', 2);
    map.delete('b');
    map.set('b', 2);
    dropOldest(map, 2);
    expect([...map.keys()]).toEqual(['c', 'b']);
  });
});
