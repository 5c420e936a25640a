import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import path from 'node:path';
import type { Condition } from '../../src/api/objects.ts';
import { freePort, type ControlPlane } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { applyCrds, getObject, kubectlOk } from '../operator/cluster.ts';
import { fromGuide } from './guide.ts';
import { logEntries, type LogEntry } from './log.ts';
import type { FluxPrograms } from './programs.ts';

const namespace = 'flux-system';
const kustomization = 'kustomization.kustomize.toolkit.fluxcd.io';
const externalArtifact = 'externalartifact.source.toolkit.fluxcd.io';
/** The one source, as in the guide. */
const source = 'platform';

export interface KustomizationStatus {
  /** Of the artifact: `main@sha1:…`. */
  lastAppliedRevision?: string;
  lastHandledReconcileAt?: string;
  conditions?: Condition[];
}

/** A Kustomization as the guide has it. */
interface Kustomization {
  apiVersion: string;
  kind: string;
  spec: Record<string, unknown>;
}

/**
 * Flux's kustomize-controller, with the rights of an administrator. In place of source-controller, a
 * server on loopback gives out what is published, and an ExternalArtifact says so.
 */
export class Flux {
  readonly #controlPlane: ControlPlane;
  readonly #artifacts = new Map<string, Buffer>();
  readonly #folder: string;
  readonly #server: Server;
  readonly #controller: SupervisedProcess;

  private constructor(
    controlPlane: ControlPlane,
    folder: string,
    { kustomizeController }: FluxPrograms,
    [healthPort, metricsPort]: readonly [number, number],
  ) {
    this.#controlPlane = controlPlane;
    this.#folder = folder;
    this.#server = createServer(({ url = '' }, response) => {
      const artifact = this.#artifacts.get(url);
      response.writeHead(artifact === undefined ? 404 : 200).end(artifact);
    });
    this.#controller = new SupervisedProcess({
      name: 'kustomize-controller',
      program: kustomizeController,
      args: [
        '--feature-gates=ExternalArtifact=true',
        '--requeue-dependency=5s',
        '--watch-all-namespaces',
        `--health-addr=127.0.0.1:${healthPort}`,
        `--metrics-addr=127.0.0.1:${metricsPort}`,
      ],
      cwd: folder,
      env: {
        PATH: process.env['PATH'],
        HOME: folder,
        TMPDIR: folder,
        KUBECONFIG: controlPlane.kubeconfigPath,
        RUNTIME_NAMESPACE: namespace,
      },
      logPath: path.join(controlPlane.dataDir, 'kustomize-controller.log'),
    });
  }

  static async start(controlPlane: ControlPlane, programs: FluxPrograms): Promise<Flux> {
    await applyCrds(controlPlane, programs.crds);
    await controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    ]);
    const folder = path.join(controlPlane.dataDir, 'flux');
    await mkdir(path.join(folder, 'repository'), { recursive: true });
    const ports = [await freePort(), await freePort()] as const;
    const flux = new Flux(controlPlane, folder, programs, ports);
    flux.#server.listen(0, '127.0.0.1');
    await once(flux.#server, 'listening');
    return flux;
  }

  async stop(): Promise<void> {
    await this.#controller.stop('SIGTERM', 5000);
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** Why it doesn't work, for a failed test. */
  logTail(): string {
    return this.#controller.logTail(40);
  }

  /** What is published next: the platform team's repository. */
  get repository(): string {
    return path.join(this.#folder, 'repository');
  }

  /** A new revision of the repository, as source-controller tells of a push. */
  async publish(revision: string): Promise<void> {
    const artifact = await tarOf(this.repository);
    const url = `/${source}/${revision}.tar.gz`;
    this.#artifacts.set(url, artifact);
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no port to serve on');
    await this.#controlPlane.apply([
      {
        apiVersion: 'source.toolkit.fluxcd.io/v1',
        kind: 'ExternalArtifact',
        metadata: { name: source, namespace },
        spec: { sourceRef: { apiVersion: 'v1', kind: 'ConfigMap', name: source } },
      },
    ]);
    const now = new Date().toISOString();
    const status = {
      artifact: {
        url: `http://127.0.0.1:${address.port}${url}`,
        path: url.slice(1),
        revision,
        digest: `sha256:${createHash('sha256').update(artifact).digest('hex')}`,
        size: artifact.length,
        lastUpdateTime: now,
      },
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          reason: 'Succeeded',
          message: '',
          lastTransitionTime: now,
        },
      ],
    };
    await kubectlOk(this.#controlPlane, [
      'patch',
      externalArtifact,
      source,
      `-n=${namespace}`,
      '--subresource=status',
      '--type=merge',
      `--patch=${JSON.stringify({ status })}`,
    ]);
  }

  /**
   * Has a folder of the repository applied, as the guide has it.
   *
   * @param example the guide's Kustomization
   * @param folder another name and folder than the guide's
   */
  async follow(example: string, folder?: string): Promise<void> {
    const guides = fromGuide('kustomize.toolkit.fluxcd.io/v1', 'Kustomization', example);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is what a Kustomization is
    const { apiVersion, kind, spec } = guides as Kustomization;
    await this.#controlPlane.apply([
      {
        apiVersion,
        kind,
        metadata: { name: folder ?? example, namespace },
        spec: {
          ...spec,
          ...(folder !== undefined && { path: `./${folder}` }),
          // Of an automation, so that it looks for drift all the time.
          ...(folder !== undefined && { interval: '20s' }),
          retryInterval: '5s',
          // On a slow machine.
          timeout: '5m',
          sourceRef: { kind: 'ExternalArtifact', name: source },
        },
      },
    ]);
  }

  /** What its controller logged so far. */
  log(): Promise<LogEntry[]> {
    return logEntries(this.#controller.logPath);
  }

  /** What `flux reconcile` does. @returns the mark that the status shows once that is done */
  async reconcile(name: string): Promise<string> {
    const mark = new Date().toISOString();
    await kubectlOk(this.#controlPlane, [
      'annotate',
      '--overwrite',
      kustomization,
      name,
      `-n=${namespace}`,
      `reconcile.fluxcd.io/requestedAt=${mark}`,
    ]);
    return mark;
  }

  async status(name: string): Promise<KustomizationStatus> {
    const object = await getObject<{ status?: KustomizationStatus }>(
      this.#controlPlane,
      kustomization,
      name,
      namespace,
    );
    return object?.status ?? {};
  }
}

async function tarOf(folder: string): Promise<Buffer> {
  const child = spawn('tar', ['-czf', '-', '-C', folder, '.'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`tar ended with ${code}`);
  return Buffer.concat(chunks);
}
