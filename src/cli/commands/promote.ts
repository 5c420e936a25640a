import { annotation, label } from '../../api/names.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import type { RevisionPart } from '../../api/workflow.ts';
import { gitManagerOf } from '../../guardrails/revisions/git.ts';
import { isGuarded } from '../../guardrails/requirements.ts';
import { exit, required, UsageError, type Command, type Session } from '../command.ts';
import { plain } from '../plain.ts';
import { revisionsOf } from '../revisions.ts';
import { whatRuns, type WhatRuns } from '../what-runs.ts';
import { authorOf, stampsOf, writeAt, type Author } from '../write-at.ts';

const form = 'promote NAME --from NAMESPACE --to NAMESPACE';

/** Brings what is in force in one environment to the next, where it is approved anew. */
export const promoteCommand: Command = {
  name: 'promote',
  usage: [[form, 'bring what is in force of Workflow NAME to the next environment']],
  options: { from: { type: 'string' }, to: { type: 'string' }, force: { type: 'boolean' } },
  run: promote,
};

async function promote(session: Session): Promise<number> {
  const { client, stdout, stderr } = session;
  const name = required(session.names[0], form);
  const [from, to] = [session.option('from'), session.option('to')];
  if (from === undefined || to === undefined || from === to) {
    throw new UsageError(`two namespaces are missing: kubectl guardrails ${form}`);
  }
  const refuse = (sentence: string): number => {
    stderr(plain(`Error: ${sentence}`));
    return exit.failed;
  };
  const source = await whatRuns({ client, namespace: from }, name);
  if (typeof source === 'string') return refuse(source);
  const [newest] = await revisionsOf(client, from, name);
  if (newest?.status?.active !== true || newest.spec.digest !== source.revision.digest) {
    return refuse(
      `what stands of ${from}/${name} isn't in force there: kubectl guardrails history ${name} -n ${from}. Have it approved first, or roll back.`,
    );
  }
  if (!isGuarded(await client.get(resources.namespaces, { name: to }))) {
    return refuse(`namespace ${to} isn't guarded: it has no label ${label.environment}.`);
  }
  const author = await authorOf(client);
  const { workflow, identity } = source;
  const pairs = await Promise.all(
    [
      ...(identity === undefined
        ? []
        : [{ of: identity, resource: resources.automationIdentities }]),
      { of: workflow, resource: resources.workflows },
    ].map(async ({ of, resource }) => ({
      of,
      resource,
      there: await client.get<KubeObject>(resource, { namespace: to, name }),
    })),
  );
  for (const { resource, there } of pairs) {
    const manager = there && gitManagerOf(there);
    if (manager === undefined) continue;
    const what = `${resource.kind} ${to}/${name} is applied from Git by ${manager}`;
    if (!session.flag('force'))
      return refuse(`${what}, which would write its own again: promote it there.`);
    stderr(plain(`Warning: ${what}: promote it there, too.`));
  }
  for (const { of, resource, there } of pairs) {
    await bring(session, { of, resource, there, from, to, author });
    stdout(`${resource.kind} ${to}/${name} written`);
  }
  const target = await whatRuns({ client, namespace: to }, name);
  if (typeof target === 'string') return refuse(target);
  for (const line of differences(source, target, { from, to })) stdout(plain(line));
  return exit.ok;
}

interface Bringing {
  of: KubeObject & { spec: object };
  resource: Resource;
  there: KubeObject | undefined;
  from: string;
  to: string;
  author: Author;
}

/** Its spec as it is: that is what the digest is of. */
async function bring({ client }: Session, what: Bringing): Promise<void> {
  const { of, resource, there, from, to, author } = what;
  const promoted = { [annotation.promotedFrom]: from };
  if (there !== undefined) {
    const place = { object: there, resource, path: ['spec'], isStamped: true };
    await writeAt(client, place, of.spec, author, promoted);
    return;
  }
  const { name, labels = {} } = of.metadata;
  // A function of the spec, which admission may not write.
  const marks = [label.approval, label.limited].flatMap((mark): [string, string][] => {
    const value = labels[mark];
    return value === undefined ? [] : [[mark, value]];
  });
  const created: KubeObject & { spec: object } = {
    metadata: {
      namespace: to,
      name,
      ...(marks.length > 0 && { labels: Object.fromEntries(marks) }),
      annotations: { ...promoted, ...stampsOf(author, resource) },
    },
    spec: of.spec,
  };
  await client.create(resource, created);
}

/** What is left to do until the same runs there. */
function differences(
  source: WhatRuns,
  target: WhatRuns,
  { from, to }: { from: string; to: string },
): string[] {
  const { name } = source.workflow.metadata;
  const there = new Map(target.revision.parts.map((part) => [part.name, part.digest]));
  const here = new Set(source.revision.parts.map((part) => part.name));
  const lines = [
    ...source.revision.parts
      .filter((part) => there.get(part.name) !== part.digest)
      .map((part) => differing(part, there.has(part.name), to)),
    ...target.revision.parts
      .filter((part) => !here.has(part.name))
      .map((part) => `${part.name} is a target in ${to}, and none in ${from}.`),
  ];
  if (lines.length > 0)
    return [`It isn't the same yet in ${to}:`, ...lines.map((line) => `  ${line}`)];
  return [
    `The same as in ${from}, digest ${source.revision.digest}. It needs the approvals of ${to}: kubectl guardrails approve ${name} -n ${to} --reason "…"`,
  ];
}

function differing({ name }: RevisionPart, exists: boolean, to: string): string {
  return exists
    ? `${name} differs: apply the same pod template in ${to}.`
    : `${name} is missing: create it in ${to}.`;
}
