import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { queryRange } from './prometheus.ts';

let server: Server;
let url: string;
let asked: URL | undefined;
let answer: { status: number; body: string };

const query = {
  metric: 'automation_guardrails_attention_seconds',
  labels: { automation: 'finance/invoice' },
};
const period = { from: '2026-01-01T00:00:00.000Z', to: '2026-01-02T00:00:00.000Z' };

beforeEach(async () => {
  server = createServer((request, response) => {
    asked = new URL(request.url ?? '', 'http://prometheus');
    response.writeHead(answer.status).end(answer.body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}/`;
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

function matrix(series: number): string {
  const result = Array.from({ length: series }, (_, index) => ({
    metric: { reason: `r${index}` },
    values: [[Date.parse(period.from) / 1_000, '12.5']],
  }));
  return JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } });
}

describe('metrics of a period', () => {
  it('are asked for in as many steps as there is room for', async () => {
    answer = { status: 200, body: matrix(1) };
    expect(await queryRange({ url, ...query, ...period })).toEqual([
      {
        labels: { reason: 'r0', __name__: query.metric },
        points: [{ time: period.from, value: '12.5' }],
      },
    ]);
    expect(asked?.pathname).toBe('/api/v1/query_range');
    expect(asked?.searchParams.get('query')).toBe(
      'max_over_time(automation_guardrails_attention_seconds{automation="finance/invoice"}[360s])',
    );
    expect(asked?.searchParams.get('step')).toBe('360');
    // The first looks back to the beginning, the last is at the end.
    expect(asked?.searchParams.get('start')).toBe('2026-01-01T00:06:00.000Z');
    expect(asked?.searchParams.get('end')).toBe(period.to);
  });

  it('are bounded, whatever the server sends', async () => {
    answer = { status: 200, body: matrix(500) };
    expect(await queryRange({ url, ...query, ...period })).toHaveLength(50);
    answer = { status: 200, body: 'x'.repeat(5 * 1024 * 1024) };
    await expect(queryRange({ url, ...query, ...period })).rejects.toThrow('too long');
  });

  it('are none where it is no Prometheus', async () => {
    answer = { status: 200, body: '<html>' };
    await expect(queryRange({ url, ...query, ...period })).rejects.toThrow('not an answer');
    answer = { status: 503, body: '' };
    await expect(queryRange({ url, ...query, ...period })).rejects.toThrow('503');
    await expect(queryRange({ url: 'file:///etc', ...query, ...period })).rejects.toThrow(
      '--prometheus',
    );
  });
});
