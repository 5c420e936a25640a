import { label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import { newestFirst } from '../guardrails/revisions/plan.ts';
import type { KubeClient } from '../runtime/client.ts';

/** What is recorded of a Workflow, the newest first. */
export async function revisionsOf(
  client: Pick<KubeClient, 'list'>,
  namespace: string,
  workflow: string,
): Promise<WorkflowRevision[]> {
  const list = await client.list(resources.workflowRevisions, {
    namespace,
    labelSelector: `${label.workflow}=${workflow}`,
  });
  return newestFirst(list);
}
