import { setTimeout as delay } from 'node:timers/promises';
import { policyName, releaseStampPolicyName } from '../../admission/index.ts';
import { wholeNamespaceName } from '../../api/kill-switch.ts';
import { annotation, label } from '../../api/names.ts';
import { resources } from '../../api/resources.ts';
import { isEngaging } from '../../guardrails/kill-switch/plan.ts';
import { heldBack, type HeldBack } from '../../guardrails/kill-switch/held-back.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { exit, follow, isForbidden, reasonOf, type Command, type Session } from '../command.ts';
import { clusterOption, killTarget, scopeOptions, type KillTarget } from '../kill-target.ts';
import { stamped } from '../stamped.ts';

const form = 'release NAME --reason TEXT';

/** Asks for the release of a kill switch, and waits until it is done. */
export const releaseCommand: Command = {
  name: 'release',
  usage: [
    [form, 'ask for its release (not by who engaged it)'],
    ['release --cluster NAME --reason TEXT', 'ask for the release of ClusterKillSwitch NAME'],
  ],
  options: {
    ...scopeOptions,
    ...clusterOption,
    reason: { type: 'string' },
    wait: { type: 'boolean' },
    'break-glass': { type: 'boolean' },
    timeout: { type: 'string' },
  },
  run: async (session) => release(session, killTarget(session, form)),
};

async function release(session: Session, target: KillTarget): Promise<number> {
  const { client, stdout } = session;
  const { resource, at, title, args } = target;
  const reason = reasonOf(session, `release ${args} --reason TEXT`);
  const engaged = await client.get(resource, at);
  if (engaged === undefined) throw new Error(`No kill switch is engaged for ${title}.`);
  await askForRelease(session, target, engaged.metadata.uid, reason);
  stdout(`Release of ${title} asked for.`);
  if (!session.flag('wait', true)) return exit.ok;
  const done = await follow(session, async () => {
    const killSwitch = await client.get(resource, at);
    return killSwitch === undefined || killSwitch.metadata.uid !== engaged.metadata.uid;
  });
  if (done) return await tellOfHeld(session, target);
  const look =
    at.namespace === undefined
      ? `kubectl describe cksw ${at.name}`
      : `kubectl guardrails status ${at.name} -n ${at.namespace}`;
  session.stderr(`Not released in time; see what it waits for: ${look}`);
  return exit.failed;
}

/** A release ends though something is held, and what is held isn't granted again. */
async function tellOfHeld(
  { client, stdout, stderr, timeoutMs }: Session,
  { at: { namespace, name } }: KillTarget,
): Promise<number> {
  if (namespace === undefined) {
    stdout('Released. Whether something is held: kubectl guardrails status -A');
    return exit.ok;
  }
  let held: readonly HeldBack[] | undefined = [];
  const look = async (): Promise<boolean> => {
    held = await heldIn(client, namespace, name);
    return held === undefined || held.length === 0;
  };
  // What only the release kept from being ready is told of for a moment still.
  await follow({ timeoutMs: Math.min(timeoutMs, 5_000) }, look);
  if (held === undefined) {
    stdout('Released. You may not see whether something is held.');
    return exit.ok;
  }
  if (held.length === 0) {
    stdout('Released: everything is as its owners want it.');
    return exit.ok;
  }
  stderr(
    'Released, and nothing is stopped any more. What is held is not put back before that ends:',
  );
  for (const { name: of, lacks, reason, message } of held.slice(0, mostHeld)) {
    stderr(`  ${of}: ${lacks}: ${reason}: ${message}`);
  }
  if (held.length > mostHeld) stderr(`  and ${held.length - mostHeld} more`);
  return exit.failed;
}

/** Lines of what is held. */
const mostHeld = 20;

/** @returns `undefined` for a user who may not look */
async function heldIn(
  client: KubeClient,
  namespace: string,
  name: string,
): Promise<HeldBack[] | undefined> {
  try {
    if (name === wholeNamespaceName) {
      const [workflows, identities] = await Promise.all([
        client.list(resources.workflows, { namespace }),
        client.list(resources.automationIdentities, { namespace }),
      ]);
      return heldBack(workflows, identities);
    }
    const [workflow, identity] = await Promise.all([
      client.get(resources.workflows, { namespace, name }),
      client.get(resources.automationIdentities, { namespace, name }),
    ]);
    return heldBack(
      workflow === undefined ? [] : [workflow],
      identity === undefined ? [] : [identity],
    );
  } catch (error) {
    if (isForbidden(error)) return undefined;
    throw error;
  }
}

/**
 * An API server may still see the annotation that engaged for a moment after it was removed, or not
 * yet know our kinds after a restart: then it refuses what it will accept shortly.
 */
async function askForRelease(
  session: Session,
  { resource, at }: KillTarget,
  uid: string | undefined,
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
        client.mergePatch(resource, at, {
          metadata: {
            uid,
            annotations: {
              ...annotations,
              ...(releasedBy !== undefined && { [annotation.releasedBy]: releasedBy }),
            },
            labels,
          },
        }),
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
    const { namespace, name } = at;
    if (namespace === undefined) return false;
    if (name === wholeNamespaceName) {
      return !isEngaging(await client.get(resources.namespaces, { name: namespace }));
    }
    const workflow = await client.get(resources.workflows, { namespace, name });
    const identity = await client.get(resources.automationIdentities, { namespace, name });
    return !isEngaging(workflow) && !isEngaging(identity);
  }
}
