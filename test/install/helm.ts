import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type { ControlPlane } from '../control-plane/control-plane.ts';

const run = promisify(execFile);
const module = path.join(import.meta.dirname, 'helm');

/** Helm, from the cache or built with Go (about 2 minutes on 2 cores, once). @returns its path */
export async function findHelm(log: (line: string) => void): Promise<string> {
  const sums = await readFile(path.join(module, 'go.sum'));
  const key = createHash('sha256').update(sums).update(`${os.platform()} ${os.arch()}`);
  const base = process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  const parent = path.join(base, 'automation-guardrails', 'helm');
  const folder = path.join(parent, key.digest('hex').slice(0, 16));
  const helm = path.join(folder, 'helm');
  if (await exists(helm)) return helm;

  log('Building Helm with Go: about 2 minutes on 2 cores, once.');
  await mkdir(parent, { recursive: true });
  const building = await mkdtemp(`${folder}.building-`);
  const started = performance.now();
  const progress = setInterval(() => {
    log(`  ${Math.round((performance.now() - started) / 1000)} s`);
  }, 10_000);
  try {
    await run('go', ['install', '-trimpath', '-ldflags', '-s -w', 'tool'], {
      cwd: module,
      env: { ...process.env, GOBIN: building, CGO_ENABLED: '0', GOTOOLCHAIN: 'local' },
    });
    await rename(building, folder).catch(async (error: unknown) => {
      if (!(await exists(helm))) throw error;
    });
    return helm;
  } finally {
    clearInterval(progress);
    await rm(building, { recursive: true, force: true });
  }
}

/**
 * Runs Helm against a control plane, from the root of the repository.
 *
 * @returns its exit code, and what it printed to either stream
 */
export function runHelm(
  helm: string,
  { kubeconfigPath }: Pick<ControlPlane, 'kubeconfigPath'>,
  args: readonly string[],
): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(helm, args, {
      cwd: path.dirname(path.dirname(import.meta.dirname)),
      env: { ...process.env, KUBECONFIG: kubeconfigPath },
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
