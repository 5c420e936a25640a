import { stampOf } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { WorkflowRevision } from '../../api/workflow-revision.ts';
import { workloadResources } from '../../api/workload.ts';
import { conditionOf } from '../../api/conditions.ts';
import { idOf } from '../../controllers/workflow-targets.ts';
import { gitManagerOf } from '../../guardrails/revisions/git.ts';
import { restorePlan } from '../../guardrails/revisions/restore.ts';
import { exit, follow, required, UsageError, type Command, type Session } from '../command.ts';
import { plain } from '../plain.ts';
import { revisionsOf } from '../revisions.ts';
import { whatRuns, type WhatRuns } from '../what-runs.ts';
import { authorOf, writeAt, type Place } from '../write-at.ts';

const form = 'rollback NAME --to N';

/** Writes back what an earlier revision was, with the user's own rights. */
export const rollbackCommand: Command = {
  name: 'rollback',
  usage: [[form, 'write back revision N of Workflow NAME; it is approved like any change']],
  options: { to: { type: 'string' }, force: { type: 'boolean' }, timeout: { type: 'string' } },
  run: rollback,
};

async function rollback(session: Session): Promise<number> {
  const { client, namespace, stdout } = session;
  const name = required(session.names[0], form);
  const number = session.option('to');
  if (number === undefined)
    throw new UsageError(`a revision is missing: kubectl guardrails ${form}`);
  const recorded = await revisionsOf(client, namespace, name);
  const revision = recorded.find(({ spec }) => String(spec.revision) === number);
  if (revision === undefined) {
    const known = recorded.map(({ spec }) => spec.revision).join(', ');
    return failed(session, [
      `revision ${number} of ${name} isn't kept; those that are: ${known || 'none'}.`,
    ]);
  }
  const seen = await whatRuns(session, name);
  if (typeof seen === 'string') return failed(session, [seen]);
  if (seen.revision.digest === revision.spec.digest) {
    stdout(`Revision ${number} is what stands.`);
    return exit.ok;
  }
  const { writes, obstacles, notes } = restorePlan(revision, seen.revision.parts);
  if (obstacles.length > 0) return failed(session, obstacles);
  const places = placesOf(seen);
  const managed = writes.flatMap(({ part }) => {
    const manager = gitManagerOf(places.get(part)?.object ?? { metadata: { name: '' } });
    return manager === undefined ? [] : [{ part, manager }];
  });
  if (managed.length > 0 && !session.flag('force')) {
    return failed(session, [
      ...managed.map(
        ({ part, manager }) =>
          `${part} is applied from Git by ${manager}, which would write its own again.`,
      ),
      revertOf(revision, recorded[0]),
    ]);
  }
  for (const { part, manager } of managed) {
    session.stderr(
      plain(`Warning: ${part} is applied from Git by ${manager}: revert it there, too.`),
    );
  }
  const author = await authorOf(client);
  for (const write of writes) {
    const place = places.get(write.part);
    if (place !== undefined) await writeAt(client, place, write.value, author);
    stdout(plain(`${write.part} written back`));
  }
  for (const note of notes) stdout(plain(note));
  return await tell(session, name, revision);
}

function failed({ stderr }: Session, sentences: readonly string[]): number {
  for (const sentence of sentences) stderr(plain(`Error: ${sentence}`));
  return exit.failed;
}

/** What to do in Git. */
function revertOf({ spec }: WorkflowRevision, newest: WorkflowRevision | undefined): string {
  const { commit: now } = newest?.spec.asserted ?? {};
  const { commit: then } = spec.asserted ?? {};
  const what =
    now === undefined
      ? `the commits since revision ${spec.revision}`
      : `commit ${now}${then === undefined ? '' : `, back to ${then}`}`;
  return `Revert ${what} there. To write it back all the same: --force, with the pipeline suspended.`;
}

/** Where each part stands, by its name. */
function placesOf({ workflow, identity, targets, objects }: WhatRuns): ReadonlyMap<string, Place> {
  const ofWorkloads = targets.flatMap((target): [string, Place][] => {
    const object = objects.get(target);
    if (object === undefined) return [];
    const above = target.kind === 'CronJob' ? ['jobTemplate', 'spec'] : [];
    const isStamped = stampOf(object) !== undefined;
    const path = ['spec', ...above, 'template'];
    return [[idOf(target), { object, resource: workloadResources[target.kind], path, isStamped }]];
  });
  return new Map([
    [
      'Workflow',
      { object: workflow, resource: resources.workflows, path: ['spec'], isStamped: true },
    ],
    ...(identity === undefined
      ? []
      : [
          [
            'AutomationIdentity',
            {
              object: identity,
              resource: resources.automationIdentities,
              path: ['spec'],
              isStamped: true,
            },
          ] satisfies [string, Place],
        ]),
    ...ofWorkloads,
  ]);
}

/** Waits until the operator has seen it, and says what is left to do. */
async function tell(session: Session, name: string, { spec }: WorkflowRevision): Promise<number> {
  const { client, namespace, stdout } = session;
  let message = '';
  const isSeen = await follow(session, async () => {
    const [newest] = await revisionsOf(client, namespace, name);
    const workflow = await client.get(resources.workflows, { namespace, name });
    const approved = conditionOf(workflow?.status?.conditions, 'Approved');
    message = approved?.message ?? '';
    return (
      newest?.spec.digest === spec.digest &&
      (workflow?.status?.revision?.digest ?? spec.digest) === spec.digest
    );
  });
  if (!isSeen) {
    session.stderr(
      `Error: it is written back, and what stands isn't revision ${spec.revision} yet: kubectl guardrails diff ${name} -n ${namespace} --from ${spec.revision}`,
    );
    return exit.failed;
  }
  stdout(plain(`What stands is revision ${spec.revision} again. ${message}`));
  return exit.ok;
}
