import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { projectWorkload } from '../api/workload.ts';
import { waitingRuns, type WaitingRun } from '../guardrails/approval/runs.ts';
import { projectPod } from '../guardrails/kill-switch/pods.ts';
import type { KubeClient } from '../runtime/client.ts';

/** The runs of a Workflow that wait for their approval, the oldest first. */
export async function runsOf(
  client: Pick<KubeClient, 'list'>,
  { metadata: { name, namespace = '' } }: Pick<Workflow, 'metadata'>,
): Promise<WaitingRun[]> {
  const [pods, jobs] = await Promise.all([
    client.list(resources.pods, { namespace }),
    client.list(resources.jobs, { namespace }),
  ]);
  const waiting = pods
    .map(projectPod)
    .filter(
      ({ spec, codeDigest, metadata }) =>
        spec?.serviceAccountName === name &&
        codeDigest !== undefined &&
        metadata.deletionTimestamp === undefined,
    );
  const known = jobs.map((job) => projectWorkload('Job', job));
  return waitingRuns(waiting, known).toSorted((a, b) => a.since - b.since);
}
