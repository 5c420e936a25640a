import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { AgentOptions } from 'node:https';
import os from 'node:os';
import path from 'node:path';
import {
  bufferFromFileOrString,
  HttpMethod,
  KubeConfig,
  RequestContext,
  type DispatcherOptions,
} from '@kubernetes/client-node';
import { Agent, ProxyAgent, type Dispatcher } from 'undici';

export interface PooledKubeConfigOptions {
  /** Most connections of a pool that doesn't say otherwise; default 32. */
  connections?: number;
  /** Monotonic milliseconds. */
  clock?: () => number;
}

export interface LoadOptions {
  /** Path of a kubeconfig file. */
  kubeconfig?: string | undefined;
  /** Default: the current context of the file. */
  context?: string | undefined;
}

/** There is no usable configuration; the message says what is missing. */
export class KubeConfigError extends Error {
  readonly code = 'KUBE_CONFIG_INVALID';
  override readonly name = 'KubeConfigError';
}

/** How to reach the API server, and as whom, for the next second. */
interface Access {
  /** URL of the API server, without a slash at its end. */
  readonly server: string;
  /** With lower-case names. Holds a credential. */
  readonly headers: Readonly<Record<string, string>>;
  readonly dispatcher: DispatcherOptions;
  /** Changes with the TLS material, the server and the proxy. */
  readonly fingerprint: string;
}

/** What a request needs. */
export interface Connection {
  /** URL of the API server, without a slash at its end. */
  readonly server: string;
  /** With lower-case names. Holds a credential. */
  readonly headers: Readonly<Record<string, string>>;
  readonly dispatcher: Dispatcher;
}

/**
 * client-node's KubeConfig with connection pools. The original opens a new pool, and so a new TLS
 * connection, at every call. Credentials are looked at again every second, so a rotated token or
 * certificate is picked up; when the TLS material changes, the pools change with it.
 */
export class PooledKubeConfig extends KubeConfig {
  readonly #connections: number;
  readonly #clock: () => number;
  readonly #pools = new Set<ConnectionPool>();
  #access: { promise: Promise<Access>; expires: number } | undefined;
  #ownPool: ConnectionPool | undefined;

  constructor({
    connections = 32,
    clock = (): number => performance.now(),
  }: PooledKubeConfigOptions = {}) {
    super();
    this.#connections = connections;
    this.#clock = clock;
  }

  /**
   * Loads the file; without one, in this order: the files of `KUBECONFIG`, the pod's own
   * ServiceAccount, `~/.kube/config`.
   *
   * @throws KubeConfigError where there is none, or the context leads nowhere
   */
  load({ kubeconfig, context }: LoadOptions): this {
    const fromEnvironment = process.env['KUBECONFIG'] ?? '';
    const fromHome = path.join(os.homedir(), '.kube', 'config');
    if (kubeconfig !== undefined) this.loadFromFile(kubeconfig);
    else if (fromEnvironment !== '') this.loadFromDefault();
    else if ((process.env['KUBERNETES_SERVICE_HOST'] ?? '') !== '') this.loadFromCluster();
    else if (existsSync(fromHome)) this.loadFromFile(fromHome);
    else {
      throw new KubeConfigError(
        'no kubeconfig: name a file, set KUBECONFIG, or run in a pod with a ServiceAccount',
      );
    }
    if (context !== undefined) this.setCurrentContext(context);
    if (this.getCurrentCluster() === null) {
      throw new KubeConfigError(`the kubeconfig has no cluster for context ${this.currentContext}`);
    }
    return this;
  }

  /** A pool of its own, which follows rotated credentials. */
  createPool(options: Agent.Options = {}): ConnectionPool {
    const pool = new ConnectionPool(
      () => this.#currentAccess(),
      (access) => this.#createDispatcher(access, { connections: this.#connections, ...options }),
    );
    this.#pools.add(pool);
    return pool;
  }

  /** Looks at the credentials again before the next call: after a 401. */
  forgetCredentials(): void {
    this.#access = undefined;
  }

  /** Closes all connections of all pools at once. */
  async closeConnections(): Promise<void> {
    this.forgetCredentials();
    await Promise.all([...this.#pools].map((pool) => pool.destroy()));
  }

  /** For the calls that go through client-node. */
  override async applySecurityAuthentication(context: RequestContext): Promise<void> {
    this.#ownPool ??= this.createPool();
    const { headers, dispatcher } = await this.#ownPool.connect();
    for (const [name, value] of Object.entries(headers)) context.setHeaderParam(name, value);
    context.setDispatcher(dispatcher);
  }

  /** One look at files, environment and plugins serves all calls of the next second. */
  #currentAccess(): Promise<Access> {
    const now = this.#clock();
    if (this.#access !== undefined && now < this.#access.expires) return this.#access.promise;
    // While a plugin is at work, everybody waits for the same one.
    const access = { promise: this.#resolve(), expires: now + credentialPluginLimitMs };
    access.promise.then(
      () => (access.expires = this.#clock() + accessLifetimeMs),
      () => (access.expires = 0),
    );
    this.#access = access;
    return access.promise;
  }

  async #resolve(): Promise<Access> {
    const cluster = this.getCurrentCluster();
    const user = this.getCurrentUser();
    if (cluster === null) {
      throw new KubeConfigError(`the kubeconfig has no cluster for context ${this.currentContext}`);
    }
    const options: AgentOptions & { headers?: Record<string, unknown> } = {};
    await this.applyToHTTPSOptions(options);
    if (user === null) {
      // client-node trusts no authority of the cluster where the context has no user.
      const ca = bufferFromFileOrString(cluster.caFile, cluster.caData);
      if (ca !== null) options.ca = ca;
      if (cluster.skipTLSVerify) options.rejectUnauthorized = false;
    }
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(options.headers ?? {})) {
      // A token file may end with a line feed, which no header can.
      headers[name.toLowerCase()] = String(value).trim();
    }
    if (user?.username !== undefined && headers['authorization'] === undefined) {
      const pair = `${user.username}:${user.password ?? ''}`;
      headers['authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
    }
    const server = cluster.server.replace(/\/+$/, '');
    const dispatcher = this.createDispatcherOptions(cluster, options);
    const fingerprint = createHash('sha256')
      .update(JSON.stringify([server, dispatcher]))
      .digest('hex');
    return { server, headers, dispatcher, fingerprint };
  }

  async #createDispatcher(
    { dispatcher, server }: Access,
    limits: Agent.Options,
  ): Promise<Dispatcher> {
    // One request a connection: a watch never holds up a call, and a stuck stream only itself.
    const options: Agent.Options = { keepAliveTimeout, allowH2: false, ...limits };
    switch (dispatcher.type) {
      case 'none':
        return new Agent({ ...options, connect: { timeout: connectTimeoutMs } });
      case 'agent':
        return new Agent({
          ...options,
          connect: connectOptions({ ...dispatcher.connect, timeout: connectTimeoutMs }),
        });
      case 'proxy':
        return new ProxyAgent({
          ...options,
          uri: dispatcher.uri,
          requestTls: connectOptions(dispatcher.requestTls),
          connect: connectOptions({ ...dispatcher.connect, timeout: connectTimeoutMs }),
        });
      case 'socks': {
        const context = new RequestContext(server, HttpMethod.GET);
        await super.applySecurityAuthentication(context);
        const socks = context.getDispatcher();
        if (socks === undefined) throw new KubeConfigError('the SOCKS proxy could not be set up');
        return socks;
      }
    }
    return dispatcher satisfies never;
  }
}

/** Kept-alive connections with the credentials of today. */
export class ConnectionPool {
  readonly #currentAccess: () => Promise<Access>;
  readonly #create: (access: Access) => Promise<Dispatcher>;
  #current: { fingerprint: string; dispatcher: Promise<Dispatcher> } | undefined;

  constructor(
    currentAccess: () => Promise<Access>,
    create: (access: Access) => Promise<Dispatcher>,
  ) {
    this.#currentAccess = currentAccess;
    this.#create = create;
  }

  /** @throws whatever keeps the credentials from being read */
  async connect(): Promise<Connection> {
    const access = await this.#currentAccess();
    if (this.#current?.fingerprint !== access.fingerprint) {
      // Requests in flight end by themselves, close() waits for them.
      void this.#current?.dispatcher.then((dispatcher) => dispatcher.close()).catch(ignore);
      this.#current = { fingerprint: access.fingerprint, dispatcher: this.#create(access) };
    }
    const { server, headers } = access;
    const current = this.#current;
    try {
      return { server, headers, dispatcher: await current.dispatcher };
    } catch (error) {
      if (this.#current === current) this.#current = undefined;
      throw error;
    }
  }

  /** Closes all connections at once. The pool may be used again. */
  async destroy(): Promise<void> {
    const current = this.#current;
    this.#current = undefined;
    await current?.dispatcher.then((dispatcher) => dispatcher.destroy()).catch(ignore);
  }
}

const accessLifetimeMs = 1_000;
const credentialPluginLimitMs = 30_000;
const connectTimeoutMs = 5_000;
/** The API server closes idle connections after 90 s; usual load balancers after 60 s. */
const keepAliveTimeout = 30_000;

function ignore(): void {
  // The pool is gone either way.
}

type ConnectOptions = Exclude<ProxyAgent.Options['requestTls'], undefined>;

/** The same options, as client-node and as undici call them. */
function connectOptions(options: object): ConnectOptions {
  return options;
}
