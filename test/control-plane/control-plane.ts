import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes, randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { dump } from 'js-yaml';
import { findBinaries, findBinariesOf, type Binaries, type OtherVersion } from './binaries.ts';
import { request, type Answer } from './https.ts';
import { Objects, type Impersonation, type Send } from './objects.ts';
import { FolderJanitor, SupervisedProcess } from './process.ts';
import { waitFor } from './wait.ts';

/** How much of each request the audit log tells; see audit.k8s.io/v1. */
export type AuditLevel = 'Metadata' | 'Request' | 'RequestResponse';

export interface ControlPlaneOptions {
  /** One line of progress; default: silent. */
  log?: (line: string) => void;
  /** Simulated nodes; default 1. */
  nodes?: number;
  /** Write an audit log of all requests to `auditLogPath`; `true` means level Metadata. */
  audit?: boolean | AuditLevel;
  /** Requests per second of each of the controller manager's clients; default 20, burst 30. */
  controllerManagerQps?: number;
  /** Further flags of kube-apiserver. They win over those set here. */
  apiServerArgs?: readonly string[];
  /** Another Kubernetes version than the newest. */
  version?: OtherVersion;
  /** Programs to use in place of those that `findBinaries` finds. */
  binaries?: Partial<Binaries>;
  /** Keep the folder with data and logs after `stop()`. */
  keep?: boolean;
}

/** How kubectl is run. */
export interface KubectlOptions extends Impersonation {
  /** Standard input. */
  input?: string;
  /** Milliseconds until it is killed; default 240 000. */
  timeoutMs?: number;
}

export interface KubectlResult {
  stdout: string;
  stderr: string;
  /** Exit code; 1 when it was killed. */
  code: number;
}

const components = ['etcd', 'apiServer', 'controllerManager', 'scheduler', 'kwok'] as const;

/** A program of the control plane. */
export type Component = (typeof components)[number];

/** A real Kubernetes control plane on loopback ports, with simulated nodes. */
export interface ControlPlane {
  /** URL of the API server. */
  readonly server: string;
  /** Kubeconfig of a member of `system:masters`; only this user may read it. */
  readonly kubeconfigPath: string;
  /** Bearer token of a member of `system:masters`; unique to this control plane. */
  readonly adminToken: string;
  /** PEM: what the API server's certificate is verified with. */
  readonly certificateAuthority: string;
  /** Folder with data, logs (`COMPONENT.log`) and kubeconfig; only this user may enter. */
  readonly dataDir: string;
  /** The audit log, one JSON object a line; written only with the option `audit`. */
  readonly auditLogPath: string;
  readonly binaries: Binaries;
  /** Runs kubectl against this control plane. Never throws for a non-zero exit. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<KubectlResult>;
  /** Its objects, read within this process. */
  readonly objects: Pick<Objects, 'get' | 'list'>;
  /** Applies manifests by server-side apply, as admin. @throws Error with the server's messages */
  apply(manifests: string | readonly object[], options?: Impersonation): Promise<void>;
  /** Process id of a running component; `undefined` when it doesn't run. */
  pid(component: Component): number | undefined;
  /** Sends a signal: SIGSTOP and SIGCONT make a component hang and go on. */
  signalComponent(component: Component, signal: NodeJS.Signals): void;
  /**
   * Ends a component and returns when it is gone; does nothing when it doesn't run.
   *
   * @param signal default SIGTERM, followed by SIGKILL after 10 s
   */
  stopComponent(component: Component, signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /**
   * Starts it again with its flags, port and data, and waits until it is ready.
   *
   * @param flags further ones; they win over its own
   * @throws Error when it already runs, or with the end of its log when it doesn't become ready
   */
  startComponent(component: Component, flags?: readonly string[]): Promise<void>;
  /** Stops the API server and starts it again on the same port, with the same data. */
  restartApiServer(): Promise<void>;
  /** Ends everything that it started, and removes its folder. Idempotent. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Long enough for a start on a machine that is busy with other tests. */
const READY_WITHIN_MS = 120_000;
const STOP_GRACE_MS = 10_000;

/**
 * Starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok, and waits until
 * the cluster works: nodes ready, default ServiceAccount there. It ends with this process, however
 * that ends.
 *
 * @throws ProgramsMissingError where there is nothing to start and nothing to build it with
 * @throws Error with the end of the culprit's log when a component doesn't become ready
 */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const log = options.log ?? ((): void => undefined);
  const { version } = options;
  const binaries = {
    ...(await findBinaries({ log })),
    ...(version !== undefined && (await findBinariesOf(version, { log }))),
    ...options.binaries,
  };
  for (let attempt = 1; ; attempt++) {
    const controlPlane = await LocalControlPlane.create(binaries, options);
    try {
      await controlPlane.start();
      return controlPlane;
    } catch (error) {
      await controlPlane.stop();
      // Between the look for a free port and its use, another program may have taken it.
      if (attempt === 3 || !/address already in use/.test(String(error))) throw error;
    }
  }
}

/** Users of the API server, one a component, so that an audit log tells them apart. */
const users = {
  admin: { name: 'admin', groups: ['system:masters'] },
  controllerManager: { name: 'system:kube-controller-manager', groups: [] },
  scheduler: { name: 'system:kube-scheduler', groups: [] },
  kwok: { name: 'kwok', groups: ['system:masters'] },
} as const;
type User = keyof typeof users;

interface Ports {
  readonly apiServer: number;
  readonly controllerManager: number;
  readonly scheduler: number;
}

class LocalControlPlane implements ControlPlane {
  readonly binaries: Binaries;
  readonly dataDir: string;
  certificateAuthority = '';
  readonly objects = new Objects((url, options) => this.#send(url, options));
  readonly #tokens: Readonly<Record<User, string>> = {
    admin: newToken(),
    controllerManager: newToken(),
    scheduler: newToken(),
    kwok: newToken(),
  };
  readonly #ports: Ports;
  readonly #options: ControlPlaneOptions;
  readonly #processes = new Map<Component, SupervisedProcess>();
  readonly #janitor: FolderJanitor | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(
    binaries: Binaries,
    dataDir: string,
    ports: Ports,
    options: ControlPlaneOptions,
  ) {
    this.binaries = binaries;
    this.dataDir = dataDir;
    this.#ports = ports;
    this.#options = options;
    this.#janitor = options.keep === true ? undefined : new FolderJanitor(dataDir);
  }

  static async create(
    binaries: Binaries,
    options: ControlPlaneOptions,
  ): Promise<LocalControlPlane> {
    const dataDir = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-cp-'));
    const ports = {
      apiServer: await freePort(),
      controllerManager: await freePort(),
      scheduler: await freePort(),
    };
    const controlPlane = new LocalControlPlane(binaries, dataDir, ports, options);
    endWithThisProcess(controlPlane);
    return controlPlane;
  }

  get adminToken(): string {
    return this.#tokens.admin;
  }

  get server(): string {
    return `https://127.0.0.1:${this.#ports.apiServer}`;
  }

  get kubeconfigPath(): string {
    return this.#file('kubeconfig.yaml');
  }

  get auditLogPath(): string {
    return this.#file('audit.log');
  }

  #auditLogFile(): string | undefined {
    const { audit = false } = this.#options;
    if (audit !== false) return this.auditLogPath;
    if (recordings === undefined) return undefined;
    return path.join(recordings, `${path.basename(this.dataDir)}.log`);
  }

  async start(): Promise<void> {
    const started = performance.now();
    await this.#writeFiles();
    await this.startComponent('etcd');
    await this.startComponent('apiServer');
    await this.#writeKubeconfigs();
    await this.#createNodes();
    await Promise.all(
      (['controllerManager', 'scheduler', 'kwok'] as const).map((component) =>
        this.startComponent(component),
      ),
    );
    await this.#untilUsable();
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    this.#log(`Control plane ready at ${this.server} after ${seconds} s.`);
  }

  async startComponent(component: Component, flags: readonly string[] = []): Promise<void> {
    if (this.#processes.has(component)) throw new Error(`${component} already runs`);
    if (component === 'kwok') await this.#freeNodeLeases();
    const startedAt = Date.now();
    const running = new SupervisedProcess({
      name: component,
      program: this.binaries[component],
      args: [...this.#argsOf(component), ...flags],
      cwd: this.dataDir,
      env: this.#env(),
      logPath: this.#file(`${component}.log`),
    });
    this.#processes.set(component, running);
    running.ended.addEventListener('abort', () => {
      if (this.#processes.get(component) === running) this.#processes.delete(component);
      if (!running.isStopping) this.#log(`${running.ended.reason}; its log: ${running.logPath}`);
    });
    try {
      await waitFor(`${component} to be ready`, () => this.#isReady(component, startedAt), {
        timeoutMs: READY_WITHIN_MS,
        intervalMs: 25,
        signal: running.ended,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`${reason}\nThe end of ${running.logPath}:\n${running.logTail()}`, {
        cause: error,
      });
    }
  }

  async stopComponent(
    component: Component,
    signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM',
  ): Promise<void> {
    await this.#processes.get(component)?.stop(signal, STOP_GRACE_MS);
  }

  signalComponent(component: Component, signal: NodeJS.Signals): void {
    this.#processes.get(component)?.signal(signal);
  }

  pid(component: Component): number | undefined {
    return this.#processes.get(component)?.pid;
  }

  async restartApiServer(): Promise<void> {
    await this.stopComponent('apiServer');
    await this.startComponent('apiServer');
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stopAll(): Promise<void> {
    // Nothing of this is needed any more, so nothing gets time to end well; clients first, etcd
    // last, so that none of them logs the loss of what it depends on.
    for (const component of components.toReversed()) await this.stopComponent(component, 'SIGKILL');
    await this.#janitor?.dismiss();
    if (recordings !== undefined && this.#auditLogFile() === this.auditLogPath) {
      await copyFile(this.auditLogPath, path.join(recordings, path.basename(this.dataDir)));
    }
    if (this.#options.keep !== true) await rm(this.dataDir, { recursive: true, force: true });
    endedBefore(this);
  }

  /** The same for an `exit` handler, where nothing can be awaited. */
  killNow(): void {
    for (const running of this.#processes.values()) running.signal('SIGKILL');
    if (this.#options.keep === true) return;
    try {
      rmSync(this.dataDir, { recursive: true, force: true });
    } catch {
      // A dying program still wrote: the janitor, which outlives this process, clears that away.
    }
  }

  async kubectl(args: readonly string[], options: KubectlOptions = {}): Promise<KubectlResult> {
    const impersonation = [
      ...(options.as === undefined ? [] : [`--as=${options.as}`]),
      ...(options.asGroups ?? []).map((group) => `--as-group=${group}`),
    ];
    return new Promise((resolve, reject) => {
      // The kubeconfig goes by environment: no flag may stand before the name of a plugin.
      const child = spawn(this.binaries.kubectl, [...args, ...impersonation], {
        env: { ...this.#env(), KUBECONFIG: this.kubeconfigPath },
        stdio: ['pipe', 'pipe', 'pipe'],
        timeout: options.timeoutMs ?? 240_000,
        killSignal: 'SIGKILL',
      });
      let stdout = '';
      let stderr = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
      child.stdin.on('error', () => undefined);
      child.once('error', reject);
      child.once('close', (code) => resolve({ stdout, stderr, code: code ?? 1 }));
      child.stdin.end(options.input ?? '');
    });
  }

  apply(manifests: string | readonly object[], options?: Impersonation): Promise<void> {
    return this.objects.apply(manifests, options);
  }

  #log(line: string): void {
    this.#options.log?.(line);
  }

  #file(name: string): string {
    return path.join(this.dataDir, name);
  }

  /** Nothing of the caller's ETCD_…, KUBE… or proxy settings reaches the programs. */
  #env(): NodeJS.ProcessEnv {
    return { PATH: process.env['PATH'], HOME: this.dataDir, TMPDIR: os.tmpdir() };
  }

  #argsOf(component: Component): string[] {
    const secure = (part: 'controllerManager' | 'scheduler'): string[] => [
      `--kubeconfig=${part}.yaml`,
      `--authentication-kubeconfig=${part}.yaml`,
      `--authorization-kubeconfig=${part}.yaml`,
      `--secure-port=${this.#ports[part]}`,
      '--bind-address=127.0.0.1',
      `--cert-dir=${part}-certs`,
      '--leader-elect=false',
    ];
    switch (component) {
      case 'etcd':
        // Sockets in a folder that nobody else may enter: no port to collide on, and nobody else
        // can talk to an etcd that asks for no credentials. The `:1` is what etcd insists on.
        return [
          '--data-dir=etcd',
          '--listen-client-urls=unix://etcd:1',
          '--advertise-client-urls=unix://etcd:1',
          '--listen-peer-urls=unix://peer:1',
          '--initial-advertise-peer-urls=unix://peer:1',
          '--initial-cluster=default=unix://peer:1',
          '--unsafe-no-fsync',
          '--snapshot-count=5000',
          '--log-level=warn',
        ];
      case 'apiServer':
        return [
          '--etcd-servers=unix://etcd:1',
          `--secure-port=${this.#ports.apiServer}`,
          '--bind-address=127.0.0.1',
          // A loopback address is none that the Endpoints of Service kubernetes may hold.
          '--advertise-address=127.0.0.1',
          '--endpoint-reconciler-type=none',
          '--cert-dir=certs',
          '--authorization-mode=Node,RBAC',
          '--token-auth-file=tokens.csv',
          '--service-cluster-ip-range=10.0.0.0/24',
          '--service-account-key-file=sa.pub',
          '--service-account-signing-key-file=sa.key',
          '--service-account-issuer=https://kubernetes.default.svc',
          '--allow-privileged',
          '--profiling=false',
          // Without it, open watches hold up the end until SIGKILL.
          '--shutdown-watch-termination-grace-period=1s',
          ...(this.#auditLogFile() === undefined
            ? []
            : [
                `--audit-log-path=${this.#auditLogFile()}`,
                '--audit-policy-file=audit-policy.json',
                '--audit-log-maxsize=1000',
              ]),
          ...(this.#options.apiServerArgs ?? []),
        ];
      case 'controllerManager': {
        const qps = this.#options.controllerManagerQps;
        return [
          ...secure('controllerManager'),
          '--use-service-account-credentials',
          '--service-account-private-key-file=sa.key',
          '--root-ca-file=certs/apiserver.crt',
          ...(qps === undefined
            ? []
            : [`--kube-api-qps=${qps}`, `--kube-api-burst=${Math.ceil(qps * 1.5)}`]),
        ];
      }
      case 'scheduler':
        return secure('scheduler');
      case 'kwok':
        return [
          '--kubeconfig=kwok.yaml',
          `--config=${path.join(import.meta.dirname, 'kwok.yaml')}`,
          '--manage-all-nodes',
          '--node-ip=127.0.0.1',
          '--cidr=10.64.0.0/10',
          `--node-lease-duration-seconds=${NODE_LEASE_SECONDS}`,
          '--server-address=',
        ];
      default:
        return component satisfies never;
    }
  }

  async #isReady(component: Component, startedAt: number): Promise<boolean> {
    switch (component) {
      case 'etcd':
        return (await this.#getHealthOfEtcd()) === 200;
      case 'apiServer': {
        this.certificateAuthority ||= await readFile(this.#file('certs/apiserver.crt'), 'utf8');
        // Only our own API server has that certificate, and knows that token.
        return (await this.#request('GET', '/readyz')).status === 200;
      }
      case 'controllerManager':
        return this.#isHealthy(component, 'kube-controller-manager.crt');
      case 'scheduler':
        return this.#isHealthy(component, 'kube-scheduler.crt');
      case 'kwok':
        return this.#holdsNodeLeases(startedAt);
      default:
        return component satisfies never;
    }
  }

  #getHealthOfEtcd(): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      const outgoing = httpRequest({
        socketPath: this.#file('etcd:1'),
        path: '/health',
        timeout: 5000,
      });
      outgoing.once('response', (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
      outgoing.once('error', reject);
      outgoing.end();
    });
  }

  async #isHealthy(part: 'controllerManager' | 'scheduler', certificate: string): Promise<boolean> {
    const ca = await readFile(this.#file(path.join(`${part}-certs`, certificate)), 'utf8');
    const { status } = await request(`https://127.0.0.1:${this.#ports[part]}/healthz`, { ca });
    return status === 200;
  }

  async #holdsNodeLeases(startedAt: number): Promise<boolean> {
    for (const name of this.#nodeNames()) {
      const url = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${name}`;
      const { status, body } = await this.#request('GET', url);
      if (status !== 200) return false;
      const renewed = /"renewTime":"([^"]+)"/.exec(body)?.[1];
      if (renewed === undefined || Date.parse(renewed) < startedAt) return false;
    }
    return true;
  }

  /** A kwok that died still holds its nodes' leases: the next one would wait until they run out. */
  async #freeNodeLeases(): Promise<void> {
    const url = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
    const { status, body } = await this.#request('DELETE', url);
    if (status !== 200) throw new Error(`cannot delete the leases of the nodes: ${body}`);
  }

  readonly #send: Send = (url, options) =>
    request(`${this.server}${url}`, {
      ca: this.certificateAuthority,
      token: this.adminToken,
      ...options,
    });

  #request(method: 'GET' | 'POST' | 'DELETE', url: string, body?: object): Promise<Answer> {
    return this.#send(url, { method, ...(body !== undefined && { body }) });
  }

  async #writeFiles(): Promise<void> {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    const tokens = entriesOf(users).map(
      ([user, { name, groups }]) => `${this.#tokens[user]},${name},${name},"${groups.join(',')}"\n`,
    );
    await Promise.all([
      writeFile(this.#file('sa.pub'), publicKey),
      writeFile(this.#file('sa.key'), privateKey, { mode: 0o600 }),
      writeFile(this.#file('tokens.csv'), tokens.join(''), { mode: 0o600 }),
      writeFile(
        this.#file('audit-policy.json'),
        JSON.stringify({
          apiVersion: 'audit.k8s.io/v1',
          kind: 'Policy',
          omitStages: ['RequestReceived'],
          rules: auditRules(this.#options),
        }),
      ),
    ]);
  }

  async #writeKubeconfigs(): Promise<void> {
    await Promise.all(
      entriesOf(users).map(async ([user]) => {
        const file = user === 'admin' ? this.kubeconfigPath : this.#file(`${user}.yaml`);
        await writeFile(file, this.#kubeconfigOf(user), { mode: 0o600 });
      }),
    );
  }

  #kubeconfigOf(user: User): string {
    const cluster = 'automation-guardrails';
    const authority = Buffer.from(this.certificateAuthority).toString('base64');
    return dump({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': cluster,
      contexts: [{ name: cluster, context: { cluster, user } }],
      clusters: [
        {
          name: cluster,
          cluster: { server: this.server, 'certificate-authority-data': authority },
        },
      ],
      users: [{ name: user, user: { token: this.#tokens[user] } }],
    });
  }

  #nodeNames(): string[] {
    return Array.from({ length: this.#options.nodes ?? 1 }, (_, index) => `node-${index}`);
  }

  async #createNodes(): Promise<void> {
    const room = { cpu: '10k', memory: '10Ti', pods: '1M' };
    for (const name of this.#nodeNames()) {
      const { status, body } = await this.#request('POST', '/api/v1/nodes', {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' } },
        status: { capacity: room, allocatable: room },
      });
      if (status !== 201) throw new Error(`cannot create Node ${name}: ${body}`);
    }
  }

  /** Waits for what the controllers make in a fresh cluster, and every test takes for granted. */
  async #untilUsable(): Promise<void> {
    const exists = async (url: string): Promise<boolean> =>
      (await this.#request('GET', url)).status === 200;
    const within = { timeoutMs: READY_WITHIN_MS };
    await waitFor(
      'the default ServiceAccount',
      () => exists('/api/v1/namespaces/default/serviceaccounts/default'),
      within,
    );
    await waitFor(
      'ConfigMap kube-root-ca.crt',
      () => exists('/api/v1/namespaces/default/configmaps/kube-root-ca.crt'),
      within,
    );
    for (const name of this.#nodeNames()) {
      await waitFor(
        `Node ${name} to take pods`,
        async () => {
          const { body } = await this.#request('GET', `/api/v1/nodes/${name}`);
          const isReady = /"type":"Ready","status":"True"/.test(body);
          return isReady && !body.includes('node.kubernetes.io/not-ready');
        },
        within,
      );
    }
  }
}

/** Seconds, as a kubelet's. A node whose lease runs out becomes unreachable. */
const NODE_LEASE_SECONDS = 40;

/** Where a whole test run records what the operator asked for: see test/operator/rights.ts. */
const recordings = process.env['TEST_RECORDINGS'];
const recordedGroup = 'system:serviceaccounts:automation-guardrails';

/** Rules of audit.k8s.io/v1; the first that matches counts. */
function auditRules({ audit = false }: ControlPlaneOptions): object[] {
  if (audit !== false) return [{ level: audit === true ? 'Metadata' : audit }];
  return [{ level: 'Metadata', userGroups: [recordedGroup] }, { level: 'None' }];
}

function newToken(): string {
  return randomBytes(24).toString('hex');
}

function entriesOf<Key extends string, Value>(object: Record<Key, Value>): [Key, Value][] {
  const keys: Key[] = [];
  for (const key in object) keys.push(key);
  return keys.map((key) => [key, object[key]]);
}

/**
 * A port that was free a moment ago. It is below the range that systems take the ports of outgoing
 * connections from: no such connection can take it while the API server restarts.
 */
export async function freePort(): Promise<number> {
  return waitFor('a free port', async () => {
    const port = randomInt(20_000, 30_000);
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', resolve);
    });
    await new Promise((resolve) => server.close(resolve));
    return port;
  });
}

/** What still runs in this process. */
const running = new Set<LocalControlPlane>();
const deadlySignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function endWithThisProcess(controlPlane: LocalControlPlane): void {
  if (running.size === 0) {
    process.on('exit', killAll);
    for (const signal of deadlySignals) process.on(signal, onSignal);
  }
  running.add(controlPlane);
}

function endedBefore(controlPlane: LocalControlPlane): void {
  running.delete(controlPlane);
  if (running.size > 0) return;
  process.off('exit', killAll);
  for (const signal of deadlySignals) process.off(signal, onSignal);
}

function killAll(): void {
  for (const controlPlane of running) controlPlane.killNow();
}

function onSignal(signal: NodeJS.Signals): void {
  // Somebody else handles the signal, and may still need the cluster: `exit` comes later.
  if (process.listenerCount(signal) > 1) return;
  killAll();
  // Die of it, as this process would have without this handler.
  process.off(signal, onSignal);
  process.kill(process.pid, signal);
}
