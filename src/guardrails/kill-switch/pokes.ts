import type { KubeObject } from '../../api/objects.ts';
import { timestamp } from '../../api/conditions.ts';
import { defineResource, type Resource } from '../../api/resources.ts';
import { argoTracking } from '../../api/workload.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { isNotFound } from '../../runtime/errors.ts';
import { forEachBounded } from '../../runtime/parallel.ts';

const kustomizations = defineResource(
  'kustomize.toolkit.fluxcd.io',
  'v1',
  'Kustomization',
  'kustomizations',
);
const helmReleases = defineResource('helm.toolkit.fluxcd.io', 'v2', 'HelmRelease', 'helmreleases');
const applications = defineResource('argoproj.io', 'v1alpha1', 'Application', 'applications');

/** Whose reconciliation can be asked for. */
export const pokedKinds = { kustomizations, helmReleases, applications } as const;

/** A GitOps object that says of itself, on a workload, that it owns it. */
export type Owner =
  | { tool: 'Flux'; resource: Resource; namespace: string; name: string }
  | {
      tool: 'Argo CD';
      /** Known only for Applications outside of Argo CD's own namespace. */
      namespace?: string;
      name: string;
      /** Where a label alone says so, which others write too: what the Application has to list. */
      resource?: { kind: string; namespace: string; name: string };
    };

/** More than one automation has; the rest finds out by itself, later. */
const maxOwners = 50;

/**
 * Who applies these objects from elsewhere, each once: Flux by the labels of its Kustomization or
 * HelmRelease, Argo CD by its tracking annotation, or by the label that it used before.
 */
export function ownersOf(objects: readonly KubeObject[]): Owner[] {
  const owners = new Map<string, Owner>();
  for (const object of objects) {
    for (const owner of [...fluxOwners(object), ...argoOwners(object)]) {
      const { tool, namespace = '', name } = owner;
      const plural = owner.tool === 'Flux' ? owner.resource.plural : '';
      const id = [tool, plural, namespace, name].join(' ');
      if (owners.size < maxOwners && !owners.has(id)) owners.set(id, owner);
    }
  }
  return [...owners.values()];
}

function fluxOwners({ metadata: { labels = {} } }: KubeObject): Owner[] {
  return [kustomizations, helmReleases].flatMap((resource): Owner[] => {
    const name = labels[`${resource.group}/name`];
    const namespace = labels[`${resource.group}/namespace`];
    if (!isName(name) || !isName(namespace)) return [];
    return [{ tool: 'Flux', resource, namespace, name }];
  });
}

function argoOwners({ kind = '', metadata }: KubeObject): Owner[] {
  const { labels = {}, annotations = {}, namespace = '', name: own } = metadata;
  const tracking = annotations[argoTracking];
  if (tracking !== undefined) {
    // application:group/kind:namespace/name; a copy names another object than the one it is on.
    const [application = '', type = '', of] = tracking.split(':');
    if (of !== `${namespace}/${own}` || !type.endsWith(`/${kind}`)) return [];
    const [first = '', ...rest] = application.split('_');
    if (rest.length === 0) return isName(first) ? [{ tool: 'Argo CD', name: first }] : [];
    const [name, ...more] = rest;
    return isName(first) && isName(name) && more.length === 0
      ? [{ tool: 'Argo CD', namespace: first, name }]
      : [];
  }
  const name = labels['app.kubernetes.io/instance'];
  return isName(name) ? [{ tool: 'Argo CD', name, resource: { kind, namespace, name: own } }] : [];
}

/** Everything here is written by users, and becomes part of a path. */
function isName(text: string | undefined): text is string {
  return text !== undefined && text.length <= 253 && /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(text);
}

export interface PokeOptions {
  client: KubeClient;
  /** Milliseconds since the epoch. */
  now: number;
  /** Requests in flight at a time. */
  parallelism: number;
}

/**
 * Asks whoever applies these objects to look again: Argo CD's server-side diff otherwise stays at
 * what it saw during the kill, and Flux waits for its interval. Best effort, and never throws:
 * whoever can't be asked finds out by himself, later.
 */
export async function pokeOwners(
  objects: readonly KubeObject[],
  { client, now, parallelism }: PokeOptions,
  { signal, log }: Pick<ReconcileContext, 'signal' | 'log'>,
): Promise<void> {
  const ask = (
    resource: Resource,
    namespace: string,
    name: string,
    annotations: Record<string, string>,
  ): Promise<unknown> =>
    client.mergePatch(resource, { namespace, name }, { metadata: { annotations } }, { signal });
  const outcomes = await forEachBounded(ownersOf(objects), parallelism, async (owner) => {
    if (owner.tool === 'Flux') {
      const { resource, namespace, name } = owner;
      await ask(resource, namespace, name, { 'reconcile.fluxcd.io/requestedAt': timestamp(now) });
      return;
    }
    const found = await client.list<Application>(applications, {
      ...(owner.namespace !== undefined && { namespace: owner.namespace }),
      fieldSelector: `metadata.name=${owner.name}`,
      signal,
    });
    for (const application of found.filter((one) => lists(one, owner.resource)).slice(0, 5)) {
      const { namespace = '', name } = application.metadata;
      await ask(applications, namespace, name, { 'argocd.argoproj.io/refresh': 'normal' });
    }
  });
  for (const outcome of outcomes) {
    if (!('error' in outcome) || isNotFound(outcome.error)) continue;
    const { tool, name } = outcome.item;
    log.info('A GitOps tool could not be asked to reconcile', {
      tool,
      owner: name,
      error: outcome.error,
    });
  }
}

interface Application extends KubeObject {
  status?: { resources?: { kind?: string; namespace?: string; name?: string }[] };
}

function lists(
  { status }: Application,
  resource: { kind: string; namespace: string; name: string } | undefined,
): boolean {
  if (resource === undefined) return true;
  return (
    status?.resources?.some(
      ({ kind, namespace, name }) =>
        kind === resource.kind && namespace === resource.namespace && name === resource.name,
    ) === true
  );
}
