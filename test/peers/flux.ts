import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import path from 'node:path';
import { dump } from 'js-yaml';
import type { Condition } from '../../src/api/objects.ts';
import { freePort, type ControlPlane } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { applyCrds, getObject, kubectlOk } from '../operator/cluster.ts';
import type { FluxPrograms } from './programs.ts';

const namespace = 'flux-system';
const kustomization = 'kustomization.kustomize.toolkit.fluxcd.io';
const externalArtifact = 'externalartifact.source.toolkit.fluxcd.io';

export interface KustomizationStatus {
  /** Of the artifact: `main@sha1:…`. */
  lastAppliedRevision?: string;
  lastHandledReconcileAt?: string;
  conditions?: Condition[];
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
    await mkdir(folder);
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

  /** A new revision of a source, as source-controller tells of a push. */
  async publish(name: string, revision: string, manifests: readonly object[]): Promise<void> {
    const artifact = await tarOf(this.#folder, manifests);
    const url = `/${name}/${revision}.tar.gz`;
    this.#artifacts.set(url, artifact);
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no port to serve on');
    await this.#controlPlane.apply([
      {
        apiVersion: 'source.toolkit.fluxcd.io/v1',
        kind: 'ExternalArtifact',
        metadata: { name, namespace },
        spec: { sourceRef: { apiVersion: 'v1', kind: 'ConfigMap', name } },
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
      name,
      `-n=${namespace}`,
      '--subresource=status',
      '--type=merge',
      `--patch=${JSON.stringify({ status })}`,
    ]);
  }

  /** Applies a source again and again, prunes, and corrects drift. */
  async follow(name: string): Promise<void> {
    await this.#controlPlane.apply([
      {
        apiVersion: 'kustomize.toolkit.fluxcd.io/v1',
        kind: 'Kustomization',
        metadata: { name, namespace },
        spec: {
          interval: '20s',
          retryInterval: '5s',
          path: './',
          prune: true,
          sourceRef: { kind: 'ExternalArtifact', name },
        },
      },
    ]);
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

async function tarOf(parent: string, manifests: readonly object[]): Promise<Buffer> {
  const folder = await mkdtemp(path.join(parent, 'artifact-'));
  await writeFile(
    path.join(folder, 'automation.yaml'),
    manifests.map((one) => dump(one)).join('---\n'),
  );
  const child = spawn('tar', ['-czf', '-', '-C', folder, '.'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`tar ended with ${code}`);
  return Buffer.concat(chunks);
}
