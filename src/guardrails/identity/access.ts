import type { Permission } from '../../api/automation-identity.ts';
import type { ResourceAttributes } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { rightText } from '../wording.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';

/** Questions asked about one identity; with all that a spec may declare there could be millions. */
export const maxReviews = 64;

const parallelism = 8;

/**
 * What is asked about each declared permission: one question for every group, resource, verb and
 * name, in their order, the first `most` of them. Every permission is asked about
 * once before any is asked about twice.
 *
 * @param most of them
 */
export function questionsOf(
  namespace: string,
  permissions: readonly Permission[],
  most = maxReviews,
): ResourceAttributes[] {
  const queues = permissions.map((permission) => expand(namespace, permission));
  const questions: ResourceAttributes[] = [];
  while (questions.length < most && queues.length > 0) {
    for (const queue of queues.splice(0)) {
      const next = queue.next();
      if (next.done === true) continue;
      if (questions.length < most) questions.push(next.value);
      queues.push(queue);
    }
  }
  return questions;
}

function* expand(
  namespace: string,
  permission: Permission,
): Generator<ResourceAttributes, undefined> {
  const { apiGroups, resources: names, resourceNames = [], verbs } = permission;
  for (const group of apiGroups) {
    for (const path of names) {
      const [resource = '', subresource] = path.split('/');
      for (const verb of verbs) {
        const base = {
          namespace,
          verb,
          group,
          resource,
          ...(subresource !== undefined && { subresource }),
        };
        if (resourceNames.length === 0) yield base;
        for (const name of resourceNames) yield { ...base, name };
      }
    }
  }
  return undefined;
}

export interface AccessQuestion {
  client: Pick<KubeClient, 'create'>;
  namespace: string;
  serviceAccountName: string;
  questions: readonly ResourceAttributes[];
  signal: AbortSignal;
}

/**
 * Asks the API server what a ServiceAccount may do, whoever granted it, by whatever kind of
 * binding. Nothing is stored.
 *
 * @returns what is allowed, each as `verb resource`
 * @throws ApiError where a question wasn't answered
 */
export async function reviewAccess(question: AccessQuestion): Promise<string[]> {
  const { client, namespace, serviceAccountName, questions, signal } = question;
  const outcomes = await forEachBounded(questions, parallelism, (resourceAttributes) =>
    client.create(
      resources.subjectAccessReviews,
      {
        metadata: { name: '' },
        spec: {
          user: `system:serviceaccount:${namespace}:${serviceAccountName}`,
          groups: [
            'system:serviceaccounts',
            `system:serviceaccounts:${namespace}`,
            'system:authenticated',
          ],
          resourceAttributes,
        },
      },
      { signal },
    ),
  );
  assertAllDone(outcomes, 'ask what is allowed');
  return outcomes.flatMap((outcome) =>
    'result' in outcome && outcome.result.status?.allowed === true ? [rightText(outcome.item)] : [],
  );
}
