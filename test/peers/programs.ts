/** The GitOps tools that the kill switch is shown against: the real ones, built from source. */
import path from 'node:path';
import { builtPrograms, type ModuleFile } from '../go-programs.ts';

export interface FluxPrograms {
  kustomizeController: string;
  /** Files with its CRDs. */
  crds: string[];
}

export interface ArgoCdPrograms {
  /** One binary; `ARGOCD_BINARY_NAME` says which of its programs it is. */
  argocd: string;
  redis: string;
  crds: string[];
}

/** Its own kind, and every kind of source that it watches, used or not. */
const fluxCrds: readonly ModuleFile[] = [
  {
    module: 'github.com/fluxcd/kustomize-controller',
    file: 'config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml',
  },
  ...['buckets', 'externalartifacts', 'gitrepositories', 'ocirepositories'].map((plural) => ({
    module: 'github.com/fluxcd/source-controller',
    file: `config/crd/bases/source.toolkit.fluxcd.io_${plural}.yaml`,
  })),
];

const argoCdCrds: readonly ModuleFile[] = [
  { module: 'github.com/argoproj/argo-cd/v3', file: 'manifests/crds/application-crd.yaml' },
  { module: 'github.com/argoproj/argo-cd/v3', file: 'manifests/crds/appproject-crd.yaml' },
];

/** Flux's kustomize-controller, from the cache or built with Go. */
export async function findFlux(log: (line: string) => void): Promise<FluxPrograms> {
  const folder = await builtPrograms(
    {
      title: "Flux's kustomize-controller",
      module: path.join(import.meta.dirname, 'flux'),
      cache: 'flux',
      duration: 'about 3 minutes on 2 cores',
      programs: ['kustomize-controller'],
      files: fluxCrds,
    },
    { log },
  );
  return {
    kustomizeController: path.join(folder, 'kustomize-controller'),
    crds: pathsOf(fluxCrds, folder),
  };
}

/** Argo CD and the Redis that it needs, from the cache or built with Go. */
export async function findArgoCd(log: (line: string) => void): Promise<ArgoCdPrograms> {
  const folder = await builtPrograms(
    {
      title: 'Argo CD',
      module: path.join(import.meta.dirname, 'argocd'),
      cache: 'argocd',
      duration: 'about 5 minutes on 2 cores',
      // Go names a program after its folder.
      programs: ['cmd', 'redis'],
      files: argoCdCrds,
    },
    { log },
  );
  return {
    argocd: path.join(folder, 'cmd'),
    redis: path.join(folder, 'redis'),
    crds: pathsOf(argoCdCrds, folder),
  };
}

function pathsOf(files: readonly ModuleFile[], folder: string): string[] {
  return files.map(({ file }) => path.join(folder, path.basename(file)));
}
