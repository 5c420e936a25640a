import { Resolver } from 'node:dns/promises';
import type { Logger } from '../../observability/logger.ts';
import {
  afterLookup,
  knownFrom,
  minRefreshMs,
  refreshAfterMs,
  resolvedOf,
  type Answer,
  type KnownHost,
  type Lookup,
} from './resolved-hosts.ts';
import type { ResolvedHost } from './rules.ts';

/** Asks for the addresses of a name in one family; none is an empty list. */
export type Ask = (host: string, family: 4 | 6) => Promise<readonly Answer[]>;

export interface HostResolverOptions {
  ask: Ask;
  /** Addresses of the cluster itself, which no name may lead to. */
  isRefused: (address: string) => boolean;
  logger: Logger;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

export interface HostView {
  /** `undefined` where no address is known (yet). */
  resolved: ResolvedHost | undefined;
  /** What is wrong, in words. */
  problem: string | undefined;
  /** It was never looked up. */
  isPending: boolean;
  /** Milliseconds from now at which to ask again. */
  dueMs: number;
}

interface Entry {
  known: KnownHost | undefined;
  isLookedUp: boolean;
  isUnderWay: boolean;
  /** Milliseconds since the epoch. */
  dueAt: number;
  askedAt: number;
}

/** Lookups in flight at a time; what is beyond waits for the next look. */
const parallelism = 16;
/** When to look again at what is under way or waits for its turn. */
const waitMs = 1_000;
/** Hosts that are followed; beyond, those go that nobody asked for lately, and new ones wait. */
const maxHosts = 10_000;
const forgetAfterMs = 15 * 60_000;
/** When to see whether there is room for a host that is one too many. */
const fullMs = 60_000;

/**
 * Follows the addresses of hosts, each host once, however many Workflows list it. Nobody waits for
 * a lookup: who asks gets what is known, and is told when that changes.
 */
export class HostResolver {
  readonly #options: HostResolverOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #listeners: ((host: string) => void)[] = [];
  #running = 0;
  /** Milliseconds since the epoch. */
  #madeRoomAt = -Infinity;

  constructor(options: HostResolverOptions) {
    this.#options = options;
  }

  /** Calls back when the addresses of a host, or what is wrong with it, are others than before. */
  onChange(listener: (host: string) => void): void {
    this.#listeners.push(listener);
  }

  /**
   * What is known of a host. Where it is time to, a lookup begins.
   *
   * @param before what was known when this process began; counts until it is looked up
   */
  look(host: string, before: ResolvedHost | undefined): HostView {
    const now = this.#options.clock();
    const entry = this.#entryOf(host, now);
    if (entry === undefined) {
      return {
        // Its addresses stay as policies have them: what ran yesterday still does.
        resolved: before,
        problem: `isn't looked up: too many hosts (${maxHosts} are followed in the cluster)`,
        isPending: false,
        dueMs: fullMs,
      };
    }
    entry.askedAt = now;
    if (!entry.isLookedUp && entry.known === undefined && before !== undefined) {
      entry.known = knownFrom(before, now);
    }
    if (!entry.isUnderWay && entry.dueAt <= now && this.#running < parallelism) {
      void this.#lookUp(host, entry);
    }
    return {
      resolved: entry.known && resolvedOf(entry.known),
      problem: entry.known?.problem,
      isPending: !entry.isLookedUp,
      dueMs: Math.max(entry.dueAt - now, waitMs),
    };
  }

  /** `undefined` where there is no room for one more. */
  #entryOf(host: string, now: number): Entry | undefined {
    const found = this.#entries.get(host);
    if (found !== undefined) return found;
    if (this.#entries.size >= maxHosts) this.#makeRoom(now);
    if (this.#entries.size >= maxHosts) return undefined;
    const entry = {
      known: undefined,
      isLookedUp: false,
      isUnderWay: false,
      dueAt: 0,
      askedAt: now,
    };
    this.#entries.set(host, entry);
    return entry;
  }

  /** Once a minute at most: it looks at every host, and each one too many asks for it. */
  #makeRoom(now: number): void {
    if (now - this.#madeRoomAt < fullMs) return;
    this.#madeRoomAt = now;
    for (const [name, { askedAt }] of this.#entries) {
      if (now - askedAt > forgetAfterMs) this.#entries.delete(name);
    }
  }

  async #lookUp(host: string, entry: Entry): Promise<void> {
    const { clock, isRefused, logger } = this.#options;
    entry.isUnderWay = true;
    this.#running += 1;
    try {
      const lookup = await this.#ask(host);
      const now = clock();
      const before = entry.known;
      const isFirst = !entry.isLookedUp;
      entry.known = afterLookup(before, lookup, isRefused, now);
      entry.isLookedUp = true;
      entry.dueAt = now + refreshAfterMs(lookup);
      const { since, problem } = entry.known;
      if (problem !== undefined && problem !== before?.problem) {
        logger.warn('Host can not be resolved', { host, problem });
      }
      if (isFirst || before?.since !== since || before.problem !== problem) {
        for (const listener of this.#listeners) listener(host);
      }
    } catch (error) {
      logger.error('Lookup failed', { host, error });
      entry.dueAt = clock() + minRefreshMs;
    } finally {
      entry.isUnderWay = false;
      this.#running -= 1;
    }
  }

  async #ask(host: string): Promise<Lookup> {
    const families = [4, 6] as const;
    const outcomes = await Promise.allSettled(
      families.map((family) => this.#options.ask(host, family)),
    );
    const failed = families.filter((_, index) => outcomes[index]?.status === 'rejected');
    const [reason] = outcomes.flatMap((outcome): unknown[] =>
      outcome.status === 'rejected' ? [outcome.reason] : [],
    );
    return {
      answers: outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? outcome.value : [])),
      failed,
      ...(reason !== undefined && { why: `can't be looked up (${codeOf(reason)})` }),
    };
  }
}

/** Answers that a server gave: there is no such name, or none of that family. */
const noAddress: ReadonlySet<string> = new Set(['ENODATA', 'ENOTFOUND']);

/**
 * Asks the DNS servers that the process has, by UDP and TCP.
 *
 * @param timeoutMs of one try; there are two
 */
export function askDns(timeoutMs = 2_000): Ask {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 2 });
  return async (host, family) => {
    try {
      return family === 4
        ? await resolver.resolve4(host, { ttl: true })
        : await resolver.resolve6(host, { ttl: true });
    } catch (error) {
      if (noAddress.has(codeOf(error))) return [];
      throw error;
    }
  };
}

function codeOf(error: unknown): string {
  const code: unknown =
    typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' ? code : 'no answer';
}
