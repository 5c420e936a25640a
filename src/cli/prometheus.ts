import { z } from 'zod';
import type { Series } from '../evidence/bundle.ts';
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
const maxBytes = 4 * 1024 * 1024;
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
  const asked = new URL(`${base.href.replace(/\/+$/, '')}/api/v1/query_range`);
  const step = Math.max(15, Math.ceil(seconds / (maxPoints - 1)));
  for (const [name, value] of Object.entries({ query, start: from, end: to, step })) {
    asked.searchParams.set(name, String(value));
  }
  const response = await fetch(asked, {
    signal: AbortSignal.timeout(timeoutMs),
    redirect: 'error',
  });
  if (!response.ok) throw new Error(`Prometheus answered ${response.status}`);
  const text = await boundedText(response);
  const parsed = answer.safeParse(readJson(text));
  if (!parsed.success) throw new Error('this is not an answer of Prometheus');
  return parsed.data.data.result.slice(0, maxSeries).map(({ metric, values }) => ({
    labels: metric,
    points: values
      .slice(0, maxPoints)
      .map(([at, value]) => ({ time: new Date(at * 1_000).toISOString(), value })),
  }));
}

async function boundedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new Error('the answer of Prometheus is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
