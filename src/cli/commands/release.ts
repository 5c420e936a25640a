import { setTimeout as delay } from 'node:timers/promises';
import { policyName, releaseStampPolicyName } from '../../admission/index.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import { annotation, label } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { isEngaging } from '../../guardrails/kill-switch/plan.ts';
import { ApiError } from '../../runtime/errors.ts';
import { exit, follow, reasonOf, type Command, type Session } from '../command.ts';
import { killTarget, scopeOptions } from '../kill-target.ts';
import { stamped } from '../stamped.ts';

/** Asks for the release of a kill switch, and waits until it is done. */
export const releaseCommand: Command = {
  name: 'release',
  usage: [['release NAME --reason TEXT', 'ask for its release (not by who engaged it)']],
  options: {
    ...scopeOptions,
    reason: { type: 'string' },
    wait: { type: 'boolean' },
    'break-glass': { type: 'boolean' },
    timeout: { type: 'string' },
  },
  run: async (session) => release(session, killTarget(session, 'release NAME --reason TEXT')),
};

async function release(session: Session, name: string): Promise<number> {
  const { client, namespace, stdout } = session;
  const reason = reasonOf(session, `release ${name} --reason TEXT`);
  const engaged = await client.get(resources.killSwitches, { namespace, name });
  if (engaged === undefined) throw new Error(`No kill switch is engaged for ${namespace}/${name}.`);
  await askForRelease(session, engaged, reason);
  stdout(`Release of ${namespace}/${name} asked for.`);
  if (!session.flag('wait', true)) return exit.ok;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resources.killSwitches, { namespace, name });
    return killSwitch === undefined || killSwitch.metadata.uid !== engaged.metadata.uid;
  });
  if (done) {
    stdout('Released: everything is as its owners want it.');
    return exit.ok;
  }
  session.stderr(
    `Not released in time; see what it waits for: kubectl guardrails status ${name} -n ${namespace}`,
  );
  return exit.failed;
}

/**
 * An API server may still see the annotation that engaged for a moment after it was removed, or not
 * yet know our kinds after a restart: then it refuses what it will accept shortly.
 */
async function askForRelease(
  session: Session,
  { metadata: { namespace = '', name, uid } }: KillSwitch,
  reason: string,
): Promise<void> {
  const { client, timeoutMs } = session;
  const isGlassBroken = session.flag('break-glass');
  const annotations = {
    [annotation.release]: reason,
    ...(isGlassBroken && { [annotation.breakGlass]: reason }),
  };
  // Without an operator nobody else would lift the fence.
  const labels = isGlassBroken ? { [label.releasing]: 'true' } : {};
  const deadline = performance.now() + Math.min(timeoutMs, 10_000);
  for (;;) {
    try {
      await stamped(client, releaseStampPolicyName, (releasedBy) =>
        client.mergePatch(
          resources.killSwitches,
          { namespace, name },
          {
            metadata: {
              uid,
              annotations: {
                ...annotations,
                ...(releasedBy !== undefined && { [annotation.releasedBy]: releasedBy }),
              },
              labels,
            },
          },
        ),
      );
      return;
    } catch (error) {
      if (performance.now() > deadline || !(await isPassing(error))) throw error;
      await delay(250);
    }
  }

  async function isPassing(error: unknown): Promise<boolean> {
    if (!(error instanceof ApiError)) return false;
    if (error.message.includes('paramKind')) return true;
    if (!error.message.includes(policyName('kill-switch-release-blocked'))) return false;
    if (name === wholeNamespaceName) {
      return !isEngaging(await client.get(resources.namespaces, { name: namespace }));
    }
    const workflow = await client.get(resources.workflows, { namespace, name });
    const identity = await client.get(resources.automationIdentities, { namespace, name });
    return !isEngaging(workflow) && !isEngaging(identity);
  }
}
