import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { waitFor, WaitTimeoutError } from './wait.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});

afterEach(() => {
  vi.useRealTimers();
});

const never = new Promise<boolean>(() => undefined);

/** What a wait of 10 s fails with. */
async function failureOf(probe: () => unknown): Promise<unknown> {
  const failure = waitFor('the light', probe, { timeoutMs: 10_000 }).catch(
    (error: unknown) => error,
  );
  await vi.advanceTimersByTimeAsync(11_000);
  return failure;
}

describe('waitFor', () => {
  it('asks until the answer is truthy, and answers with that', async () => {
    const answers = [undefined, 0, '', 'green'];
    const light = waitFor('the light', () => answers.shift());
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await light).toBe('green');
  });

  it('tells the last answer when time is over', async () => {
    const failure = await failureOf(() => 0);
    expect(failure).toBeInstanceOf(WaitTimeoutError);
    expect(failure).toMatchObject({ message: 'waited 10 s for the light; last answer: 0' });
  });

  it('tells the last error when time is over, and has it as its cause', async () => {
    const cause = new Error('it is red');
    const failure = await failureOf(() => Promise.reject(cause));
    expect(failure).toMatchObject({
      message: 'waited 10 s for the light; last error: it is red',
      cause,
    });
  });

  it('tells the last error also where the look after it was cut off', async () => {
    const looks: Promise<unknown>[] = [Promise.reject(new Error('it is red')), never];
    const failure = await failureOf(() => looks.shift());
    expect(failure).toMatchObject({
      message:
        'waited 10 s for the light; the last look did not end in time; last error: it is red',
    });
  });

  it('says that no look ended where none did', async () => {
    expect(await failureOf(() => never)).toMatchObject({
      message: 'waited 10 s for the light; the last look did not end in time',
    });
  });

  it('ends with the reason of its signal', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const failure = waitFor('the light', () => never, { signal }).catch((error: unknown) => error);
    const reason = new Error('somebody else knows');
    controller.abort(reason);
    expect(await failure).toBe(reason);
  });
});
