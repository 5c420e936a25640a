import { isByWorkflow } from '../../guardrails/kill-switch/cluster.ts';
import { conditionOf } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { PROBE_NAMESPACE } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import { killSwitchOver } from '../../guardrails/kill-switch/plan.ts';
import { isNotFound } from '../../runtime/errors.ts';
import { exit, isForbidden, outputOptions, type Command, type Session } from '../command.ts';
import { print, type Columns } from '../print.ts';

/** What is engaged, and how far. */
export const statusCommand: Command = {
  name: 'status',
  usage: [['status [NAME]', 'what is engaged, and how far']],
  options: { ...outputOptions, 'all-namespaces': { type: 'boolean', short: 'A' } },
  run: async (session) => status(session, session.names[0]),
};

interface StatusRow {
  namespace: string;
  name: string;
  /** Of the Workflow: Running, Held, Stopped, Stopping, Releasing, or Unknown. */
  state: string;
  reason: string;
  engagedBy: string;
  since: string;
  message: string;
  /** Of the Workflow's owner; empty where nobody says. */
  team: string;
  escalation: string;
}

async function status(session: Session, name: string | undefined): Promise<number> {
  const { client, namespace } = session;
  const isEverywhere = session.flag('all-namespaces');
  const scope = isEverywhere ? {} : { namespace };
  const [workflows, killSwitches] = await Promise.all([
    client.list(resources.workflows, scope),
    client.list(resources.killSwitches, scope),
  ]);
  await tellOfClusterKills(session);
  const rows = statusRows(workflows, killSwitches).filter(
    (row) =>
      (name === undefined || row.name === name) &&
      // What stands there is the standing probe's, and concerns nobody in an incident.
      (!isEverywhere || row.namespace !== PROBE_NAMESPACE),
  );
  print(session, rows, statusColumns, 'No Workflow and no KillSwitch found.', wideColumns);
  return name !== undefined && rows.length === 0 ? exit.failed : exit.ok;
}

/** What stops more than one namespace, to whoever may see it. */
async function tellOfClusterKills({ client, output, stderr }: Session): Promise<void> {
  if (output !== 'table' && output !== 'wide') return;
  const standing = await client.list(resources.clusterKillSwitches).catch((error: unknown) => {
    // An earlier version doesn't serve the kind.
    if (isForbidden(error) || isNotFound(error)) return [];
    throw error;
  });
  for (const { metadata, spec, status: state } of standing) {
    const { total = 0, stopped = 0 } = state?.workflows ?? state?.namespaces ?? {};
    const what = isByWorkflow({ spec }) ? 'Workflows' : 'namespaces';
    stderr(
      `ClusterKillSwitch ${metadata.name}: ${stopped} of ${total} ${what} stopped: ${spec.reason} (engaged by ${spec.engagedBy ?? 'unknown'}, ${metadata.creationTimestamp ?? ''})`,
    );
  }
}

const statusColumns: Columns<StatusRow> = {
  NAMESPACE: ({ namespace }) => namespace,
  NAME: ({ name }) => name,
  STATE: ({ state }) => state,
  REASON: ({ reason }) => reason,
  'ENGAGED-BY': ({ engagedBy }) => engagedBy,
  SINCE: ({ since }) => since,
  MESSAGE: ({ message }) => message,
};

const wideColumns: Columns<StatusRow> = {
  TEAM: ({ team }) => team,
  ESCALATION: ({ escalation }) => escalation,
};

/** One row for each Workflow or KillSwitch, engaged ones first. */
export function statusRows(
  workflows: readonly Workflow[],
  killSwitches: readonly KillSwitch[],
): StatusRow[] {
  const keyOf = ({ metadata }: Workflow | KillSwitch): string =>
    `${metadata.namespace ?? ''}/${metadata.name}`;
  const owners = new Map(workflows.map((workflow) => [keyOf(workflow), workflow.spec.owner]));
  const engaged = new Map(killSwitches.map((killSwitch) => [keyOf(killSwitch), killSwitch]));
  const known = new Set(workflows.map(keyOf));
  const alone = killSwitches.filter((killSwitch) => !known.has(keyOf(killSwitch)));
  const rows = [...workflows, ...alone].map((object): StatusRow => {
    const killSwitch = killSwitchOver(engaged, keyOf(object));
    const { namespace = '', name } = object.metadata;
    const { team = '', escalation = '' } = owners.get(keyOf(object)) ?? {};
    const ready = conditionOf((killSwitch ?? object).status?.conditions, 'Ready');
    if (killSwitch === undefined) {
      const held = conditionOf(object.status?.conditions, 'Held');
      const state =
        held?.status === 'True' ? 'Held' : ready?.status === 'True' ? 'Running' : 'Unknown';
      const message = state === 'Held' ? held?.message : ready?.message;
      return {
        namespace,
        name,
        state,
        reason: '',
        engagedBy: '',
        since: '',
        message: message ?? '',
        team,
        escalation,
      };
    }
    return {
      namespace,
      name,
      state: ready?.reason ?? 'Engaged',
      reason: killSwitch.spec.reason,
      engagedBy: killSwitch.spec.engagedBy ?? '',
      since: killSwitch.metadata.creationTimestamp ?? '',
      message: ready?.message ?? 'No operator has worked on it yet.',
      team,
      escalation,
    };
  });
  const rank = ({ engagedBy }: StatusRow): number => (engagedBy === '' ? 1 : 0);
  return rows.toSorted(
    (a, b) =>
      rank(a) - rank(b) || `${a.namespace}/${a.name}`.localeCompare(`${b.namespace}/${b.name}`),
  );
}
