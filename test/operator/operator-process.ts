import { spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { waitFor } from '../control-plane/wait.ts';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

export interface OperatorOptions {
  kubeconfigPath: string;
  /** Further flags. */
  args?: readonly string[];
  /** Options of Node's own. */
  nodeArgs?: readonly string[];
  /** Told of every line that it logs. */
  onLog?: (line: string) => void;
  /** Wait until `/readyz` says yes; default true. */
  waitUntilReady?: boolean;
}

/** The operator as its users run it: a process of its own. */
export interface OperatorProcess {
  readonly pid: number;
  /** Everything that it has logged so far. */
  readonly logs: readonly string[];
  /** URL of `/metrics`. */
  readonly metricsUrl: () => string;
  /** URL of the health server, without a path. */
  readonly healthUrl: () => string;
  /** Its exit code, or the signal's name, once it has ended. */
  readonly exited: Promise<number | string>;
  /** SIGKILL. */
  kill(): void;
  /** SIGTERM. @returns the exit code, or the signal's name */
  stop(): Promise<number | string>;
}

/** Starts `src/main.ts` against a kubeconfig, on ports of its own. */
export async function startOperator(options: OperatorOptions): Promise<OperatorProcess> {
  const child = spawn(
    process.execPath,
    [
      ...(options.nodeArgs ?? []),
      path.join(root, 'src', 'main.ts'),
      `--kubeconfig=${options.kubeconfigPath}`,
      '--metrics-port=0',
      '--health-port=0',
      ...(options.args ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NODE_ENV: 'production' } },
  );
  const logs: string[] = [];
  let ports: { metricsPort: number; healthPort: number } | undefined;
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      logs.push(line);
      options.onLog?.(line);
      if (ports === undefined && line.includes('"healthPort"')) {
        ports = JSON.parse(line) as { metricsPort: number; healthPort: number };
      }
    });
  }
  let ended: number | string | undefined;
  const exited = new Promise<number | string>((resolve) => {
    child.once('exit', (code, signal) => {
      ended = code ?? signal ?? 1;
      resolve(ended);
    });
  });
  const onExit = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', onExit);
  void exited.then(() => process.off('exit', onExit));

  const operator: OperatorProcess = {
    pid: child.pid ?? 0,
    logs,
    metricsUrl: () => `http://127.0.0.1:${ports?.metricsPort ?? 0}/metrics`,
    healthUrl: () => `http://127.0.0.1:${ports?.healthPort ?? 0}`,
    exited,
    kill: () => child.kill('SIGKILL'),
    stop: () => {
      child.kill('SIGTERM');
      return exited;
    },
  };
  if (options.waitUntilReady !== false) {
    await waitFor(
      'the operator to be ready',
      async () => {
        if (ended !== undefined) return true;
        if (ports === undefined) return false;
        return (await fetch(`${operator.healthUrl()}/readyz`)).ok;
      },
      { timeoutMs: 120_000 },
    );
    if (ended !== undefined) {
      throw new Error(`The operator ended (${String(ended)}):\n${logs.slice(-20).join('\n')}`);
    }
  }
  return operator;
}

/** Starts two replicas, as installed: the one that doesn't lead works on kills too. */
export function startReplicas(options: OperatorOptions): Promise<OperatorProcess[]> {
  return Promise.all([startOperator(options), startOperator(options)]);
}
