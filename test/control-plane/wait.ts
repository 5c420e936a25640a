import { setTimeout as delay } from 'node:timers/promises';

export interface WaitOptions {
  /** Milliseconds until it gives up; default 30 s. */
  timeoutMs?: number;
  /** Milliseconds between two looks; default 50. */
  intervalMs?: number;
}

/**
 * Waits until `probe` answers something truthy, and returns it. An error that the probe throws
 * counts as "not yet".
 *
 * @throws Error that names `description` and the last answer or error when the time is up
 */
export async function waitFor<T>(
  description: string,
  probe: () => Promise<T> | T,
  { timeoutMs = 30_000, intervalMs = 50 }: WaitOptions = {},
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await probe();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`Gave up after ${timeoutMs} ms waiting for ${description}; last: ${seen}`);
    }
    await delay(intervalMs);
  }
}
