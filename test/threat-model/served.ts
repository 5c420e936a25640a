import { request, type Agent } from 'undici';
import type { ControlPlane } from '../control-plane/control-plane.ts';
import type { ServedPath } from '../../src/threat-model/table.ts';

/** A resource, or a subresource of one, as an API server's discovery names it. */
export interface ServedResource {
  group: string;
  version: string;
  /** `pods`, `pods/exec`, … */
  resource: string;
  /** Of the resource itself: the name of its kind. */
  kind: string;
  namespaced: boolean;
  verbs: string[];
}

interface Discovery {
  items: {
    metadata?: { name?: string };
    versions: {
      version: string;
      resources: {
        resource: string;
        scope: string;
        responseKind?: { kind: string };
        verbs: string[];
        subresources?: { subresource: string; verbs: string[] }[];
      }[];
    }[];
  }[];
}

/** Subresources through which even a GET acts. */
const connections = /^(pods\/(exec|attach|portforward|proxy)|services\/proxy|nodes\/proxy)$/;
const writing = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);

/** Whatever an API server says it serves, in every version. */
export async function servedResources(
  { server, adminToken }: ControlPlane,
  dispatcher: Agent,
): Promise<ServedResource[]> {
  const answers = await Promise.all(
    ['/api', '/apis'].map(async (root) => {
      const { body } = await request(new URL(root, server), {
        dispatcher,
        headers: {
          authorization: `Bearer ${adminToken}`,
          accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
        },
      });
      return (await body.json()) as Discovery;
    }),
  );
  return answers.flatMap(({ items }) =>
    items.flatMap(({ metadata, versions }) =>
      versions.flatMap(({ version, resources }) =>
        resources.flatMap(({ resource, scope, responseKind, verbs, subresources = [] }) => {
          const own = {
            group: metadata?.name ?? '',
            version,
            kind: responseKind?.kind ?? '',
            namespaced: scope === 'Namespaced',
          };
          return [
            { ...own, resource, verbs },
            ...subresources.map((sub) => ({
              ...own,
              resource: `${resource}/${sub.subresource}`,
              verbs: sub.verbs,
            })),
          ];
        }),
      ),
    ),
  );
}

/** What of it changes or reaches something: what the threat model has to know. */
export function actingPaths(served: readonly ServedResource[]): ServedPath[] {
  return served.flatMap(({ group, resource, verbs }) =>
    verbs
      .filter((verb) => writing.has(verb) || (verb === 'get' && connections.test(resource)))
      .map((verb) => ({ group, resource, verb })),
  );
}
