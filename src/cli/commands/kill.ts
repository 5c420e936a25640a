import { annotation, label } from '../../api/names.ts';
import { wholeNamespaceName, type KillSwitch, type Remaining } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
import { killSwitchCreationPolicyName } from '../../admission/index.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isAlreadyExists } from '../../runtime/errors.ts';
import { exit, follow, isForbidden, reasonOf, type Command, type Session } from '../command.ts';
import { killTarget, scopeOptions } from '../kill-target.ts';
import { stamped } from '../stamped.ts';

/** Engages the kill switch, and shows its rungs until nothing runs any more. */
export const killCommand: Command = {
  name: 'kill',
  usage: [['kill NAME --reason TEXT', 'engage the kill switch of Workflow NAME']],
  options: {
    ...scopeOptions,
    reason: { type: 'string' },
    wait: { type: 'boolean' },
    force: { type: 'boolean' },
    timeout: { type: 'string' },
  },
  run: async (session) => kill(session, killTarget(session, 'kill NAME --reason TEXT')),
};

async function kill(session: Session, name: string): Promise<number> {
  const { client, namespace, stdout } = session;
  const reason = reasonOf(session, `kill ${name} --reason TEXT`);
  const isWhole = name === wholeNamespaceName;
  if (!isWhole && !session.flag('force') && !(await mayExist(client, namespace, name))) {
    session.stderr(
      `Error: there is no Workflow ${name} in namespace ${namespace}. To stop whatever runs as ServiceAccount ${name} all the same, add --force.`,
    );
    return exit.failed;
  }
  try {
    const spec = { ...(isWhole ? { wholeNamespace: true } : { workflow: name }), reason };
    await stamped(client, killSwitchCreationPolicyName, (engagedBy) =>
      client.create(resources.killSwitches, {
        metadata: { namespace, name },
        spec: { ...spec, ...(engagedBy !== undefined && { engagedBy }) },
      }),
    );
    stdout(`Kill switch engaged for ${namespace}/${name}.`);
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    const standing = await client.get(resources.killSwitches, { namespace, name });
    if (standing === undefined || isBeingReleased(standing)) {
      session.stderr(
        `Error: the kill switch of ${namespace}/${name} is being released. To engage it again: kubectl annotate ${isWhole ? `namespace ${namespace}` : `awf ${name} -n ${namespace}`} ${annotation.killSwitch}="${reason}"`,
      );
      return exit.failed;
    }
    stdout(`The kill switch of ${namespace}/${name} is engaged already.`);
  }
  if (!session.flag('wait', true)) return exit.ok;
  let missing = ['No operator has worked on it yet.'];
  const reached = new Set<string>();
  let remaining: readonly Remaining[] | undefined;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resources.killSwitches, { namespace, name });
    if (killSwitch === undefined) throw new Error('The KillSwitch is gone: it was released.');
    const conditions = killSwitch.status?.conditions ?? [];
    if (conditions.length > 0) {
      missing = conditions
        .filter(({ type, status: is }) => is !== 'True' && !['Effective', 'Ready'].includes(type))
        .map(({ type, message }) => `${type.padEnd(rungWidth)} ${message}`);
    }
    for (const condition of conditions) {
      if (condition.status !== 'True' || reached.has(condition.type)) continue;
      reached.add(condition.type);
      stdout(`  ${condition.type.padEnd(rungWidth)} ${condition.message}`);
    }
    remaining = conditions.some(({ reason: why }) => why === 'SomethingRemains')
      ? (killSwitch.status?.remaining ?? [])
      : undefined;
    return reached.has('Ready') || remaining !== undefined;
  });
  if (done && remaining === undefined) return exit.ok;
  if (done) {
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

/** A user who may not look, but engage, isn't kept from engaging. */
async function mayExist(client: KubeClient, namespace: string, name: string): Promise<boolean> {
  try {
    return (await client.get(resources.workflows, { namespace, name })) !== undefined;
  } catch (error) {
    if (isForbidden(error)) return true;
    throw error;
  }
}

function isBeingReleased({ metadata }: KillSwitch): boolean {
  return (
    metadata.labels?.[label.releasing] !== undefined ||
    metadata.annotations?.[annotation.release] !== undefined ||
    metadata.deletionTimestamp !== undefined
  );
}
