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
  amtool: string;
}

const names = ['prometheus', 'promtool', 'amtool'] as const;
const packages = ['prometheus', 'prometheus-alertmanager'];

/**
 * Prometheus, its tool and Alertmanager's: from the PATH, from the cache, or out of Debian's
 * packages, which are unpacked into the cache and installed nowhere. What Debian serves is taken,
 * whatever its version.
 *
 * @throws ProgramsMissingError that names the ways out
 */
export async function findPrometheus(log: (line: string) => void): Promise<Prometheus> {
  const onPath = await programsIn((process.env['PATH'] ?? '').split(path.delimiter));
  if (onPath !== undefined) return onPath;
  const base = process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache');
  const cache = path.join(base, 'automation-guardrails', 'prometheus');
  const folder = path.join(cache, 'debian');
  const cached = await programsIn([folder]);
  if (cached !== undefined) return cached;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(path.join(cache, 'unpacking-'));
  try {
    log("Fetching Debian's packages of Prometheus and Alertmanager: 35 MB; once.");
    await unpackPackages(work);
    const unpacked = path.join(work, 'programs');
    await mkdir(unpacked);
    for (const name of names) {
      await copyFile(path.join(work, 'root/usr/bin', name), path.join(unpacked, name));
    }
    // Whoever comes second finds a folder that is complete; one that isn't is of another hand.
    if ((await programsIn([folder])) === undefined) {
      await rm(folder, { recursive: true, force: true });
      await rename(unpacked, folder).catch(async (error: unknown) => {
        if ((await programsIn([folder])) === undefined) throw error;
      });
    }
  } catch (error) {
    throw new ProgramsMissingError(
      `Not on this machine: ${names.join(', ')}; and Debian's packages could not be had. Put the programs on the PATH, Prometheus of version 2.42 or later. (${String(error).split('\n', 1)[0]})`,
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const found = await programsIn([folder]);
  if (found !== undefined) return found;
  throw new ProgramsMissingError(`Debian's packages have no ${names.join(', ')}.`);
}

/** The first of each in these folders; `undefined` where one is missing. */
async function programsIn(folders: readonly string[]): Promise<Prometheus | undefined> {
  const found: Partial<Prometheus> = {};
  for (const folder of folders) {
    for (const name of names) {
      const file = path.resolve(folder, name);
      if (folder !== '' && found[name] === undefined && (await isExecutable(file))) {
        found[name] = file;
      }
    }
  }
  const { prometheus, promtool, amtool } = found;
  const isComplete = prometheus !== undefined && promtool !== undefined && amtool !== undefined;
  return isComplete ? { prometheus, promtool, amtool } : undefined;
}

/** Fills `root` below the folder. Needs no rights but to write there. */
async function unpackPackages(folder: string): Promise<void> {
  const download = ['download', ...packages];
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
  const files = (await readdir(folder)).filter((name) => name.endsWith('.deb'));
  if (files.length === 0) throw new Error('apt-get has downloaded nothing');
  for (const file of files) {
    await exec('dpkg-deb', ['-x', path.join(folder, file), path.join(folder, 'root')]);
  }
}
