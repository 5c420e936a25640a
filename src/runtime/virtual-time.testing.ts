import { setImmediate } from 'node:timers/promises';
import type { Timers } from './work-queue.ts';

interface Pending {
  at: number;
  callback: () => void;
}

/** Time that passes only when a test says so, in milliseconds from 0. */
export class VirtualTime implements Timers {
  #now = 0;
  readonly #pending = new Set<Pending>();

  now(): number {
    return this.#now;
  }

  /** Timers that are set. */
  get pending(): number {
    return this.#pending.size;
  }

  set(callback: () => void, delayMs: number): () => void {
    const timer = { at: this.#now + Math.max(0, delayMs), callback };
    this.#pending.add(timer);
    return () => this.#pending.delete(timer);
  }

  /**
   * Fires what is due within that time, in its order; between two timers, all that follows from the
   * first happens.
   *
   * @param observe called after each of them
   */
  async advance(milliseconds: number, observe: () => void = () => undefined): Promise<void> {
    const until = this.#now + milliseconds;
    await settle();
    for (;;) {
      const next = this.#next();
      if (next === undefined || next.at > until) break;
      this.#pending.delete(next);
      this.#now = next.at;
      observe();
      next.callback();
      await settle();
      observe();
    }
    this.#now = until;
    observe();
  }

  /** Advances until the promise has settled. @returns its result, and the time that it took */
  async until<T>(promise: Promise<T>): Promise<{ result: T; tookMs: number }> {
    const started = this.#now;
    const state = { isOver: false };
    const over = (): boolean => (state.isOver = true);
    promise.then(over, over);
    await settle();
    while (!state.isOver) {
      const next = this.#next();
      if (next === undefined) throw new Error('It waits for something that never happens');
      await this.advance(next.at - this.#now);
    }
    return { result: await promise, tookMs: this.#now - started };
  }

  #next(): Pending | undefined {
    let first: Pending | undefined;
    for (const timer of this.#pending) if (timer.at < (first?.at ?? Infinity)) first = timer;
    return first;
  }
}

/** What one thing after another may take of turns of the event loop. */
const turns = 20;

/** Everything has happened that needs no timer. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await setImmediate();
}
