import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { HealthServer, type HealthServerOptions, type ListeningPorts } from './health.ts';
import { Metrics } from './metrics.ts';

const servers: HealthServer[] = [];

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop()));
});

async function start(options: Partial<HealthServerOptions> = {}): Promise<{
  server: HealthServer;
  ports: ListeningPorts;
  metrics: string;
  health: string;
}> {
  const server = new HealthServer({
    metrics: new Metrics(),
    live: () => [],
    ready: () => [],
    host: '127.0.0.1',
    metricsPort: 0,
    healthPort: 0,
    ...options,
  });
  servers.push(server);
  const ports = await server.start();
  return {
    server,
    ports,
    metrics: `http://127.0.0.1:${ports.metricsPort}`,
    health: `http://127.0.0.1:${ports.healthPort}`,
  };
}

describe('HealthServer', () => {
  it('serves metrics in the format of Prometheus', async () => {
    const { metrics } = await start();

    const response = await fetch(`${metrics}/metrics`);

    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('version=0.0.4');
    expect(await response.text()).toContain('# TYPE automation_guardrails_leader gauge');
  });

  it.each(['/healthz', '/readyz'])('%s says ok while all is well', async (path) => {
    const { health } = await start();

    const response = await fetch(`${health}${path}?verbose`);

    expect(response.status).toBe(200);
    expect(await response.text()).toBe('ok\n');
  });

  it('asks the checks anew each time, and each its own', async () => {
    const stale: string[] = [];
    const { health } = await start({ live: () => stale });
    expect((await fetch(`${health}/healthz`)).status).toBe(200);

    stale.push('nothing heard of pods', 'nothing heard of jobs');

    const response = await fetch(`${health}/healthz`);
    expect(response.status).toBe(503);
    expect(await response.text()).toBe('nothing heard of pods\nnothing heard of jobs\n');
    expect((await fetch(`${health}/readyz`)).status).toBe(200);
  });

  it('is unhealthy when a check throws', async () => {
    const { health } = await start({
      live: () => {
        throw new Error('broken');
      },
    });

    const response = await fetch(`${health}/healthz`);

    expect(response.status).toBe(503);
    expect(await response.text()).not.toContain('broken');
  });

  it('answers 500 when metrics cannot be collected, and goes on', async () => {
    const { metrics } = await start({
      metrics: { scrape: () => Promise.reject(new Error('broken')) },
    });

    expect((await fetch(`${metrics}/metrics`)).status).toBe(500);
    expect((await fetch(`${metrics}/metrics`)).status).toBe(500);
  });

  it.each([
    ['metrics', '/'],
    ['metrics', '/healthz'],
    ['metrics', '/metrics/'],
    ['health', '/metrics'],
    ['health', '/__proto__'],
    ['health', '/constructor'],
  ] as const)('answers 404 on the %s port to %s', async (port, path) => {
    const urls = await start();

    expect((await fetch(urls[port] + path)).status).toBe(404);
  });

  it.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('answers 405 to %s', async (method) => {
    const { health } = await start();

    const response = await fetch(`${health}/healthz`, { method });

    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD');
  });

  it('answers HEAD as GET, without the body', async () => {
    const { health } = await start({ ready: () => ['not yet'] });

    const response = await fetch(`${health}/readyz`, { method: 'HEAD' });

    expect(response.status).toBe(503);
    expect(await response.text()).toBe('');
  });

  it('serves nothing where a port is off', async () => {
    const { ports, health } = await start({ metricsPort: 'off' });

    expect(ports).not.toHaveProperty('metricsPort');
    expect((await fetch(`${health}/healthz`)).status).toBe(200);
  });

  it('listens on neither port when one is taken', async () => {
    const { ports: taken } = await start();
    const { server, ports: free } = await start();
    await server.stop();
    const metricsPort = free.metricsPort ?? 0;

    await expect(start({ metricsPort, healthPort: taken.healthPort ?? 0 })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });

    const { ports } = await start({ metricsPort });
    expect(ports.metricsPort).toBe(metricsPort);
  });

  it('stops although a client keeps its connection, and stops again', async () => {
    const { server, ports, health } = await start();
    await fetch(`${health}/healthz`);
    const socket = connect(ports.healthPort ?? 0, '127.0.0.1');
    socket.on('error', () => undefined);
    await once(socket, 'connect');

    await server.stop();
    await server.stop();

    await expect(fetch(`${health}/healthz`)).rejects.toThrow();
    socket.destroy();
  });
});
