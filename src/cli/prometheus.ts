import { z } from 'zod';
import type { Series } from '../evidence/bundle.ts';
import { askPrometheus } from '../runtime/prometheus.ts';
import { UsageError } from './command.ts';

/** What is asked of Prometheus, for people and for its server. */
export interface RangeQuery {
  /** Base URL of a Prometheus, or of what answers like one. */
  url: string;
  /** Name of the metric. */
  metric: string;
  /** Of its labels, each with the value that it has. */
  labels: Readonly<Record<string, string>>;
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
 * The series of a period, at most 50 with 240 points each: each the most since the one before, so
 * that nothing of the period falls between two.
 *
 * @throws UsageError where the URL is none
 * @throws Error where it can't be reached, is too slow, or doesn't answer like a Prometheus
 */
export async function queryRange({ url, metric, labels, from, to }: RangeQuery): Promise<Series[]> {
  const base = URL.parse(url);
  if (base === null || !/^https?:$/.test(base.protocol)) {
    throw new UsageError('--prometheus takes an http or https URL');
  }
  const seconds = Math.max(1, (Date.parse(to) - Date.parse(from)) / 1_000);
  const step = Math.max(15, Math.ceil(seconds / maxPoints));
  const points = Math.ceil(seconds / step);
  const start = new Date(Date.parse(to) - (points - 1) * step * 1_000).toISOString();
  const matchers = Object.entries(labels).map(
    ([name, value]) => `${name}=${JSON.stringify(value)}`,
  );
  const body = await askPrometheus({
    base: base.href,
    endpoint: 'query_range',
    parameters: {
      query: `max_over_time(${metric}{${matchers.join(',')}}[${step}s])`,
      start,
      end: to,
      step,
    },
    signal: AbortSignal.timeout(timeoutMs),
  });
  const parsed = answer.safeParse(body);
  if (!parsed.success) throw new Error('this is not an answer of Prometheus');
  return parsed.data.data.result.slice(0, maxSeries).map(({ metric: found, values }) => ({
    // A function takes the name away.
    labels: { ...found, __name__: metric },
    points: values
      .slice(0, maxPoints)
      .map(([at, value]) => ({ time: new Date(at * 1_000).toISOString(), value })),
  }));
}
