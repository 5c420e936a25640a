import { setTimeout as delay } from 'node:timers/promises';
import { label } from '../api/names.ts';
import type { ConfigMap } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type { KubeClient } from '../runtime/client.ts';
import { isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import { canonicalJson, sha256 } from './canonical.ts';
import type { ChainName, SignedHead } from './head.ts';
import type { Anchor } from './verify.ts';

export interface AnchorsOptions {
  client: Pick<KubeClient, 'list' | 'create' | 'mergePatch' | 'delete'>;
  logger: Logger;
  /** The operator's. */
  namespace: string;
  /** How long anchors are kept; milliseconds. */
  retentionMs: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Heads are written down when no new one has come for so long … */
const quietMs = 1_500;
/** … and at the latest after so long. */
const everyMs = 60_000;
/** After a failure. */
const retryMs = 10_000;
const tickMs = 500;

/** ConfigMaps of one day: thousands of heads don't fit into one. */
const shards = 8;
const prefix = 'evidence-anchors-';
const value = 'anchors';

/**
 * Writes signed heads down outside of their chains: in a ConfigMap of the day, and in the log
 * stream, which the platform takes out of the cluster. Who rolls a chain back has to roll those
 * back, too.
 */
export class Anchors {
  readonly #options: AnchorsOptions;
  /** Heads that aren't written down yet, the last of each chain. */
  readonly #waiting = new Map<string, Anchor>();
  /** When the first and the last of those came; milliseconds since the epoch. */
  #firstAt = 0;
  #lastAt = 0;
  #retryAt = 0;

  constructor(options: AnchorsOptions) {
    this.#options = options;
  }

  note(name: ChainName, head: SignedHead): void {
    const { chain, incarnation } = name;
    this.#lastAt = this.#options.clock();
    if (this.#waiting.size === 0) this.#firstAt = this.#lastAt;
    this.#waiting.set(chain, { chain, incarnation, head });
  }

  /** Writes down what waits, again and again until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(tickMs, undefined, { signal }).catch(() => undefined);
      const now = this.#options.clock();
      const isDue = now - this.#lastAt >= quietMs || now - this.#firstAt >= everyMs;
      if (this.#waiting.size > 0 && isDue && now >= this.#retryAt && !signal.aborted) {
        await this.write(signal);
      }
    }
  }

  /** Writes down what waits now; what fails waits for the next time. Never rejects. */
  async write(signal?: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    const day = new Date(clock()).toISOString().slice(0, 10);
    const byShard = Map.groupBy(this.#waiting.values(), ({ chain }) => shardOf(chain));
    for (const [shard, anchors] of byShard) {
      try {
        await this.#store(`${prefix}${day}-${shard}`, anchors, signal);
      } catch (error) {
        this.#retryAt = clock() + retryMs;
        logger.warn('Evidence could not be anchored', { error, chains: anchors.length });
        continue;
      }
      for (const anchor of anchors) {
        logger.info('Evidence anchored', { ...anchor });
        if (this.#waiting.get(anchor.chain) === anchor) this.#waiting.delete(anchor.chain);
      }
    }
    this.#firstAt = clock();
  }

  /** Deletes those that nobody needs any more: what they prove was let go. Never rejects. */
  async expire(signal: AbortSignal): Promise<void> {
    const { client, namespace, clock, retentionMs, logger } = this.#options;
    const oldest = new Date(clock() - retentionMs).toISOString().slice(0, 10);
    try {
      for (const { metadata } of await listAnchors(client, namespace, signal)) {
        const day = metadata.name.slice(prefix.length, prefix.length + oldest.length);
        if (day >= oldest) continue;
        await client.delete(
          resources.configMaps,
          { namespace, name: metadata.name },
          { uid: metadata.uid ?? '', signal },
        );
      }
    } catch (error) {
      logger.warn('Old anchors of evidence could not be deleted', { error });
    }
  }

  async #store(
    name: string,
    anchors: readonly Anchor[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const options = signal === undefined ? {} : { signal };
    const { client, namespace } = this.#options;
    const data = Object.fromEntries(
      anchors.map(({ chain, incarnation, head }) => [
        chain.replace('/', '.'),
        canonicalJson({ chain, incarnation, head }),
      ]),
    );
    const patch = { metadata: { labels: { [label.evidence]: value } }, data };
    try {
      await client.mergePatch(resources.configMaps, { namespace, name }, patch, options);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      const { labels } = patch.metadata;
      try {
        const body = { metadata: { name, namespace, labels }, data };
        await client.create(resources.configMaps, body, options);
      } catch (failure) {
        if (!isAlreadyExists(failure)) throw failure;
        await client.mergePatch(resources.configMaps, { namespace, name }, patch, options);
      }
    }
  }
}

function shardOf(chain: string): number {
  return Number.parseInt(sha256(chain).slice(0, 4), 16) % shards;
}

async function listAnchors(
  client: Pick<KubeClient, 'list'>,
  namespace: string,
  signal?: AbortSignal,
): Promise<ConfigMap[]> {
  return await client.list(resources.configMaps, {
    namespace,
    labelSelector: `${label.evidence}=${value}`,
    ...(signal !== undefined && { signal }),
  });
}

/** All that were written down of some chains; what can't be read is passed over. */
export async function readAnchors(
  client: Pick<KubeClient, 'list'>,
  namespace: string,
  chains: readonly string[],
): Promise<Anchor[]> {
  const all = await listAnchors(client, namespace);
  return all.flatMap(({ data = {} }) =>
    chains.flatMap((chain) => parseAnchor(data[chain.replace('/', '.')]) ?? []),
  );
}

/** @returns `undefined` for what is no anchor */
export function parseAnchor(text: string | undefined): Anchor | undefined {
  let anchor: unknown;
  try {
    anchor = JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
  return isAnchor(anchor) ? anchor : undefined;
}

/** Whether a value is an anchor. */
export function isAnchor(value_: unknown): value_ is Anchor {
  if (typeof value_ !== 'object' || value_ === null) return false;
  const { chain, incarnation, head } = { chain: 0, incarnation: 0, head: 0, ...value_ } as Record<
    string,
    unknown
  >;
  if (typeof chain !== 'string' || typeof incarnation !== 'string') return false;
  if (typeof head !== 'object' || head === null) return false;
  const { sequence, ...texts } = { hash: 0, time: 0, key: 0, signature: 0, sequence: 0, ...head };
  return (
    Number.isSafeInteger(sequence) && Object.values(texts).every((item) => typeof item === 'string')
  );
}
