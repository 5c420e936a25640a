import type { KubeObject } from '../../api/objects.ts';
import { argoTracking } from '../../api/workload.ts';

const flux = {
  Kustomization: 'kustomize.toolkit.fluxcd.io',
  HelmRelease: 'helm.toolkit.fluxcd.io',
} as const;

/** Field managers of tools that apply what stands in Git. */
const appliers: Readonly<Record<string, string>> = {
  'argocd-controller': 'Argo CD',
  'argocd-application-controller': 'Argo CD',
  'kustomize-controller': 'Flux',
  'helm-controller': 'Flux',
};

/**
 * What applies an object from Git, by the marks that Argo CD and Flux leave on it; `undefined` where
 * there are none. A mark is what somebody wrote: it warns, and grants nothing.
 */
export function gitManagerOf({ metadata }: Pick<KubeObject, 'metadata'>): string | undefined {
  const { annotations = {}, labels = {}, managedFields = [] } = metadata;
  const application = annotations[argoTracking]?.split(':')[0];
  if (application !== undefined) return `Argo CD application ${application}`;
  for (const [kind, prefix] of Object.entries(flux)) {
    const name = labels[`${prefix}/name`];
    const namespace = labels[`${prefix}/namespace`] ?? '';
    if (name !== undefined) return `Flux ${kind} ${namespace}/${name}`;
  }
  const applied = managedFields.flatMap(({ manager }) =>
    manager === undefined ? [] : (appliers[manager] ?? []),
  );
  return applied[0];
}
