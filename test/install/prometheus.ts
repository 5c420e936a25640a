import { copyFile } from 'node:fs/promises';
import path from 'node:path';
import { isExecutable, ProgramsMissingError } from '../go-programs.ts';
import { unpackedPackages } from './debian-packages.ts';

/** Paths of the programs. */
export interface Prometheus {
  prometheus: string;
  promtool: string;
  amtool: string;
}

const names = ['prometheus', 'promtool', 'amtool'] as const;

/**
 * Prometheus, its tool and Alertmanager's: from the PATH, from the cache, or out of Debian's
 * packages.
 *
 * @throws ProgramsMissingError that names the ways out
 */
export async function findPrometheus(log: (line: string) => void): Promise<Prometheus> {
  const onPath = await programsIn((process.env['PATH'] ?? '').split(path.delimiter));
  if (onPath !== undefined) return onPath;
  try {
    const folder = await unpackedPackages(
      {
        cache: 'prometheus',
        packages: ['prometheus', 'prometheus-alertmanager'],
        size: '35 MB',
        keep: async (root, kept) => {
          for (const name of names) {
            await copyFile(path.join(root, 'usr/bin', name), path.join(kept, name));
          }
        },
        isComplete: async (kept) => (await programsIn([kept])) !== undefined,
      },
      log,
    );
    const found = await programsIn([folder]);
    if (found !== undefined) return found;
    throw new Error(`${folder} is gone`);
  } catch (error) {
    throw new ProgramsMissingError(
      `Not on this machine: ${names.join(', ')}; and Debian's packages could not be had. Put the programs on the PATH, Prometheus of version 2.42 or later. (${String(error).split('\n', 1)[0]})`,
    );
  }
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
