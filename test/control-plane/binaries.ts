import { readFile } from 'node:fs/promises';
import path from 'node:path';
import {
  builtPrograms,
  isExecutable,
  ProgramsMissingError,
  type FindOptions,
} from '../go-programs.ts';

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

/** Kubernetes versions that can be had beside the default one; each is a folder with a go.mod. */
export type OtherVersion = '1.35';

export interface BuildOptions extends FindOptions {
  /** Folder with a go.mod that requires k8s.io/kubernetes and names the programs as tools. */
  module: string;
}

/**
 * The programs of the control plane: from the folder `KUBEBUILDER_ASSETS`, from the cache, or built
 * with Go (about 5 minutes on 2 cores, once).
 *
 * @throws ProgramsMissingError that names the ways out
 */
export async function findBinaries({ log, env = process.env }: FindOptions): Promise<Binaries> {
  const assets = env['KUBEBUILDER_ASSETS'] ?? '';
  if (assets !== '') {
    const found = await programsIn(assets);
    if (hasAll(found, parts)) return found;
    throw new ProgramsMissingError(
      `KUBEBUILDER_ASSETS names ${assets}, which lacks ${missingFrom(found, parts)}. Complete the folder, or unset the variable: then the cache or a build with Go serves.`,
    );
  }
  return builtFrom({ module: import.meta.dirname, log, env }, parts);
}

/**
 * The programs of another Kubernetes version that differ from the default one's: from the cache, or
 * built with Go (about 3 minutes on 2 cores, once). The other programs serve every version.
 *
 * @throws ProgramsMissingError that says what is missing
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
 * @throws ProgramsMissingError when Go is missing, the build fails, or the module lacks a program
 */
export async function builtFrom<Part extends keyof Binaries>(
  { module, log, env = process.env }: BuildOptions,
  wanted: readonly Part[],
): Promise<Pick<Binaries, Part>> {
  const { version, ldflags } = await releaseOf(module);
  const folder = await builtPrograms(
    {
      title: `Kubernetes ${version}`,
      module,
      cache: 'control-plane',
      duration: 'about 5 minutes on 2 cores, and more when it must download',
      ldflags,
      programs: wanted.map(nameByGo),
      otherWay: `Or point KUBEBUILDER_ASSETS at a folder with ${parts.map((part) => fileNames[part][0]).join(', ')}.`,
    },
    { log, env },
  );
  const built = await programsIn(folder);
  if (hasAll(built, wanted)) return built;
  throw new ProgramsMissingError(`${folder} lacks ${missingFrom(built, wanted)}.`);
}

function nameByGo(part: keyof Binaries): string {
  return fileNames[part].at(-1) ?? fileNames[part][0];
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

/** Kubernetes learns its own version from the linker; without that, it calls itself v0.0.0. */
async function releaseOf(module: string): Promise<{ version: string; ldflags: string }> {
  const goMod = await readFile(path.join(module, 'go.mod'), 'utf8');
  const [, version = '', major = '', minor = ''] =
    /^(?:require)?\s+k8s\.io\/kubernetes (v(\d+)\.(\d+)\.\S+)/m.exec(goMod) ?? [];
  if (version === '') throw new Error(`${module}/go.mod does not require k8s.io/kubernetes`);
  const ldflags = [
    '-s -w',
    `-X k8s.io/component-base/version.gitVersion=${version}`,
    `-X k8s.io/component-base/version.gitMajor=${major}`,
    `-X k8s.io/component-base/version.gitMinor=${minor}`,
  ].join(' ');
  return { version, ldflags };
}
