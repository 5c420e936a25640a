import { createHash } from 'node:crypto';
import type { AgentOptions } from 'node:https';
import { KubeConfig, type RequestContext } from '@kubernetes/client-node';
import { Agent, ProxyAgent, type Dispatcher } from 'undici';

export interface PooledKubeConfigOptions {
  /** Most connections of the pool for calls. Watches have a pool of their own, without a limit. */
  connections?: number;
}

/** How to reach the API server and say who asks. */
export interface Access {
  /** URL of the API server, without a slash at its end. */
  server: string;
  headers: Record<string, string>;
  calls: Dispatcher;
  watches: Dispatcher;
}

/**
 * client-node's KubeConfig with connection pools. The original opens a new pool, and so a new TLS
 * connection, at every call. Credentials are looked at again every few seconds, so a rotated
 * token or certificate is picked up; when the TLS material changes, the pools change with it.
 */
export class PooledKubeConfig extends KubeConfig {
  readonly #connections: number;
  #access: Promise<Access> | undefined;
  #accessExpires = 0;
  #pools: { key: string; calls: Dispatcher; watches: Dispatcher } | undefined;

  constructor({ connections = 64 }: PooledKubeConfigOptions = {}) {
    super();
    this.#connections = connections;
  }

  /** Loads a kubeconfig file; without one, what kubectl would use, or the pod's ServiceAccount. */
  load({
    kubeconfig,
    context,
  }: {
    kubeconfig?: string | undefined;
    context?: string | undefined;
  }): this {
    if (kubeconfig === undefined) this.loadFromDefault();
    else this.loadFromFile(kubeconfig);
    if (context !== undefined) this.setCurrentContext(context);
    return this;
  }

  override async applySecurityAuthentication(context: RequestContext): Promise<void> {
    await super.applySecurityAuthentication(context);
    context.setDispatcher((await this.access()).calls);
  }

  /** Shared by all calls of the next few seconds. */
  access(): Promise<Access> {
    if (this.#access === undefined || performance.now() > this.#accessExpires) {
      this.#access = this.#resolve();
      this.#accessExpires = performance.now() + accessLifetimeMs;
      this.#access.catch(() => this.forgetAccess());
    }
    return this.#access;
  }

  /** Look at the credentials again before the next call: after a 401. */
  forgetAccess(): void {
    this.#access = undefined;
  }

  async #resolve(): Promise<Access> {
    const cluster = this.getCurrentCluster();
    if (cluster === null) throw new Error('The kubeconfig has no current cluster');
    const options: AgentOptions & { headers?: Record<string, unknown> } = {};
    await this.applyToHTTPSOptions(options);
    const { username, password } = this.getCurrentUser() ?? {};
    const headers = Object.fromEntries(
      Object.entries(options.headers ?? {}).map(([name, value]) => [
        name.toLowerCase(),
        String(value),
      ]),
    );
    if (username !== undefined && headers['authorization'] === undefined) {
      headers['authorization'] =
        `Basic ${Buffer.from(`${username}:${password ?? ''}`).toString('base64')}`;
    }
    return { server: cluster.server.replace(/\/+$/, ''), headers, ...this.#poolsFor(options) };
  }

  #poolsFor(tls: AgentOptions): { calls: Dispatcher; watches: Dispatcher } {
    const options = this.createDispatcherOptions(this.getCurrentCluster(), tls);
    const key = createHash('sha256').update(JSON.stringify(options)).digest('hex');
    if (this.#pools?.key === key) return this.#pools;
    const create = (limits: Agent.Options): Dispatcher => {
      switch (options.type) {
        case 'proxy':
          return new ProxyAgent({
            ...limits,
            uri: options.uri,
            requestTls: options.requestTls as Exclude<ProxyAgent.Options['requestTls'], undefined>,
          });
        case 'socks':
          throw new Error('A SOCKS proxy in the kubeconfig is not supported');
        case 'agent':
          return new Agent({
            ...limits,
            connect: { ...options.connect, timeout: 5_000 } as Exclude<
              Agent.Options['connect'],
              undefined
            >,
          });
        case 'none':
          return new Agent(limits);
      }
    };
    // Calls in flight on the old pools end by themselves; close() waits for them.
    void this.#pools?.calls.close();
    void this.#pools?.watches.close();
    this.#pools = {
      key,
      calls: create({ connections: this.#connections, pipelining: 1, keepAliveTimeout: 30_000 }),
      // A watch is silent for as long as nothing happens; who reads it has a timer of its own.
      watches: create({ bodyTimeout: 0, headersTimeout: 30_000 }),
    };
    return this.#pools;
  }

  /** Closes all connections at once. */
  async closeConnections(): Promise<void> {
    const pools = this.#pools;
    this.#pools = undefined;
    this.forgetAccess();
    await Promise.all([pools?.calls.destroy(), pools?.watches.destroy()]);
  }
}

const accessLifetimeMs = 5_000;
