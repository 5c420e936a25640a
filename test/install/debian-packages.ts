import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);

/** What is taken from Debian, or from a distribution that has packages of the same names. */
export interface DebianPackages {
  /** Folder of the cache. */
  cache: string;
  packages: readonly string[];
  /** Fetch what they depend on, too, as far as it isn't installed here. */
  withDependencies?: boolean;
  /** What is downloaded, for people. */
  size: string;
  /** Makes the folder that is kept from `root`, where all packages are unpacked. */
  keep: (root: string, folder: string) => Promise<void>;
  /** Whether a folder has all that is needed. */
  isComplete: (folder: string) => Promise<boolean>;
}

/**
 * Packages of Debian, unpacked into the cache and installed nowhere; needs no rights but to write
 * there. What Debian serves is taken, whatever its version.
 *
 * @returns the folder that {@link DebianPackages.keep} made
 * @throws what apt-get and dpkg-deb say, or that the folder isn't complete
 */
export async function unpackedPackages(
  { cache: name, packages, withDependencies = false, size, keep, isComplete }: DebianPackages,
  log: (line: string) => void,
): Promise<string> {
  const base = process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  const cache = path.join(base, 'automation-guardrails', name);
  const folder = path.join(cache, 'debian');
  if (await isComplete(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, 'unpacking-'));
  try {
    log(`Fetching Debian's packages ${packages.join(', ')}: ${size}; once.`);
    const root = path.join(work, 'root');
    await download(work, packages, withDependencies);
    await unpack(work, root);
    const kept = path.join(work, 'kept');
    await mkdir(kept);
    await keep(root, kept);
    if (!(await isComplete(kept))) throw new Error(`${packages.join(', ')}: something is missing`);
    // Whoever comes second finds a folder that is complete; one that isn't is of another hand.
    if (!(await isComplete(folder))) {
      await rm(folder, { recursive: true, force: true });
      await rename(kept, folder).catch(async (error: unknown) => {
        if (!(await isComplete(folder))) throw error;
      });
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return folder;
}

/** Fills `archives` below the folder. */
async function download(
  folder: string,
  packages: readonly string[],
  withDependencies: boolean,
): Promise<void> {
  const archives = path.join(folder, 'archives');
  await mkdir(path.join(archives, 'partial'), { recursive: true });
  const fetchAll = async (options: readonly string[]): Promise<void> => {
    await exec('apt-get', [...options, 'download', ...packages], { cwd: archives });
    if (!withDependencies) return;
    const onlyFetch = ['install', '--download-only', '--yes', '--no-install-recommends'];
    // The lock is for those who install.
    const own = [`-oDir::Cache::archives=${archives}`, '-oDebug::NoLocking=true'];
    await exec('apt-get', [...options, ...own, ...onlyFetch, ...packages], { cwd: archives });
  };
  await fetchAll([]).catch(async () => {
    // The lists of the system are missing or too old: lists of our own.
    const state = path.join(folder, 'state');
    const lists = path.join(state, 'lists');
    await mkdir(path.join(lists, 'partial'), { recursive: true });
    const own = [
      `-oDir::State=${state}`,
      `-oDir::State::lists=${lists}`,
      '-oDir::State::status=/var/lib/dpkg/status',
      `-oDir::Cache=${path.join(folder, 'cache')}`,
      `-oDir::Cache::archives=${archives}`,
    ];
    await exec('apt-get', [...own, 'update'], { cwd: folder });
    await fetchAll(own);
  });
}

async function unpack(folder: string, root: string): Promise<void> {
  const archives = path.join(folder, 'archives');
  const files = (await readdir(archives)).filter((file) => file.endsWith('.deb'));
  if (files.length === 0) throw new Error('apt-get has downloaded nothing');
  for (const file of files) await exec('dpkg-deb', ['-x', path.join(archives, file), root]);
}
