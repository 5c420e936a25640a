import type { WorkflowRevision } from '../../api/workflow-revision.ts';
import { differencesOf, type Difference } from '../../guardrails/revisions/diff.ts';
import { plain } from '../plain.ts';
import {
  exit,
  outputOptions,
  required,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';
import { print, type Columns } from '../print.ts';
import { revisionsOf } from '../revisions.ts';

/** The revisions of a Workflow. */
export const historyCommand: Command = {
  name: 'history',
  usage: [['history NAME', 'what ran of Workflow NAME, who changed it and who approved it']],
  options: outputOptions,
  run: history,
};

interface HistoryRow {
  namespace: string;
  workflow: string;
  revision: number;
  digest: string;
  active: boolean;
  activated: string;
  approved: string;
  approvedBy: string[];
  /** The users that the API server authenticated. */
  authenticated: string[];
  /** What the Workflow said of the change, which nobody authenticated. */
  asserted: NonNullable<WorkflowRevision['spec']['asserted']>;
  sameAs: number | undefined;
  /** Where the same was in force before, as the operator found. */
  promotedFrom: WorkflowRevision['spec']['promotedFrom'];
  when: string;
}

async function history(session: Session): Promise<number> {
  const name = required(session.names[0], 'history NAME');
  const recorded = await revisionsOf(session.client, session.namespace, name);
  print(session, recorded.map(rowOf), columns, `Nothing is recorded of ${name}.`, wide);
  return recorded.length === 0 ? exit.failed : exit.ok;
}

function rowOf({ metadata, spec, status }: WorkflowRevision): HistoryRow {
  return {
    namespace: metadata.namespace ?? '',
    workflow: spec.workflow,
    revision: spec.revision,
    digest: spec.digest,
    active: status?.active === true,
    activated: status?.activated ?? '',
    approved: status?.approved?.time ?? '',
    approvedBy: status?.approved?.by ?? [],
    authenticated: spec.authenticated,
    asserted: spec.asserted ?? {},
    sameAs: spec.sameAs,
    promotedFrom: spec.promotedFrom,
    when: metadata.creationTimestamp ?? '',
  };
}

const columns: Columns<HistoryRow> = {
  REVISION: ({ revision, sameAs }) => `${revision}${sameAs === undefined ? '' : ` (= ${sameAs})`}`,
  ACTIVE: ({ active }) => (active ? 'True' : 'False'),
  'APPROVED BY': ({ approvedBy }) => plain(approvedBy.join(', ')),
  'CHANGED BY': ({ authenticated }) => plain(authenticated.join(', ')),
  'ASKED BY (ASSERTED)': ({ asserted }) => plain(asserted.requestedBy ?? ''),
  WHEN: ({ when }) => when,
  DIGEST: ({ digest }) => digest.slice(0, 12),
  REASON: ({ asserted }) => plain(asserted.reason ?? ''),
};

const wide: Columns<HistoryRow> = {
  VERSION: ({ asserted }) => plain(asserted.version ?? ''),
  TICKET: ({ asserted }) => plain(asserted.ticket ?? ''),
  COMMIT: ({ asserted }) => plain(asserted.commit ?? ''),
  ACTIVATED: ({ activated }) => activated,
  'PROMOTED FROM': ({ promotedFrom: from }) =>
    from === undefined ? '' : `${from.namespace}, revision ${from.revision}`,
};

/** What differs between two revisions. */
export const diffCommand: Command = {
  name: 'diff',
  usage: [['diff NAME [--from N] [--to N]', 'what changed between two revisions of Workflow NAME']],
  options: { ...outputOptions, from: { type: 'string' }, to: { type: 'string' } },
  run: diff,
};

async function diff(session: Session): Promise<number> {
  const { client, namespace, stdout, output } = session;
  const name = required(session.names[0], 'diff NAME');
  const recorded = await revisionsOf(client, namespace, name);
  const to = chosen(recorded, session.option('to'), '--to') ?? recorded[0];
  const from = chosen(recorded, session.option('from'), '--from') ?? formerOf(recorded, to);
  if (to === undefined || from === undefined) {
    session.stderr(
      `Error: ${to === undefined ? `nothing is recorded of ${name}` : `there is no revision of ${name} before revision ${to.spec.revision}`}.`,
    );
    return exit.failed;
  }
  const found = differencesOf(from.spec.parts, to.spec.parts);
  if (output === 'json' || output === 'yaml') print(session, found, {}, '');
  else for (const line of linesOf(from, to, found)) stdout(line);
  return exit.ok;
}

/** What was approved last before it, or else the one before. */
function formerOf(
  recorded: readonly WorkflowRevision[],
  to: WorkflowRevision | undefined,
): WorkflowRevision | undefined {
  const before = recorded.filter(({ spec }) => spec.revision < (to?.spec.revision ?? 0));
  return before.find(({ status }) => status?.approved !== undefined) ?? before[0];
}

/** @throws UsageError where it isn't recorded */
function chosen(
  recorded: readonly WorkflowRevision[],
  text: string | undefined,
  flag: string,
): WorkflowRevision | undefined {
  if (text === undefined) return undefined;
  const found = recorded.find(({ spec }) => String(spec.revision) === text);
  if (found !== undefined) return found;
  const known = recorded.map(({ spec }) => spec.revision).join(', ');
  throw new UsageError(
    `${flag} takes the number of a revision that is kept: ${known || 'none is'}`,
  );
}

function linesOf(
  from: WorkflowRevision,
  to: WorkflowRevision,
  found: readonly Difference[],
): string[] {
  const title = ({ spec, status }: WorkflowRevision): string =>
    `revision ${spec.revision}${status?.approved === undefined ? '' : ` (approved by ${status.approved.by.join(', ')})`}`;
  const parts = Map.groupBy(found, ({ part }) => part);
  const lines = [
    `From ${title(from)} to ${title(to)}, changed by ${to.spec.authenticated.join(', ') || 'nobody known'}:`,
    ...(found.length === 0 ? ['Nothing differs.'] : []),
    ...[...parts].flatMap(([part, list]) => [part, ...list.map(lineOf)]),
  ];
  return lines.map(plain);
}

function lineOf({ path, before, after }: Difference): string {
  if (path === '…') return '  … and more';
  const where = path === '' ? '' : `${path}: `;
  if (before === undefined) return `  + ${where}${after ?? ''}`;
  if (after === undefined) return `  - ${where}${before}`;
  return `  ~ ${where}${before} → ${after}`;
}
