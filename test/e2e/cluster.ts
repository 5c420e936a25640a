/** The clusters that test/e2e runs on, unchanged: the built-in control plane, or kind. */
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { findBinaries } from '../control-plane/binaries.ts';
import { startControlPlane } from '../control-plane/control-plane.ts';
import { findHelm, runProgram } from '../install/helm.ts';
import { serviceAccountKubeconfig } from '../operator/cluster.ts';
import { startOperator } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

/** What `npm run e2e` asks for, by the environment. */
export const choices = ['1.36', '1.35', 'kind'] as const;
/** What `E2E_CLUSTER` can be. */
export type Choice = (typeof choices)[number];

/** A cluster with nothing of ours in it. */
export interface Cluster {
  readonly kubeconfigPath: string;
  /** Folder with helm, kubectl and kubectl-guardrails, for the PATH. */
  readonly bin: string;
  /**
   * Runs what the Deployment of the operator stands for. Where containers run, it does so itself.
   *
   * @param onLog told of every line that it logs there
   * @returns what ends it; its exit code
   */
  runOperator(onLog?: (line: string) => void): Promise<() => Promise<number | string>>;
  stop(): Promise<void>;
}

/** @throws Error where the choice needs what this machine lacks */
export async function startCluster(choice: Choice, log: (line: string) => void): Promise<Cluster> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-e2e-'));
  const bin = await programs(folder, log);
  const cluster = choice === 'kind' ? await kind(folder, log) : await builtIn(choice);
  return {
    ...cluster,
    bin,
    stop: async () => {
      await cluster.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/**
 * Runs a line as it stands on a page, by bash, with the cluster's programs.
 *
 * @param at working folder, the root of the repository by default, and environment variables
 * @returns its exit code, and what it printed to either stream
 */
export function runLine(
  { bin, kubeconfigPath }: Pick<Cluster, 'bin' | 'kubeconfigPath'>,
  line: string,
  { cwd = root, env = {} }: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<{ code: number; output: string }> {
  const PATH = `${bin}${path.delimiter}${process.env['PATH'] ?? ''}`;
  return runProgram('bash', { kubeconfigPath }, ['-c', line], cwd, { PATH, ...env });
}

async function programs(folder: string, log: (line: string) => void): Promise<string> {
  const [helm, { kubectl }] = await Promise.all([findHelm(log), findBinaries({ log })]);
  const bin = path.join(folder, 'bin');
  await mkdir(bin);
  await symlink(helm, path.join(bin, 'helm'));
  await symlink(kubectl, path.join(bin, 'kubectl'));
  const plugin = path.join(bin, 'kubectl-guardrails');
  const main = path.join(root, 'src/cli/main.ts');
  await writeFile(plugin, `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
  await chmod(plugin, 0o755);
  return bin;
}

/** No container runs there: the operator does, beside the cluster, with its own rights. */
async function builtIn(version: Exclude<Choice, 'kind'>): Promise<Omit<Cluster, 'bin'>> {
  const controlPlane = await startControlPlane({
    controllerManagerQps: 500,
    ...(version !== '1.36' && { version }),
  });
  return {
    kubeconfigPath: controlPlane.kubeconfigPath,
    runOperator: async (onLog) => {
      const account = { namespace: 'automation-guardrails', name: 'automation-guardrails' };
      const kubeconfigPath = await serviceAccountKubeconfig(controlPlane, account);
      const operator = await startOperator({ kubeconfigPath, ...(onLog && { onLog }) });
      return () => operator.stop();
    },
    stop: () => controlPlane.stop(),
  };
}

/** The image under the name that the documentation gives it: no registry is asked for it. */
const image = 'registry.example.com/automation-guardrails:0.1.0';

/** `kind` and `docker` are on the PATH; `KIND_NODE_IMAGE` says which Kubernetes. */
async function kind(folder: string, log: (line: string) => void): Promise<Omit<Cluster, 'bin'>> {
  const kubeconfigPath = path.join(folder, 'kubeconfig.yaml');
  const name = `guardrails-${process.pid}`;
  const run = async (program: string, ...args: string[]): Promise<void> => {
    log(`${program} ${args.join(' ')}`);
    const { code, output } = await runProgram(program, { kubeconfigPath }, args);
    if (code !== 0) throw new Error(`${program} ${args.join(' ')} failed:\n${output}`);
  };
  const nodeImage = process.env['KIND_NODE_IMAGE'];
  const which = nodeImage === undefined ? [] : [`--image=${nodeImage}`];
  await run('docker', 'build', `--tag=${image}`, '.');
  try {
    await run('kind', 'create', 'cluster', `--name=${name}`, '--wait=180s', ...which);
    await run('kind', 'load', 'docker-image', image, `--name=${name}`);
    // It is there, and is the cluster's own.
    await readFile(kubeconfigPath);
  } catch (error) {
    await run('kind', 'delete', 'cluster', `--name=${name}`);
    throw error;
  }
  return {
    kubeconfigPath,
    runOperator: () => Promise.resolve(() => Promise.resolve(0)),
    stop: () => run('kind', 'delete', 'cluster', `--name=${name}`),
  };
}
