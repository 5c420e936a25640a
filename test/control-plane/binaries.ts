import { createHash } from 'node:crypto';
import {
  access,
  constants,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { isRunning, spawnSupervised } from './process.ts';
import { waitFor } from './wait.ts';

/** Paths of the programs that make a control plane. */
export interface Binaries {
  etcd: string;
  apiServer: string;
  controllerManager: string;
  scheduler: string;
  kubectl: string;
  kwok: string;
}

const parts = [
  'etcd',
  'apiServer',
  'controllerManager',
  'scheduler',
  'kubectl',
  'kwok',
] as const satisfies readonly (keyof Binaries)[];

/** Files that may hold a program; the first is its usual name. Go calls etcd `server`. */
const fileNames: Record<keyof Binaries, readonly [string, ...string[]]> = {
  etcd: ['etcd', 'server'],
  apiServer: ['kube-apiserver'],
  controllerManager: ['kube-controller-manager'],
  scheduler: ['kube-scheduler'],
  kubectl: ['kubectl'],
  kwok: ['kwok'],
};

/** There is no control plane on this machine, and no way to build one; or the build failed. */
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

/** Kubernetes versions that can be had beside the default one; each is a folder with a go.mod. */
export type OtherVersion = '1.35';

export interface BuildOptions extends FindOptions {
  /** Folder with a go.mod that requires k8s.io/kubernetes and names the programs as tools. */
  module: string;
}

const PROGRESS_EVERY_MS = 10_000;
/** No build takes so long: a folder of that age was left behind by a build that was killed. */
const ABANDONED_AFTER_MS = 60 * 60_000;

/**
 * The programs of the control plane: from the folder `KUBEBUILDER_ASSETS`, from the cache, or built
 * with Go (about 5 minutes on 2 cores, once).
 *
 * @throws BinariesMissingError that names the ways out
 */
export async function findBinaries({ log, env = process.env }: FindOptions): Promise<Binaries> {
  const assets = env['KUBEBUILDER_ASSETS'] ?? '';
  if (assets !== '') {
    const found = await programsIn(assets);
    if (hasAll(found, parts)) return found;
    throw new BinariesMissingError(
      `KUBEBUILDER_ASSETS names ${assets}, which lacks ${missingFrom(found, parts)}. Complete the folder, or unset the variable: then the cache or a build with Go serves.`,
    );
  }
  return builtFrom({ module: import.meta.dirname, log, env }, parts);
}

/**
 * The programs of another Kubernetes version that differ from the default one's: from the cache, or
 * built with Go (about 3 minutes on 2 cores, once). The other programs serve every version.
 *
 * @throws BinariesMissingError that says what is missing
 */
export function findBinariesOf(
  version: OtherVersion,
  { log, env = process.env }: FindOptions,
): Promise<Pick<Binaries, 'apiServer' | 'controllerManager'>> {
  const module = path.join(import.meta.dirname, version);
  return builtFrom({ module, log, env }, ['apiServer', 'controllerManager']);
}

/**
 * Programs that a Go module names as its tools: from the cache, or built with Go. For a control
 * plane of another version than this folder's.
 *
 * @throws BinariesMissingError when Go is missing, the build fails, or the module lacks a program
 */
export async function builtFrom<Part extends keyof Binaries>(
  { module, log, env = process.env }: BuildOptions,
  wanted: readonly Part[],
): Promise<Pick<Binaries, Part>> {
  const recipe = await recipeOf(module, env);
  const cached = await programsIn(recipe.folder);
  if (hasAll(cached, wanted)) return cached;

  await buildOnce(recipe, async () => hasAll(await programsIn(recipe.folder), wanted), log, env);
  const built = await programsIn(recipe.folder);
  if (hasAll(built, wanted)) return built;
  throw new BinariesMissingError(
    `The build of ${module} left ${recipe.folder} without ${missingFrom(built, wanted)}.`,
  );
}

async function programsIn(folder: string): Promise<Partial<Binaries>> {
  const found: Partial<Binaries> = {};
  for (const part of parts) {
    for (const name of fileNames[part]) {
      const file = path.join(folder, name);
      if (await isExecutable(file)) found[part] ??= file;
    }
  }
  return found;
}

function hasAll<Part extends keyof Binaries>(
  found: Partial<Binaries>,
  wanted: readonly Part[],
): found is Partial<Binaries> & Pick<Binaries, Part> {
  return wanted.every((part) => found[part] !== undefined);
}

function missingFrom(found: Partial<Binaries>, wanted: readonly (keyof Binaries)[]): string {
  const missing = wanted.filter((part) => found[part] === undefined);
  return missing.map((part) => fileNames[part][0]).join(', ');
}

async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}

/** What is built, and where it is kept. */
interface Recipe {
  readonly module: string;
  /** The folder in the cache. Its name changes with all that decides what is built. */
  readonly folder: string;
  readonly ldflags: string;
  /** Of Kubernetes. */
  readonly version: string;
  readonly goVersion: string;
}

async function recipeOf(module: string, env: NodeJS.ProcessEnv): Promise<Recipe> {
  const goMod = await readFile(path.join(module, 'go.mod'), 'utf8');
  const goSum = await readFile(path.join(module, 'go.sum'), 'utf8');
  const [, version = '', major = '', minor = ''] =
    /^(?:require)?\s+k8s\.io\/kubernetes (v(\d+)\.(\d+)\.\S+)/m.exec(goMod) ?? [];
  if (version === '') throw new Error(`${module}/go.mod does not require k8s.io/kubernetes`);
  // Kubernetes learns its own version from the linker; without that, it calls itself v0.0.0.
  const ldflags = [
    '-s -w',
    `-X k8s.io/component-base/version.gitVersion=${version}`,
    `-X k8s.io/component-base/version.gitMajor=${major}`,
    `-X k8s.io/component-base/version.gitMinor=${minor}`,
  ].join(' ');
  const key = createHash('sha256')
    .update(goMod)
    .update(goSum)
    .update(`${ldflags} ${os.platform()} ${os.arch()}`)
    .digest('hex')
    .slice(0, 16);
  const base = env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  return {
    module,
    folder: path.join(base, 'automation-guardrails', 'control-plane', key),
    ldflags,
    version,
    goVersion: /^go (\d+\.\d+)/m.exec(goMod)?.[1] ?? '',
  };
}

/**
 * Fills the recipe's folder by one rename, so that it is either absent or complete: a build that is
 * cut off leaves nothing half-made. Somebody else's build of the same is waited for; should two
 * start in the same instant, the first one to finish wins, and the other loses nothing but time.
 */
async function buildOnce(
  recipe: Recipe,
  isComplete: () => Promise<boolean>,
  log: (line: string) => void,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  await mkdir(path.dirname(recipe.folder), { recursive: true });
  await otherBuildsToEnd(recipe.folder, isComplete, log);
  if (await isComplete()) return;

  const folder = await mkdtemp(`${recipe.folder}${BUILDING}${process.pid}-`);
  try {
    await goInstall(recipe, folder, log, env);
    // A folder that lacks something can only stem from another hand; a rename needs it away.
    if (!(await isComplete())) await rm(recipe.folder, { recursive: true, force: true });
    await rename(folder, recipe.folder).catch(async (error: unknown) => {
      if (!(await isComplete())) throw error;
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Marks a folder beside the cache's that a build fills; the builder's process id follows. */
const BUILDING = '.building-';

async function otherBuildsToEnd(
  target: string,
  isComplete: () => Promise<boolean>,
  log: (line: string) => void,
): Promise<void> {
  const started = performance.now();
  let nextLineAt = 0;
  await waitFor(
    'another build of the control plane to end',
    async () => {
      if (await isComplete()) return true;
      const builder = await builderOf(target);
      if (builder === undefined) return true;
      const elapsed = performance.now() - started;
      if (elapsed >= nextLineAt) {
        log(`Process ${builder} builds the control plane; waiting for it since ${inS(elapsed)}.`);
        nextLineAt += PROGRESS_EVERY_MS;
      }
      return false;
    },
    { timeoutMs: ABANDONED_AFTER_MS, intervalMs: 500 },
  );
}

/** The process that builds `target` now, if any. Clears away what killed builds left behind. */
async function builderOf(target: string): Promise<number | undefined> {
  const parent = path.dirname(target);
  let builder: number | undefined;
  for (const name of await readdir(parent)) {
    const [, pid] = name.split(BUILDING);
    if (pid === undefined) continue;
    const folder = path.join(parent, name);
    const info = await stat(folder).catch(() => undefined);
    if (info === undefined) continue;
    // Somebody in another container, whose process we cannot see, may fill it: age decides.
    const isAbandoned = Date.now() - info.mtimeMs > ABANDONED_AFTER_MS;
    if (isAbandoned) await rm(folder, { recursive: true, force: true });
    else if (folder.startsWith(target) && isRunning(Number.parseInt(pid, 10))) {
      builder = Number.parseInt(pid, 10);
    }
  }
  return builder;
}

async function goOn(searchPath: string): Promise<string | undefined> {
  for (const folder of searchPath.split(path.delimiter)) {
    const file = path.resolve(folder, 'go');
    if (folder !== '' && (await isExecutable(file))) return file;
  }
  return undefined;
}

async function goInstall(
  { module, ldflags, version, goVersion }: Recipe,
  folder: string,
  log: (line: string) => void,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const go = await goOn(env['PATH'] ?? '');
  if (go === undefined) {
    const names = parts.map((part) => fileNames[part][0]).join(', ');
    throw new BinariesMissingError(
      `No control plane to start. Either install Go ${goVersion} or later, put it on the PATH and try again: it builds one, once. Or point KUBEBUILDER_ASSETS at a folder with ${names}.`,
    );
  }
  log(
    `Building Kubernetes ${version} with Go: about 5 minutes on 2 cores, and more when it must download; once.`,
  );
  const started = performance.now();
  const child = spawnSupervised(
    go,
    // go.mod and go.sum count exactly as they are committed.
    ['install', '-v', '-mod=readonly', '-trimpath', '-ldflags', ldflags, 'tool'],
    module,
    {
      ...env,
      GOBIN: folder,
      CGO_ENABLED: '0',
      // The toolchain that is there; none is downloaded.
      GOTOOLCHAIN: 'local',
      GOWORK: 'off',
      // Go refuses GOBIN when it builds for another platform.
      GOOS: undefined,
      GOARCH: undefined,
    },
    'pipe',
  );
  const ended = new Promise<string | undefined>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) =>
      resolve(code === 0 ? undefined : (signal ?? `exit code ${code}`)),
    );
  });

  const lastLines: string[] = [];
  let packages = 0;
  const onLine = (line: string): void => {
    lastLines.push(line);
    if (lastLines.length > 20) lastLines.shift();
    if (!line.startsWith('go: ')) packages += 1;
  };
  for (const input of [child.stdout, child.stderr]) {
    if (input !== null) createInterface({ input }).on('line', onLine);
  }
  const report = async (): Promise<void> => {
    const done = await readdir(folder).catch(() => []);
    log(
      `  ${inS(performance.now() - started)}, ${packages} packages done, now ${lastLines.at(-1) ?? 'starting'}; programs done: ${done.join(', ') || 'none yet'}`,
    );
  };
  const progress = setInterval(() => void report(), PROGRESS_EVERY_MS);

  let failure: string | undefined;
  try {
    failure = await ended;
  } finally {
    clearInterval(progress);
  }
  if (failure !== undefined) {
    throw new BinariesMissingError(
      `The build with Go failed (${failure}); it needs Go ${goVersion} or later and, the first time, a Go module proxy. Or point KUBEBUILDER_ASSETS at a folder with the programs. The last of what Go said:\n${lastLines.join('\n')}`,
    );
  }
  log(`Built in ${inS(performance.now() - started)}.`);
}

function inS(milliseconds: number): string {
  return `${Math.round(milliseconds / 1000)} s`;
}
