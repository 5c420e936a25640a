import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request as httpsRequest } from 'node:https';
import { createServer, type AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { dump } from 'js-yaml';
import { findBinaries, type Binaries } from './binaries.ts';
import { SupervisedProcess } from './process.ts';
import { waitFor } from './wait.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

export interface ControlPlaneOptions {
  /** One line of progress; default: silent. */
  log?: (line: string) => void;
  /** Simulated nodes; default 1. */
  nodes?: number;
  /** Write an audit log of all requests at level Metadata to `auditLogPath`. */
  audit?: boolean;
  /** Requests per second of each of the controller manager's clients; default 20, burst 30. */
  controllerManagerQps?: number;
  /** Further flags of kube-apiserver. */
  apiServerArgs?: readonly string[];
  /** Keep the folder with data and logs after `stop()`. */
  keep?: boolean;
}

export interface KubectlOptions {
  /** Standard input. */
  input?: string;
  /** Impersonate this user. */
  as?: string;
  asGroups?: readonly string[];
}

export interface KubectlResult {
  stdout: string;
  stderr: string;
  code: number;
}

export type Component = 'etcd' | 'apiServer' | 'controllerManager' | 'scheduler' | 'kwok';

/** A real Kubernetes control plane on loopback ports, with simulated nodes. */
export interface ControlPlane {
  /** URL of the API server. */
  readonly server: string;
  readonly kubeconfigPath: string;
  /** Bearer token of a member of `system:masters`; unique to this control plane. */
  readonly adminToken: string;
  /** PEM. */
  readonly certificateAuthority: string;
  /** Folder with data, logs and kubeconfig. */
  readonly dataDir: string;
  readonly auditLogPath: string;
  readonly binaries: Binaries;
  /** Runs kubectl against this control plane. Never throws for a non-zero exit. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<KubectlResult>;
  /** Applies manifests by server-side apply, as admin. @throws Error with kubectl's message */
  apply(manifests: string | readonly object[], options?: KubectlOptions): Promise<void>;
  stopComponent(component: Component): Promise<void>;
  /** Starts it again with its flags, and waits until it is ready. */
  startComponent(component: Component): Promise<void>;
  /** Stops the API server and starts it again on the same port, with the same data. */
  restartApiServer(): Promise<void>;
  /** Ends everything that it started, and removes its folder. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok, and waits until
 * the cluster works: nodes ready, default ServiceAccount there.
 *
 * @throws BinariesMissingError where there is nothing to start and nothing to build it with
 */
export async function startControlPlane(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const binaries = await findBinaries({ log: options.log ?? ((): void => undefined) });
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

interface Ports {
  etcd: number;
  etcdPeer: number;
  apiServer: number;
  controllerManager: number;
  scheduler: number;
}

class LocalControlPlane implements ControlPlane {
  readonly binaries: Binaries;
  readonly dataDir: string;
  readonly adminToken = randomBytes(24).toString('hex');
  certificateAuthority = '';
  readonly #ports: Ports;
  readonly #options: ControlPlaneOptions;
  readonly #processes = new Map<Component, SupervisedProcess>();
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
  }

  static async create(
    binaries: Binaries,
    options: ControlPlaneOptions,
  ): Promise<LocalControlPlane> {
    const dataDir = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-cp-'));
    const [etcd, etcdPeer, apiServer, controllerManager, scheduler] = await freePorts(5);
    if (scheduler === undefined) throw new Error('no free ports');
    return new LocalControlPlane(
      binaries,
      dataDir,
      {
        etcd: etcd ?? 0,
        etcdPeer: etcdPeer ?? 0,
        apiServer: apiServer ?? 0,
        controllerManager: controllerManager ?? 0,
        scheduler,
      },
      options,
    );
  }

  get server(): string {
    return `https://127.0.0.1:${this.#ports.apiServer}`;
  }

  get kubeconfigPath(): string {
    return path.join(this.dataDir, 'kubeconfig.yaml');
  }

  get auditLogPath(): string {
    return path.join(this.dataDir, 'audit.log');
  }

  async start(): Promise<void> {
    await this.#writeFiles();
    await this.startComponent('etcd');
    await this.startComponent('apiServer');
    await this.#writeKubeconfig();
    await Promise.all(
      (['controllerManager', 'scheduler', 'kwok'] as const).map((component) =>
        this.startComponent(component),
      ),
    );
    await this.#createNodes();
  }

  async startComponent(component: Component): Promise<void> {
    const { program, args } = this.#commandOf(component);
    const logFile = path.join(this.dataDir, `${component}.log`);
    const running = new SupervisedProcess(component, program, args, logFile);
    this.#processes.set(component, running);
    stillRunning.add(running);
    await waitFor(
      `${component} to be ready`,
      async () => {
        if (running.hasExited) return 'exited' as const;
        return (await this.#isReady(component)) ? ('ready' as const) : undefined;
      },
      { timeoutMs: 60_000, intervalMs: 25 },
    ).then(async (state) => {
      if (state === 'exited') {
        throw new Error(`${component} ended during its start:\n${await running.logTail()}`);
      }
    });
  }

  async stopComponent(component: Component): Promise<void> {
    const running = this.#processes.get(component);
    if (running === undefined) return;
    await running.stop();
    stillRunning.delete(running);
    this.#processes.delete(component);
  }

  async restartApiServer(): Promise<void> {
    await this.stopComponent('apiServer');
    await this.startComponent('apiServer');
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  async #stopAll(): Promise<void> {
    await Promise.all(
      (['kwok', 'scheduler', 'controllerManager'] as const).map((component) =>
        this.stopComponent(component),
      ),
    );
    // Without etcd an API server takes a minute to end, so it goes first.
    await this.stopComponent('apiServer');
    await this.stopComponent('etcd');
    if (this.#options.keep !== true) await rm(this.dataDir, { recursive: true, force: true });
  }

  kubectl(args: readonly string[], options: KubectlOptions = {}): Promise<KubectlResult> {
    const impersonation = [
      ...(options.as === undefined ? [] : [`--as=${options.as}`]),
      ...(options.asGroups ?? []).map((group) => `--as-group=${group}`),
    ];
    return new Promise((resolve, reject) => {
      const child = spawn(
        this.binaries.kubectl,
        [`--kubeconfig=${this.kubeconfigPath}`, ...impersonation, ...args],
        { stdio: ['pipe', 'pipe', 'pipe'] },
      );
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

  async apply(manifests: string | readonly object[], options: KubectlOptions = {}): Promise<void> {
    const input =
      typeof manifests === 'string'
        ? manifests
        : manifests.map((manifest) => dump(manifest)).join('\n---\n');
    const { code, stderr } = await this.kubectl(
      ['apply', '--server-side', '--force-conflicts', '-f', '-'],
      { ...options, input },
    );
    if (code !== 0) throw new Error(`kubectl apply failed: ${stderr.trim()}`);
  }

  #commandOf(component: Component): { program: string; args: string[] } {
    const { dataDir, binaries } = this;
    const ports = this.#ports;
    const file = (name: string): string => path.join(dataDir, name);
    switch (component) {
      case 'etcd':
        return {
          program: binaries.etcd,
          args: [
            `--data-dir=${file('etcd')}`,
            `--listen-client-urls=http://127.0.0.1:${ports.etcd}`,
            `--advertise-client-urls=http://127.0.0.1:${ports.etcd}`,
            `--listen-peer-urls=http://127.0.0.1:${ports.etcdPeer}`,
            '--unsafe-no-fsync',
            '--log-level=warn',
          ],
        };
      case 'apiServer':
        return {
          program: binaries.apiServer,
          args: [
            `--etcd-servers=http://127.0.0.1:${ports.etcd}`,
            `--secure-port=${ports.apiServer}`,
            '--bind-address=127.0.0.1',
            `--cert-dir=${file('certs')}`,
            '--authorization-mode=Node,RBAC',
            `--token-auth-file=${file('tokens.csv')}`,
            '--service-cluster-ip-range=10.0.0.0/24',
            `--service-account-key-file=${file('sa.pub')}`,
            `--service-account-signing-key-file=${file('sa.key')}`,
            '--service-account-issuer=https://kubernetes.default.svc',
            '--allow-privileged',
            '--profiling=false',
            ...(this.#options.audit === true
              ? [
                  `--audit-log-path=${this.auditLogPath}`,
                  `--audit-policy-file=${file('audit-policy.yaml')}`,
                  '--audit-log-maxsize=1000',
                ]
              : []),
            ...(this.#options.apiServerArgs ?? []),
          ],
        };
      case 'controllerManager': {
        const qps = this.#options.controllerManagerQps;
        return {
          program: binaries.controllerManager,
          args: [
            `--kubeconfig=${this.kubeconfigPath}`,
            `--authentication-kubeconfig=${this.kubeconfigPath}`,
            `--authorization-kubeconfig=${this.kubeconfigPath}`,
            `--secure-port=${ports.controllerManager}`,
            '--bind-address=127.0.0.1',
            `--cert-dir=${file('controller-manager-certs')}`,
            '--use-service-account-credentials',
            `--service-account-private-key-file=${file('sa.key')}`,
            `--root-ca-file=${file('certs/apiserver.crt')}`,
            '--leader-elect=false',
            ...(qps === undefined
              ? []
              : [`--kube-api-qps=${qps}`, `--kube-api-burst=${Math.ceil(qps * 1.5)}`]),
          ],
        };
      }
      case 'scheduler':
        return {
          program: binaries.scheduler,
          args: [
            `--kubeconfig=${this.kubeconfigPath}`,
            `--authentication-kubeconfig=${this.kubeconfigPath}`,
            `--authorization-kubeconfig=${this.kubeconfigPath}`,
            `--secure-port=${ports.scheduler}`,
            '--bind-address=127.0.0.1',
            `--cert-dir=${file('scheduler-certs')}`,
            '--leader-elect=false',
          ],
        };
      case 'kwok':
        return {
          program: binaries.kwok,
          args: [
            `--kubeconfig=${this.kubeconfigPath}`,
            `--config=${path.join(here, 'kwok.yaml')}`,
            '--manage-all-nodes',
            '--node-ip=127.0.0.1',
            '--node-lease-duration-seconds=40',
            '--server-address=',
          ],
        };
    }
  }

  async #isReady(component: Component): Promise<boolean> {
    const ports = this.#ports;
    switch (component) {
      case 'etcd': {
        const response = await fetch(`http://127.0.0.1:${ports.etcd}/health`);
        return response.ok;
      }
      case 'apiServer':
        await this.#readCertificateAuthority();
        // Only our own API server knows the token: whatever else listens there answers 401.
        return (await this.#get(ports.apiServer, '/readyz')) === 200;
      case 'controllerManager':
        return (await this.#get(ports.controllerManager, '/healthz')) === 200;
      case 'scheduler':
        return (await this.#get(ports.scheduler, '/healthz')) === 200;
      case 'kwok':
        return true;
    }
  }

  #get(port: number, url: string): Promise<number> {
    return new Promise((resolve, reject) => {
      const isApiServer = port === this.#ports.apiServer;
      const outgoing = httpsRequest(
        {
          host: '127.0.0.1',
          port,
          path: url,
          headers: { authorization: `Bearer ${this.adminToken}` },
          timeout: 5000,
          ...(isApiServer ? { ca: this.certificateAuthority } : { rejectUnauthorized: false }),
        },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      outgoing.once('timeout', () => outgoing.destroy(new Error('timeout')));
      outgoing.once('error', reject);
      outgoing.end();
    });
  }

  async #readCertificateAuthority(): Promise<void> {
    if (this.certificateAuthority !== '') return;
    this.certificateAuthority = await readFile(
      path.join(this.dataDir, 'certs', 'apiserver.crt'),
      'utf8',
    );
  }

  async #writeFiles(): Promise<void> {
    const file = (name: string): string => path.join(this.dataDir, name);
    const { publicKey, privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    await mkdir(file('certs'));
    await Promise.all([
      writeFile(file('sa.pub'), publicKey),
      writeFile(file('sa.key'), privateKey, { mode: 0o600 }),
      writeFile(file('tokens.csv'), `${this.adminToken},admin,admin,system:masters\n`, {
        mode: 0o600,
      }),
      copyFile(path.join(here, 'audit-policy.yaml'), file('audit-policy.yaml')),
    ]);
  }

  async #writeKubeconfig(): Promise<void> {
    const name = 'automation-guardrails';
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': name,
      contexts: [{ name, context: { cluster: name, user: name } }],
      clusters: [
        {
          name,
          cluster: {
            server: this.server,
            'certificate-authority-data': Buffer.from(this.certificateAuthority).toString('base64'),
          },
        },
      ],
      users: [{ name, user: { token: this.adminToken } }],
    };
    await writeFile(this.kubeconfigPath, dump(config), { mode: 0o600 });
  }

  async #createNodes(): Promise<void> {
    const names = Array.from({ length: this.#options.nodes ?? 1 }, (_, index) => `node-${index}`);
    await this.apply(names.map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } })));
    await waitFor('the nodes to be ready', async () => {
      const { stdout } = await this.kubectl([
        'get',
        'nodes',
        '-o=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}',
      ]);
      return stdout.split(' ').filter((status) => status === 'True').length === names.length;
    });
    await waitFor('the default ServiceAccount', async () => {
      const { code } = await this.kubectl(['get', 'serviceaccount', 'default']);
      return code === 0;
    });
  }
}

/** What still runs, so that it ends with this process however that ends, SIGKILL included. */
const stillRunning = new Set<SupervisedProcess>();
process.once('exit', () => {
  for (const running of stillRunning) running.kill();
});

/** Ports that were free a moment ago, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', resolve);
      });
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(
    servers.map((server) => new Promise((resolve) => server.close(() => resolve(undefined)))),
  );
  return ports;
}
