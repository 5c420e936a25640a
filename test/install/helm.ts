import { spawn } from 'node:child_process';
import path from 'node:path';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import { builtPrograms } from '../go-programs.ts';

/** Helm, from the cache or built with Go. @returns its path */
export async function findHelm(log: (line: string) => void): Promise<string> {
  const folder = await builtPrograms(
    {
      title: 'Helm',
      module: path.join(import.meta.dirname, 'helm'),
      cache: 'helm',
      duration: 'about 2 minutes on 2 cores',
      programs: ['helm'],
    },
    { log },
  );
  return path.join(folder, 'helm');
}

/**
 * Runs a program, such as Helm, against a control plane, from the root of the repository.
 *
 * @returns its exit code, and what it printed to either stream
 */
export function runProgram(
  program: string,
  { kubeconfigPath }: Pick<ControlPlane, 'kubeconfigPath'>,
  args: readonly string[],
  cwd = path.dirname(path.dirname(import.meta.dirname)),
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, KUBECONFIG: kubeconfigPath, ...env },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}
