import { isDeepStrictEqual } from 'node:util';
import type { ClusterKillSwitch } from '../../api/cluster-kill-switch.ts';
import { type KillSwitch, type Remaining } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
import { annotation } from '../../api/names.ts';
import { killSwitchCreationPolicyName } from '../../admission/index.ts';
import { isLeaving } from '../../guardrails/kill-switch/plan.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isAlreadyExists } from '../../runtime/errors.ts';
import { exit, follow, isForbidden, reasonOf, type Command, type Session } from '../command.ts';
import { killTarget, scopeOptions, type KillTarget } from '../kill-target.ts';
import { stamped } from '../stamped.ts';

const form = 'kill NAME --reason TEXT';

/** Engages the kill switch, and shows its rungs until nothing runs any more. */
export const killCommand: Command = {
  name: 'kill',
  usage: [
    [form, 'engage the kill switch of Workflow NAME'],
    ['kill --environment ENV --reason TEXT', 'stop all automations of an environment'],
    ['kill --team TEAM --reason TEXT', 'stop all automations of an owner (or --risk RISK)'],
  ],
  options: {
    ...scopeOptions,
    reason: { type: 'string' },
    wait: { type: 'boolean' },
    force: { type: 'boolean' },
    timeout: { type: 'string' },
  },
  run: async (session) => kill(session, killTarget(session, form)),
};

async function kill(session: Session, target: KillTarget): Promise<number> {
  const { client, stdout } = session;
  const { resource, at, title, spec = {} } = target;
  const reason = reasonOf(session, `kill ${target.args} --reason TEXT`);
  const { workflow } = spec;
  const { namespace = '' } = at;
  if (workflow !== undefined && !session.flag('force') && !(await mayExist(client, at))) {
    session.stderr(
      `Error: there is no Workflow ${workflow} in namespace ${namespace}. To stop whatever runs as ServiceAccount ${workflow} all the same, add --force.`,
    );
    return exit.failed;
  }
  try {
    await stamped(client, killSwitchCreationPolicyName, (engagedBy) =>
      client.create(resource, {
        metadata: at,
        spec: { ...spec, reason, ...(engagedBy !== undefined && { engagedBy }) },
      }),
    );
    stdout(`Kill switch engaged for ${title}.`);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    const standing = await client.get(resource, at);
    if (
      standing === undefined ||
      isLeaving(standing) ||
      standing.metadata.deletionTimestamp !== undefined
    ) {
      const again = target.engageAgain?.(reason) ?? 'wait for the release, or give another name';
      session.stderr(
        `Error: the kill switch of ${title} is being released. To engage it again: ${again}`,
      );
      return exit.failed;
    }
    if (!selectsTheSame(standing, target)) {
      session.stderr(
        `Error: the ${resource.kind} ${at.name} stops something else; see kubectl get ${resource.plural} ${at.name} -o yaml`,
      );
      return exit.failed;
    }
    stdout(`The kill switch of ${title} is engaged already.`);
  }
  if (!session.flag('wait', true)) return exit.ok;
  let missing = untouched(target);
  const reached = new Set<string>();
  let remaining: readonly Remaining[] | undefined;
  let nothing: string | undefined;
  let nobody: string | undefined;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resource, at);
    if (killSwitch === undefined) throw new Error('The KillSwitch is gone: it was released.');
    const conditions = killSwitch.status?.conditions ?? [];
    if (conditions.length > 0) {
      missing = conditions
        .filter(({ type, status: is }) => is !== 'True' && !['Effective', 'Ready'].includes(type))
        .map(({ type, message }) => `${type.padEnd(rungWidth)} ${message}`);
    } else if (killSwitch.status !== undefined && 'fenced' in killSwitch.status) {
      missing = [noOperator];
    }
    for (const condition of conditions) {
      if (condition.status !== 'True' || reached.has(condition.type)) continue;
      reached.add(condition.type);
      stdout(`  ${condition.type.padEnd(rungWidth)} ${condition.message}`);
    }
    remaining = conditions.some(({ reason: why }) => why === 'SomethingRemains')
      ? remainingOf(killSwitch)
      : undefined;
    nothing = conditions.find(({ reason: why }) => why === 'NothingSelected')?.message;
    nobody = conditions.find(({ reason: why }) => why === 'NamespaceNotCovered')?.message;
    return [remaining, nothing, nobody].some((end) => end !== undefined) || reached.has('Ready');
  });
  if (nothing !== undefined) {
    session.stderr(`Error: nothing is stopped for ${title}: ${nothing}`);
    session.stderr(
      `If the name is wrong, kill by the right one; somebody else releases this: kubectl guardrails release ${target.args} --reason TEXT`,
    );
    return exit.failed;
  }
  if (nobody !== undefined) {
    session.stderr(`Error: nobody stops what runs of ${title}: ${nobody} What is missing:`);
  } else if (done && remaining === undefined) {
    return exit.ok;
  } else if (done) {
    session.stderr('Stopped, as far as the operator can. What stays valid:');
    for (const { what, until } of remaining ?? []) {
      session.stderr(`  ${what}${until === undefined ? '' : `, until ${until}`}`);
    }
  } else {
    session.stderr('Not stopped in time. What is missing:');
  }
  for (const line of missing) session.stderr(`  ${line}`);
  return exit.failed;
}

/** Of the longest name of a rung. */
const rungWidth = 'PermissionsRevoked'.length;

const noOperator = 'No operator has worked on it yet.';

/** What is missing as long as no operator has written anything: of an owner or a risk, the fence. */
function untouched({ spec, title }: KillTarget): string[] {
  if (spec?.teams === undefined && spec?.risks === undefined) return [noOperator];
  return [
    noOperator,
    `Until one lists the Workflows of ${title}, nothing of them is refused. Without one, these are refused at once:`,
    '  kubectl guardrails kill --environment ENV --reason TEXT',
    '  kubectl guardrails kill --everything --reason TEXT',
    `  kubectl annotate awf NAME -n NAMESPACE ${annotation.killSwitch}=TEXT   (each Workflow)`,
  ];
}

/** A user who may not look, but engage, isn't kept from engaging. */
async function mayExist(client: KubeClient, at: KillTarget['at']): Promise<boolean> {
  try {
    return (await client.get(resources.workflows, at)) !== undefined;
  } catch (error) {
    if (isForbidden(error)) return true;
    throw error;
  }
}

function selectsTheSame({ spec }: KillSwitch | ClusterKillSwitch, target: KillTarget): boolean {
  const { reason: _, engagedBy: __, ...selection } = spec;
  return isDeepStrictEqual(selection, target.spec);
}

function remainingOf({ status = {} }: KillSwitch | ClusterKillSwitch): readonly Remaining[] {
  return 'remaining' in status ? (status.remaining ?? []) : [];
}
