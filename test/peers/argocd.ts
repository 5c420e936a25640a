import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { dump } from 'js-yaml';
import { findBinaries } from '../control-plane/binaries.ts';
import { freePort, type ControlPlane } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { waitFor } from '../control-plane/wait.ts';
import { applyCrds, getObject, kubectlOk } from '../operator/cluster.ts';
import { fromGuide } from './guide.ts';
import { logEntries, type LogEntry } from './log.ts';
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
  /** What it manages. */
  resources?: { kind?: string; name?: string; status?: string }[];
  conditions?: { type?: string; message?: string }[];
  /** The last sync, or the one that runs. */
  operationState?: {
    phase?: string;
    message?: string;
    operation?: {
      initiatedBy?: { automated?: boolean; username?: string };
      sync?: {
        revision?: string;
        /** Heals of this revision so far; absent for none. */
        autoHealAttemptsCount?: number;
      };
    };
    syncResult?: { revision?: string };
  };
  /** Successful syncs of everything, the last ten. */
  history?: { initiatedBy?: { username?: string } }[];
}

/** An Application as the guide has it. */
interface GuidesApplication {
  apiVersion: string;
  kind: string;
  spec: {
    source: object;
    destination: object;
    syncPolicy: { syncOptions: string[] };
  };
}

interface Application {
  metadata: { resourceVersion: string };
  /** The sync that is asked for, or runs. */
  operation?: object;
  status?: ApplicationStatus;
}

/**
 * Argo CD's application controller and repository server, with the rights of an administrator, and
 * a Git repository on disk with one folder for each Application. Its kustomize is kubectl's. No API server of Argo CD: what that
 * does for a user's sync is a write of the field `operation`.
 */
export class ArgoCd {
  readonly #controlPlane: ControlPlane;
  readonly #folder: string;
  readonly #program: string;
  readonly #processes: readonly SupervisedProcess[];
  /** What is committed next: the platform team's repository. */
  readonly repository: string;

  private constructor(
    controlPlane: ControlPlane,
    folder: string,
    program: string,
    processes: readonly SupervisedProcess[],
  ) {
    this.#controlPlane = controlPlane;
    this.#folder = folder;
    this.repository = path.join(folder, 'repository');
    this.#program = program;
    this.#processes = processes;
  }

  static async start(controlPlane: ControlPlane, programs: ArgoCdPrograms): Promise<ArgoCd> {
    await applyCrds(controlPlane, programs.crds);
    await controlPlane.apply(settings);

    const folder = path.join(controlPlane.dataDir, 'argocd');
    for (const name of ['repository', 'programs', 'ssh', 'tls', 'gpg', 'plugins', 'temporary']) {
      await mkdir(path.join(folder, name), { recursive: true });
    }
    const kubectl = (await findBinaries({ log: () => undefined })).kubectl;
    await writeFile(path.join(folder, 'programs/kustomize'), kustomizeBy(kubectl), { mode: 0o700 });
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
          PATH: `${path.join(folder, 'programs')}${path.delimiter}${process.env['PATH'] ?? ''}`,
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
    const argoCd = new ArgoCd(controlPlane, folder, programs.argocd, processes);
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

  /** What its application controller logged so far. */
  log(): Promise<LogEntry[]> {
    return logEntries(path.join(this.#controlPlane.dataDir, 'argocd-application-controller.log'));
  }

  /** Commits the repository. @returns the commit */
  async push(): Promise<string> {
    await this.#git('add', '--all');
    await this.#git('commit', '--quiet', '--allow-empty', '--message=change');
    return (await this.#git('rev-parse', 'HEAD')).trim();
  }

  /**
   * Has a folder of the repository applied, as the guide has it.
   *
   * @param example the guide's Application
   * @param folder another name, folder and namespace than the guide's
   * @param options besides the guide's own
   */
  async follow(example: string, folder?: string, options: ApplicationOptions = {}): Promise<void> {
    const { annotations = {}, syncOptions = [] } = options;
    const guides = fromGuide('argoproj.io/v1alpha1', 'Application', example);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is what an Application is
    const { apiVersion, kind, spec } = guides as GuidesApplication;
    await this.#controlPlane.apply([
      {
        apiVersion,
        kind,
        metadata: { name: folder ?? example, namespace, annotations },
        spec: {
          ...spec,
          source: {
            ...spec.source,
            ...(folder !== undefined && { path: folder }),
            repoURL: `file://${this.repository}`,
          },
          destination: { ...spec.destination, ...(folder !== undefined && { namespace: folder }) },
          syncPolicy: {
            ...spec.syncPolicy,
            syncOptions: [...spec.syncPolicy.syncOptions, ...syncOptions],
          },
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

  /**
   * What the health checks of its ConfigMap say of an object. Argo CD keeps that to itself: an
   * Application shows the worst of all.
   */
  async healthOf(object: object): Promise<string> {
    const files = {
      object: path.join(this.#folder, 'object'),
      settings: path.join(this.#folder, 'cm'),
    };
    await writeFile(files.object, dump(object));
    const settingsFlag = `--argocd-cm-path=${files.settings}`;
    await writeFile(files.settings, dump(fromGuide('v1', 'ConfigMap', 'argocd-cm')));
    const { stdout } = await promisify(execFile)(
      this.#program,
      ['admin', 'settings', 'resource-overrides', 'health', files.object, settingsFlag],
      { env: { HOME: this.#folder, ARGOCD_BINARY_NAME: 'argocd' } },
    );
    return /^STATUS: (\w+)$/m.exec(stdout)?.[1] ?? stdout;
  }

  async status(name: string): Promise<ApplicationStatus> {
    return (await this.#get(name))?.status ?? {};
  }

  #get(name: string): Promise<Application | undefined> {
    return getObject<Application>(this.#controlPlane, applications, name, namespace);
  }

  async #git(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)('git', args, {
      cwd: this.repository,
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
  fromGuide('v1', 'ConfigMap', 'argocd-cm'),
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

/** Argo CD asks for a version, and builds a folder. */
function kustomizeBy(kubectl: string): string {
  return `#!/bin/sh\n[ "$1" = build ] || exec echo v5.0.0\nexec '${kubectl}' kustomize "$2"\n`;
}

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
