import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { isExecutable, ProgramsMissingError } from '../go-programs.ts';

const exec = promisify(execFile);

/** Paths of the programs. */
export interface Prometheus {
  prometheus: string;
  promtool: string;
}

const names = ['prometheus', 'promtool'] as const;

/**
 * Prometheus and its tool: from the PATH, from the cache, or out of Debian's package, which is
 * unpacked into the cache and installed nowhere. What Debian serves is taken, whatever its version.
 *
 * @throws ProgramsMissingError that names the ways out
 */
export async function findPrometheus(log: (line: string) => void): Promise<Prometheus> {
  for (const folder of (process.env['PATH'] ?? '').split(path.delimiter)) {
    const found = await programsIn(folder);
    if (found !== undefined) return found;
  }
  const base = process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  const cache = path.join(base, 'automation-guardrails', 'prometheus');
  const folder = path.join(cache, 'debian');
  const cached = await programsIn(folder);
  if (cached !== undefined) return cached;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, 'unpacking-'));
  try {
    log("Fetching Debian's package of Prometheus: 20 MB; once.");
    await unpackPackage(work);
    const unpacked = path.join(work, 'programs');
    await mkdir(unpacked);
    for (const name of names) {
      await copyFile(path.join(work, 'root/usr/bin', name), path.join(unpacked, name));
    }
    // Whoever comes second finds a folder that is complete.
    await rename(unpacked, folder).catch(async (error: unknown) => {
      if ((await programsIn(folder)) === undefined) throw error;
    });
  } catch (error) {
    throw new ProgramsMissingError(
      `No Prometheus on this machine (${names.join(', ')}), and Debian's package could not be had. Put both programs, of version 2.42 or later, on the PATH. (${String(error).split('\n', 1)[0]})`,
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const found = await programsIn(folder);
  if (found !== undefined) return found;
  throw new ProgramsMissingError(`The package of Prometheus has no ${names.join(' and ')}.`);
}

async function programsIn(folder: string): Promise<Prometheus | undefined> {
  const prometheus = path.join(folder, 'prometheus');
  const promtool = path.join(folder, 'promtool');
  const isThere = (await isExecutable(prometheus)) && (await isExecutable(promtool));
  return folder !== '' && isThere ? { prometheus, promtool } : undefined;
}

/** Fills `root` below the folder. Needs no rights but to write there. */
async function unpackPackage(folder: string): Promise<void> {
  const download = ['download', 'prometheus'];
  await exec('apt-get', download, { cwd: folder }).catch(async () => {
    // The lists of the system are missing or too old: lists of our own.
    const state = path.join(folder, 'state');
    const lists = path.join(state, 'lists');
    const archives = path.join(folder, 'cache/archives');
    await mkdir(path.join(lists, 'partial'), { recursive: true });
    await mkdir(path.join(archives, 'partial'), { recursive: true });
    const own = [
      `-oDir::State=${state}`,
      `-oDir::State::lists=${lists}`,
      '-oDir::State::status=/var/lib/dpkg/status',
      `-oDir::Cache=${path.join(folder, 'cache')}`,
    ];
    await exec('apt-get', [...own, 'update'], { cwd: folder });
    await exec('apt-get', [...own, ...download], { cwd: folder });
  });
  const file = (await readdir(folder)).find((name) => name.endsWith('.deb'));
  if (file === undefined) throw new Error('apt-get has downloaded no package');
  await exec('dpkg-deb', ['-x', path.join(folder, file), path.join(folder, 'root')]);
}
