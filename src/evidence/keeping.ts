import { aborted } from '../runtime/aborted.ts';
import { dropOldest } from '../runtime/bounded-map.ts';

export interface KeepingOptions {
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** Ends when one answer has been waited for long enough; after two seconds by default. */
  patience?: () => Promise<void>;
}

/**
 * What waits until something stands in the log, and for how long it does. An answer comes within two
 * seconds, so that a log that hangs keeps nobody from other work; who asks again meets the same
 * write. What can't be written is waited for half a minute, and no longer.
 */
export class Keeping {
  readonly #options: KeepingOptions;
  readonly #waiting = new Map<string, Waiting>();

  constructor(options: KeepingOptions) {
    this.#options = options;
  }

  /**
   * @param key of what waits
   * @param write whether it is written now; never rejects
   * @returns whether it may go on
   */
  async mayGoOn(key: string, write: () => Promise<boolean>): Promise<boolean> {
    const { clock, patience = twoSeconds } = this.#options;
    const waiting = this.#waitingOf(key);
    waiting.writing ??= write().finally(() => (waiting.writing = undefined));
    const isWritten = await Promise.race([waiting.writing, patience().then(() => false)]);
    if (isWritten) this.#waiting.delete(key);
    return isWritten || clock() - waiting.since >= longestMs;
  }

  /** What wasn't asked for any more, such as a release that was withdrawn, begins anew. */
  #waitingOf(key: string): Waiting {
    const now = this.#options.clock();
    const known = this.#waiting.get(key);
    const isGoingOn = known !== undefined && now - known.asked < longestMs;
    const waiting = isGoingOn ? known : { since: now, asked: now, writing: undefined };
    waiting.asked = now;
    this.#waiting.delete(key);
    this.#waiting.set(key, waiting);
    dropOldest(this.#waiting, mostWaiting);
    return waiting;
  }
}

/** Times in milliseconds since the epoch. */
interface Waiting {
  /** When it was first asked for. */
  since: number;
  /** When it was last asked for. */
  asked: number;
  writing: Promise<boolean> | undefined;
}

const longestMs = 30_000;
/** Far more than wait at a time. */
const mostWaiting = 10_000;

function twoSeconds(): Promise<void> {
  return aborted(AbortSignal.timeout(2_000));
}
