import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, constants, mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const here = path.dirname(fileURLToPath(import.meta.url));

/** Paths of the programs that make a control plane. */
export interface Binaries {
  etcd: string;
  apiServer: string;
  controllerManager: string;
  scheduler: string;
  kubectl: string;
  kwok: string;
}

/** etcd's module calls its program `server`. */
const programs: Record<keyof Binaries, string[]> = {
  etcd: ['etcd', 'server'],
  apiServer: ['kube-apiserver'],
  controllerManager: ['kube-controller-manager'],
  scheduler: ['kube-scheduler'],
  kubectl: ['kubectl'],
  kwok: ['kwok'],
};

const kubernetesVersion = 'v1.36.3';
const [, major = '', minor = ''] = /^v(\d+)\.(\d+)/.exec(kubernetesVersion) ?? [];
const ldflags = [
  '-s -w',
  `-X k8s.io/component-base/version.gitVersion=${kubernetesVersion}`,
  `-X k8s.io/component-base/version.gitMajor=${major}`,
  `-X k8s.io/component-base/version.gitMinor=${minor}`,
].join(' ');

export class BinariesMissingError extends Error {
  readonly code = 'CONTROL_PLANE_BINARIES_MISSING';
  override readonly name = 'BinariesMissingError';
}

export interface FindOptions {
  /** One line of progress. */
  log: (line: string) => void;
  /** Default `process.env`. */
  env?: NodeJS.ProcessEnv;
}

/**
 * The programs of the control plane: from the folder `KUBEBUILDER_ASSETS`, from the cache, or built
 * with Go (about 5 minutes on 2 cores, once).
 *
 * @throws BinariesMissingError that names the ways out
 */
export async function findBinaries({ log, env = process.env }: FindOptions): Promise<Binaries> {
  const assets = env['KUBEBUILDER_ASSETS'];
  if (assets !== undefined && assets !== '') {
    const found = await binariesIn(assets);
    if (found !== undefined) return found;
    throw new BinariesMissingError(
      `KUBEBUILDER_ASSETS names ${assets}, which lacks one of: ${Object.values(programs)
        .map(([name]) => name)
        .join(', ')}. Complete the folder, or unset the variable.`,
    );
  }
  const cache = await cacheFolder(env);
  const cached = await binariesIn(cache);
  if (cached !== undefined) return cached;
  await build(cache, log);
  const built = await binariesIn(cache);
  if (built !== undefined) return built;
  throw new BinariesMissingError(`The build left no complete set of programs in ${cache}.`);
}

async function binariesIn(folder: string): Promise<Binaries | undefined> {
  const found: Partial<Binaries> = {};
  for (const [part, names] of Object.entries(programs) as [keyof Binaries, string[]][]) {
    for (const name of names) {
      const file = path.join(folder, name);
      if (await isExecutable(file)) found[part] ??= file;
    }
    if (found[part] === undefined) return undefined;
  }
  return found as Binaries;
}

async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function cacheFolder(env: NodeJS.ProcessEnv): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(path.join(here, file)));
  hash.update(`${ldflags} ${os.platform()} ${os.arch()}`);
  const base = env['XDG_CACHE_HOME'] ?? path.join(os.homedir(), '.cache');
  return path.join(base, 'automation-guardrails', 'control-plane', hash.digest('hex').slice(0, 16));
}

async function build(cache: string, log: (line: string) => void): Promise<void> {
  try {
    await run('go', ['version']);
  } catch {
    throw new BinariesMissingError(
      'No control plane to start. Install Go 1.26 or later (it is then built once), or point KUBEBUILDER_ASSETS at a folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and kwok.',
    );
  }
  await mkdir(path.dirname(cache), { recursive: true });
  // Built aside and renamed when complete: a build that is cut off leaves nothing half-made, and
  // of two at a time the second one wins nothing and loses nothing.
  const folder = await mkdtemp(`${cache}.building-`);
  const started = performance.now();
  log('Building etcd, Kubernetes and kwok with Go: about 5 minutes on 2 cores, once.');
  const progress = setInterval(() => {
    void readdir(folder).then((done) => {
      const seconds = Math.round((performance.now() - started) / 1000);
      const names = done.length === 0 ? 'none yet' : done.join(', ');
      log(
        `  ${seconds} s, ${done.length} of ${Object.keys(programs).length} programs done: ${names}`,
      );
    });
  }, 10_000);
  try {
    await goInstall(folder);
    await rename(folder, cache).catch(async (error: unknown) => {
      if ((await binariesIn(cache)) === undefined) throw error;
    });
    log(`Built in ${Math.round((performance.now() - started) / 1000)} s.`);
  } finally {
    clearInterval(progress);
    await rm(folder, { recursive: true, force: true });
  }
}

function goInstall(folder: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('go', ['install', '-trimpath', '-ldflags', ldflags, 'tool'], {
      cwd: here,
      env: { ...process.env, GOBIN: folder, CGO_ENABLED: '0', GOTOOLCHAIN: 'local' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let output = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      output = (output + chunk).slice(-4000);
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve();
      else reject(new BinariesMissingError(`The build with Go failed:\n${output.trimEnd()}`));
    });
  });
}
