import { conditionOf } from '../../api/conditions.ts';
import { wholeNamespaceName } from '../../api/kill-switch.ts';
import type { Condition, KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { exit, outputOptions, required, type Command, type Session } from '../command.ts';
import { conditionsPage } from '../next-steps.generated.ts';
import { print, type Columns } from '../print.ts';

/** Why an automation is held or stopped, and what now. */
export const explainCommand: Command = {
  name: 'explain',
  usage: [['explain NAME', 'why it is held, not ready or stopped, and what to do now']],
  options: outputOptions,
  run: async (session) => explain(session, required(session.names[0], 'explain NAME')),
};

interface Explanation {
  kind: string;
  name: string;
  condition: string;
  status: string;
  reason: string;
  /** What the operator said. */
  message: string;
  /** What to do; empty where nothing is. */
  action: string;
}

interface Explained extends KubeObject {
  status?: { conditions?: Condition[] };
}

async function explain(session: Session, name: string): Promise<number> {
  const { client, namespace, stdout, stderr } = session;
  const of = (
    [
      [resources.workflows, name],
      [resources.automationIdentities, name],
      [resources.killSwitches, name],
      [resources.killSwitches, wholeNamespaceName],
    ] satisfies [Resource, string][]
  ).map(async ([resource, called]) => {
    const object: Explained | undefined = await client.get<Explained>(resource, {
      namespace,
      name: called,
    });
    return object === undefined ? undefined : { kind: resource.kind, object };
  });
  const found = (await Promise.all(of)).filter((entry) => entry !== undefined);
  if (!found.some(({ object }) => object.metadata.name === name)) {
    stderr(
      `Error: there is neither a Workflow, an AutomationIdentity nor a KillSwitch ${name} in namespace ${namespace}.`,
    );
    return exit.failed;
  }
  const rows = found.flatMap(({ kind, object }) => explanationsOf(kind, object));
  if (session.output !== 'table' && session.output !== 'wide') {
    print(session, rows, columns, '');
    return exit.ok;
  }
  if (rows.length === 0) {
    stdout(`Nothing is wrong with ${namespace}/${name}: its guardrails are in place.`);
    return exit.ok;
  }
  for (const { kind, name: called, condition, status, reason, message, action } of rows) {
    stdout(`${kind} ${namespace}/${called}: ${condition} is ${status} (${reason})`);
    stdout(`  ${message}`);
    if (action !== '') stdout(`  Do: ${action}`);
  }
  return exit.ok;
}

const columns: Columns<Explanation> = {
  KIND: ({ kind }) => kind,
  NAME: ({ name }) => name,
  CONDITION: ({ condition }) => condition,
  REASON: ({ reason }) => reason,
  MESSAGE: ({ message }) => message,
};

/** What of an object isn't as it should be, in the order of its conditions. */
export function explanationsOf(kind: string, object: Explained): Explanation[] {
  const { metadata, status } = object;
  const conditions = status?.conditions ?? [];
  if (conditions.length === 0) {
    return [
      {
        kind,
        name: metadata.name,
        condition: 'Ready',
        status: 'Unknown',
        reason: 'NotYet',
        message: 'No operator has worked on it yet.',
        action: 'See whether one runs: kubectl guardrails doctor',
      },
    ];
  }
  return conditions
    .filter((condition) => isBad(kind, condition, conditions))
    .map((condition) => ({
      kind,
      name: metadata.name,
      condition: condition.type,
      status: condition.status,
      reason: condition.reason,
      message: condition.message,
      action: actionFor(kind, condition),
    }));
}

function isBad(kind: string, condition: Condition, all: readonly Condition[]): boolean {
  const { type, status, reason } = condition;
  const isBadWhenTrue = conditionsPage.badWhenTrue.includes(`${kind}/${type}`);
  if (isBadWhenTrue) return status !== 'False';
  if (status === 'True') return false;
  if (status === 'Unknown' && conditionsPage.fineWhenUnknown.includes(`${kind}/${type}`)) {
    return false;
  }
  // Rungs of a release are on their way down.
  const ready = conditionOf(all, 'Ready');
  if (kind === 'KillSwitch' && ready?.reason === 'Releasing') return type === 'Ready';
  // What isn't ready because it is held or stopped is told as that.
  const cause =
    type === 'Ready' &&
    all.some(
      (other) =>
        other.reason === reason &&
        other.status === 'True' &&
        conditionsPage.badWhenTrue.includes(`${kind}/${other.type}`),
    );
  return !cause;
}

function actionFor(kind: string, { type, status, reason }: Condition): string {
  const rows = conditionsPage.reasons.filter(
    (row) => row.kind === kind && row.condition === type && row.reason === reason,
  );
  return (rows.find((row) => row.status === status) ?? rows[0])?.action ?? '';
}
