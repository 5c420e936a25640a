import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { dump, load } from 'js-yaml';
import type { ControlPlane } from '../control-plane/control-plane.ts';

/** A write that passes through: method and path, without the host and query. */
export interface ProxiedWrite {
  /** From 1, in the order of arrival. */
  index: number;
  method: string;
  path: string;
  /** HTTP status of the answer, once there is one. */
  status?: number;
}

/** Where a connection ends in the middle of a write: before it reaches the API server, or after. */
export type Cut = 'cut-before' | 'cut-after';

/**
 * What happens to a write: forwarded; cut off; forwarded, and whatever became of it answered with
 * 500; or pretended: answered as if it were stored, as by an API server that knows what another one
 * doesn't.
 */
export type WriteFate = 'pass' | Cut | 'fail-after' | 'pretend';

export interface ApiProxyOptions {
  controlPlane: Pick<ControlPlane, 'server' | 'certificateAuthority' | 'dataDir'>;
  /** Kubeconfig with a token, whose user goes through the proxy. */
  kubeconfigPath: string;
  /** Decides over each write; default: pass. Dry runs, Leases and Events are never asked about. */
  onWrite?: (write: ProxiedWrite) => WriteFate;
  /** Whether a dry run is answered as if nobody refused it; default: never. */
  onDryRun?: (write: ProxiedWrite) => 'pass' | 'pretend';
  /** Called when a write was cut, at the moment of the cut. */
  onCut?: (write: ProxiedWrite) => void;
}

/**
 * A plain HTTP proxy between an operator and a real API server: it counts the writes, cuts chosen
 * ones off, and can drop or silence all watches.
 */
export class ApiProxy {
  readonly writes: ProxiedWrite[] = [];
  /** Writes that asked for nothing to be stored; they are never cut. */
  readonly dryRuns: ProxiedWrite[] = [];
  readonly #options: ApiProxyOptions;
  readonly #server = createServer((incoming, outgoing) => this.#handle(incoming, outgoing));
  readonly #agent: Agent;
  readonly #watches = new Map<ServerResponse, { path: string; answer: IncomingMessage }>();
  onWrite: NonNullable<ApiProxyOptions['onWrite']>;
  onDryRun: NonNullable<ApiProxyOptions['onDryRun']>;

  constructor(options: ApiProxyOptions) {
    this.#options = options;
    this.onWrite = options.onWrite ?? ((): WriteFate => 'pass');
    this.onDryRun = options.onDryRun ?? ((): 'pass' => 'pass');
    this.#agent = new Agent({ ca: options.controlPlane.certificateAuthority, keepAlive: true });
  }

  /** Listens on a free loopback port. @returns path of a kubeconfig that leads through the proxy */
  async start(): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = this.#server.address() as AddressInfo;
    const { dataDir } = this.#options.controlPlane;
    const original = load(await readFile(this.#options.kubeconfigPath, 'utf8')) as {
      users: { user: object }[];
    };
    const file = path.join(dataDir, `proxy-${port}.yaml`);
    const name = 'through-proxy';
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': name,
      contexts: [{ name, context: { cluster: name, user: name } }],
      clusters: [
        { name, cluster: { server: `http://127.0.0.1:${port}`, 'insecure-skip-tls-verify': true } },
      ],
      users: [{ name, user: original.users[0]?.user }],
    };
    await writeFile(file, dump(config), { mode: 0o600 });
    return file;
  }

  /** Ends every open watch at once, without a word (the connection is reset). */
  cutWatches(): number {
    const { size } = this.#watches;
    for (const response of this.#watches.keys()) response.destroy();
    return size;
  }

  /** Open watches of these paths stay open, and nothing comes any more: half-open connections. */
  silenceWatches(paths: RegExp): number {
    const silenced = [...this.#watches].filter(([, { path: watched }]) => paths.test(watched));
    for (const [response, { answer }] of silenced) answer.unpipe(response).pause();
    return silenced.length;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(() => resolve(undefined)));
    this.#agent.destroy();
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const url = new URL(incoming.url ?? '/', 'http://proxy');
    const method = incoming.method ?? 'GET';
    const isDryRun = url.searchParams.get('dryRun') !== null;
    if (method === 'GET' || /\/(leases|events)(\/|$)/.test(url.pathname)) {
      this.#forward(incoming, outgoing, () => undefined);
      return;
    }
    const seen = isDryRun ? this.dryRuns : this.writes;
    const write: ProxiedWrite = { index: seen.length + 1, method, path: url.pathname };
    seen.push(write);
    if (isDryRun) {
      const answered = (status: number): void => {
        write.status = status;
      };
      if (this.onDryRun(write) === 'pass') this.#forward(incoming, outgoing, answered);
      else this.#forwardAsRead(incoming, outgoing, answered);
      return;
    }
    const fate = this.onWrite(write);
    if (fate === 'cut-before') {
      this.#options.onCut?.(write);
      incoming.destroy();
      return;
    }
    if (fate === 'pretend') {
      url.searchParams.set('dryRun', 'All');
      incoming.url = `${url.pathname}${url.search}`;
    }
    this.#forward(incoming, outgoing, (status) => {
      write.status = status;
      if (fate === 'fail-after') refuse(outgoing);
      if (fate !== 'cut-after') return;
      this.#options.onCut?.(write);
      incoming.destroy();
    });
  }

  /** Answers with the object as it stands. */
  #forwardAsRead(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    beforeAnswer: (status: number) => void,
  ): void {
    incoming.method = 'GET';
    incoming.url = new URL(incoming.url ?? '/', 'http://proxy').pathname;
    delete incoming.headers['content-length'];
    delete incoming.headers['transfer-encoding'];
    delete incoming.headers['content-type'];
    this.#forward(incoming, outgoing, beforeAnswer);
  }

  #forward(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    beforeAnswer: (status: number) => void,
  ): void {
    const isWatch = incoming.url?.includes('watch=true') === true;
    const target = new URL(incoming.url ?? '/', this.#options.controlPlane.server);
    const request = (target.protocol === 'https:' ? httpsRequest : httpRequest)(
      target,
      {
        method: incoming.method ?? 'GET',
        headers: { ...incoming.headers, host: target.host },
        ...(target.protocol === 'https:' && { agent: this.#agent }),
      },
      (answer) => {
        beforeAnswer(answer.statusCode ?? 502);
        if (outgoing.destroyed || outgoing.writableEnded) {
          answer.resume();
          return;
        }
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        outgoing.flushHeaders();
        if (isWatch) this.#watches.set(outgoing, { path: target.pathname, answer });
        answer.pipe(outgoing);
        answer.on('error', () => outgoing.destroy());
      },
    );
    outgoing.once('close', () => {
      this.#watches.delete(outgoing);
      request.destroy();
    });
    request.on('error', () => outgoing.destroy());
    if (incoming.method === 'GET') {
      incoming.resume();
      request.end();
    } else incoming.pipe(request);
  }
}

/** As an API server answers whose storage didn't say in time that it has the object. */
function refuse(outgoing: ServerResponse): void {
  const status = {
    apiVersion: 'v1',
    kind: 'Status',
    status: 'Failure',
    reason: 'InternalError',
    code: 500,
    message: 'Internal error occurred: etcdserver: request timed out',
  };
  outgoing.writeHead(status.code, { 'content-type': 'application/json' });
  outgoing.end(JSON.stringify(status));
}
