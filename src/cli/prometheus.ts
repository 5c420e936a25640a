import { z } from 'zod';
import type { Series } from '../evidence/bundle.ts';
import { askPrometheus } from '../runtime/prometheus.ts';
import { UsageError } from './command.ts';

/** What is asked of Prometheus, for people and for its server. */
export interface RangeQuery {
  /** Base URL of a Prometheus, or of what answers like one. */
  url: string;
  query: string;
  /** RFC 3339. */
  from: string;
  /** RFC 3339. */
  to: string;
}

const answer = z.object({
  data: z.object({
    resultType: z.literal('matrix'),
    result: z.array(
      z.object({
        metric: z.record(z.string(), z.string()),
        values: z.array(z.tuple([z.number(), z.string()])),
      }),
    ),
  }),
});

const maxPoints = 240;
const maxSeries = 50;
const timeoutMs = 10_000;

/**
 * The series of a period, at most 50 with 240 points each.
 *
 * @throws UsageError where the URL is none
 * @throws Error where it can't be reached, is too slow, or doesn't answer like a Prometheus
 */
export async function queryRange({ url, query, from, to }: RangeQuery): Promise<Series[]> {
  const base = URL.parse(url);
  if (base === null || !/^https?:$/.test(base.protocol)) {
    throw new UsageError('--prometheus takes an http or https URL');
  }
  const seconds = Math.max(1, (Date.parse(to) - Date.parse(from)) / 1_000);
  const step = Math.max(15, Math.ceil(seconds / (maxPoints - 1)));
  const body = await askPrometheus({
    base: base.href,
    endpoint: 'query_range',
    parameters: { query, start: from, end: to, step },
    signal: AbortSignal.timeout(timeoutMs),
  });
  const parsed = answer.safeParse(body);
  if (!parsed.success) throw new Error('this is not an answer of Prometheus');
  return parsed.data.data.result.slice(0, maxSeries).map(({ metric, values }) => ({
    labels: metric,
    points: values
      .slice(0, maxPoints)
      .map(([at, value]) => ({ time: new Date(at * 1_000).toISOString(), value })),
  }));
}
