import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Logger } from './logger.ts';
import type { Metrics } from './metrics.ts';

/** What is wrong, in one sentence each; empty where all is well. */
export type HealthCheck = () => readonly string[];

/** A TCP port; 0 takes a free one, `off` serves nothing. */
export type Port = number | 'off';

export interface HealthServerOptions {
  metrics: Pick<Metrics, 'scrape'>;
  /** Alive. While it complains, a restart of the process may help. */
  live: HealthCheck;
  /** Ready: caches are synced. */
  ready: HealthCheck;
  /** Address to listen on; default all. */
  host?: string;
  metricsPort: Port;
  healthPort: Port;
  /** Told of what can't be served. */
  logger?: Logger;
}

/** Ports that are listened on; missing where it is `off`. */
export interface ListeningPorts {
  metricsPort?: number;
  healthPort?: number;
}

/** How long a request in flight gets when the server stops. */
const graceMs = 1_000;
const requestTimeoutMs = 5_000;
/** Of one port; scrapers and the kubelet need a few. */
const maxConnections = 64;

/** `/metrics` on one port, `/healthz` and `/readyz` on another. */
export class HealthServer {
  readonly #options: HealthServerOptions;
  readonly #metrics: Server;
  readonly #health: Server;

  constructor(options: HealthServerOptions) {
    this.#options = options;
    this.#metrics = serve({ '/metrics': (response) => this.#answerMetrics(response) });
    this.#health = serve({
      '/healthz': (response) => this.#answerCheck(response, options.live),
      '/readyz': (response) => this.#answerCheck(response, options.ready),
    });
  }

  /**
   * @returns the ports that it listens on
   * @throws Error of the system, such as `EADDRINUSE`; then it listens on none
   */
  async start(): Promise<ListeningPorts> {
    const { host, metricsPort, healthPort } = this.#options;
    try {
      const metrics = await listen(this.#metrics, metricsPort, host);
      const health = await listen(this.#health, healthPort, host);
      return {
        ...(metrics !== undefined && { metricsPort: metrics }),
        ...(health !== undefined && { healthPort: health }),
      };
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Listens no more, and gives requests in flight a second. May be called again; never rejects. */
  async stop(): Promise<void> {
    await Promise.all([close(this.#metrics), close(this.#health)]);
  }

  async #answerMetrics(response: ServerResponse): Promise<void> {
    try {
      const { contentType, body } = await this.#options.metrics.scrape();
      answer(response, 200, body, contentType);
    } catch (error) {
      this.#options.logger?.error('Metrics could not be collected', { error });
      answer(response, 500, 'the metrics could not be collected\n');
    }
  }

  #answerCheck(response: ServerResponse, check: HealthCheck): void {
    let problems: readonly string[];
    try {
      problems = check();
    } catch (error) {
      this.#options.logger?.error('Health check failed', { error });
      problems = ['the check itself has failed'];
    }
    if (problems.length === 0) answer(response, 200, 'ok\n');
    else answer(response, 503, problems.map((problem) => `${problem}\n`).join(''));
  }
}

type Handler = (response: ServerResponse) => void | Promise<void>;

function serve(routes: Readonly<Record<string, Handler>>): Server {
  const server = createServer(
    { requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs },
    (request, response) => {
      const handler = routes[pathOf(request)];
      if (handler === undefined) {
        answer(response, 404, 'not found\n');
      } else if (request.method === 'GET' || request.method === 'HEAD') {
        void handler(response);
      } else {
        response.setHeader('allow', 'GET, HEAD');
        answer(response, 405, 'method not allowed\n');
      }
    },
  );
  server.maxConnections = maxConnections;
  return server;
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] ?? '';
}

function answer(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  // Node drops the body of an answer to HEAD.
  response.end(body);
}

async function listen(
  server: Server,
  port: Port,
  host: string | undefined,
): Promise<number | undefined> {
  if (port === 'off') return undefined;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, ...(host !== undefined && { host }) }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), graceMs);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
