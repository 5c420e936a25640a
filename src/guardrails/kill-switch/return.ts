import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { conditionOf, isTrue } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { annotation } from '../../api/names.ts';
import type { Condition, KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import { readKept, writeKept } from '../identity/kept.ts';
import { secretsOf, writeAnnotation } from './ladder.ts';
import { covers, isReleasing } from './plan.ts';

/**
 * Time that a release gives the rest of an identity once its ServiceAccount is back: what can't be
 * put back must not keep the automation stopped. Counted from the lifting of the fence.
 */
export const restWaitMs = 60_000;

/** An identity that comes back, as the API server has it. */
export interface Returning {
  identity: AutomationIdentity;
  hasAccount: boolean;
  /** Names of its Secrets that aren't there. */
  missingSecrets: readonly string[];
}

/** Reasons of an identity's `Ready` while its controller hasn't looked, or isn't done. */
const underWay: ReadonlySet<string> = new Set(['KillSwitchEngaged', 'Provisioning']);

/**
 * What workloads wait for before they start: the ServiceAccount, without which none of their pods
 * is admitted, for as long as it takes; everything else for a while. An identity that is held, or
 * about to go, holds up nothing.
 *
 * @param isPatient the rest is still waited for
 * @returns a sentence; `undefined` where nothing is waited for
 */
export function awaitedOf(
  { identity, hasAccount, missingSecrets }: Returning,
  isPatient: boolean,
): string | undefined {
  const { metadata, status } = identity;
  if (metadata.deletionTimestamp !== undefined) return undefined;
  const ready = conditionOf(status?.conditions, 'Ready');
  const waiting = (what: string): string =>
    `Waiting for ${what} of AutomationIdentity ${metadata.name}${explained(ready)}.`;
  const isHeld = isTrue(status?.conditions, 'Held');
  if (!hasAccount && (!isHeld || isPatient)) return waiting('the ServiceAccount');
  if (isHeld) return undefined;
  if (!isPatient) return undefined;
  if (ready === undefined || underWay.has(ready.reason)) {
    return waiting('permissions and credentials');
  }
  return missingSecrets.length === 0 ? undefined : waiting(`Secret ${missingSecrets[0] ?? ''}`);
}

function explained(ready: Condition | undefined): string {
  if (ready === undefined || ready.reason === 'KillSwitchEngaged') {
    return ', which no operator has looked at yet';
  }
  return ready.status === 'True' ? '' : ` (${ready.message.slice(0, 512)})`;
}

export interface ReturnOptions {
  client: KubeClient;
  /** Milliseconds since the epoch. */
  now: number;
  signal: AbortSignal;
}

/** Identities looked at a time. */
const parallelism = 8;

/**
 * What a release, whose fence is lifted, still waits for before workloads start, as sentences.
 *
 * @param identities those that the KillSwitch covers
 * @param others every other KillSwitch of the namespace, as the API server has them
 * @throws ApiError for what a retry may cure
 */
export async function awaitIdentities(
  killSwitch: KillSwitch,
  identities: readonly KubeObject[],
  others: readonly KillSwitch[],
  { client, now, signal }: ReturnOptions,
): Promise<string[]> {
  const free = identities.filter(({ metadata }) => !isStillStopped(others, metadata.name));
  const outcomes = await forEachBounded(free, parallelism, async ({ metadata }) => {
    const { namespace = '', name } = metadata;
    const [identity, account] = await Promise.all([
      client.get(resources.automationIdentities, { namespace, name }, { signal }),
      client.get(resources.serviceAccounts, { namespace, name }, { signal }),
    ]);
    if (identity === undefined) return undefined;
    const secrets = await forEachBounded(secretsOf(identity), parallelism, async (secret) => {
      const live = await client.get(resources.secrets, { namespace, name: secret }, { signal });
      return live !== undefined;
    });
    assertAllDone(secrets, 'look for Secrets');
    const missingSecrets = secrets.flatMap((outcome) =>
      'result' in outcome && outcome.result ? [] : [outcome.item],
    );
    return awaitedOf(
      { identity, hasAccount: account !== undefined, missingSecrets },
      isRestAwaited(killSwitch, now),
    );
  });
  assertAllDone(outcomes, 'look for identities');
  return outcomes.flatMap((outcome) => ('result' in outcome ? (outcome.result ?? []) : []));
}

/** The lifting of the fence is written down when the first wait is reported. */
function isRestAwaited({ status }: KillSwitch, now: number): boolean {
  const fenced = conditionOf(status?.conditions, 'Fenced');
  return fenced?.reason !== 'Lifted' || now - Date.parse(fenced.lastTransitionTime) < restWaitMs;
}

/** Whether another KillSwitch, which isn't being released, stops what is called that. */
export function isStillStopped(others: readonly KillSwitch[], name: string): boolean {
  return others.some((other) => !isReleasing(other) && covers(other, name));
}

/**
 * What is kept for ServiceAccounts that another KillSwitch still holds goes over to that one,
 * before this one goes.
 *
 * @throws ApiError 409 where the other one changed meanwhile: look again
 */
export async function handOverKept(
  killSwitch: KillSwitch,
  others: readonly KillSwitch[],
  { client, signal }: Pick<ReturnOptions, 'client' | 'signal'>,
): Promise<void> {
  const kept = Object.entries(readKept(killSwitch));
  for (const other of others.filter((one) => !isReleasing(one))) {
    const theirs = readKept(other);
    const missing = kept.filter(([name]) => covers(other, name) && theirs[name] === undefined);
    if (missing.length === 0) continue;
    const { text } = writeKept({ ...theirs, ...Object.fromEntries(missing) });
    if (text === other.metadata.annotations?.[annotation.restoreServiceAccount]) continue;
    await writeAnnotation(client, other, text, signal);
  }
}
