import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import {
  isFollower,
  projectWorkload,
  workloadKinds,
  workloadResources,
  type Workload,
} from '../api/workload.ts';
import { readSpec, resolveTargets } from '../controllers/workflow-targets.ts';
import { revisionOf, type Revision } from '../guardrails/approval/plan.ts';
import type { Session } from './command.ts';

/** What runs of a Workflow, as it stands in the API. */
export interface WhatRuns {
  workflow: Workflow;
  identity: AutomationIdentity | undefined;
  targets: readonly Workload[];
  revision: Revision;
  /** Each target as the API server has it. */
  objects: ReadonlyMap<Workload, KubeObject>;
}

/** @returns a sentence where there is no such Workflow, or its spec can't be read */
export async function whatRuns(
  { client, namespace }: Pick<Session, 'client' | 'namespace'>,
  name: string,
): Promise<WhatRuns | string> {
  const workflow = await client.get(resources.workflows, { namespace, name });
  if (workflow === undefined) return `there is no Workflow ${name} in namespace ${namespace}.`;
  const read = readSpec(workflow);
  if (!('spec' in read)) return `its spec can't be read: ${read.malformed.join(', ')}.`;
  const kinds = workloadKinds.filter((kind) =>
    read.spec.targets.some((target) => target.kind === kind),
  );
  const identity = await client.get(resources.automationIdentities, { namespace, name });
  const listed = await Promise.all(
    kinds.map(async (kind) =>
      (await client.list(workloadResources[kind], { namespace })).map((object) => ({
        object,
        workload: projectWorkload(kind, object),
      })),
    ),
  );
  const all = listed.flat().filter(({ workload }) => !isFollower(workload));
  const targets = resolveTargets(
    workflow,
    read.spec.targets,
    all.map(({ workload }) => workload),
  ).workloads;
  return {
    workflow,
    identity,
    targets,
    revision: revisionOf(workflow, identity, targets),
    objects: new Map(all.map((one) => [one.workload, one.object])),
  };
}
