/** A question to the HTTP API of a Prometheus, or of what answers like one. */
export interface PrometheusRequest {
  /** Base URL, with or without a slash at its end. */
  base: string;
  /** Of prometheus.io/docs/prometheus/latest/querying/api. */
  endpoint: 'query' | 'query_range';
  parameters: Readonly<Record<string, string | number>>;
  signal: AbortSignal;
  /** Bytes of an answer; what is longer is none. */
  maxBytes?: number | undefined;
}

/**
 * Asks by HTTP, and follows no redirect.
 *
 * @returns the body, parsed; it may hold anything
 * @throws what `fetch` does
 * @throws Error on a status that isn't a success, and where the answer is too long or no JSON
 */
export async function askPrometheus({
  base,
  endpoint,
  parameters,
  signal,
  maxBytes = 4 << 20,
}: PrometheusRequest): Promise<unknown> {
  const url = new URL(`${base.replace(/\/+$/, '')}/api/v1/${endpoint}`);
  for (const [name, value] of Object.entries(parameters)) {
    url.searchParams.set(name, String(value));
  }
  const response = await fetch(url, { signal, redirect: 'error' });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`Prometheus answers ${response.status}`);
  }
  return parsed(await boundedText(response, maxBytes));
}

async function boundedText(response: Response, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new Error('the answer of Prometheus is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('this is not an answer of Prometheus');
  }
}
