import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { askPrometheus } from './prometheus.ts';

const { signal } = new AbortController();

describe('a Prometheus', () => {
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://x');
    if (searchParams.get('query') === 'long') response.end(`"${'x'.repeat(2_000)}"`);
    else if (searchParams.get('query') === 'no') response.writeHead(503).end();
    else if (searchParams.get('query') === 'html') response.end('<html>');
    else response.end(JSON.stringify({ pathname, query: searchParams.get('query') }));
  });

  afterEach(() => {
    server.close();
  });

  it('is asked by its HTTP API, with bounds', async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on a port
    const { port } = server.address() as AddressInfo;
    const base = `http://127.0.0.1:${port}/prometheus`;
    const ask = (query: string): Promise<unknown> =>
      askPrometheus({ base, endpoint: 'query', parameters: { query }, signal, maxBytes: 1_000 });
    expect(await ask('a + b')).toEqual({
      pathname: '/prometheus/api/v1/query',
      query: 'a + b',
    });
    await expect(ask('long')).rejects.toThrow('too long');
    await expect(ask('no')).rejects.toThrow('answers 503');
    await expect(ask('html')).rejects.toThrow('not an answer');
  });
});
