import path from 'node:path';
import { builtPrograms } from '../go-programs.ts';

/** Paths of the programs. */
export interface Tools {
  /** Compares manifests with the schemas of their kinds. */
  kubeconform: string;
  /** Finds faults in GitHub workflows. */
  actionlint: string;
  /** Installs plugins of kubectl. */
  krew: string;
  /** What the index of Krew plugins is checked with. */
  krewValidator: string;
}

/** What checks files of this repository, from the cache or built with Go. */
export async function findTools(log: (line: string) => void): Promise<Tools> {
  const folder = await builtPrograms(
    {
      title: 'kubeconform, actionlint and Krew',
      module: path.join(import.meta.dirname, 'tools'),
      cache: 'tools',
      duration: 'about 1 minute on 2 cores',
      programs: ['kubeconform', 'actionlint', 'krew', 'validate-krew-manifest'],
    },
    { log },
  );
  return {
    kubeconform: path.join(folder, 'kubeconform'),
    actionlint: path.join(folder, 'actionlint'),
    krew: path.join(folder, 'krew'),
    krewValidator: path.join(folder, 'validate-krew-manifest'),
  };
}
