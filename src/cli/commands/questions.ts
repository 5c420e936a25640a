import type { EvidenceRecord } from '../../evidence/record.ts';
import {
  exit,
  outputOptions,
  required,
  UsageError,
  type Command,
  type Session,
} from '../command.ts';
import { recordsOf, sinceOf, sinceOption, timeOf } from '../evidence-log.ts';
import { print, type Columns } from '../print.ts';

/* Questions that the evidence log answers. All print records; a table shows part of each. */

const columns: Columns<EvidenceRecord> = {
  TIME: ({ happened, time }) => happened ?? time,
  WORKFLOW: ({ chain }) => chain.slice(chain.indexOf('/') + 1),
  ACTION: ({ action }) => action,
  OUTCOME: ({ outcome }) => outcome,
  BY: ({ actor }) => actor.name,
  KNOWN: ({ actor }) => actor.basis,
  INCIDENT: ({ incident = '' }) => incident,
  MESSAGE: ({ message, reason, details = {} }) =>
    clip(
      message ?? [reason ?? '', ...Object.values(details)].filter((text) => text !== '').join(', '),
    ),
};

/** A table is read on a screen; `-o json` has it whole. */
function clip(text: string): string {
  const line = text.replaceAll('\n', ' ');
  return line.length <= 100 ? line : `${line.slice(0, 99)}…`;
}

async function answer(
  session: Session,
  workflow: string | undefined,
  isAsked: (record: EvidenceRecord) => boolean,
): Promise<number> {
  const since = sinceOf(session);
  const records = (await recordsOf(session, workflow)).filter(
    (record) => (since === undefined || record.time >= since) && isAsked(record),
  );
  print(session, records, columns, 'No record found.');
  return exit.ok;
}

/** Everything, in the order of time. */
export const timelineCommand: Command = {
  name: 'timeline',
  usage: [['timeline [NAME] [--since 24h]', 'what was done by and to an automation']],
  options: { ...outputOptions, ...sinceOption },
  run: (session) =>
    answer(session, session.names[0], ({ action }) => !/^(Chain|Segment)Begun$/.test(action)),
};

const change =
  /^(Workflow|AutomationIdentity)(Created|Changed|Deleted)$|^(Permissions|Egress|Secret|Token)|^ExcessPermissions/;

/** Of what it is, what it may do, where it may connect, and what it has. */
export const whatChangedCommand: Command = {
  name: 'what-changed',
  usage: [
    ['what-changed NAME [--since 24h]', 'changes of it, its rights, its egress, its credentials'],
  ],
  options: { ...outputOptions, ...sinceOption, between: { type: 'string' } },
  run: (session) => {
    const name = required(session.names[0], 'what-changed NAME');
    const between = session.option('between');
    const [from, to] = (between ?? '').split(',').map((text) => text.trim());
    if (between === undefined) return answer(session, name, ({ action }) => change.test(action));
    if (from === undefined || to === undefined || session.option('since') !== undefined) {
      throw new UsageError(
        '--between takes two times, separated by a comma, and no --since beside it',
      );
    }
    const [first, last] = [timeOf(from, 'between'), timeOf(to, 'between')];
    return answer(
      session,
      name,
      ({ action, time }) => change.test(action) && time >= first && time <= last,
    );
  },
};

/** Who said yes, or no: releases, and approvals where there are any. */
export const whoApprovedCommand: Command = {
  name: 'who-approved',
  usage: [['who-approved NAME', 'who approved, rejected, killed and released']],
  options: { ...outputOptions, ...sinceOption },
  run: (session) =>
    answer(session, required(session.names[0], 'who-approved NAME'), ({ action }) =>
      /^(Approved|Rejected|KillEngaged|Release(Requested|Withdrawn)|GlassBroken)$/.test(action),
    ),
};

/** Runs: starts and successes counted, failures one by one. */
export const runsCommand: Command = {
  name: 'runs',
  usage: [
    ['runs NAME [--since 24h]', 'its runs: starts and successes counted, failures one by one'],
  ],
  options: { ...outputOptions, ...sinceOption },
  run: (session) =>
    answer(session, required(session.names[0], 'runs NAME'), ({ action }) =>
      /^Runs?[A-Z]/.test(action),
    ),
};
