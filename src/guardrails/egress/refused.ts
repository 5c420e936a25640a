import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Finding } from '../../api/conditions.ts';
import type { Logger } from '../../observability/logger.ts';
import { messageOf } from '../../runtime/errors.ts';

/** Answers an instant query, as the HTTP API of Prometheus does: the body, parsed. */
export type Query = (expression: string, signal: AbortSignal) => Promise<unknown>;

export interface RefusedOptions {
  query: Query;
  logger: Logger;
}

/**
 * Packets that a policy dropped, by the workload that sent them. Hubble's metric `drop` counts
 * them, and has the workload where it is asked for (docs.cilium.io/en/stable/observability/metrics).
 */
export const refusedQuery =
  'sum by (source_namespace, source_workload) (increase(hubble_drop_total{source_namespace!="",source_workload!="",reason=~"(?i)policy.den(y|ied)"}[1h]))';

/** Whether Hubble says the workload at all: else nothing found would mean nothing. */
const presenceQuery = 'count(hubble_drop_total{source_workload!=""})';

const everyMs = 60_000;
const timeoutMs = 10_000;
/** Workloads of which something is remembered. */
const maxSeries = 10_000;

const answer = z.object({
  status: z.literal('success'),
  data: z.object({
    resultType: z.literal('vector'),
    result: z.array(
      z.object({
        metric: z.record(z.string(), z.string()),
        value: z.tuple([z.number(), z.string()]),
      }),
    ),
  }),
});

/**
 * What workloads tried to reach and a policy refused within the last hour, as the network plug-in
 * counted it. What it can't tell is unknown, never zero.
 */
export class RefusedConnections {
  readonly #options: RefusedOptions;
  readonly #listeners: (() => void)[] = [];
  /** Packets by `namespace/workload`; `undefined` where nobody counts. */
  #counts: ReadonlyMap<string, number> | undefined;

  constructor(options: RefusedOptions) {
    this.#options = options;
  }

  /** Called after the counts have changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /**
   * Packets of these workloads of a namespace that were refused; `undefined` where that isn't known.
   *
   * @param workloads by name
   */
  of(namespace: string, workloads: Iterable<string>): number | undefined {
    const counts = this.#counts;
    if (counts === undefined) return undefined;
    let sum = 0;
    for (const name of new Set(workloads)) sum += counts.get(`${namespace}/${name}`) ?? 0;
    return sum;
  }

  /** Asks every minute until the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.ask(signal);
      await delay(everyMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Asks once. Without an answer nothing is known. Never rejects. */
  async ask(signal: AbortSignal): Promise<void> {
    const { query, logger } = this.#options;
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    try {
      const series = vectorOf(await query(refusedQuery, bounded));
      const isCounted =
        series.length > 0 || vectorOf(await query(presenceQuery, bounded)).length > 0;
      if (!isCounted) {
        logger.warn('Hubble counts no drops by workload: set labelsContext for its metric drop');
      }
      this.#counts = isCounted ? new Map(series.slice(0, maxSeries)) : undefined;
    } catch (error) {
      if (signal.aborted) return;
      logger.warn('What was refused could not be asked', { error: messageOf(error) });
      this.#counts = undefined;
    }
    for (const listener of this.#listeners) listener();
  }
}

function vectorOf(body: unknown): [string, number][] {
  return answer.parse(body).data.result.flatMap(({ metric, value: [, text] }) => {
    const value = Number(text);
    if (!Number.isFinite(value) || value < 0) return [];
    const { source_namespace: namespace = '', source_workload: workload = '' } = metric;
    return [[`${namespace}/${workload}`, value]];
  });
}

/**
 * The condition `UnusualDestinations`. Its number is one of few, so that it isn't written anew with
 * every packet.
 *
 * @param packets within the last hour; `undefined` where nobody counts
 */
export function unusualFinding(packets: number | undefined): Finding {
  const type = 'UnusualDestinations';
  if (packets === undefined) {
    const message =
      "Nobody counts what its pods tried to reach and weren't allowed to: the operator knows of no Prometheus with Hubble's metrics (--hubble-prometheus), or had no answer.";
    return { type, status: 'Unknown', reason: 'NotCounted', message };
  }
  const least = roundedDown(packets);
  if (least === 0) {
    const message =
      'Hubble counted no packet of its pods that a policy refused within the last hour.';
    return { type, status: 'False', reason: 'NoneRefused', message };
  }
  const message = `Its pods tried to reach what isn't listed: at least ${least} ${least === 1 ? 'packet' : 'packets'} refused by policies within the last hour. To see where to: hubble observe --verdict DROPPED.`;
  return { type, status: 'True', reason: 'PacketsRefused', message };
}

/** To 1, 2 or 5 times a power of ten. An increase that Prometheus extrapolates isn't whole. */
function roundedDown(packets: number): number {
  if (packets < 0.5) return 0;
  const power = 10 ** Math.floor(Math.log10(Math.max(packets, 1)));
  const [step = 1] = [5, 2, 1].filter((factor) => factor * power <= packets);
  return step * power;
}
