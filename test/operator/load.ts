import { setTimeout as delay } from 'node:timers/promises';

export interface LoadOptions {
  /** Calls begun a second; fewer where `inFlight` of them don't end in time. */
  perSecond: number;
  /** Calls at a time; default 32. */
  inFlight?: number;
  /** @param index from 0 */
  call: (index: number) => Promise<unknown>;
}

/** Calls something at a steady rate until it is stopped. */
export class Load {
  /** Calls that ended, and those among them that failed. */
  ended = 0;
  failed = 0;
  readonly #options: LoadOptions;
  readonly #end = new AbortController();
  readonly #startedAt = performance.now();
  readonly #running: Promise<void>;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** Calls that ended, for each second so far. */
  get rate(): number {
    return this.ended / ((performance.now() - this.#startedAt) / 1000);
  }

  /** Begins no more calls, and waits for those under way. */
  async stop(): Promise<void> {
    this.#end.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { perSecond, inFlight = 32, call } = this.#options;
    const underWay = new Set<Promise<void>>();
    for (let index = 0; !this.#end.signal.aborted; index++) {
      const due = this.#startedAt + (index / perSecond) * 1000;
      const early = due - performance.now();
      if (early > 1) {
        await delay(early, undefined, { signal: this.#end.signal }).catch(() => undefined);
      }
      if (underWay.size >= inFlight) await Promise.race(underWay);
      const one = this.#one(call(index)).finally(() => underWay.delete(one));
      underWay.add(one);
    }
    await Promise.all(underWay);
  }

  async #one(call: Promise<unknown>): Promise<void> {
    try {
      await call;
    } catch {
      this.failed++;
    } finally {
      this.ended++;
    }
  }
}
