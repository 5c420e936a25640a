import { setImmediate } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { Keeping } from './keeping.ts';

const second = 1_000;

let now: number;
let keeping: Keeping;

beforeEach(() => {
  now = 0;
  keeping = new Keeping({ clock: () => now, patience: () => setImmediate() });
});

/** A log that hangs. */
const never = (): Promise<boolean> => new Promise(() => undefined);
const no = (): Promise<boolean> => Promise.resolve(false);

describe('what waits for the log', () => {
  it('goes on at once when it is written', async () => {
    const patient = new Keeping({ clock: () => now, patience: () => new Promise(() => undefined) });
    expect(await patient.mayGoOn('a', () => Promise.resolve(true))).toBe(true);
  });

  it.each([
    ['hangs', never],
    ['fails', no],
  ])('goes on after half a minute of a log that %s, and not before', async (_, write) => {
    for (; now < 30 * second; now += 5 * second) {
      expect(await keeping.mayGoOn('a', write)).toBe(false);
    }
    expect(await keeping.mayGoOn('a', write)).toBe(true);
    // Nor does what failed once it went on.
    expect(await keeping.mayGoOn('a', write)).toBe(true);
    expect(await keeping.mayGoOn('b', write)).toBe(false);
  });

  it('meets the write that is under way', async () => {
    let writes = 0;
    let end = (_isWritten: boolean): void => undefined;
    const write = (): Promise<boolean> => {
      writes++;
      return new Promise((resolve) => (end = resolve));
    };
    expect(await keeping.mayGoOn('a', write)).toBe(false);
    expect(await keeping.mayGoOn('a', write)).toBe(false);
    expect(writes).toBe(1);
    end(false);
    await setImmediate();
    expect(await keeping.mayGoOn('a', write)).toBe(false);
    expect(writes).toBe(2);
  });

  it('waits anew when it comes back later', async () => {
    await keeping.mayGoOn('a', no);
    now = 3_600 * second;
    expect(await keeping.mayGoOn('a', no)).toBe(false);
    now += 5 * second;
    expect(await keeping.mayGoOn('a', () => Promise.resolve(true))).toBe(true);
    now += 26 * second;
    expect(await keeping.mayGoOn('a', no)).toBe(false);
  });
});
