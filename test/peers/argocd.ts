import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { dump } from 'js-yaml';
import { freePort, type ControlPlane } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { waitFor } from '../control-plane/wait.ts';
import { applyCrds, getObject, kubectlOk } from '../operator/cluster.ts';
import type { ArgoCdPrograms } from './programs.ts';

const namespace = 'argocd';
const applications = 'applications.argoproj.io';

/** How an Application is compared and synced. */
export interface ApplicationOptions {
  annotations?: Record<string, string>;
  syncOptions?: string[];
}

export interface ApplicationStatus {
  sync?: { status?: string; revision?: string };
  health?: { status?: string };
  /** The last sync, or the one that runs. */
  operationState?: {
    phase?: string;
    message?: string;
    operation?: {
      initiatedBy?: { automated?: boolean; username?: string };
      /** Heals of this revision so far; absent for none. */
      sync?: { autoHealAttemptsCount?: number };
    };
    syncResult?: { revision?: string };
  };
  /** Successful syncs of everything, the last ten. */
  history?: { initiatedBy?: { username?: string } }[];
}

interface Application {
  metadata: { resourceVersion: string };
  /** The sync that is asked for, or runs. */
  operation?: object;
  status?: ApplicationStatus;
}

/**
 * Argo CD's application controller and repository server, with the rights of an administrator, and
 * a Git repository on disk with one folder for each Application. No API server of Argo CD: what that
 * does for a user's sync is a write of the field `operation`.
 */
export class ArgoCd {
  readonly #controlPlane: ControlPlane;
  readonly #folder: string;
  readonly #repository: string;
  readonly #processes: readonly SupervisedProcess[];

  private constructor(
    controlPlane: ControlPlane,
    folder: string,
    processes: readonly SupervisedProcess[],
  ) {
    this.#controlPlane = controlPlane;
    this.#folder = folder;
    this.#repository = path.join(folder, 'repository');
    this.#processes = processes;
  }

  static async start(controlPlane: ControlPlane, programs: ArgoCdPrograms): Promise<ArgoCd> {
    await applyCrds(controlPlane, programs.crds);
    await controlPlane.apply(settings);

    const folder = path.join(controlPlane.dataDir, 'argocd');
    for (const name of ['', 'repository', 'ssh', 'tls', 'gpg', 'plugins', 'temporary']) {
      await mkdir(path.join(folder, name), { recursive: true });
    }
    const [redis, repoServer, repoMetrics, metrics] = [
      await freePort(),
      await freePort(),
      await freePort(),
      await freePort(),
    ];
    const start = (name: string, program: string, args: readonly string[]): SupervisedProcess =>
      new SupervisedProcess({
        name,
        program,
        args,
        cwd: folder,
        env: {
          PATH: process.env['PATH'],
          HOME: folder,
          TMPDIR: path.join(folder, 'temporary'),
          KUBECONFIG: controlPlane.kubeconfigPath,
          ARGOCD_BINARY_NAME: name,
          ARGOCD_FAKE_IN_CLUSTER: 'true',
          ARGOCD_GPG_ENABLED: 'false',
          ARGOCD_GPG_DATA_PATH: path.join(folder, 'gpg'),
          ARGOCD_SSH_DATA_PATH: path.join(folder, 'ssh'),
          ARGOCD_TLS_DATA_PATH: path.join(folder, 'tls'),
          ARGOCD_PLUGINSOCKFILEPATH: path.join(folder, 'plugins'),
          ...gitSettings,
        },
        logPath: path.join(controlPlane.dataDir, `${name}.log`),
      });
    const processes = [
      start('argocd-redis', programs.redis, [`127.0.0.1:${redis}`]),
      start('argocd-repo-server', programs.argocd, [
        `--redis=127.0.0.1:${redis}`,
        '--address=127.0.0.1',
        `--port=${repoServer}`,
        '--metrics-address=127.0.0.1',
        `--metrics-port=${repoMetrics}`,
        '--disable-tls',
        // How soon a push is noticed without a webhook.
        '--revision-cache-expiration=5s',
      ]),
    ];
    const argoCd = new ArgoCd(controlPlane, folder, processes);
    await argoCd.#git('init', '--quiet', '--initial-branch=main');
    await waitFor('Redis and the repository server of Argo CD', async () => {
      await Promise.all([redis, repoServer].map(canConnect));
      return true;
    });
    processes.push(
      start('argocd-application-controller', programs.argocd, [
        `--namespace=${namespace}`,
        `--redis=127.0.0.1:${redis}`,
        `--repo-server=127.0.0.1:${repoServer}`,
        '--repo-server-plaintext',
        `--metrics-port=${metrics}`,
        '--app-resync=20',
        '--app-resync-jitter=0',
      ]),
    );
    return argoCd;
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((one) => one.stop('SIGTERM', 5000)));
  }

  /** Why it doesn't work, for a failed test. */
  logTail(): string {
    return this.#processes.map((one) => `${one.name}\n${one.logTail(40)}`).join('\n');
  }

  /** Commits what an Application should be. @returns the commit */
  async push(name: string, manifests: readonly object[]): Promise<string> {
    const folder = path.join(this.#repository, name);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder);
    const text = manifests.map((one) => dump(one)).join('---\n');
    await writeFile(path.join(folder, 'automation.yaml'), text);
    await this.#git('add', '--all');
    await this.#git('commit', '--quiet', `--message=${name}`);
    return (await this.#git('rev-parse', 'HEAD')).trim();
  }

  /** An Application that syncs, prunes and heals by itself, into the namespace of its name. */
  async follow(name: string, options: ApplicationOptions = {}): Promise<void> {
    const { annotations = {}, syncOptions = [] } = options;
    await this.#controlPlane.apply([
      {
        apiVersion: 'argoproj.io/v1alpha1',
        kind: 'Application',
        metadata: { name, namespace, annotations },
        spec: {
          project: 'default',
          source: { repoURL: `file://${this.#repository}`, path: name, targetRevision: 'main' },
          destination: { server: 'https://kubernetes.default.svc', namespace: name },
          syncPolicy: { automated: { prune: true, selfHeal: true }, syncOptions },
        },
      },
    ]);
  }

  /**
   * A person's sync, as the user interface asks for it. Returns when it has ended.
   *
   * @param syncOptions in place of the Application's own
   * @param force delete and create what can't be changed
   * @returns how it ended
   */
  async sync(
    name: string,
    syncOptions: readonly string[],
    force: boolean,
  ): Promise<{ phase?: string; message?: string }> {
    const username = `alice-${syncOptions.join('-')}-${force}`;
    const operation = {
      initiatedBy: { username },
      sync: { syncOptions, prune: true, syncStrategy: { apply: { force } } },
    };
    await waitFor(
      `${name} to take a sync`,
      async () => {
        const application = await this.#get(name);
        if (application === undefined || application.operation !== undefined) return false;
        // Merged into a sync that has begun meanwhile, it would be part of that one.
        const { resourceVersion } = application.metadata;
        await kubectlOk(this.#controlPlane, [
          'patch',
          applications,
          name,
          `-n=${namespace}`,
          '--type=merge',
          `--patch=${JSON.stringify({ metadata: { resourceVersion }, operation })}`,
        ]);
        return true;
      },
      { timeoutMs: 120_000 },
    );
    return waitFor(
      `the sync of ${name} by ${username}`,
      async () => {
        const { operationState: last, history = [] } = await this.status(name);
        // A heal may follow at once, and take the place of the last sync.
        const isInHistory = history.some(({ initiatedBy }) => initiatedBy?.username === username);
        if (isInHistory) return { phase: 'Succeeded' };
        const isMine = last?.operation?.initiatedBy?.username === username;
        return isMine && last.phase !== 'Running' && last;
      },
      { timeoutMs: 240_000 },
    );
  }

  async status(name: string): Promise<ApplicationStatus> {
    return (await this.#get(name))?.status ?? {};
  }

  #get(name: string): Promise<Application | undefined> {
    return getObject<Application>(this.#controlPlane, applications, name, namespace);
  }

  async #git(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('git', args, {
      cwd: this.#repository,
      env: { PATH: process.env['PATH'], HOME: this.#folder, ...gitSettings },
    });
    return stdout;
  }
}

/** Nothing of this machine's configuration of Git plays a part. */
const gitSettings = {
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'pipeline',
  GIT_AUTHOR_EMAIL: 'pipeline@example.com',
  GIT_COMMITTER_NAME: 'pipeline',
  GIT_COMMITTER_EMAIL: 'pipeline@example.com',
};

const labels = { 'app.kubernetes.io/part-of': 'argocd' };

const settings: readonly object[] = [
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'argocd-cm', namespace, labels },
  },
  {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'argocd-secret', namespace, labels },
    // Signs sessions of an API server that doesn't run here.
    stringData: { 'server.secretkey': 'unused' },
  },
  {
    apiVersion: 'argoproj.io/v1alpha1',
    kind: 'AppProject',
    metadata: { name: 'default', namespace },
    spec: {
      sourceRepos: ['*'],
      destinations: [{ server: '*', namespace: '*' }],
      clusterResourceWhitelist: [{ group: '*', kind: '*' }],
    },
  },
];

function canConnect(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
  });
}
